// The stream that all sends of a client share.

import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { Backoff } from "./backoff.js";
import { fromDetail, newError } from "./convert.js";
import { type Core, TokenRule } from "./core.js";
import type { SendRequest, SendResponse, SendStreamRequestSchema, SendStreamResponse } from "./gen/claudemesh/v1/messaging_pb.js";
import { Scope } from "./scope.js";

// An unused stream is closed after this time.
const IDLE_MS = 5000;
const END_MS = 10_000;
// An index is a uint32.
const INDEXES = 2 ** 32;

interface Pending {
  readonly scope: Scope;
  readonly send: SendRequest;
  readonly traceContext: Record<string, string>;
  readonly backoff: Backoff;
  resolve(response: SendResponse): void;
  reject(error: unknown): void;
  /** Answered, or given up by its caller. */
  done: boolean;
}

/** First in, first out. Taking from the front of a long array moves all the rest of it each time. */
class Line<T> {
  #items: T[];
  #next = 0;

  constructor(items: T[] = []) {
    this.#items = items;
  }

  get length(): number {
    return this.#items.length - this.#next;
  }

  push(item: T): void {
    this.#items.push(item);
  }

  take(): T | undefined {
    const item = this.#items[this.#next];
    if (item === undefined) return undefined;
    this.#next++;
    if (this.#next * 2 > this.#items.length) {
      this.#items = this.rest();
      this.#next = 0;
    }
    return item;
  }

  /** What is still in it. */
  rest(): T[] {
    return this.#items.slice(this.#next);
  }
}

export class SendStream {
  readonly #core: Core;
  /** What is still to be written, in order. */
  #queue = new Line<Pending>();
  /** What was written to the open stream and has no answer yet. */
  readonly #unanswered = new Map<number, Pending>();
  /** Sends that wait for their callers: those above, and those that pause before another attempt. */
  #waiting = 0;
  #nextIndex = 0;
  #running = false;
  #wake: (() => void) | undefined;

  constructor(core: Core) {
    this.#core = core;
  }

  /** Resolves when the daemon has it on disk. A scope that ends gives the send up; it may be there all the same. */
  async send(scope: Scope, send: SendRequest, traceContext: Record<string, string>): Promise<SendResponse> {
    const own = scope.error();
    if (own) throw own;
    this.#waiting++;
    this.#core.connection.restSendStream(false);
    let leave = () => {};
    const pending: Pending = {
      scope,
      send,
      traceContext,
      backoff: new Backoff(),
      resolve: () => {},
      reject: () => {},
      done: false,
    };
    try {
      return await new Promise<SendResponse>((resolve, reject) => {
        pending.resolve = resolve;
        pending.reject = reject;
        leave = scope.onEnd(() => reject(scope.error() ?? this.#core.late()));
        this.#enqueue(pending);
      });
    } finally {
      pending.done = true;
      leave();
      this.#waiting--;
      if (this.#waiting === 0) {
        this.#core.connection.restSendStream(true);
        this.#wake?.();
      }
    }
  }

  #enqueue(pending: Pending): void {
    this.#queue.push(pending);
    this.#wake?.();
    if (!this.#running) {
      this.#running = true;
      void this.#run();
    }
  }

  /** Opens a stream as often as it takes for everything to be answered. */
  async #run(): Promise<void> {
    const backoff = new Backoff();
    let tokens = new TokenRule(this.#core.connection);
    while (this.#queue.rest().some((pending) => !pending.done)) {
      const scope = new Scope(this.#core.closing);
      try {
        await this.#core.require("send");
        const answers = this.#core.raw.messaging.sendStream(this.#requests(scope), { signal: scope.signal });
        for await (const answer of answers) {
          backoff.reset();
          tokens = new TokenRule(this.#core.connection);
          this.#answered(answer);
        }
        // Either side may end it, but not while somebody waits for an answer.
        if (this.#waiting > 0) throw new ConnectError("the daemon ended the stream", Code.Unavailable);
        this.#requeue(scope);
      } catch (error) {
        const end = scope.end;
        this.#requeue(scope);
        await this.#broken(end !== "closed" ? error : newError("client_closed", "this client is closed"), backoff, tokens);
      }
    }
    this.#queue = new Line();
    this.#running = false;
  }

  async #broken(error: unknown, backoff: Backoff, tokens: TokenRule): Promise<void> {
    try {
      const failure = this.#core.connection.failure(error);
      if (await tokens.renews(failure)) return;
      if (failure.kind === "deadline") throw this.#core.late(error);
      await this.#pause(this.#core.pauseAfter(failure, backoff));
    } catch (final) {
      const given = this.#queue.rest();
      this.#queue = new Line();
      for (const pending of given) pending.reject(final);
    }
  }

  /** Waits before the next attempt, but not when nobody waits any more. */
  #pause(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        this.#wake = undefined;
        resolve();
      };
      const timer = setTimeout(end, ms);
      this.#wake = () => {
        if (this.#waiting === 0) end();
      };
    });
  }

  /** Ends the attempt. What is unanswered goes out again before what was never written. */
  #requeue(scope: Scope): void {
    scope.cancel();
    this.#queue = new Line([...this.#unanswered.values(), ...this.#queue.rest()]);
    this.#unanswered.clear();
    this.#nextIndex = 0;
  }

  #answered(answer: SendStreamResponse): void {
    const pending = this.#unanswered.get(answer.index);
    if (pending === undefined) return;
    this.#unanswered.delete(answer.index);
    if (pending.done) return;
    if (answer.result.case === "response") {
      pending.resolve(answer.result.value);
      return;
    }
    const error =
      answer.result.case === "error"
        ? fromDetail(answer.result.value)
        : newError("internal_error", "the daemon gave an answer that this version does not know");
    if (error.grpcCode !== (Code.Unavailable as number)) {
      pending.reject(error);
      return;
    }
    const pause = pending.backoff.next(error.retryAfterMs);
    if (pause >= pending.scope.leftMs) {
      pending.reject(error);
      return;
    }
    setTimeout(() => {
      if (!pending.done) this.#enqueue(pending);
    }, pause);
  }

  /** The messages of one stream; ends when none was to be sent for a while. */
  async *#requests(scope: Scope): AsyncGenerator<MessageInitShape<typeof SendStreamRequestSchema>> {
    while (!scope.signal.aborted) {
      const pending = this.#queue.take();
      if (pending === undefined) {
        if (await this.#more(scope)) continue;
        // The daemon is to end its side too. What is sent meanwhile waits for that, so it must not take for ever.
        const timer = setTimeout(() => scope.cancel(), END_MS).unref();
        scope.onEnd(() => clearTimeout(timer));
        return;
      }
      if (pending.done) continue;
      while (this.#unanswered.has(this.#nextIndex)) this.#nextIndex = (this.#nextIndex + 1) % INDEXES;
      const index = this.#nextIndex;
      this.#nextIndex = (index + 1) % INDEXES;
      this.#unanswered.set(index, pending);
      yield { index, send: pending.send, traceContext: pending.traceContext };
    }
  }

  /** Waits until there is something to write; false after a time in which nobody waited for anything. */
  #more(scope: Scope): Promise<boolean> {
    return new Promise((resolve) => {
      let timer: NodeJS.Timeout | undefined;
      let leave = () => {};
      const end = (more: boolean) => {
        clearTimeout(timer);
        leave();
        this.#wake = undefined;
        resolve(more);
      };
      const stop = () => end(false);
      const look = () => {
        clearTimeout(timer);
        if (this.#queue.length > 0) end(true);
        else if (this.#waiting === 0) timer = setTimeout(stop, IDLE_MS).unref();
      };
      leave = scope.onEnd(stop);
      this.#wake = look;
      look();
    });
  }
}
