//! Table `client_message_dedupe`. Times are Unix milliseconds.

use sea_orm::entity::prelude::*;

/// An id that a sender has used. Outlives the message.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "client_message_dedupe")]
pub struct Model {
    /// The mesh.
    #[sea_orm(primary_key, auto_increment = false)]
    pub mesh_id: String,
    /// The sender.
    #[sea_orm(primary_key, auto_increment = false)]
    pub sender_member_id: String,
    /// The sender's id of it.
    #[sea_orm(primary_key, auto_increment = false)]
    pub client_message_id: String,
    /// The message.
    pub broker_message_id: String,
    /// The same as the message.
    pub history_id: String,
    /// What a retry is compared with.
    pub request_fingerprint: String,
    /// `dm`, `topic`, `broadcast` or `group`.
    pub destination_kind: String,
    /// The target.
    pub destination_ref: String,
    /// When it was accepted.
    pub first_seen_at: i64,
    /// NULL is never.
    pub expires_at: Option<i64>,
    /// Whether the message can still be read.
    pub history_available: bool,
}

/// No relations: rows are joined by hand where needed.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
