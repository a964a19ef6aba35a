// The client of a daemon.

import { setTimeout as sleep } from "node:timers/promises";
import { create, type JsonObject, toBinary } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Backoff } from "./backoff.js";
import { ofSend } from "./convert.js";
import { type CallOptions, Core, DEFAULT_TIMEOUT_MS, type RawClients } from "./core.js";
import type { DiscoveryOptions } from "./discovery.js";
import { ClaudemeshError } from "./error.js";
import { EventStream, type EventsOptions } from "./events.js";
import { type GetHealthResponse, type GetVersionResponse, HealthState } from "./gen/claudemesh/v1/control_pb.js";
import { type InboxMessage, MessageOrder } from "./gen/claudemesh/v1/inbox_pb.js";
import {
  type GetSendResponse,
  type PostTopicResponse,
  type SendRequest,
  SendRequestSchema,
  type SendResponse,
} from "./gen/claudemesh/v1/messaging_pb.js";
import type { Peer, PeerRole, SetProfileResponse } from "./gen/claudemesh/v1/peers_pb.js";
import { invalid, type PeerRoleName, type PeerStatusName, type PriorityName, priorityOf, roleOf, statusOf } from "./names.js";
import { Scope } from "./scope.js";
import { SendStream } from "./send-stream.js";
import { Topics } from "./topics.js";
import { traceContext } from "./trace.js";
import { ulid } from "./ulid.js";
import { checkGoal, waitFor } from "./wait.js";

// A longer text goes in a call of its own, so that its refusal cannot end the stream of the others.
const LONGEST_STREAMED_TEXT = 1024 * 1024;
const LONGEST_PAGE = 1000;

/** What a message can have besides its text. */
export interface MessageOptions {
  /** The id of the send, 1 to 128 visible ASCII characters. A ULID by default. */
  id?: string | undefined;
  /** `next` by default. */
  priority?: PriorityName | undefined;
  /** Free-form data for the receiver. */
  meta?: JsonObject | undefined;
  /** The message that this one answers, by any of its ids. */
  replyTo?: string | undefined;
  /** Members to draw the attention of. */
  mentions?: readonly string[] | undefined;
  /** Accept that the text leaves this host unencrypted, where it cannot go otherwise. */
  allowUnencrypted?: boolean | undefined;
}

export interface SendOptions extends MessageOptions, CallOptions {
  /** Return only when the broker has accepted the message, or the receiver's daemon has stored it. */
  wait?: "accepted" | "delivered" | undefined;
}

export interface PostOptions extends MessageOptions, CallOptions {
  /** Return only when the broker has accepted the post. */
  wait?: "accepted" | undefined;
}

/** One message of `sendMany`. */
export interface OutgoingMessage extends MessageOptions {
  to: string;
  text: string;
}

/** How one message of `sendMany` went. */
export type SendResult =
  | { readonly id: string; readonly response: SendResponse; readonly error?: undefined }
  | { readonly id: string; readonly response?: undefined; readonly error: ClaudemeshError };

export interface InboxOptions extends CallOptions {
  /** Only messages stored at or after this time, by the daemon's clock. */
  since?: Date | Timestamp | undefined;
  /** Only messages of this topic. */
  topic?: string | undefined;
  /** Only messages of this member. */
  sender?: string | undefined;
  /** Only messages after this event id. */
  after?: string | undefined;
  /** Greatest number of messages in all. */
  limit?: number | undefined;
  /** Newest first instead of oldest first. */
  newestFirst?: boolean | undefined;
}

export interface PeersOptions extends CallOptions {
  /** Also members that are known to have no live connection. */
  includeOffline?: boolean | undefined;
  /** Only peers with one of these roles. */
  roles?: readonly PeerRoleName[] | undefined;
}

export interface Profile {
  /** What this member works on; empty clears it. */
  summary?: string | undefined;
  /** What it is doing. */
  status?: PeerStatusName | undefined;
  /** Whether others see it in their lists. */
  visible?: boolean | undefined;
}

export interface WaitReadyOptions extends CallOptions {
  /** Wait for the link to the broker too. */
  connected?: boolean | undefined;
}

/** A client of the daemon of one mesh. It connects when it is first used, and again after every break. */
export class Mesh implements AsyncDisposable {
  /** The calls on topics; posting is `post`. */
  readonly topics: Topics;
  /** The generated clients on the same connection, for what this class does not offer. */
  readonly raw: RawClients;

  readonly #core: Core;
  readonly #stream: SendStream;

  /** Made by `connect()`. */
  constructor(options: DiscoveryOptions) {
    this.#core = new Core(options, { env: { ...process.env }, cwd: process.cwd() });
    this.raw = this.#core.raw;
    this.topics = new Topics(this.#core);
    this.#stream = new SendStream(this.#core);
  }

  /** Queues a message for a member, a `#topic`, a `@group` or `*`; it is on the daemon's disk when this returns. */
  async send(to: string, text: string, options: SendOptions = {}): Promise<SendResponse> {
    return this.#within(options, (scope) => this.#send(scope, { ...options, to, text, id: options.id ?? ulid() }, options.wait));
  }

  /** Queues a message for the subscribers of a topic. */
  async post(topic: string, text: string, options: PostOptions = {}): Promise<PostTopicResponse> {
    const id = options.id ?? ulid();
    return this.#within(options, async (scope) => {
      try {
        const { to, $typeName: _, ...message } = sendRequest({ ...options, to: topic, text, id });
        checkGoal(options.wait, true);
        const response = await this.#core.within(scope, { feature: "topic" }, (call) =>
          this.raw.messaging.postTopic({ ...message, topic: to }, call),
        );
        return options.wait === undefined ? response : await waitFor(this.#core, options.wait, scope, response);
      } catch (error) {
        throw ofSend(error, id);
      }
    });
  }

  /** Queues many messages at once; gives a result for each, in their order. */
  async sendMany(messages: readonly OutgoingMessage[], options: CallOptions = {}): Promise<SendResult[]> {
    return this.#within(options, (scope) =>
      Promise.all(
        messages.map(async (message): Promise<SendResult> => {
          const id = message.id ?? ulid();
          try {
            return { id, response: await this.#send(scope, { ...message, id }) };
          } catch (error) {
            if (!(error instanceof ClaudemeshError)) throw error;
            return { id, error };
          }
        }),
      ),
    );
  }

  /** Tells how far a send or a post has come. */
  getSend(id: string, options: CallOptions = {}): Promise<GetSendResponse> {
    return this.#core.call(options, { feature: "send", id }, (call) => this.raw.messaging.getSend({ clientMessageId: id }, call));
  }

  /** Iterates over stored messages; pages are fetched as needed. */
  async *inbox(options: InboxOptions = {}): AsyncGenerator<InboxMessage, undefined> {
    const { limit, since } = options;
    if (limit !== undefined && !(Number.isInteger(limit) && limit >= 0)) throw invalid("limit", "is no whole number of messages");
    if (since instanceof Date && Number.isNaN(since.getTime())) throw invalid("since", "is no valid date");
    const filter = {
      topic: options.topic ?? "",
      sender: options.sender ?? "",
      after: options.after ?? "",
      order: options.newestFirst ? MessageOrder.NEWEST_FIRST : MessageOrder.OLDEST_FIRST,
      ...(since === undefined ? {} : { since: since instanceof Date ? timestampFromDate(since) : since }),
    };
    let left = limit ?? Infinity;
    for (let pageToken = ""; left > 0; ) {
      const request = { ...filter, pageToken, limit: left < LONGEST_PAGE ? left : 0 };
      const page = await this.#core.call(options, { feature: "inbox" }, (call) => this.raw.inbox.listMessages(request, call));
      for (const message of page.messages.slice(0, left)) yield message;
      left -= page.messages.length;
      pageToken = page.nextPageToken;
      if (pageToken === "") break;
    }
    return undefined;
  }

  /** Follows events until it is closed; it goes on after restarts of the daemon without loss or repeat of messages. */
  events(options: EventsOptions = {}): EventStream {
    return new EventStream(this.#core, options);
  }

  /** Lists the members of the mesh, this one included. */
  async peers(options: PeersOptions = {}): Promise<Peer[]> {
    const roles = (options.roles ?? []).map((role): PeerRole => roleOf(role));
    const request = { includeOffline: options.includeOffline ?? false, roles, limit: LONGEST_PAGE };
    const peers: Peer[] = [];
    for (let pageToken = ""; ; ) {
      const page = await this.#core.call(options, { feature: "peers" }, (call) =>
        this.raw.peers.listPeers({ ...request, pageToken }, call),
      );
      peers.push(...page.peers);
      pageToken = page.nextPageToken;
      if (pageToken === "") return peers;
    }
  }

  /** Changes what other members see of this one; what is left out stays. */
  async profile(profile: Profile, options: CallOptions = {}): Promise<SetProfileResponse> {
    const request = {
      ...(profile.summary === undefined ? {} : { summary: profile.summary }),
      ...(profile.status === undefined ? {} : { status: statusOf(profile.status) }),
      ...(profile.visible === undefined ? {} : { visible: profile.visible }),
    };
    return this.#core.call(options, { feature: "profile" }, (call) => this.raw.peers.setProfile(request, call));
  }

  /** Tells whether the daemon is connected and how much waits. */
  health(options: CallOptions = {}): Promise<GetHealthResponse> {
    return this.#core.call(options, {}, (call) => this.raw.control.getHealth({}, call));
  }

  /** Tells the version of the daemon and what it serves. */
  version(options: CallOptions = {}): Promise<GetVersionResponse> {
    return this.#core.call(options, {}, (call) => this.raw.control.getVersion({}, call));
  }

  /** Waits until the daemon answers and is ready, also one that has not been started yet. */
  waitReady(options: WaitReadyOptions = {}): Promise<GetHealthResponse> {
    return this.#core.call(options, { patient: true }, async (call) => {
      const pauses = new Backoff();
      for (;;) {
        const health = await this.raw.control.getHealth({}, call);
        if (health.state === HealthState.READY && (health.connected || !options.connected)) return health;
        await sleep(pauses.next(), undefined, { signal: call.signal });
      }
    });
  }

  /** Ends streams and the connection; what waits gets `client_closed`. */
  async close(): Promise<void> {
    this.#core.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #within<T>(options: CallOptions, work: (scope: Scope) => Promise<T>): Promise<T> {
    const scope = new Scope(this.#core.closing, options.signal, options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
    try {
      return await work(scope);
    } finally {
      scope.release();
    }
  }

  async #send(scope: Scope, message: OutgoingMessage & { id: string }, wait?: "accepted" | "delivered"): Promise<SendResponse> {
    try {
      const request = sendRequest(message);
      checkGoal(wait, message.to.startsWith("#"));
      const response =
        request.message.length > LONGEST_STREAMED_TEXT
          ? await this.#core.within(scope, { feature: "send" }, (call) => this.raw.messaging.send(request, call))
          : await this.#stream.send(scope, request, await traceContext());
      return wait === undefined ? response : await waitFor(this.#core, wait, scope, response);
    } catch (error) {
      throw ofSend(error, message.id);
    }
  }
}

/** Checks what would break the stream that all sends share, or be changed silently on its way. */
/** Whether a value goes into JSON without becoming another one, as an object of a class would. */
function isJson(value: unknown): boolean {
  if (Array.isArray(value)) return value.every(isJson);
  if (typeof value !== "object" || value === null)
    return value === null || ["string", "number", "boolean"].includes(typeof value);
  const prototype: unknown = Object.getPrototypeOf(value);
  return (prototype === Object.prototype || prototype === null) && Object.values(value).every(isJson);
}

function sendRequest({
  to,
  text,
  id,
  priority,
  meta,
  replyTo,
  mentions,
  allowUnencrypted,
}: OutgoingMessage & { id: string }): SendRequest {
  for (const [field, value] of Object.entries({ to, message: text, client_message_id: id, reply_to_id: replyTo ?? "" })) {
    if (typeof value !== "string") throw invalid(field, "is no string");
    if (!value.isWellFormed()) throw invalid(field, "holds half of a surrogate pair, which UTF-8 cannot carry");
  }
  if (mentions?.some((mention) => typeof mention !== "string")) throw invalid("mentions", "holds something else than strings");
  if (meta !== undefined) {
    if (!isJson(meta)) throw invalid("meta", "holds something else than JSON values, such as a Date");
    try {
      toBinary(SendRequestSchema, create(SendRequestSchema, { meta }));
    } catch (error) {
      throw invalid("meta", `is no object of JSON values: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  return create(SendRequestSchema, {
    to,
    message: text,
    clientMessageId: id,
    priority: priority === undefined ? 0 : priorityOf(priority),
    replyToId: replyTo ?? "",
    mentions: [...(mentions ?? [])],
    allowUnencrypted: allowUnencrypted ?? false,
    ...(meta === undefined ? {} : { meta }),
  });
}
