//! The inbox table (R172).

use sea_orm::entity::prelude::*;

/// One stored message.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "inbox")]
pub struct Model {
    /// ULID.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Place in the inbox; never reused.
    pub seq: i64,
    /// The sender's id of the message.
    pub client_message_id: String,
    /// The broker's id of the message.
    pub broker_message_id: Option<String>,
    /// The mesh's slug.
    pub mesh: String,
    /// `direct`, `topic`, `broadcast`, `group` or `file`.
    pub kind: String,
    /// The topic's name.
    pub topic: Option<String>,
    /// The topic's id.
    pub topic_id: Option<String>,
    /// Who sent it, from the pinned roster.
    pub sender_member_id: String,
    /// The key that opened it.
    pub sender_pubkey: String,
    /// The sender's name when it came.
    pub sender_name: String,
    /// The text.
    pub body: Option<String>,
    /// Canonical JSON object.
    pub meta: Option<String>,
    /// `now`, `next` or `low`.
    pub priority: String,
    /// JSON array of member ids.
    pub mentions: Option<String>,
    /// Unix ms of the storing.
    pub received_at: i64,
    /// Unix ms of the sender's accept, by the sender's clock.
    pub sent_at: Option<i64>,
    /// The message that this one answers.
    pub reply_to_id: Option<String>,
    /// The broker's id in its history.
    pub history_id: Option<String>,
    /// How many automatic sends led to it.
    pub auto_hops: Option<i32>,
    /// It came in clear text.
    pub unencrypted: bool,
    /// It is older than what this inbox remembers.
    pub stale: bool,
    /// It was written before this inbox was made anew after damage: no hook runs.
    pub before_recovery: bool,
    /// `received_at` lies before that of an earlier message: the clock was set back.
    pub clock_back: bool,
}

/// No relations.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
