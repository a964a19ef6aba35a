// Waiting until a send has come further than this host's disk.

import { setTimeout as sleep } from "node:timers/promises";
import { Code } from "@connectrpc/connect";
import { Backoff } from "./backoff.js";
import { type Check, invalid, shown } from "./check.js";
import { fromDetail, newError } from "./convert.js";
import type { Core } from "./core.js";
import { ClaudemeshError } from "./error.js";
import { SendStatus } from "./gen/claudemesh/v1/common_pb.js";
import type { GetSendResponse, PostTopicResponse, SendResponse } from "./gen/claudemesh/v1/messaging_pb.js";
import type { Scope } from "./scope.js";

export type Goal = "accepted" | "delivered";

export const goal: Check = (field, value) => {
  if (value !== "accepted" && value !== "delivered") throw invalid(field, `is ${shown(value)}; allowed are accepted, delivered`);
};

/** The same where there are many receivers. */
export const goalOfTopic: Check = (field, value) => {
  goal(field, value);
  if (value === "delivered") throw invalid(field, "a post has many receivers and can be waited for until it is accepted");
};

/** The answer to a send or a post, with how far it is, once it has come to the goal. */
export async function waitFor<R extends SendResponse | PostTopicResponse>(
  core: Core,
  wanted: Goal,
  scope: Scope,
  response: R,
): Promise<R> {
  const { clientMessageId } = response;
  const pauses = new Backoff();
  let known = response.status;
  try {
    for (;;) {
      const send = await core.within(scope, { feature: "send" }, (call) => core.raw.messaging.getSend({ clientMessageId }, call));
      if (reached(wanted, send)) return updated(response, send);
      known = send.status;
      await sleep(pauses.next(), undefined, { signal: scope.signal });
    }
  } catch (error) {
    const own = scope.error();
    if (own) throw own;
    // UNAVAILABLE is tried again until the time is up.
    const timeIsUp =
      scope.end === "deadline" ||
      (error instanceof ClaudemeshError && [Code.Unavailable, Code.DeadlineExceeded].includes(error.grpcCode));
    if (!timeIsUp) throw error;
    throw late(clientMessageId, known, error);
  }
}

/** The time of a wait is up; says what is known of the message. */
function late(clientMessageId: string, status: SendStatus, cause: unknown): ClaudemeshError {
  const state = (SendStatus[status] ?? String(status)).toLowerCase();
  let known = `in the state ${state}`;
  if (status === SendStatus.ACCEPTED) known = "accepted by the broker, not yet delivered";
  else if (status === SendStatus.QUEUED || status === SendStatus.INFLIGHT)
    known = "on this host's disk, not yet accepted by the broker";
  const text = `the time is up, and the message is ${known}; it goes on by itself, and its id tells how far it is`;
  return newError("wait_timeout", text, { metadata: { client_message_id: clientMessageId, status: state }, cause });
}

/** Whether the send has come that far; throws when it never will. */
function reached(wanted: Goal, send: GetSendResponse): boolean {
  const { status, error } = send;
  switch (status) {
    case SendStatus.DELIVERED:
      return true;
    case SendStatus.ACCEPTED:
      return wanted === "accepted";
    case SendStatus.REJECTED:
      throw newError(
        "message_rejected",
        error?.message ?? "the receiver's daemon could not use the message",
        error && { metadata: error.metadata },
      );
    case SendStatus.EXPIRED:
      throw newError(
        "delivery_expired",
        error?.message ?? "the receiver did not take the message in time",
        error && { metadata: error.metadata },
      );
    case SendStatus.DEAD:
    case SendStatus.ABORTED:
      throw error ? fromDetail(error) : newError("internal_error", "the daemon gave the message up and does not say why");
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
