//! Table `message_queue`. Times are Unix milliseconds. Posts to topics are rows
//! of `topic_message` and take this form in memory.

use sea_orm::entity::prelude::*;

/// An accepted message, sealed as it came.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "message_queue")]
pub struct Model {
    /// Opaque.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// The mesh.
    pub mesh_id: String,
    /// The sender.
    pub sender_member_id: String,
    /// The key that sealed it.
    pub sender_pubkey: String,
    /// The member's key at that time.
    pub sender_member_pubkey: String,
    /// The sender's name at that time.
    pub sender_name: String,
    /// As the sender wrote it.
    pub target_spec: String,
    /// `now`, `next` or `low`.
    pub priority: String,
    /// 24 bytes.
    pub nonce: Vec<u8>,
    /// Sealed.
    pub ciphertext: Vec<u8>,
    /// The sender's id of it.
    pub client_message_id: Option<String>,
    /// As the sender wrote it.
    pub request_fingerprint: Option<String>,
    /// What it answers.
    pub reply_to_id: Option<String>,
    /// When.
    pub created_at: i64,
    /// The epoch of the topic's key; no column here, since posts have a table of
    /// their own.
    #[sea_orm(ignore)]
    pub key_epoch: Option<i64>,
}

/// No relations: rows are joined by hand where needed.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    /// Whether it goes to a topic.
    pub fn is_post(&self) -> bool {
        self.target_spec.starts_with('#')
    }
}
