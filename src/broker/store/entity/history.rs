//! Table `message_history`. Times are Unix milliseconds.

use sea_orm::entity::prelude::*;

/// The place of a message in the history; the id is its own.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "message_history")]
pub struct Model {
    /// Opaque.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// The mesh.
    pub mesh_id: String,
    /// The sender.
    pub sender_member_id: String,
    /// `dm`, `topic`, `broadcast` or `group`.
    pub destination_kind: String,
    /// The target.
    pub destination_ref: String,
    /// When.
    pub created_at: i64,
}

/// No relations: rows are joined by hand where needed.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
