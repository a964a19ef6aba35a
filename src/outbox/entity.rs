//! The outbox table (R158).

use sea_orm::entity::prelude::*;

/// One accepted send.
#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "outbox")]
pub struct Model {
    /// ULID; grows in the order of accept.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// The key of every deduplication.
    pub client_message_id: String,
    /// The text, not sealed: each transmit seals it with the keys of its time.
    pub payload: Vec<u8>,
    /// Unix ms of the accept.
    pub enqueued_at: i64,
    /// Transmits so far.
    pub attempts: i32,
    /// Unix ms before which no transmit is tried.
    pub next_attempt_at: i64,
    /// `pending`, `inflight`, `done`, `dead` or `aborted`.
    pub status: String,
    /// The last failure, for people.
    pub last_error: Option<String>,
    /// Unix ms of the broker's acceptance.
    pub delivered_at: Option<i64>,
    /// The broker's id of the message.
    pub broker_message_id: Option<String>,
    /// SHA-256 of the request, see `domain::fingerprint`.
    pub request_fingerprint: Vec<u8>,
    /// The formula of `request_fingerprint`.
    pub fingerprint_version: i32,
    /// What the broker is told instead: an HMAC that reveals nothing.
    pub wire_fingerprint: String,
    /// The mesh's slug.
    pub mesh: String,
    /// The member key that the send was accepted for, 64 hex digits.
    pub sender_key: String,
    /// `dm`, `topic`, `broadcast` or `group`.
    pub destination_kind: String,
    /// The destination as the caller wrote it.
    pub destination_ref: String,
    /// Member or topic id that it means.
    pub target_id: String,
    /// The target's key at the time of the accept.
    pub target_key: Option<String>,
    /// The target's name at the time of the accept.
    pub target_name: Option<String>,
    /// The message that this one answers.
    pub reply_to_id: Option<String>,
    /// `now`, `next` or `low`.
    pub priority: String,
    /// JSON array.
    pub mentions: Option<String>,
    /// Canonical JSON object.
    pub meta: Option<String>,
    /// How many automatic sends led to this one.
    pub auto_hops: i32,
    /// 1 when the caller accepts clear text.
    pub allow_unencrypted: bool,
    /// The broker's id in its history.
    pub history_id: Option<String>,
    /// JSON array of what the receiver could not be told.
    pub degraded: Option<String>,
    /// Unix ms of the first transmit.
    pub first_transmit_at: Option<i64>,
    /// Unix ms at which the broker said it accepted.
    pub accepted_at: Option<i64>,
    /// Unix ms at which the receiver's daemon stored it, by the broker's word.
    pub receiver_stored_at: Option<i64>,
    /// Unix ms of the operator's last requeue.
    pub requeued_at: Option<i64>,
    /// Unix ms at which it was given up.
    pub dead_at: Option<i64>,
    /// Why it was given up.
    pub dead_reason: Option<String>,
    /// Unix ms at which the operator retired it.
    pub aborted_at: Option<i64>,
    /// `operator` or `auto`.
    pub aborted_by: Option<String>,
    /// The row that took its place.
    pub superseded_by: Option<String>,
    /// Unix ms at which the receiver's daemon set it aside, by the broker's word.
    pub rejected_at: Option<i64>,
    /// Why it did.
    pub reject_reason: Option<String>,
    /// Unix ms at which the broker gave it up, since its receiver did not take it.
    pub expired_at: Option<i64>,
    /// Receivers whose daemons have stored it, by the broker's word.
    pub delivered_count: i32,
    /// It goes to this member itself, and never to the broker.
    pub to_self: bool,
}

/// No relations: the outbox stands alone.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
