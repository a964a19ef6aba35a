//! Topics: their list, who is in them, the epochs of their keys, and the sealed
//! copies of those keys.
//!
//! The legacy frames (`topic_create` to `topic_mark_read`) mean what they meant;
//! what stands beside them is absent for clients that do not know it.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Most keys of one `topic_key_put` or `topic_epoch_new`.
pub const MAX_SEALED_KEYS: usize = 1_000;
/// Most statements, and most keys, of one `topic_keys`.
pub const MAX_EPOCHS_OF_A_PAGE: usize = 100;
/// Most members that wait, in one `topic_pending`.
pub const MAX_PENDING: usize = 1_000;
/// Most members of a topic: what one statement names fits into a frame.
pub const MAX_TOPIC_MEMBERS: usize = 2_000;
/// Longest name of a topic, in bytes.
pub const MAX_TOPIC_NAME_BYTES: usize = 64;
/// Longest description of a topic, in bytes.
pub const MAX_DESCRIPTION_BYTES: usize = 256;

/// The beginning of an epoch of a topic's key, signed by who made the key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EpochStatement {
    /// The topic by id.
    pub topic_id: String,
    /// Its name: a broker that showed the topic under another one is found out.
    pub name: String,
    /// 1 for the first, then one more each time.
    pub epoch: u32,
    /// SHA-256 of the text of the epoch before, 64 hex digits; absent in the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predecessor: Option<String>,
    /// What the key hashes to, 64 hex digits.
    pub commitment: String,
    /// The members that the key is for, by id, sorted.
    pub members: Vec<String>,
    /// Who made the key, by member id.
    pub signer: String,
    /// The signer's key, 64 hex digits.
    pub signer_key: String,
    /// When, Unix ms by the signer's clock.
    pub ts: i64,
    /// By the signer's key, 128 hex digits.
    pub signature: String,
}

/// A topic's key, sealed for one member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SealedKey {
    /// For whom, by id.
    pub member_id: String,
    /// The sealer's X25519 key and the box, 80 bytes, padded base64.
    pub sealed: String,
    /// 24 bytes, padded base64.
    pub nonce: String,
}

/// `topic_create`: a topic of this name, or the one that is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicCreate {
    /// Without `#`.
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// `public`, `private` or `dm`; stored, and enforced by nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visibility: Option<String>,
    /// The first epoch of an encrypted topic; it names the topic's id. Absent
    /// makes a topic of the first version, whose posts the broker can read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub statement: Option<EpochStatement>,
    /// The creator's own copy of its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<Vec<SealedKey>>,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// A topic in an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicRow {
    /// Opaque.
    pub id: String,
    /// Without `#`.
    pub name: String,
    /// What it is for; written as `null` when nothing was said.
    #[serde(default)]
    pub description: Option<String>,
    /// `public`, `private` or `dm`.
    #[serde(default)]
    pub visibility: String,
    /// How many are in it.
    #[serde(default)]
    pub member_count: u32,
    /// ISO 8601.
    #[serde(default)]
    pub created_at: String,
    /// The newest epoch of its key; 0 for a topic of the first version.
    #[serde(default)]
    pub epoch: u32,
    /// The asker is in it.
    #[serde(default)]
    pub joined: bool,
}

/// `topic_created`: the answer to `topic_create`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicCreated {
    /// The topic.
    pub topic: TopicRow,
    /// It was not there before.
    pub created: bool,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// `topic_list_response`: the answer to `topic_list`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicList {
    /// By name.
    pub topics: Vec<TopicRow>,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// A request about one topic: `topic_join`, `topic_leave`, `topic_members`,
/// `topic_mark_read`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicRequest {
    /// Id or name.
    pub topic: String,
    /// In `topic_join`: `lead`, `member` or `observer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// One who is in a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicMemberRow {
    /// By id.
    pub member_id: String,
    /// The member's key.
    pub pubkey: String,
    /// The member's name.
    pub display_name: String,
    /// `lead`, `member` or `observer`.
    pub role: String,
    /// ISO 8601.
    pub joined_at: String,
    /// ISO 8601; written as `null` before the first.
    #[serde(default)]
    pub last_read_at: Option<String>,
}

/// `topic_members_response`: the answer to `topic_members`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicMembers {
    /// The topic's id.
    pub topic: String,
    /// In the order of joining.
    pub members: Vec<TopicMemberRow>,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// `topic_history`: what was posted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicHistoryGet {
    /// Id or name.
    pub topic: String,
    /// 1 to 200, 50 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Only what is older than the message with this id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_id: Option<String>,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// One post in [`TopicHistory`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicHistoryRow {
    /// The message's id.
    pub id: String,
    /// The key that sealed or sent it.
    pub sender_pubkey: String,
    /// Who, by member id.
    pub sender_member_id: String,
    /// Who, by name at that time.
    pub sender_name: String,
    /// 24 bytes, padded base64.
    pub nonce: String,
    /// Padded base64.
    pub ciphertext: String,
    /// 1 plain, 2 sealed under the topic's key.
    pub body_version: u32,
    /// The epoch of that key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_epoch: Option<u32>,
    /// What it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to_id: Option<String>,
    /// ISO 8601.
    pub created_at: String,
}

/// `topic_history_response`: the answer to `topic_history`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicHistory {
    /// The topic's id.
    pub topic: String,
    /// Newest first.
    pub messages: Vec<TopicHistoryRow>,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// `topic_epoch_new`: a new epoch in place of its predecessor. Compare and set:
/// of two that name the same predecessor the first stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicEpochNew {
    /// The epoch.
    pub statement: EpochStatement,
    /// Its key for its members.
    #[serde(default)]
    pub keys: Vec<SealedKey>,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// `topic_epoch`: the answer to `topic_epoch_new`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicEpoch {
    /// The newest epoch, whoever made it.
    pub statement: EpochStatement,
    /// It is the one that was sent.
    pub accepted: bool,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// `topic_key_put`: copies of a key for members who wait for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicKeyPut {
    /// The topic by id.
    pub topic_id: String,
    /// Which key.
    pub epoch: u32,
    /// The copies. A member that has one keeps it.
    pub keys: Vec<SealedKey>,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// `topic_key_get`: the epochs of a topic and the asker's copies of their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicKeyGet {
    /// The topic by id.
    pub topic_id: String,
    /// Only epochs after this one.
    #[serde(default)]
    pub after_epoch: u32,
    /// The asker's copy of this epoch's key does not open: it is thrown away, and
    /// the asker waits for another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broken: Option<u32>,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// The asker's copy of one epoch's key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnSealedKey {
    /// Which key.
    pub epoch: u32,
    /// As in [`SealedKey`].
    pub sealed: String,
    /// As in [`SealedKey`].
    pub nonce: String,
}

/// `topic_keys`: the answer to `topic_key_get`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicKeys {
    /// The topic by id.
    pub topic_id: String,
    /// The oldest first; at most [`MAX_EPOCHS_OF_A_PAGE`].
    pub epochs: Vec<EpochStatement>,
    /// The newest of the asker's copies; at most [`MAX_EPOCHS_OF_A_PAGE`].
    pub keys: Vec<OwnSealedKey>,
    /// There are later epochs than these.
    #[serde(default)]
    pub more: bool,
    /// Who is in the topic, by member id.
    #[serde(default)]
    pub members: Vec<String>,
    /// Who has a copy of the newest epoch's key, by member id.
    #[serde(default)]
    pub holders: Vec<String>,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// One who is in a topic and has no copy of its newest key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PendingRow {
    /// The topic by id.
    pub topic_id: String,
    /// The newest epoch.
    pub epoch: u32,
    /// Who waits, by member id.
    pub member_id: String,
    /// Since when, Unix ms.
    pub since: i64,
}

/// `topic_pending`: the answer to `topic_key_pending`, of the topics whose newest
/// key the asker has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicPending {
    /// The longest waiting first; at most [`MAX_PENDING`].
    pub pending: Vec<PendingRow>,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// Something of a topic has changed: `topic_epoch`, `topic_key_available`,
/// `topic_members_changed`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TopicChange {
    /// The topic by id.
    pub topic_id: String,
    /// Its newest epoch.
    pub epoch: u32,
}

// === impl EpochStatement ===

impl EpochStatement {
    /// What the signer signs. The members stand in it as the hash of their sorted
    /// ids. `None` if a field could stand for two statements.
    pub fn signed_text(&self, mesh_id: &str) -> Option<String> {
        let is_field = |text: &str| !text.is_empty() && !text.contains(|c: char| c == '|' || c.is_control());
        let Self { topic_id, name, epoch, predecessor, commitment, members, signer, signer_key, ts, .. } = self;
        let fields = [mesh_id, topic_id, name, commitment, signer, signer_key];
        let mut members: Vec<&str> = members.iter().map(String::as_str).collect();
        members.sort_unstable();
        members.dedup();
        let predecessor = predecessor.as_deref().unwrap_or("-");
        if !fields.iter().chain(&members).chain([&predecessor]).all(|text| is_field(text)) {
            return None;
        }
        let set = hex::encode(Sha256::digest(members.join("|").as_bytes()));
        Some(format!(
            "claudemesh-topic-epoch|v1|{mesh_id}|{topic_id}|{name}|{epoch}|{predecessor}|{commitment}|{set}|{signer}|\
             {signer_key}|{ts}"
        ))
    }

    /// What the next epoch names as its predecessor: 64 hex digits.
    pub fn hash(&self, mesh_id: &str) -> Option<String> {
        self.signed_text(mesh_id).map(|text| hex::encode(Sha256::digest(text.as_bytes())))
    }
}
