import { checkOptions } from "./check.js";
import { DISCOVERY, type DiscoveryOptions } from "./discovery.js";
import { Mesh } from "./mesh.js";

/** A client of a daemon. It does not talk to the daemon yet, and does not fail because it is away: the first call does. */
export function connect(options: DiscoveryOptions = {}): Mesh {
  checkOptions(options, DISCOVERY);
  return new Mesh(options);
}

export type { CallOptions, RawClients } from "./core.js";
export type { DiscoveryOptions as ConnectOptions } from "./discovery.js";
export { ClaudemeshError } from "./error.js";
export * from "./errors.js";
export type { Event, EventKind, EventStream, EventsOptions, UnknownEvent } from "./events.js";
export * from "./gen/claudemesh/v1/common_pb.js";
export * from "./gen/claudemesh/v1/control_pb.js";
export * from "./gen/claudemesh/v1/events_pb.js";
export * from "./gen/claudemesh/v1/files_pb.js";
export * from "./gen/claudemesh/v1/inbox_pb.js";
export * from "./gen/claudemesh/v1/messaging_pb.js";
export * from "./gen/claudemesh/v1/peers_pb.js";
export * from "./gen/claudemesh/v1/topics_pb.js";
export type {
  InboxOptions,
  Mesh,
  MessageOptions,
  OutgoingMessage,
  PeersOptions,
  PostOptions,
  Profile,
  SendOptions,
  SendResult,
  WaitReadyOptions,
} from "./mesh.js";
export type { PeerRoleName, PeerStatusName, PriorityName } from "./names.js";
export type { CreateTopicOptions, ListTopicsOptions, Topics } from "./topics.js";
