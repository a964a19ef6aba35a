//! The handshake: hello, session hello, their answer, and the error frame.
//!
//! Texts are kept as the peer wrote them. Whoever acts on one parses it into
//! its `domain` type first, because the refusal differs by field: a bad session
//! key has another error code than a bad signature.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::presence::Shown;

/// The largest difference between `timestamp` and the broker's clock, either
/// way, in milliseconds.
pub const MAX_HELLO_SKEW_MS: u64 = 60_000;

/// How far in the future an attestation may expire, in milliseconds (24 h).
pub const MAX_ATTESTATION_MS: u64 = 24 * 3_600_000;

/// A group of one connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Name, compared exactly.
    pub name: String,
    /// Free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
}

/// What a member says it can do, signed by its key, so that a broker cannot
/// hide a capability and so talk a peer into sending an older, weaker form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapabilityStatement {
    /// Sorted, without repeats: `envelope_v3`, `topic_e2e`, `files_v3`.
    pub capabilities: Vec<String>,
    /// When it was signed, Unix ms. A newer statement replaces an older one.
    pub ts: i64,
    /// 128 hex digits, by the member key.
    pub signature: String,
}

/// The `capabilities` field of a hello. The base protocol declares a plain list
/// there, which proves nothing and is only noted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum HelloCapabilities {
    /// The signed form.
    Signed(CapabilityStatement),
    /// The unsigned form of the base protocol.
    Declared(Vec<String>),
}

/// `hello`: opens a connection that is keyed by the member.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// The mesh by id, not by slug.
    pub mesh_id: String,
    /// The member by id; part of the signed string.
    pub member_id: String,
    /// The member's ed25519 public key, 64 lower-case hex digits.
    pub pubkey: String,
    /// Unix ms; at most 60 s from the broker's clock.
    pub timestamp: i64,
    /// 128 hex digits over `<meshId>|<memberId>|<pubkey>|<timestamp>`.
    pub signature: String,
    /// Names this client; two live connections of one member never share it.
    pub session_id: String,
    /// Process id at the client.
    pub pid: i64,
    /// Working directory at the client.
    pub cwd: String,
    /// Routing key of this connection, if not the member key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_pubkey: Option<String>,
    /// Overrides the member's name for this connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Host name, shown in peer lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// `ai`, `human` or `connector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<String>,
    /// Kind of client, for example `claudemesh-daemon`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Model name, free text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Groups of this connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<Group>>,
    /// Declared by the base protocol, never acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol_version: Option<u32>,
    /// The member's capability statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<HelloCapabilities>,
    /// ULID of the state directory: the same after a restart, another in a clone
    /// that was reset. With `boot_id` it tells a reconnect from a second host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// ULID of the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// Version of the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub daemon_version: Option<String>,
    /// What the member shows of itself, so that one that hides is never seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shown: Option<Shown>,
    /// Asks the broker not to evict anybody for this connection: answer 4004 if
    /// the member is connected elsewhere.
    #[serde(rename = "yield", default, skip_serializing_if = "Option::is_none")]
    pub yield_to_other: Option<bool>,
}

/// The parent's word for a session key: it may act for the member until then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attestation {
    /// The session's ed25519 public key.
    pub session_pubkey: String,
    /// The member's ed25519 public key.
    pub parent_member_pubkey: String,
    /// Unix ms; at most 24 h ahead.
    pub expires_at: i64,
    /// 128 hex digits, by the member key.
    pub signature: String,
}

/// `session_hello`: opens a connection for one launched session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionHello {
    /// The mesh by id.
    pub mesh_id: String,
    /// If not empty: the id of the member that `parent_member_pubkey` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_member_id: Option<String>,
    /// 64 lower-case hex digits.
    pub parent_member_pubkey: String,
    /// 64 lower-case hex digits; the routing key of this connection.
    pub session_pubkey: String,
    /// Both of its keys equal the two above.
    pub parent_attestation: Attestation,
    /// Names the session.
    pub session_id: String,
    /// Process id of the session.
    pub pid: i64,
    /// Working directory of the session.
    pub cwd: String,
    /// Unix ms; at most 60 s from the broker's clock.
    pub timestamp: i64,
    /// 128 hex digits, by the session key.
    pub signature: String,
    /// Name of this connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// `ai`, `human` or `connector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<String>,
    /// Kind of client, for example `claudemesh-session`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Model name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Sent by clients, without a meaning for the broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Groups of this connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<Vec<Group>>,
}

/// The member's settings at the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MemberProfile {
    /// Free text; written as `null` when unset.
    pub role_tag: Option<String>,
    /// Default groups.
    pub groups: Vec<Group>,
    /// `push`, `inbox` or `off`.
    pub message_mode: String,
}

/// What a member may change about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SelfEditable {
    /// Its name.
    pub display_name: bool,
    /// Its role tag.
    pub role_tag: bool,
    /// Its groups.
    pub groups: bool,
    /// Its message mode.
    pub message_mode: bool,
}

/// The mesh's rules, as far as a member needs them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshPolicy {
    /// What a member may change about itself.
    pub self_editable: SelfEditable,
}

/// `hello_ack`: the answer to both hellos.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HelloAck {
    /// Names this connection.
    pub presence_id: String,
    /// The member's name.
    pub member_display_name: String,
    /// The member's settings; absent when a session reattaches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_profile: Option<MemberProfile>,
    /// The mesh's rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mesh_policy: Option<MeshPolicy>,
    /// Saved state was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<bool>,
    /// Saved summary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_summary: Option<String>,
    /// When the member was last connected, ISO 8601.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_seen_at: Option<String>,
    /// Saved groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_groups: Option<Vec<Group>>,
    /// Saved counters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_stats: Option<Value>,
    /// Services of the mesh; no part of this product.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub services: Option<Vec<Value>>,
    /// Version of the broker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_version: Option<String>,
    /// The broker's clock, Unix ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broker_time: Option<i64>,
    /// The member by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_id: Option<String>,
    /// Counts the hellos of this (mesh, member, instance): a broker node that
    /// holds an older one has been superseded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}

/// `error`: a refusal that is not the answer of a specific frame type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorFrame {
    /// Stable, lower_snake.
    pub code: String,
    /// For people.
    #[serde(default)]
    pub message: String,
    /// The request's `id`; a few legacy errors carry the request id here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The request's `_reqId`.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
    /// The broker's clock, Unix ms, where the client's clock is the reason: with
    /// it the next hello passes.
    #[serde(rename = "brokerTime", default, skip_serializing_if = "Option::is_none")]
    pub broker_time: Option<i64>,
}
