// Waiting until a send has come further than this host's disk.

import { newError, fromDetail } from "./convert.js";
import type { Core } from "./core.js";
import { EventStream } from "./events.js";
import { SendStatus } from "./gen/claudemesh/v1/common_pb.js";
import type { GetSendResponse, PostTopicResponse, SendResponse } from "./gen/claudemesh/v1/messaging_pb.js";
import type { Scope } from "./scope.js";

// Events tell at once what has changed; asking now and then makes up for those that do not come.
const ASK_AGAIN_MS = 1000;

export class Waits {
  readonly #core: Core;
  /** Who waits for news of a send, by its id. */
  readonly #wakers = new Map<string, Set<() => void>>();
  #events: EventStream | undefined;

  constructor(core: Core) {
    this.#core = core;
  }

  /** The answer to a send or a post, with how far it is, once it is `accepted` or `delivered`. */
  async until<R extends SendResponse | PostTopicResponse>(goal: "accepted" | "delivered", scope: Scope, response: R): Promise<R> {
    const id = response.clientMessageId;
    const news = this.#follow(id);
    try {
      for (;;) {
        const told = news.next();
        const send = await this.#core.within(scope, { feature: "send" }, (call) =>
          this.#core.raw.messaging.getSend({ clientMessageId: id }, call),
        );
        if (reached(goal, send)) return updated(response, send);
        await scope.race(told);
      }
    } catch (error) {
      if (scope.end !== "deadline") throw error;
      const text = `the message is queued, but it was not ${goal} in time; \`getSend\` tells how far it is`;
      throw newError("wait_timeout", text, { cause: error });
    } finally {
      news.end();
    }
  }

  /** `next` resolves when there may be news of the send. */
  #follow(id: string): { next(): Promise<void>; end(): void } {
    let wake = () => {};
    let timer: NodeJS.Timeout | undefined;
    const waker = () => wake();
    const wakers = this.#wakers.get(id) ?? new Set();
    this.#wakers.set(id, wakers.add(waker));
    if (this.#events === undefined) void this.#read();
    return {
      next: () =>
        new Promise((resolve) => {
          wake = resolve;
          clearTimeout(timer);
          timer = setTimeout(resolve, ASK_AGAIN_MS);
        }),
      end: () => {
        clearTimeout(timer);
        wakers.delete(waker);
        if (wakers.size === 0) this.#wakers.delete(id);
        if (this.#wakers.size === 0) void this.#events?.close();
      },
    };
  }

  /** Reads events as long as somebody waits. */
  async #read(): Promise<void> {
    const events = new EventStream(this.#core, { types: ["delivery_status"] });
    this.#events = events;
    try {
      for await (const event of events) {
        if (event.kind === "delivery_status") this.#wake(event.value.clientMessageId);
        // Either may stand for news that did not come.
        else if (event.kind === "caught_up" || event.kind === "gap") for (const id of this.#wakers.keys()) this.#wake(id);
      }
    } catch {
      // Such as too many streams. Asking goes on.
    } finally {
      if (this.#events === events) this.#events = undefined;
    }
  }

  #wake(id: string): void {
    for (const waker of this.#wakers.get(id) ?? []) waker();
  }
}

/** Whether the send has come that far; throws when it never will. */
function reached(goal: "accepted" | "delivered", send: GetSendResponse): boolean {
  switch (send.status) {
    case SendStatus.DELIVERED:
      return true;
    case SendStatus.ACCEPTED:
      return goal === "accepted";
    case SendStatus.REJECTED: {
      const fields = send.error && { metadata: send.error.metadata };
      throw newError("message_rejected", send.error?.message ?? "the receiver's daemon could not use the message", fields);
    }
    case SendStatus.EXPIRED: {
      const fields = send.error && { metadata: send.error.metadata };
      throw newError("delivery_expired", send.error?.message ?? "the receiver did not take the message in time", fields);
    }
    case SendStatus.DEAD:
    case SendStatus.ABORTED:
      if (send.error !== undefined) throw fromDetail(send.error);
      throw newError("internal_error", "the daemon gave the message up and does not say why");
    default:
      return false;
  }
}

function updated<R extends SendResponse | PostTopicResponse>(response: R, send: GetSendResponse): R {
  response.status = send.status;
  response.brokerMessageId = send.brokerMessageId;
  response.historyId = send.historyId;
  response.degraded = send.degraded;
  if (response.$typeName === "claudemesh.v1.SendResponse") {
    if (send.deliveredAt !== undefined) response.deliveredAt = send.deliveredAt;
  } else if (send.deliveredCount !== undefined) response.deliveredCount = send.deliveredCount;
  return response;
}
