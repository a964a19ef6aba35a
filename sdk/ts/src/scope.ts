// How long a call may take, and who may end it before.

import { setMaxListeners } from "node:events";
import { newError } from "./convert.js";
import type { ClaudemeshError } from "./error.js";

// The longest time that a timer can wait.
const FOREVER_MS = 2 ** 31 - 1;

export type End = "cancelled" | "closed" | "deadline";

/** Ends at a deadline, when the caller's signal aborts, or with the scope that it is part of: that of the client, at last. */
export class Scope {
  /** Aborts at the end. */
  readonly signal: AbortSignal;
  /** What ended it; undefined while it goes on. */
  end: End | undefined;

  readonly #controller = new AbortController();
  readonly #deadline: number;
  #timer: NodeJS.Timeout | undefined;
  readonly #caller: AbortSignal | undefined;
  readonly #onAbort = () => this.#finish("cancelled");
  // Not listeners of the signal: each that is added to one is compared with all others.
  readonly #ends = new Set<() => void>();
  #leave = () => {};

  /** Without `timeoutMs` it has no deadline. Call `release` when what it is for has ended. */
  constructor(whole?: Scope, caller?: AbortSignal, timeoutMs?: number) {
    this.signal = this.#controller.signal;
    // One scope can hold many calls.
    setMaxListeners(0, this.signal);
    this.#caller = caller;
    this.#deadline = timeoutMs === undefined ? Infinity : performance.now() + timeoutMs;
    if (whole?.end !== undefined) this.#finish("closed");
    else if (caller?.aborted) this.#finish("cancelled");
    else {
      if (whole) this.#leave = whole.onEnd(() => this.#finish("closed"));
      if (caller) {
        // Many calls may share one signal.
        setMaxListeners(0, caller);
        caller.addEventListener("abort", this.#onAbort);
      }
      if (timeoutMs !== undefined && timeoutMs < FOREVER_MS) this.#timer = setTimeout(() => this.#finish("deadline"), timeoutMs);
    }
  }

  /** Milliseconds until the deadline, at least 1. */
  get leftMs(): number {
    return Math.min(FOREVER_MS, Math.max(1, Math.ceil(this.#deadline - performance.now())));
  }

  /** The error of a scope that the caller or `close` ended. */
  error(): ClaudemeshError | undefined {
    if (this.end === "closed") return newError("client_closed", "this client is closed");
    if (this.end === "cancelled") {
      return newError("cancelled", "the caller cancelled the call", { cause: this.#caller?.reason as unknown });
    }
    return undefined;
  }

  /** Waits for `promise`, but no longer than the scope goes on; then it throws the signal's reason. */
  async race<T>(promise: Promise<T>): Promise<T> {
    this.signal.throwIfAborted();
    let leave = () => {};
    try {
      return await Promise.race([
        promise,
        new Promise<never>((_, reject) => {
          leave = this.onEnd(() => reject(this.signal.reason as Error));
        }),
      ]);
    } finally {
      leave();
    }
  }

  /** Calls `work` at the end, now when it has ended, unless the function that this gives is called before. */
  onEnd(work: () => void): () => void {
    if (this.end === undefined) this.#ends.add(work);
    else work();
    return () => this.#ends.delete(work);
  }

  /** Ends it now. */
  cancel(): void {
    this.#finish("cancelled");
  }

  release(): void {
    clearTimeout(this.#timer);
    this.#leave();
    this.#caller?.removeEventListener("abort", this.#onAbort);
  }

  #finish(end: End): void {
    if (this.end !== undefined) return;
    this.end = end;
    this.release();
    this.#controller.abort();
    for (const work of this.#ends) work();
    this.#ends.clear();
  }
}
