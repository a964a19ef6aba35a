// Waiting until a send has come further than this host's disk.

import { setTimeout as sleep } from "node:timers/promises";
import { Code } from "@connectrpc/connect";
import { Backoff } from "./backoff.js";
import { fromDetail, newError } from "./convert.js";
import type { Core } from "./core.js";
import { ClaudemeshError } from "./error.js";
import { SendStatus } from "./gen/claudemesh/v1/common_pb.js";
import type { GetSendResponse, PostTopicResponse, SendResponse } from "./gen/claudemesh/v1/messaging_pb.js";
import { invalid } from "./names.js";
import type { Scope } from "./scope.js";

export type Goal = "accepted" | "delivered";

export function checkGoal(goal: string | undefined, allowed: readonly Goal[]): void {
  if (goal !== undefined && !allowed.some((name) => name === goal)) {
    throw invalid("wait", `is ${JSON.stringify(goal)}; allowed here: ${allowed.join(", ")}`);
  }
}

/** The answer to a send or a post, with how far it is, once it has come to the goal. */
export async function waitFor<R extends SendResponse | PostTopicResponse>(
  core: Core,
  goal: Goal,
  scope: Scope,
  response: R,
): Promise<R> {
  const { clientMessageId } = response;
  const pauses = new Backoff();
  try {
    for (;;) {
      const send = await core.within(scope, { feature: "send" }, (call) => core.raw.messaging.getSend({ clientMessageId }, call));
      if (reached(goal, send)) return updated(response, send);
      await sleep(pauses.next(), undefined, { signal: scope.signal });
    }
  } catch (error) {
    const own = scope.error();
    if (own) throw own;
    // UNAVAILABLE is tried again until the time is up.
    const late =
      scope.end === "deadline" ||
      (error instanceof ClaudemeshError && [Code.Unavailable, Code.DeadlineExceeded].includes(error.grpcCode));
    if (!late) throw error;
    const text = `the message is queued, but it was not ${goal} in time; \`getSend\` tells how far it is`;
    throw newError("wait_timeout", text, { cause: error });
  }
}

/** Whether the send has come that far; throws when it never will. */
function reached(goal: Goal, send: GetSendResponse): boolean {
  const { status, error } = send;
  switch (status) {
    case SendStatus.DELIVERED:
      return true;
    case SendStatus.ACCEPTED:
      return goal === "accepted";
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
