// The short names of enum values, and the type of an event's `kind`.

import { inspect } from "node:util";
import { create, type DescEnum } from "@bufbuild/protobuf";
import { newError } from "./convert.js";
import { FieldViolationSchema, PrioritySchema } from "./gen/claudemesh/v1/common_pb.js";
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

export const priorityOf = reader("priority", PrioritySchema);
export const statusOf = reader("status", PeerStatusSchema);
export const roleOf = reader("roles", PeerRoleSchema);
export const eventTypeOf = reader("types", EventTypeSchema);

function reader(field: string, schema: DescEnum): (name: string) => number {
  const numbers = new Map<string, number>();
  for (const value of schema.values) {
    // Zero means "not given" in every enum.
    if (value.number !== 0) numbers.set(value.name.slice(schema.sharedPrefix?.length ?? 0).toLowerCase(), value.number);
  }
  return (name) => {
    const number = numbers.get(name);
    if (number === undefined) throw invalid(field, `is ${shown(name)}; allowed are ${[...numbers.keys()].join(", ")}`);
    return number;
  };
}

/** A wrong value as a text that is fit to be shown. */
export function shown(value: unknown): string {
  return inspect(value, { depth: 0, maxStringLength: 80, breakLength: Infinity });
}

/** `invalid_argument` for one field. */
export function invalid(field: string, what: string) {
  return newError("invalid_argument", `\`${field}\`: ${what}`, {
    fieldViolations: [create(FieldViolationSchema, { field, description: what })],
  });
}
