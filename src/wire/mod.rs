//! The frames between daemon and broker, for both sides.
//!
//! What it is for: the one description of the link. A frame is a JSON object in
//! a WebSocket text message; [`codec`] turns it into a type and back.
//! What runs here: nothing. Text in, types out.
//! What it guarantees: no input panics; a legacy frame parses; a field that is
//! absent is not written, so legacy peers see only what they know.
//! What it must not do: decide anything, touch a socket, know a cipher.
//!
//! | Phase | Client sends | Broker sends |
//! |---|---|---|
//! | before `hello_ack` | `hello`, `session_hello` | `hello_ack`, `error` |
//! | right after it | `feature_negotiation_request` | `feature_negotiation_response` |
//! | messages | `send`, `client_ack`, `message_status` | `ack`, `push`, `delivery_status` (needs `delivery_ack`), `receiver_ready` (needs `receiver_ready`), `message_status_result` |
//! | roster | `list_peers`, `member_list` | `peers_list`, `members_list`, events as `push` |
//! | oneself | `member_rotate`, `member_rename`, `member_leave`, `member_certificate_put` | `member_rotated`, `ack`, `ack`, `ack` |
//! | a certificate | `member_certificate_get` | `member_certificate` |
//! | oneself, without an answer | `set_status`, `set_summary`, `set_stats`, `join_group`, `leave_group` | |
//! | oneself, answered by `ack` | `set_visible`, `set_profile` | `ack` |
//! | the mesh, signed | `members_get`, `member_revoke`, `mesh_policy_get`, `mesh_policy_set`, `invite_create`, `invite_list`, `invite_revoke`, `api_key_create`, `api_key_list`, `api_key_revoke` | `members_list`, `mesh_policy`, `invites_list`, `api_key_created`, `api_keys_list`, `ack` |
//! | topics | `topic_create`, `topic_list`, `topic_join`, `topic_leave`, `topic_members`, `topic_history`, `topic_mark_read` | `topic_created`, `topic_list_response`, `ack`, `topic_members_response`, `topic_history_response` |
//! | topic keys | `topic_epoch_new`, `topic_key_put`, `topic_key_get`, `topic_key_pending` | `topic_epoch`, `ack`, `topic_keys`, `topic_pending` |
//! | older messages | `history_get` | `history_page` |
//! | a large frame (needs `frame_pieces`) | `piece` | `piece` |
//! | the end | `close_reason` | `close_reason`, `drain` |
//!
//! A request carries `_reqId` and its answer echoes it. [`join`] holds the HTTP
//! bodies of the same broker.

pub mod admin;
pub mod certificate;
pub mod close;
pub mod codec;
pub mod delivery;
pub mod event;
pub mod features;
pub mod frame;
mod head;
pub mod hello;
pub mod history;
pub mod join;
pub mod pieces;
pub mod presence;
pub mod refusal;
pub mod roster;
#[cfg(test)]
mod tests;
pub mod text;
pub mod topics;
