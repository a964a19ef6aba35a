//! The pinned members, beside the outbox: they decide where a send may go.

use sea_orm::entity::prelude::*;

/// A member as it was pinned at first sight.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "pinned_member")]
pub struct Model {
    /// The broker's id of the member.
    #[sea_orm(primary_key, auto_increment = false)]
    pub member_id: String,
    /// The trusted key, 64 hex digits.
    pub pubkey: String,
    /// The name that the broker gave last.
    pub display_name: String,
    /// The name, in its compared form, that the operator gave to this member alone.
    pub accepted_name: Option<String>,
    /// `admin` or `member`.
    pub role: String,
    /// JSON array of what its daemon can read, as signed by its key.
    pub capabilities: Option<String>,
    /// Unix ms of that statement.
    pub capabilities_at: Option<i64>,
    /// Unix ms of the first sight.
    pub first_seen_at: i64,
    /// Unix ms of the last roster that had it.
    pub last_seen_at: i64,
    /// Unix ms at which the broker removed it.
    pub revoked_at: Option<i64>,
    /// Another key that the broker shows without a rotation statement.
    pub changed_key: Option<String>,
    /// Unix ms at which the operator compared safety numbers.
    pub verified_at: Option<i64>,
    /// Number of the rotation that brought the key.
    pub rotation_seq: i64,
    /// JSON array of keys before, each with the time of its end.
    pub previous_keys: String,
    /// JSON array of the compared forms of names before.
    pub former_names: String,
    /// JSON array of the capabilities that the broker shows now.
    pub shown_capabilities: String,
    /// The key that was verified.
    pub verified_key: Option<String>,
}

/// No relations.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
