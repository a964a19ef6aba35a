//! Who is in the mesh: connected peers, all members, and changes of oneself.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::certificate::MemberCertificate;
use super::hello::{CapabilityStatement, Group};

/// Changes of a member's key that a broker keeps and shows. Who has an older key pinned
/// asks its operator.
pub const MAX_CHAIN: usize = 32;

/// A request that has no field beside its correlation id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bare {
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// `list_peers` and `member_list`: who is connected, and who is a member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListRequest {
    /// The list is taken in pages: what the page before gave as `next`, empty for the
    /// first. Without it the whole list comes in one answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// One connection in [`PeersList`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerRow {
    /// The routing key: session key if there is one, else member key.
    pub pubkey: String,
    /// The member key.
    #[serde(default)]
    pub member_pubkey: String,
    /// The connection's name.
    #[serde(default)]
    pub display_name: String,
    /// `idle`, `working` or `dnd`.
    #[serde(default)]
    pub status: String,
    /// Free text; written as `null` when unset.
    #[serde(default)]
    pub summary: Option<String>,
    /// Always written, because legacy clients read it without a look.
    #[serde(default)]
    pub groups: Vec<Group>,
    /// The client's `sessionId`.
    #[serde(default)]
    pub session_id: String,
    /// ISO 8601.
    #[serde(default)]
    pub connected_at: String,
    /// Working directory.
    #[serde(default)]
    pub cwd: String,
    /// `control-plane`, `session` or `service`. Absent counts as `session`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_role: Option<String>,
    /// Host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// `ai`, `human` or `connector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<String>,
    /// Kind of client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// Model name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Counters, as the client set them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<Value>,
    /// `false` only in one's own row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visible: Option<bool>,
    /// Profile, as the client set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Value>,
    /// The member's capability statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<CapabilityStatement>,
}

/// `peers_list`: the answer to `list_peers`, the caller included.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeersList {
    /// Oldest first.
    pub peers: Vec<PeerRow>,
    /// More follows: what asks for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// One change of a member's key, signed by the old and by the new one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RotationStatement {
    /// The member, whose id stays.
    pub member_id: String,
    /// 1 for the first rotation of a member, then one more each time.
    pub seq: u64,
    /// The key that retires, 64 lower-case hex digits.
    pub old_pubkey: String,
    /// The key that follows, 64 lower-case hex digits.
    pub new_pubkey: String,
    /// When it was signed, Unix ms.
    pub ts: i64,
    /// By the old key, 128 hex digits.
    pub old_signature: String,
    /// By the new key, 128 hex digits: nobody can adopt a key it does not hold.
    pub new_signature: String,
}

/// One member in [`MembersList`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberRow {
    /// The member by id.
    pub member_id: String,
    /// Its current key.
    pub pubkey: String,
    /// Its name.
    pub display_name: String,
    /// `admin` or `member`.
    pub role: String,
    /// Unix ms.
    pub joined_at: i64,
    /// Unix ms; absent for a member in good standing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<i64>,
    /// Its newest capability statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<CapabilityStatement>,
    /// The last changes of its key, oldest first; at most [`MAX_CHAIN`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotations: Option<Vec<RotationStatement>>,
    /// `true` for a member that hides itself: it is in nobody else's list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden: Option<bool>,
    /// That the owner let it in; absent for who joined with a plain link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<MemberCertificate>,
    /// What it takes up at the broker; for the owner and admins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<Holds>,
}

/// What a member takes up at the broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holds {
    /// Its connections and leases at the broker that was asked.
    pub connections: u64,
    /// Copies of its messages that wait for their receivers.
    pub waiting: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// Topics that it leads.
    pub topics: u64,
    /// Its API keys that are in force.
    pub api_keys: u64,
}

/// `members_list`: the answer to `member_list`, which any member may ask.
/// Hidden and offline members are in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersList {
    /// In the order of joining.
    pub members: Vec<MemberRow>,
    /// More follows: what asks for the next page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// `member_rotate`: registers a new key. Repeating it changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRotate {
    /// The signed change.
    pub statement: RotationStatement,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// `member_rotated`: the new key is registered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberRotated {
    /// The member.
    pub member_id: String,
    /// The change's number.
    pub seq: u64,
    /// The key that is current now.
    pub pubkey: String,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// `member_rename`: changes the own name for good; answered by `ack`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberRename {
    /// The new name.
    pub display_name: String,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}
