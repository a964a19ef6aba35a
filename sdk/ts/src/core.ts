// What all calls share: the generated clients, the deadline, the one rule for retries, and the check of versions.

import { setTimeout as sleep } from "node:timers/promises";
import { type Client, Code, ConnectError, createClient, type CallOptions as RawCallOptions } from "@connectrpc/connect";
import { Backoff } from "./backoff.js";
import { Connection, type Failure } from "./connection.js";
import { newError, ofSend } from "./convert.js";
import type { DiscoveryOptions, Surroundings } from "./discovery.js";
import type { ClaudemeshError } from "./error.js";
import { ControlService, type GetVersionResponse } from "./gen/claudemesh/v1/control_pb.js";
import { EventService } from "./gen/claudemesh/v1/events_pb.js";
import { FileService } from "./gen/claudemesh/v1/files_pb.js";
import { InboxService } from "./gen/claudemesh/v1/inbox_pb.js";
import { MessagingService } from "./gen/claudemesh/v1/messaging_pb.js";
import { PeerService } from "./gen/claudemesh/v1/peers_pb.js";
import { TopicService } from "./gen/claudemesh/v1/topics_pb.js";
import { Scope } from "./scope.js";

/** The deadline of a call that gives none. */
export const DEFAULT_TIMEOUT_MS = 10_000;
const IPC_API = "v1";

/** The generated clients, on the same connection. They throw `ConnectError`, and retry nothing. */
export interface RawClients {
  readonly messaging: Client<typeof MessagingService>;
  readonly inbox: Client<typeof InboxService>;
  readonly events: Client<typeof EventService>;
  readonly peers: Client<typeof PeerService>;
  readonly topics: Client<typeof TopicService>;
  readonly files: Client<typeof FileService>;
  readonly control: Client<typeof ControlService>;
}

/** What every call takes. */
export interface CallOptions {
  /** How long the call may take in all, in milliseconds; 10,000 by default. */
  timeoutMs?: number | undefined;
  /** Ends the call with `cancelled`. */
  signal?: AbortSignal | undefined;
}

export interface CallRules {
  /** What the daemon has to serve, by its name in `ipc_features`. */
  feature?: string;
  /** The id of the send that the call makes. */
  id?: string;
  /** Make it again when it ended with UNAVAILABLE; the default. */
  repeat?: boolean;
  /** Wait for a daemon that never answered yet. */
  patient?: boolean;
}

export class Core {
  readonly connection: Connection;
  readonly raw: RawClients;
  /** Ends when the client is closed. */
  readonly closing = new Scope();
  #checked: { connection: number; version: GetVersionResponse } | undefined;
  #checking: Promise<GetVersionResponse> | undefined;

  constructor(options: DiscoveryOptions, surroundings: Surroundings) {
    this.connection = new Connection(options, surroundings);
    const { transport } = this.connection;
    this.raw = {
      messaging: createClient(MessagingService, transport),
      inbox: createClient(InboxService, transport),
      events: createClient(EventService, transport),
      peers: createClient(PeerService, transport),
      topics: createClient(TopicService, transport),
      files: createClient(FileService, transport),
      control: createClient(ControlService, transport),
    };
  }

  close(): void {
    this.closing.cancel();
    this.connection.close();
  }

  /** Makes a call until it ends with something else than UNAVAILABLE, or its time is up. */
  async call<T>(options: CallOptions, rules: CallRules, attempt: (options: RawCallOptions) => Promise<T>): Promise<T> {
    const scope = new Scope(this.closing, options.signal, options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
    try {
      return await this.within(scope, rules, attempt);
    } catch (error) {
      throw rules.id === undefined ? error : ofSend(error, rules.id);
    } finally {
      scope.release();
    }
  }

  /** The same, within the time of a scope that goes on after it. */
  async within<T>(scope: Scope, rules: CallRules, attempt: (options: RawCallOptions) => Promise<T>): Promise<T> {
    const backoff = new Backoff();
    const tokens = new TokenRule(this.connection);
    for (;;) {
      try {
        scope.signal.throwIfAborted();
        if (rules.feature !== undefined) await scope.race(this.require(rules.feature));
        return await attempt({ signal: scope.signal, timeoutMs: scope.leftMs });
      } catch (error) {
        const failure = this.ended(scope, error);
        if (await tokens.renews(failure)) continue;
        const pause = this.pauseAfter(failure, backoff, rules);
        // A pause that does not end in time would only delay the answer.
        if (pause >= scope.leftMs) throw failure.error;
        await sleep(pause, undefined, { signal: scope.signal }).catch(() => {});
      }
    }
  }

  /** What an attempt within a scope ended with; throws when the scope is at its end. */
  ended(scope: Scope, error: unknown): Exclude<Failure, { kind: "deadline" }> {
    const own = scope.error();
    if (own) throw own;
    const failure: Failure = scope.end === "deadline" ? { kind: "deadline" } : this.connection.failure(error);
    if (failure.kind === "deadline") throw this.late(error);
    return failure;
  }

  /** The error of a call whose time is up. */
  late(cause?: unknown): ClaudemeshError {
    if (!this.connection.connected) return this.connection.notRunning(cause);
    const text = `${this.connection.place} did not answer in time; whether it did what was asked is not known`;
    return newError("deadline_exceeded", text, { cause });
  }

  /** How long to wait before the next attempt; throws when there is to be none. */
  pauseAfter(failure: Exclude<Failure, { kind: "deadline" }>, backoff: Backoff, rules: CallRules = {}): number {
    const { error } = failure;
    if (rules.repeat === false || error.grpcCode !== Code.Unavailable) throw error;
    if (error.code === "daemon_not_running" && this.connection.count === 0 && !rules.patient) throw error;
    return backoff.next(error.retryAfterMs);
  }

  /** Asks for the version, once per connection, and throws unless the feature is served. */
  async require(feature: string): Promise<void> {
    const known = this.#checked;
    const version =
      known && this.connection.connected && known.connection === this.connection.count ? known.version : await this.#check();
    if (version.ipcApi !== IPC_API) {
      const text = `${this.connection.place} (version ${version.daemonVersion}) serves the API ${version.ipcApi}, this package needs ${IPC_API}; use a version of @claudemesh/sdk that fits the daemon`;
      throw newError("version_unsupported", text, {
        metadata: { daemon_version: version.daemonVersion, ipc_api: version.ipcApi },
      });
    }
    if (!version.ipcFeatures.includes(feature)) {
      const text = `${this.connection.place} (version ${version.daemonVersion}) does not serve ${feature}; use a later daemon`;
      throw newError("not_served", text, { metadata: { daemon_version: version.daemonVersion, feature } });
    }
  }

  #check(): Promise<GetVersionResponse> {
    // Calls that begin together share the question, so it must not end with the first of them.
    this.#checking ??= this.raw.control
      .getVersion({}, { signal: this.closing.signal, timeoutMs: DEFAULT_TIMEOUT_MS })
      .then((version) => {
        this.#checked = { connection: this.connection.count, version };
        return version;
      })
      .catch((error: unknown) => {
        // Those who wait have deadlines of their own; to them it is a connection that says nothing.
        if (ConnectError.from(error).code !== Code.DeadlineExceeded) throw error;
        throw new ConnectError("GetVersion is not answered", Code.Unavailable, undefined, undefined, error);
      })
      .finally(() => {
        this.#checking = undefined;
      });
    return this.#checking;
  }
}

/** A refused token is read again from its file, once in a call. */
export class TokenRule {
  readonly #connection: Connection;
  #used = false;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  /** Whether the call has a chance with another token. */
  async renews(failure: Failure): Promise<boolean> {
    if (this.#used || failure.kind !== "answer" || failure.error.grpcCode !== Code.Unauthenticated) return false;
    this.#used = true;
    return this.#connection.rereadToken();
  }
}
