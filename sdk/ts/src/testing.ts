// A mesh of its own for tests: a broker and real daemons in a temporary directory, by `claudemesh dev`.

import { type ChildProcess, spawn } from "node:child_process";
import type { Socket } from "node:net";
import { createInterface } from "node:readline";
import { CALL, type Checks, checkOptions, flag, invalid, listOf, string } from "./check.js";
import { newError } from "./convert.js";
import type { ClaudemeshError } from "./error.js";
import { connect } from "./index.js";
import type { Mesh } from "./mesh.js";

const READY_TIMEOUT_MS = 60_000;
// Of what the program said on standard error, for the text of a failure.
const KEPT_STDERR = 4096;

export interface DevMeshOptions<Name extends string = string> {
  /** The members; `alice` and `bob` by default. */
  members?: readonly Name[];
  /** Lets `advanceClock` move the clock of all processes. Needs libfaketime. */
  clock?: boolean;
  /** Where to put everything; kept afterwards. A temporary directory by default. */
  dir?: string;
  /** The program; `CLAUDEMESH_BIN` by default, else `claudemesh` on the path. */
  bin?: string;
  /** How long the start may take, in milliseconds; 60,000 by default. */
  timeoutMs?: number;
}

const OPTIONS: Checks = {
  members: listOf(string),
  clock: flag,
  dir: string,
  bin: string,
  timeoutMs: CALL.timeoutMs,
};

interface MemberJson {
  name: string;
  home: string;
  sock: string;
  address: string;
  token_file: string;
  pubkey: string;
  member_id: string;
  log: string;
  pid?: number;
}

interface Answer {
  id?: number;
  ok?: boolean;
  error?: { code: string; message: string };
  member?: MemberJson;
  event?: string;
  dir?: string;
  mesh?: string;
  broker?: string;
  members?: MemberJson[];
}

/** Starts a broker and a daemon for each member, which know each other and are connected when this returns. */
export async function devMesh<const Name extends string = "alice" | "bob">(
  options: DevMeshOptions<Name> = {},
): Promise<DevMesh<Name>> {
  checkOptions(options, OPTIONS);
  const names = options.members ?? ["alice", "bob"];
  const args = ["dev", "--json", "--members", names.join(",")];
  if (options.clock) args.push("--clock");
  if (options.dir !== undefined) args.push("--dir", options.dir);
  const bin = options.bin || process.env["CLAUDEMESH_BIN"] || "claudemesh";
  const program = new Program(bin, args);
  const ready = await program.start(options.timeoutMs ?? READY_TIMEOUT_MS);
  return new DevMesh<Name>(program, ready);
}

/** A mesh that ends with `close`, with `await using`, or with this process. */
export class DevMesh<Name extends string = string> implements AsyncDisposable {
  /** The members by name. */
  readonly members: Readonly<Record<Name, Member>>;
  /** Where everything lies. */
  readonly dir: string;
  /** The broker's address. */
  readonly broker: string;
  readonly #program: Program;
  readonly #clients = new Set<Mesh>();

  /** Made by `devMesh()`. */
  constructor(program: Program, ready: Answer) {
    this.#program = program;
    this.dir = ready.dir ?? "";
    this.broker = ready.broker ?? "";
    this.members = Object.fromEntries((ready.members ?? []).map((member) => [member.name, this.#member(member)])) as Record<
      Name,
      Member
    >;
  }

  /** A client of a member's daemon, which is closed with the mesh. */
  client(name: Name): Mesh {
    // Names are checked by the compiler, but not in JavaScript.
    const member = Object.hasOwn(this.members, name) ? this.members[name] : undefined;
    if (member === undefined) {
      const names = Object.keys(this.members).join(", ");
      throw newError("unknown_peer", `the mesh has no member ${JSON.stringify(name)}; there are ${names}`);
    }
    return member.connect();
  }

  /** Adds one more member. */
  async add(name: string): Promise<Member> {
    string("name", name);
    const { member } = await this.#program.ask({ do: "add", member: name });
    if (member === undefined) throw newError("internal_error", "the answer holds no member");
    return this.#member(member);
  }

  /** Stops the broker. */
  async stopBroker(): Promise<void> {
    await this.#program.ask({ do: "broker_stop" });
  }

  /** Starts it again, at the same port and with the same database. */
  async startBroker(): Promise<void> {
    await this.#program.ask({ do: "broker_start" });
  }

  /** Moves the clock of all processes of a mesh that was started with `clock`. */
  async advanceClock(seconds: number): Promise<void> {
    if (!Number.isFinite(seconds)) throw invalid("seconds", "must be a number");
    await this.#program.ask({ do: "clock", advance_s: seconds });
  }

  /** Ends the daemons and the broker, and removes the directory unless it was given. */
  async close(): Promise<void> {
    await Promise.all([...this.#clients].map((client) => client.close()));
    await this.#program.end();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  #member(json: MemberJson): Member {
    return new Member(this.#program, json, (client) => this.#clients.add(client));
  }
}

/** A member of a `DevMesh`, with its daemon. */
export class Member {
  readonly name: string;
  /** The daemon's `CLAUDEMESH_HOME`. */
  readonly home: string;
  /** The path of its Unix socket. */
  readonly socket: string;
  /** The path of the file with its token for TCP. */
  readonly tokenFile: string;
  readonly pubkey: string;
  readonly memberId: string;
  /** The path of its log. */
  readonly log: string;
  /** Its TCP address, `host:port`. It may change with a restart. */
  address: string;
  readonly #program: Program;
  readonly #keep: (client: Mesh) => void;

  /** Made by `devMesh()` and `add()`. */
  constructor(program: Program, json: MemberJson, keep: (client: Mesh) => void) {
    this.#program = program;
    this.#keep = keep;
    this.name = json.name;
    this.home = json.home;
    this.socket = json.sock;
    this.tokenFile = json.token_file;
    this.pubkey = json.pubkey;
    this.memberId = json.member_id;
    this.log = json.log;
    this.address = json.address;
  }

  /** A new client of its daemon, over the socket or over TCP. It is closed with the mesh. */
  connect(transport: "unix" | "tcp" = "unix"): Mesh {
    this.#program.check();
    const client = connect(transport === "unix" ? { socket: this.socket } : { address: this.address, tokenFile: this.tokenFile });
    this.#keep(client);
    return client;
  }

  /** Kills the daemon, with SIGKILL. */
  kill(): Promise<void> {
    return this.#do("kill");
  }

  /** Stops the daemon orderly. */
  stop(): Promise<void> {
    return this.#do("stop");
  }

  /** Starts a daemon that was killed or stopped; it serves when this returns. */
  start(): Promise<void> {
    return this.#do("start");
  }

  /** Stops and starts the daemon orderly. */
  restart(): Promise<void> {
    return this.#do("restart");
  }

  /** Freezes the daemon, with SIGSTOP. */
  pause(): Promise<void> {
    return this.#do("pause");
  }

  /** Ends a pause. */
  resume(): Promise<void> {
    return this.#do("resume");
  }

  /** Closes the daemon's link to the broker and refuses new ones. */
  cut(): Promise<void> {
    return this.#do("cut");
  }

  /** Lets nothing through between daemon and broker, without closing the link. */
  stall(): Promise<void> {
    return this.#do("stall");
  }

  /** Ends `cut` and `stall`. */
  mend(): Promise<void> {
    return this.#do("mend");
  }

  async #do(what: string): Promise<void> {
    const { member } = await this.#program.ask({ do: what, member: this.name });
    if (member !== undefined) this.address = member.address;
  }
}

/** `claudemesh dev --json`: commands on its standard input, answers on its standard output. */
class Program {
  readonly #bin: string;
  readonly #args: string[];
  readonly #asked = new Map<number, { resolve: (answer: Answer) => void; reject: (error: ClaudemeshError) => void }>();
  #child: ChildProcess | undefined;
  #exited: Promise<void> = Promise.resolve();
  #ended: ClaudemeshError | undefined;
  #stderr = "";
  #nextId = 1;

  constructor(bin: string, args: string[]) {
    this.#bin = bin;
    this.#args = args;
  }

  async start(timeoutMs: number): Promise<Answer> {
    const child = spawn(this.#bin, this.#args, { stdio: "pipe" });
    this.#child = child;
    // The first line comes unasked; it gets the id 0.
    const ready = this.#answer(0);
    this.#exited = new Promise((resolve) => {
      const fail = (error: Error | undefined, text: string) => {
        const reason = `\`${this.#bin} dev\` ${text}${this.#stderr && `: ${this.#stderr.trim()}`}`;
        this.#ended ??= newError(error === undefined ? "internal_error" : "invalid_argument", reason, { cause: error });
        for (const { reject } of this.#asked.values()) reject(this.#ended);
        this.#asked.clear();
        resolve();
      };
      child.once("error", (error) => fail(error, "cannot be started; set CLAUDEMESH_BIN to the path of the program"));
      child.once("close", (code, signal) => fail(undefined, `ended with ${signal ?? `code ${code}`}`));
    });
    child.stdin.on("error", () => {
      // It has ended, which `close` tells.
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-KEPT_STDERR);
    });
    createInterface({ input: child.stdout, crlfDelay: Infinity }).on("line", (line) => this.#line(line));
    const timer = setTimeout(() => child.kill("SIGKILL"), timeoutMs);
    try {
      return await ready;
    } catch (error) {
      child.kill("SIGKILL");
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Throws when it has ended, or is closed. */
  check(): void {
    if (this.#ended !== undefined) throw this.#ended;
  }

  async ask(command: Record<string, unknown>): Promise<Answer> {
    this.check();
    const id = this.#nextId++;
    const answer = this.#answer(id);
    this.#child?.stdin?.write(`${JSON.stringify({ id, ...command })}\n`);
    return answer;
  }

  /** The end of its standard input ends it and all that it started. */
  async end(): Promise<void> {
    this.#ended ??= newError("client_closed", "the mesh is closed");
    this.#keepAlive(true);
    this.#child?.stdin?.end();
    await this.#exited;
  }

  async #answer(id: number): Promise<Answer> {
    this.#keepAlive(true);
    try {
      return await new Promise((resolve, reject) => this.#asked.set(id, { resolve, reject }));
    } finally {
      if (this.#asked.size === 0) this.#keepAlive(false);
    }
  }

  #line(line: string): void {
    const answer = JSON.parse(line) as Answer;
    const id = answer.event === undefined ? (answer.id ?? -1) : 0;
    const asked = this.#asked.get(id);
    this.#asked.delete(id);
    if (answer.error === undefined) asked?.resolve(answer);
    else asked?.reject(newError(answer.error.code, answer.error.message, { grpcCode: 2 }));
  }

  /** A test that forgets to close the mesh must still end; the program sees that and ends too. */
  #keepAlive(alive: boolean): void {
    const child = this.#child;
    for (const part of [child, child?.stdin as Socket | null, child?.stdout as Socket | null, child?.stderr as Socket | null]) {
      if (alive) part?.ref();
      else part?.unref();
    }
  }
}
