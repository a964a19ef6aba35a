//! Table `delivery`. Times are Unix milliseconds.

use sea_orm::entity::prelude::*;

/// One receiver's copy of a message.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "delivery")]
pub struct Model {
    /// Grows in the order of accept.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// The message.
    pub broker_message_id: String,
    /// The mesh.
    pub mesh_id: String,
    /// The sender.
    pub sender_member_id: String,
    /// The receiver.
    pub recipient_member_id: String,
    /// Only the session with this key can open it.
    pub target_session_key: Option<String>,
    /// The sender's id of it.
    pub client_message_id: Option<String>,
    /// Counts against the bounds of the queue.
    pub bytes: i64,
    /// When.
    pub created_at: i64,
    /// When it was last pushed.
    pub claimed_at: Option<i64>,
    /// The connection it was pushed on.
    pub claim_id: Option<String>,
    /// When that push counts as lost.
    pub claim_expires_at: Option<i64>,
    /// When the receiver acknowledged it.
    pub delivered_at: Option<i64>,
    /// When it was given up, or set aside by its receiver.
    pub expired_at: Option<i64>,
    /// When its sender heard of that.
    pub expiry_told_at: Option<i64>,
    /// When it left the queue without being stored: the receiver keeps it sealed until a
    /// key comes, or one device had set it aside before another stored it. It is not
    /// pushed again, and takes no room in the queue.
    pub waiting_at: Option<i64>,
    /// Why the receiver set it aside.
    pub reject_reason: Option<String>,
}

/// No relations: rows are joined by hand where needed.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
