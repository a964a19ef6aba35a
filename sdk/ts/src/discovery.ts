// Which daemon a client talks to. The order is that of the command line and of the other SDKs.

import { createReadStream } from "node:fs";
import { readdir, readFile, stat } from "node:fs/promises";
import { createConnection } from "node:net";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { type Check, type Checks, invalid, shown, string } from "./check.js";
import { newError } from "./convert.js";

/** Where to look for the daemon; empty values count as not given. */
export interface DiscoveryOptions {
  /** The path of its Unix socket. */
  socket?: string | undefined;
  /** Its TCP address, `host:port`; needs `token` or `tokenFile`. */
  address?: string | undefined;
  /** The token for `address`. */
  token?: string | undefined;
  /** The path of the file with the token for `address`: the daemon's `local_token`. */
  tokenFile?: string | undefined;
  /** The name of the mesh on this host. */
  mesh?: string | undefined;
}

const place: Check = (field, value) => {
  string(field, value);
  if (String(value).includes("\0")) throw invalid(field, "holds a NUL");
};

export const DISCOVERY: Checks = {
  socket: place,
  address: place,
  tokenFile: place,
  mesh: place,
  token: (field, value) => {
    string(field, value);
    if (!isToken(String(value))) throw invalid(field, "must be visible ASCII");
  },
};

/** Whether it can stand in a header. */
export function isToken(value: string): boolean {
  return /^[!-~]*$/.test(value);
}

/** The environment and the directory that discovery looks at. */
export interface Surroundings {
  env: Record<string, string | undefined>;
  cwd: string;
}

/** Where a daemon listens. */
export type Endpoint = { kind: "unix"; path: string } | { kind: "tcp"; address: string; token?: string; tokenFile?: string };

// sun_path holds 108 bytes on Linux and 104 elsewhere, with the NUL that ends it. Longer paths would be cut off.
const LONGEST_SOCKET_PATH = process.platform === "linux" ? 107 : 103;
// A name and white space; the file may be somebody else's.
const LONGEST_MESH_FILE = 256;
const PROBE_TIMEOUT_MS = 1000;

/** Finds the daemon. Nothing is asked of it, but with a socket in doubt, whether anybody listens there. */
export async function discover(options: DiscoveryOptions, surroundings: Surroundings): Promise<Endpoint> {
  const { env, cwd } = surroundings;
  const { socket, address, token, tokenFile, mesh } = options;
  if (socket && (address || mesh)) throw wrong("`socket` is given together with `address` or `mesh`; give one of them");
  if (address && mesh) throw wrong("`address` is given together with `mesh`; give one of them");
  if (!address && (token || tokenFile)) throw wrong("`token` and `tokenFile` need an `address`");
  if (token && tokenFile) throw wrong("`token` is given together with `tokenFile`; give one of them");
  if (socket) return unix(socket);
  if (address) {
    if (token) return { kind: "tcp", address: authority(address, "address"), token };
    if (tokenFile) return { kind: "tcp", address: authority(address, "address"), tokenFile };
    throw wrong("`address` needs a `token` or a `tokenFile`");
  }
  if (!mesh) {
    if (env["CLAUDEMESH_DAEMON_SOCK"]) return unix(env["CLAUDEMESH_DAEMON_SOCK"]);
    if (env["CLAUDEMESH_ADDR"]) {
      const file = env["CLAUDEMESH_TOKEN_FILE"];
      if (!file)
        throw wrong("CLAUDEMESH_ADDR is set without CLAUDEMESH_TOKEN_FILE; set it to the path of the daemon's local_token");
      return { kind: "tcp", address: authority(env["CLAUDEMESH_ADDR"], "CLAUDEMESH_ADDR"), tokenFile: file };
    }
  }
  const daemons = join(env["CLAUDEMESH_HOME"] || join(env["HOME"] || homedir(), ".claudemesh"), "daemon");
  return unix(join(daemons, (await namedMesh(mesh, env, cwd)) ?? (await onlyRunning(daemons)), "sock"));
}

function wrong(message: string) {
  return newError("invalid_argument", message);
}

function unix(path: string): Endpoint {
  return { kind: "unix", path };
}

/** Refuses a path that the system would cut off, to a socket that may be another. */
export function checkSocketPath(path: string): void {
  if (Buffer.byteLength(path) <= LONGEST_SOCKET_PATH) return;
  throw newError(
    "socket_path_too_long",
    `the socket path ${path} is longer than ${LONGEST_SOCKET_PATH} bytes; use a shorter CLAUDEMESH_HOME or a relative path`,
  );
}

/** `host:port`, from an address that may be written as a URL. */
function authority(address: string, origin: string): string {
  const written = address.replace(/^http:\/\//, "").replace(/\/+$/, "");
  const match = /^(\[[0-9A-Fa-f:.]+\]|[^\s:/?#@[\]]+):(\d{1,5})$/.exec(written);
  const port = Number(match?.[2]);
  if (!(port >= 1 && port <= 65535))
    throw invalid(origin, `${shown(address)} is no address; write host:port, such as 127.0.0.1:47910`);
  return written;
}

async function namedMesh(explicit: string | undefined, env: Surroundings["env"], cwd: string): Promise<string | undefined> {
  if (explicit) return meshName(explicit, "mesh");
  if (env["CLAUDEMESH_MESH"]) return meshName(env["CLAUDEMESH_MESH"], "CLAUDEMESH_MESH");
  for (let directory = cwd; ; directory = dirname(directory)) {
    const path = join(directory, ".claudemesh", "mesh");
    const start = await readStart(path);
    if (start !== undefined) return meshName((start.split("\n", 1)[0] ?? "").trim(), path);
    if (dirname(directory) === directory) return undefined;
  }
}

async function readStart(path: string): Promise<string | undefined> {
  try {
    // Whoever made the directory may have put a pipe there, which opens for ever.
    const found = await stat(path);
    if (!found.isFile()) throw new Error("it is no plain file");
    // Nor is it theirs to say whose mesh is sent to.
    if (found.uid !== 0 && found.uid !== process.geteuid?.()) throw new Error("it belongs to another user");
    let start = "";
    for await (const part of createReadStream(path, { encoding: "utf8", end: LONGEST_MESH_FILE - 1 })) start += String(part);
    return start;
  } catch (error) {
    if (isErrno(error, "ENOENT", "ENOTDIR")) return undefined;
    const reason = error instanceof Error ? error.message : String(error);
    throw newError("invalid_argument", `cannot read ${path}: ${reason}; name the mesh with \`mesh\``, { cause: error });
  }
}

/** Names become directories, so nothing that leads elsewhere may pass. */
function meshName(name: string, origin: string): string {
  if (!/^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/.test(name)) {
    throw invalid(
      origin,
      `${shown(name)} is no name of a mesh: 1 to 64 letters, digits, - and _, beginning with a letter or a digit`,
    );
  }
  return name;
}

async function onlyRunning(daemons: string): Promise<string> {
  const running: string[] = [];
  for (const name of await directories(daemons)) {
    if (await isRunning(join(daemons, name))) running.push(name);
  }
  const [only, another] = running;
  if (only === undefined) {
    throw newError("daemon_not_running", `no daemon runs below ${daemons}; start one with \`claudemesh daemon up\``);
  }
  if (another !== undefined) {
    const meshes = running.sort();
    throw newError("mesh_required", `several daemons run; name a mesh with \`mesh\` or CLAUDEMESH_MESH: ${meshes.join(", ")}`, {
      metadata: { meshes: meshes.join(",") },
    });
  }
  return only;
}

async function directories(path: string): Promise<string[]> {
  try {
    const entries = await readdir(path, { withFileTypes: true });
    return entries.filter((entry) => !entry.isFile()).map((entry) => entry.name);
  } catch (error) {
    if (isErrno(error, "ENOENT", "ENOTDIR")) return [];
    if (isErrno(error, "EACCES", "EPERM"))
      throw newError("permission_denied", `${path} belongs to another user`, { cause: error });
    throw error;
  }
}

/**
 * Whether the daemon of a directory runs: it holds an flock on the file `lock` as long as it lives.
 *
 * Node cannot ask for an flock. Linux lists them in /proc/locks by device and inode. A lock that is not listed may still
 * be held, by a process of another PID namespace or on a system without that list, so then the socket decides: a daemon
 * that died leaves its socket, but nobody listens on it.
 */
async function isRunning(directory: string): Promise<boolean> {
  let lock: { dev: bigint; ino: bigint };
  try {
    lock = await stat(join(directory, "lock"), { bigint: true });
  } catch {
    return false;
  }
  return (await isListed(lock)) || (await somebodyListens(join(directory, "sock")));
}

async function isListed(file: { dev: bigint; ino: bigint }): Promise<boolean> {
  const list = await readFile("/proc/locks", "utf8").catch(() => "");
  // st_dev as glibc splits it.
  const major = ((file.dev >> 8n) & 0xfffn) | ((file.dev >> 32n) & ~0xfffn);
  const minor = (file.dev & 0xffn) | ((file.dev >> 12n) & ~0xffn);
  const hex = (number: bigint) => number.toString(16).padStart(2, "0");
  const place = `${hex(major)}:${hex(minor)}:${file.ino}`;
  // "1: FLOCK  ADVISORY  WRITE 4711 fe:00:9988113 0 EOF"; a line with "->" waits for a lock and holds none.
  return list.split("\n").some((line) => {
    const words = line.trim().split(/\s+/);
    return words[1] === "FLOCK" && words[3] === "WRITE" && words[5] === place;
  });
}

function somebodyListens(path: string): Promise<boolean> {
  if (Buffer.byteLength(path) > LONGEST_SOCKET_PATH) return Promise.resolve(false);
  return new Promise((resolve) => {
    const socket = createConnection({ path });
    const end = (answer: boolean) => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(PROBE_TIMEOUT_MS, () => end(false));
    socket.once("connect", () => end(true));
    // Somebody's daemon that we may not talk to runs all the same.
    socket.once("error", (error) => end(isErrno(error, "EACCES", "EPERM", "EAGAIN")));
  });
}

export function isErrno(error: unknown, ...codes: string[]): boolean {
  return error instanceof Error && "code" in error && codes.includes(String(error.code));
}
