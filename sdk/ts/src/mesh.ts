// The client of a daemon.

import { setTimeout as sleep } from "node:timers/promises";
import { create, type JsonObject } from "@bufbuild/protobuf";
import { type Timestamp, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Backoff } from "./backoff.js";
import { CALL, type Checks, checkOptions, flag, invalid, json, listOf, shown, string, strings } from "./check.js";
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
import { type PeerRoleName, type PeerStatusName, type PriorityName, priorityOf, roleOf, statusOf } from "./names.js";
import { Scope } from "./scope.js";
import { SendStream } from "./send-stream.js";
import { Topics } from "./topics.js";
import { traceContext } from "./trace.js";
import { ulid } from "./ulid.js";
import { goal, goalOfTopic, waitFor } from "./wait.js";

// A longer text goes in a call of its own, so that its refusal cannot end the stream of the others.
const LONGEST_STREAMED_TEXT = 1024 * 1024;
const LONGEST_PAGE = 1000;

const MESSAGE: Checks = {
  id: string,
  priority: priorityOf,
  meta: json,
  replyTo: string,
  mentions: strings,
  allowUnencrypted: flag,
};
const SEND: Checks = { ...CALL, ...MESSAGE, wait: goal };
const POST: Checks = { ...CALL, ...MESSAGE, wait: goalOfTopic };
const ONE_OF_MANY: Checks = { to: string, text: string, ...MESSAGE };
const INBOX: Checks = {
  ...CALL,
  since: (field, value) => {
    const time = value as Date | Timestamp | null;
    if (time instanceof Date ? Number.isNaN(time.getTime()) : typeof time?.seconds !== "bigint" || !Number.isInteger(time.nanos))
      throw invalid(field, `must be a valid Date or Timestamp, not ${shown(value)}`);
  },
  topic: string,
  sender: string,
  after: string,
  limit: (field, value) => {
    if (!(Number.isInteger(value) && Number(value) >= 0))
      throw invalid(field, `must be a whole number, 0 or more, not ${shown(value)}`);
  },
  newestFirst: flag,
};
const PEERS: Checks = { ...CALL, includeOffline: flag, roles: listOf(roleOf) };
const PROFILE: Checks = { summary: string, status: statusOf, visible: flag };
const WAIT_READY: Checks = { ...CALL, connected: flag };

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
    return withId(options, async (id) => {
      checkOptions(options, typeof to === "string" && to.startsWith("#") ? { ...SEND, wait: goalOfTopic } : SEND);
      const request = sendRequest("to", to, text, id, options);
      return this.#within(options, (scope) => this.#send(scope, request, options.wait));
    });
  }

  /** Queues a message for the subscribers of a topic. */
  async post(topic: string, text: string, options: PostOptions = {}): Promise<PostTopicResponse> {
    return withId(options, async (id) => {
      checkOptions(options, POST);
      const { to, $typeName: _, ...message } = sendRequest("topic", topic, text, id, options);
      return this.#within(options, async (scope) => {
        const response = await this.#core.within(scope, { feature: "topic" }, (call) =>
          this.raw.messaging.postTopic({ ...message, topic: to }, call),
        );
        return options.wait === undefined ? response : await waitFor(this.#core, options.wait, scope, response);
      });
    });
  }

  /** Queues many messages at once; gives a result for each, in their order. */
  async sendMany(messages: readonly OutgoingMessage[], options: CallOptions = {}): Promise<SendResult[]> {
    checkOptions(options, CALL);
    listOf((field, message) => {
      if (typeof message !== "object" || message === null) throw invalid(field, `must hold objects, not ${shown(message)}`);
    })("messages", messages);
    return this.#within(options, (scope) =>
      Promise.all(
        messages.map(async (message): Promise<SendResult> => {
          const id = idOf(message);
          try {
            return await withId({ id }, async () => {
              checkOptions(message, ONE_OF_MANY, "messages");
              return { id, response: await this.#send(scope, sendRequest("to", message.to, message.text, id, message)) };
            });
          } catch (error) {
            if (!(error instanceof ClaudemeshError)) throw error;
            return { id, error };
          }
        }),
      ),
    );
  }

  /** Tells how far a send or a post has come. */
  async getSend(id: string, options: CallOptions = {}): Promise<GetSendResponse> {
    string("id", id);
    checkOptions(options, CALL);
    return this.#core.call(options, { feature: "send", id }, (call) => this.raw.messaging.getSend({ clientMessageId: id }, call));
  }

  /** Iterates over stored messages; pages are fetched as needed. */
  async *inbox(options: InboxOptions = {}): AsyncGenerator<InboxMessage, undefined> {
    checkOptions(options, INBOX);
    const { limit, since } = options;
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
    checkOptions(options, PEERS);
    const roles = (options.roles ?? []).map((role): PeerRole => roleOf("roles", role));
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
    checkOptions(profile, PROFILE, "profile");
    checkOptions(options, CALL);
    const request = {
      ...(profile.summary === undefined ? {} : { summary: profile.summary }),
      ...(profile.status === undefined ? {} : { status: statusOf("status", profile.status) }),
      ...(profile.visible === undefined ? {} : { visible: profile.visible }),
    };
    return this.#core.call(options, { feature: "profile" }, (call) => this.raw.peers.setProfile(request, call));
  }

  /** Tells whether the daemon is connected and how much waits. */
  async health(options: CallOptions = {}): Promise<GetHealthResponse> {
    checkOptions(options, CALL);
    return this.#core.call(options, {}, (call) => this.raw.control.getHealth({}, call));
  }

  /** Tells the version of the daemon and what it serves. */
  async version(options: CallOptions = {}): Promise<GetVersionResponse> {
    checkOptions(options, CALL);
    return this.#core.call(options, {}, (call) => this.raw.control.getVersion({}, call));
  }

  /** Waits until the daemon answers and is ready, also one that has not been started yet. */
  async waitReady(options: WaitReadyOptions = {}): Promise<GetHealthResponse> {
    checkOptions(options, WAIT_READY);
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

  async #send(scope: Scope, request: SendRequest, wait?: "accepted" | "delivered"): Promise<SendResponse> {
    const response =
      request.message.length > LONGEST_STREAMED_TEXT
        ? await this.#core.within(scope, { feature: "send" }, (call) => this.raw.messaging.send(request, call))
        : await this.#stream.send(scope, request, await traceContext());
    return wait === undefined ? response : await waitFor(this.#core, wait, scope, response);
  }
}

/** The id of a send, made where none is given. A wrong one is refused with the rest of the options. */
function idOf(options: MessageOptions | null): string {
  return (typeof options?.id === "string" && options.id) || ulid();
}

/** Makes a send under its id, which every error of it holds. */
async function withId<T>(options: MessageOptions | null, work: (id: string) => Promise<T>): Promise<T> {
  const id = idOf(options);
  try {
    return await work(id);
  } catch (error) {
    throw ofSend(error, id);
  }
}

/** The request of a message whose options are checked. What would break the stream that all sends share is refused here. */
function sendRequest(field: "to" | "topic", to: string, text: string, id: string, options: MessageOptions): SendRequest {
  string(field, to);
  string("text", text);
  return create(SendRequestSchema, {
    to,
    message: text,
    clientMessageId: id,
    priority: options.priority === undefined ? 0 : priorityOf("priority", options.priority),
    replyToId: options.replyTo ?? "",
    mentions: [...(options.mentions ?? [])],
    allowUnencrypted: options.allowUnencrypted ?? false,
    ...(options.meta === undefined ? {} : { meta: options.meta }),
  });
}
