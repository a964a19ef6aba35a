// The short names of enum values, and the type of an event's `kind`.

import type { DescEnum } from "@bufbuild/protobuf";
import { invalid, shown } from "./check.js";
import { PrioritySchema } from "./gen/claudemesh/v1/common_pb.js";
import { EventTypeSchema } from "./gen/claudemesh/v1/events_pb.js";
import { PeerRoleSchema, PeerStatusSchema } from "./gen/claudemesh/v1/peers_pb.js";

/** How urgent a message is to its receiver. */
export type PriorityName = "now" | "next" | "low";
/** What a peer is doing. */
export type PeerStatusName = "idle" | "working" | "dnd";
/** What kind of connection a peer has. */
export type PeerRoleName = "control_plane" | "session" | "service";

/** `peer_join` for `peerJoin`. */
export type SnakeCase<S extends string> = S extends `${infer Head}${infer Rest}`
  ? `${Head extends Lowercase<Head> ? Head : `_${Lowercase<Head>}`}${SnakeCase<Rest>}`
  : "";

/** The number of a value by its short name. It is a check too. */
export const priorityOf = reader(PrioritySchema);
export const statusOf = reader(PeerStatusSchema);
export const roleOf = reader(PeerRoleSchema);
export const eventTypeOf = reader(EventTypeSchema);

function reader(schema: DescEnum): (field: string, name: unknown) => number {
  const numbers = new Map<unknown, number>();
  for (const value of schema.values) {
    // Zero means "not given" in every enum.
    if (value.number !== 0) numbers.set(value.name.slice(schema.sharedPrefix?.length ?? 0).toLowerCase(), value.number);
  }
  return (field, name) => {
    const number = numbers.get(name);
    if (number === undefined) throw invalid(field, `is ${shown(name)}; allowed are ${[...numbers.keys()].join(", ")}`);
    return number;
  };
}
