const FIRST_MS = 50;
const LAST_MS = 500;
const JITTER = 0.25;

/** The pauses between attempts: 50 ms, doubled up to 500 ms, 25 % more or less. */
export class Backoff {
  #nextMs = FIRST_MS;

  /** The next pause, unless the daemon asked for another. */
  next(askedMs?: number): number {
    if (askedMs !== undefined) return askedMs;
    const pause = this.#nextMs * (1 + JITTER * (2 * Math.random() - 1));
    this.#nextMs = Math.min(this.#nextMs * 2, LAST_MS);
    return pause;
  }

  reset(): void {
    this.#nextMs = FIRST_MS;
  }
}
