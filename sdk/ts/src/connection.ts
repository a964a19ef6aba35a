// The one HTTP/2 connection of a client: opened when needed, watched, opened again after a break.

import { readFile } from "node:fs/promises";
import type { ClientHttp2Stream, Http2Session } from "node:http2";
import { createConnection, type Socket } from "node:net";
import type { DescMessage, DescMethodStreaming, DescMethodUnary, MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError, type ContextValues, type Interceptor, type Transport } from "@connectrpc/connect";
import { createGrpcTransport, type GrpcTransportOptions, Http2SessionManager } from "@connectrpc/connect-node";
import { fromBareStatus, fromStatus, newError } from "./convert.js";
import {
  checkSocketPath,
  type DiscoveryOptions,
  discover,
  type Endpoint,
  isErrno,
  isToken,
  type Surroundings,
} from "./discovery.js";
import { ClaudemeshError } from "./error.js";
import { MessagingService } from "./gen/claudemesh/v1/messaging_pb.js";
import { traceContext } from "./trace.js";

const MIB = 1024 * 1024;
// The limit of the daemon in each direction.
const LARGEST_ANSWER = 8 * MIB;
// A peer that leaves a ping unanswered is given up, with all that is open on the connection.
const PING_INTERVAL_MS = 10_000;
const PING_TIMEOUT_MS = 10_000;
const SEND_STREAM_PATH = `/${MessagingService.typeName}/${MessagingService.method.sendStream.name}`;

type SessionManager = NonNullable<GrpcTransportOptions["sessionManager"]>;

interface Opened {
  transport: Transport;
  sessions: CountedSessions;
}

/** How an attempt failed: the daemon said so, or there is nobody who could. */
export type Failure =
  | { kind: "answer"; error: ClaudemeshError }
  | { kind: "deadline" }
  | { kind: "lost"; error: ClaudemeshError };

export class Connection {
  /** For the generated clients. It finds the daemon at the first call. */
  readonly transport: Transport;
  /** How many connections there have been; the number names the current one. */
  count = 0;

  readonly #options: DiscoveryOptions;
  readonly #surroundings: Surroundings;
  #opened: Promise<Opened> | undefined;
  #sessions: CountedSessions | undefined;
  #endpoint: Endpoint | undefined;
  #token: string | undefined;
  #socket: Socket | undefined;
  #refusal: Error | undefined;
  #closed = false;

  constructor(options: DiscoveryOptions, surroundings: Surroundings) {
    this.#options = options;
    this.#surroundings = surroundings;
    this.transport = new LazyTransport(() => this.#open());
  }

  /** There is a connection now. */
  get connected(): boolean {
    return this.#socket !== undefined;
  }

  /** Says where the daemon is, for people. */
  get place(): string {
    return `the daemon${this.#where}`;
  }

  get #where(): string {
    if (this.#endpoint === undefined) return "";
    return ` at ${this.#endpoint.kind === "unix" ? this.#endpoint.path : this.#endpoint.address}`;
  }

  close(): void {
    this.#closed = true;
    this.#sessions?.abort();
  }

  /** Whether the stream of sends, while it is open and unused, lets the process end. */
  restSendStream(rest: boolean): void {
    this.#sessions?.restSendStream(rest);
  }

  /** Reads the token again after it was refused; false when there is no file to read. */
  async rereadToken(): Promise<boolean> {
    if (this.#endpoint?.kind !== "tcp" || this.#endpoint.tokenFile === undefined) return false;
    this.#token = await readToken(this.#endpoint.tokenFile);
    return true;
  }

  /** Tells what an attempt that was not ended by its own caller died of. */
  failure(error: unknown): Failure {
    if (error instanceof ClaudemeshError) return { kind: "answer", error };
    const status = ConnectError.from(error);
    const told = fromStatus(status);
    if (told) return { kind: "answer", error: told };
    // A status without ErrorInfo, but from the other side.
    if (status.metadata.has("grpc-status")) return { kind: "answer", error: fromBareStatus(status) };
    if (status.code === Code.DeadlineExceeded) return { kind: "deadline" };
    if (this.#refusal && isErrno(this.#refusal, "EACCES", "EPERM")) {
      const text = `${this.place} belongs to another user or is not open to this one; run as its user, or ask for a token and use its address`;
      return { kind: "answer", error: newError("permission_denied", text, { cause: this.#refusal }) };
    }
    // Node shows a connection that died as a cancelled stream, a reset one, or one that ended without a status.
    if (!this.connected || [Code.Canceled, Code.Unavailable, Code.Aborted].includes(status.code)) {
      return { kind: "lost", error: this.notRunning(error) };
    }
    return { kind: "answer", error: fromBareStatus(status) };
  }

  notRunning(cause?: unknown): ClaudemeshError {
    const text = `no daemon answers${this.#where}; start it with \`claudemesh daemon up\``;
    return newError("daemon_not_running", text, { cause: this.#refusal ?? cause });
  }

  async #open(): Promise<Transport> {
    if (this.#closed) throw newError("client_closed", "this client is closed");
    // What could not be found is looked for again by the next call.
    this.#opened ??= this.#find().catch((error: unknown) => {
      this.#opened = undefined;
      throw error;
    });
    return (await this.#opened).transport;
  }

  async #find(): Promise<Opened> {
    const endpoint = await discover(this.#options, this.#surroundings);
    this.#endpoint = endpoint;
    if (endpoint.kind === "unix") checkSocketPath(endpoint.path);
    if (endpoint.kind === "tcp") this.#token = endpoint.token ?? (await readToken(endpoint.tokenFile ?? ""));
    const sessions = new CountedSessions(endpoint.kind === "tcp" ? `http://${endpoint.address}` : "http://localhost", () =>
      this.#connect(endpoint),
    );
    this.#sessions = sessions;
    if (this.#closed) sessions.abort();
    const transport = createGrpcTransport({
      baseUrl: sessions.authority,
      sessionManager: sessions,
      interceptors: [this.#headers],
      readMaxBytes: LARGEST_ANSWER,
    });
    return { transport, sessions };
  }

  readonly #headers: Interceptor = (next) => async (request) => {
    if (this.#token !== undefined) request.header.set("authorization", `Bearer ${this.#token}`);
    // The stream of sends is shared; each of its messages carries the context of its own sender.
    if (request.method !== MessagingService.method.sendStream) {
      for (const [name, value] of Object.entries(await traceContext())) request.header.set(name, value);
    }
    return next(request);
  };

  #connect(endpoint: Endpoint): Socket {
    // The one before is given up, although its end may not have been told yet.
    this.#socket = undefined;
    const socket =
      endpoint.kind === "unix" ? createConnection({ path: endpoint.path }) : createConnection(hostAndPort(endpoint.address));
    socket.once("connect", () => {
      this.#socket = socket;
      this.#refusal = undefined;
      this.count++;
    });
    socket.once("error", (error) => {
      if (this.#socket === socket) this.#socket = undefined;
      else this.#refusal = error;
    });
    socket.once("close", () => {
      if (this.#socket === socket) this.#socket = undefined;
    });
    return socket;
  }
}

async function readToken(file: string): Promise<string> {
  const advice = "name the daemon's file local_token";
  let token: string;
  try {
    token = (await readFile(file, "utf8")).trim();
  } catch (error) {
    throw newError("unauthenticated", `cannot read the token in ${file}; ${advice}`, { cause: error });
  }
  if (token === "" || !isToken(token)) throw newError("unauthenticated", `${file} holds no token; ${advice}`);
  return token;
}

function hostAndPort(address: string): { host: string; port: number; noDelay: true } {
  const colon = address.lastIndexOf(":");
  return { host: address.slice(0, colon).replace(/^\[|\]$/g, ""), port: Number(address.slice(colon + 1)), noDelay: true };
}

class LazyTransport implements Transport {
  readonly #open: () => Promise<Transport>;

  constructor(open: () => Promise<Transport>) {
    this.#open = open;
  }

  async unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    header: HeadersInit | undefined,
    input: MessageInitShape<I>,
    contextValues?: ContextValues,
  ) {
    return (await this.#open()).unary(method, signal, timeoutMs, header, input, contextValues);
  }

  async stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodStreaming<I, O>,
    signal: AbortSignal | undefined,
    timeoutMs: number | undefined,
    header: HeadersInit | undefined,
    input: AsyncIterable<MessageInitShape<I>>,
    contextValues?: ContextValues,
  ) {
    return (await this.#open()).stream(method, signal, timeoutMs, header, input, contextValues);
  }
}

/**
 * Counts what is in use on a connection, so that a process whose work is done ends by itself. The manager lets it end
 * when no stream is open; here the stream of sends, which stays open for a while, does not count while it is unused.
 */
class CountedSessions implements SessionManager {
  readonly #manager: Http2SessionManager;
  readonly #uses = new WeakMap<Http2Session, number>();
  #sendStream: { session: Http2Session; resting: boolean } | undefined;

  constructor(url: string, connect: () => Socket) {
    this.#manager = new Http2SessionManager(
      url,
      { pingIntervalMs: PING_INTERVAL_MS, pingTimeoutMs: PING_TIMEOUT_MS },
      {
        createConnection: connect,
        settings: { initialWindowSize: MIB },
        // In megabytes: many large sends may be on their way at once.
        maxSessionMemory: 256,
      },
    );
  }

  get authority(): string {
    return this.#manager.authority;
  }

  async request(...args: Parameters<Http2SessionManager["request"]>): Promise<ClientHttp2Stream> {
    const stream = await this.#manager.request(...args);
    const { session } = stream;
    if (session === undefined) return stream;
    this.#use(session, 1);
    if (args[1] === SEND_STREAM_PATH) {
      const mine = { session, resting: false };
      this.#sendStream = mine;
      stream.once("close", () => {
        if (!mine.resting) this.#use(session, -1);
        if (this.#sendStream === mine) this.#sendStream = undefined;
      });
    } else {
      stream.once("close", () => this.#use(session, -1));
    }
    return stream;
  }

  restSendStream(rest: boolean): void {
    const stream = this.#sendStream;
    if (stream === undefined || stream.resting === rest) return;
    stream.resting = rest;
    this.#use(stream.session, rest ? -1 : 1);
  }

  notifyResponseByteRead(stream: ClientHttp2Stream): void {
    this.#manager.notifyResponseByteRead(stream);
  }

  abort(): void {
    this.#manager.abort();
  }

  #use(session: Http2Session, by: 1 | -1): void {
    const uses = (this.#uses.get(session) ?? 0) + by;
    this.#uses.set(session, uses);
    if (session.destroyed) return;
    if (uses === 0) session.unref();
    else session.ref();
  }
}
