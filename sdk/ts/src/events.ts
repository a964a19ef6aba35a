// Following events over restarts of the daemon.

import { setTimeout as sleep } from "node:timers/promises";
import type { Timestamp } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { Backoff } from "./backoff.js";
import { CALL, type Checks, checkOptions, flag, listOf, string } from "./check.js";
import { newError } from "./convert.js";
import { type Core, TokenRule } from "./core.js";
import { type EventType, type StreamEventsResponse, StreamEventsResponseSchema } from "./gen/claudemesh/v1/events_pb.js";
import { eventTypeOf, type SnakeCase } from "./names.js";
import { Scope } from "./scope.js";

const HEADERS_TIMEOUT_MS = 10_000;

const { timeoutMs: _, ...SIGNAL } = CALL;
const EVENTS: Checks = { ...SIGNAL, after: string, fromStart: flag, types: listOf(eventTypeOf), topic: string, sender: string };

type Known = Exclude<StreamEventsResponse["event"], { case: undefined }>;

interface EventBase {
  /** The place in the inbox, the `after` of a later call; empty for live-only events. */
  readonly eventId: string;
  /** When it happened, by the daemon's clock. */
  readonly time: Timestamp | undefined;
  /** The answer as it came. */
  readonly raw: StreamEventsResponse;
}

type EventOf<E> = E extends { case: infer C extends string; value: infer V }
  ? EventBase & { readonly kind: SnakeCase<C>; readonly value: V }
  : never;

/** An event that this version does not know. */
export type UnknownEvent = EventBase & { readonly kind: "unknown"; readonly value: undefined };

/** One event; `kind` tells what `value` is. */
export type Event = EventOf<Known> | UnknownEvent;

/** The names of the kinds of events. */
export type EventKind = EventOf<Known>["kind"];

export interface EventsOptions {
  /** The last event id that the caller has; what came after it is replayed first. */
  after?: string | undefined;
  /** Replay from the oldest stored message on. Not together with `after`. */
  fromStart?: boolean | undefined;
  /** Only these kinds, and always `gap` and `caught_up`. */
  types?: readonly EventKind[] | undefined;
  /** Of messages and shared files, only those of this topic. */
  topic?: string | undefined;
  /** Of messages and shared files, only those of this member. */
  sender?: string | undefined;
  /** Ends the iteration. */
  signal?: AbortSignal | undefined;
}

const kinds = new Map(StreamEventsResponseSchema.oneofs[0]?.fields.map((field) => [field.localName, field.name]));

function eventOf(raw: StreamEventsResponse): Event {
  const kind = raw.event.case === undefined ? "unknown" : (kinds.get(raw.event.case) ?? "unknown");
  return { kind, eventId: raw.eventId, time: raw.time, value: raw.event.value, raw } as Event;
}

/** An endless iteration over events. `break`, `return`, `close` and the signal end it, also while it waits. */
export class EventStream implements AsyncIterableIterator<Event>, AsyncDisposable {
  readonly #scope: Scope;
  readonly #events: AsyncGenerator<Event, undefined>;

  /** Made by `mesh.events()`. */
  constructor(core: Core, options: EventsOptions) {
    checkOptions(options, EVENTS);
    this.#scope = new Scope(core.closing, options.signal);
    if (this.#scope.end === "closed") throw newError("client_closed", "this client is closed");
    this.#events = follow(core, options, this.#scope);
  }

  next(): Promise<IteratorResult<Event, undefined>> {
    return this.#events.next();
  }

  async return(): Promise<IteratorResult<Event, undefined>> {
    // Without this a `next` that waits for an event would hold up its end.
    this.#scope.cancel();
    return this.#events.return(undefined);
  }

  async close(): Promise<void> {
    await this.return();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

async function* follow(core: Core, options: EventsOptions, scope: Scope): AsyncGenerator<Event, undefined> {
  const types = (options.types ?? []).map((type): EventType => eventTypeOf("types", type));
  let after = options.after ?? "";
  let fromStart = options.fromStart ?? false;
  const backoff = new Backoff();
  let tokens = new TokenRule(core.connection);
  try {
    while (scope.end === undefined) {
      // Of this attempt alone: a stream whose headers do not come is dropped.
      const attempt = new Scope(scope);
      let silence: NodeJS.Timeout | undefined;
      try {
        await attempt.race(core.require("events"));
        silence = setTimeout(() => attempt.cancel(), HEADERS_TIMEOUT_MS);
        const request = { after, fromStart, types, topic: options.topic ?? "", sender: options.sender ?? "" };
        const stream = core.raw.events.streamEvents(request, { signal: attempt.signal, onHeader: () => clearTimeout(silence) });
        for await (const raw of stream) {
          if (raw.eventId !== "") {
            after = raw.eventId;
            fromStart = false;
          }
          backoff.reset();
          tokens = new TokenRule(core.connection);
          yield eventOf(raw);
        }
        throw new ConnectError("the daemon ended the stream", Code.Unavailable);
      } catch (error) {
        if (scope.end !== undefined) return undefined;
        const silent = attempt.end === "cancelled";
        const failure = core.connection.failure(silent ? new ConnectError("no response headers", Code.Unavailable) : error);
        if (await tokens.renews(failure)) continue;
        const pause = failure.kind === "deadline" ? backoff.next() : core.pauseAfter(failure, backoff);
        await sleep(pause, undefined, { signal: scope.signal }).catch(() => {});
      } finally {
        clearTimeout(silence);
        attempt.cancel();
      }
    }
    return undefined;
  } finally {
    scope.cancel();
  }
}
