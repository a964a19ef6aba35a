import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Event, EventStream } from "@claudemesh/sdk";

/** A temporary directory that is removed afterwards. */
export async function temporary(): Promise<{ path: string } & AsyncDisposable> {
  const path = await mkdtemp(join(tmpdir(), "cm-ts-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}

/** The next event of a kind. */
export async function nextOf<K extends Event["kind"]>(events: EventStream, kind: K): Promise<Event & { kind: K }> {
  for (;;) {
    const { done, value } = await events.next();
    if (done === true) throw new Error(`the events ended before ${kind}`);
    if (value.kind === kind) return value as Event & { kind: K };
  }
}

/** Asks until the answer is there. */
export async function eventually<T>(ask: () => Promise<T | undefined>, seconds = 20): Promise<T> {
  const deadline = performance.now() + seconds * 1000;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (performance.now() > deadline) throw new Error(`not within ${seconds} s`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** The environment without what would choose a daemon. */
export function environment(extra: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const kept = Object.entries(process.env).filter(([name]) => !name.startsWith("CLAUDEMESH_") && !name.startsWith("NODE_TEST"));
  return { ...Object.fromEntries(kept), ...extra };
}

/** Runs a compiled program of the package's own, such as `examples/bot.js`. */
export function run(program: string, args: string[], env: NodeJS.ProcessEnv): ChildProcess {
  const path = fileURLToPath(new URL(`../${program}`, import.meta.url));
  return spawn(process.execPath, [path, ...args], { env: environment(env), stdio: ["ignore", "pipe", "inherit"] });
}

/** The exit code of a program that ends by itself. */
export async function exit(child: ChildProcess, seconds = 20): Promise<number | null> {
  const timer = setTimeout(() => child.kill("SIGKILL"), seconds * 1000);
  const [code] = (await once(child, "exit")) as [number | null];
  clearTimeout(timer);
  return code;
}
