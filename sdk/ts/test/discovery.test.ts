import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { chown, mkdir, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { ClaudemeshError } from "@claudemesh/sdk";
import { discover } from "#dist/discovery.js";
import { temporary } from "./support.js";

interface Case {
  id: string;
  about: string;
  daemons?: Record<string, "running" | "stopped" | "no_lock">;
  files?: Record<string, string>;
  env?: Record<string, string>;
  cwd?: string;
  args?: Record<string, string>;
  expect: Record<string, unknown> & { error?: string; names?: string[] };
}

const file = fileURLToPath(new URL("../../../conformance/discovery.json", import.meta.url));
const { cases } = JSON.parse(readFileSync(file, "utf8")) as { cases: Case[] };

/** Holds an flock as a daemon does, until it is disposed. */
async function hold(path: string): Promise<Disposable> {
  const child = spawn("flock", ["-x", path, "sh", "-c", "echo held; exec cat"], { stdio: ["pipe", "pipe", "inherit"] });
  await once(child.stdout, "data");
  return { [Symbol.dispose]: () => child.stdin.end() };
}

for (const { id, about, daemons = {}, files = {}, env = {}, cwd = "work", args = {}, expect } of cases) {
  test(`${id}: ${about}`, async (context) => {
    await using tmp = await temporary();
    const held: Disposable[] = [];
    context.after(() => {
      for (const lock of held) lock[Symbol.dispose]();
    });
    const filled = <T>(value: T) => JSON.parse(JSON.stringify(value).replaceAll(/\$\{TMP\}/g, tmp.path)) as T;
    await mkdir(join(tmp.path, cwd), { recursive: true });
    for (const [path, state] of Object.entries(daemons)) {
      const directory = join(tmp.path, path);
      await mkdir(directory, { recursive: true });
      if (state !== "no_lock") await writeFile(join(directory, "lock"), "");
      if (state === "running") held.push(await hold(join(directory, "lock")));
    }
    for (const [path, text] of Object.entries(files)) {
      await mkdir(dirname(join(tmp.path, path)), { recursive: true });
      await writeFile(join(tmp.path, path), text);
    }
    const { token_file: tokenFile, ...options } = filled(args);
    const found = discover(
      { ...options, tokenFile },
      { env: { ...filled(env), HOME: join(tmp.path, "home") }, cwd: join(tmp.path, cwd) },
    );
    if (expect.error === undefined) {
      const { token_file, ...endpoint } = filled(expect);
      assert.deepEqual(await found, token_file === undefined ? endpoint : { ...endpoint, tokenFile: token_file });
      return;
    }
    const error = await found.then(
      () => assert.fail("it was found"),
      (error: unknown) => error,
    );
    assert.ok(error instanceof ClaudemeshError, String(error));
    assert.equal(error.code, expect.error);
    for (const name of expect.names ?? []) assert.ok(error.message.includes(name), error.message);
  });
}

test("a daemon whose lock is not listed is found by its socket, and a dead socket is none", async () => {
  await using tmp = await temporary();
  const daemons = join(tmp.path, "daemon");
  for (const name of ["live", "dead"]) {
    await mkdir(join(daemons, name), { recursive: true });
    await writeFile(join(daemons, name, "lock"), "");
  }
  const server = createServer().listen(join(daemons, "live", "sock"));
  // The end of this process leaves the socket behind.
  const dead = spawn(process.execPath, [
    "-e",
    `require("net").createServer().listen(${JSON.stringify(join(daemons, "dead", "sock"))}, () => process.kill(process.pid, 9))`,
  ]);
  await Promise.all([once(server, "listening"), once(dead, "exit")]);
  try {
    const endpoint = await discover({}, { env: { CLAUDEMESH_HOME: tmp.path }, cwd: "/" });
    assert.deepEqual(endpoint, { kind: "unix", path: join(daemons, "live", "sock") });
  } finally {
    server.close();
  }
});

test("a pipe in the directory hangs nobody", async () => {
  await using tmp = await temporary();
  await mkdir(join(tmp.path, ".claudemesh"));
  execFileSync("mkfifo", [join(tmp.path, ".claudemesh", "mesh")]);
  await assert.rejects(discover({}, { env: { HOME: tmp.path }, cwd: tmp.path }), /no plain file/);
});

test("another user's file names no mesh", { skip: process.geteuid?.() !== 0 && "only root can give a file away" }, async () => {
  await using tmp = await temporary();
  const path = join(tmp.path, ".claudemesh", "mesh");
  await mkdir(dirname(path));
  await writeFile(path, "demo\n");
  await chown(path, 12345, -1);
  await assert.rejects(discover({}, { env: { HOME: tmp.path }, cwd: tmp.path }), /another user/);
});
