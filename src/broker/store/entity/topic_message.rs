//! Table `topic_message`. Times are Unix milliseconds.

use sea_orm::entity::prelude::*;

use super::message;

/// An accepted post, as it came.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "topic_message")]
pub struct Model {
    /// Opaque.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// The mesh.
    pub mesh_id: String,
    /// The topic.
    pub topic_id: String,
    /// The sender.
    pub sender_member_id: String,
    /// The key that signed it.
    pub sender_pubkey: String,
    /// The sender's name at that time.
    pub sender_name: String,
    /// `now`, `next` or `low`.
    pub priority: String,
    /// 24 bytes.
    pub nonce: Vec<u8>,
    /// Sealed under the topic's key, or the text of a topic of the first version.
    pub ciphertext: Vec<u8>,
    /// 1 plain, 2 sealed.
    pub body_version: i64,
    /// The epoch of the key.
    pub key_epoch: Option<i64>,
    /// The sender's id of it.
    pub client_message_id: Option<String>,
    /// As the sender wrote it.
    pub request_fingerprint: Option<String>,
    /// What it answers.
    pub reply_to_id: Option<String>,
    /// When.
    pub created_at: i64,
}

/// No relations: rows are joined by hand where needed.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}

impl Model {
    /// The row of a message that goes to a topic; `None` for any other one.
    pub fn of(message: &message::Model) -> Option<Self> {
        let topic_id = message.target_spec.strip_prefix('#')?;
        Some(Self {
            id: message.id.clone(),
            mesh_id: message.mesh_id.clone(),
            topic_id: topic_id.to_owned(),
            sender_member_id: message.sender_member_id.clone(),
            sender_pubkey: message.sender_pubkey.clone(),
            sender_name: message.sender_name.clone(),
            priority: message.priority.clone(),
            nonce: message.nonce.clone(),
            ciphertext: message.ciphertext.clone(),
            body_version: if message.key_epoch.is_some() { 2 } else { 1 },
            key_epoch: message.key_epoch,
            client_message_id: message.client_message_id.clone(),
            request_fingerprint: message.request_fingerprint.clone(),
            reply_to_id: message.reply_to_id.clone(),
            created_at: message.created_at,
        })
    }
}

impl From<Model> for message::Model {
    fn from(row: Model) -> Self {
        Self {
            id: row.id,
            mesh_id: row.mesh_id,
            sender_member_id: row.sender_member_id,
            sender_member_pubkey: row.sender_pubkey.clone(),
            sender_pubkey: row.sender_pubkey,
            sender_name: row.sender_name,
            target_spec: format!("#{}", row.topic_id),
            priority: row.priority,
            nonce: row.nonce,
            ciphertext: row.ciphertext,
            client_message_id: row.client_message_id,
            request_fingerprint: row.request_fingerprint,
            reply_to_id: row.reply_to_id,
            created_at: row.created_at,
            key_epoch: row.key_epoch,
        }
    }
}
