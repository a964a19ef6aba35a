//! Table `mesh`. Times are Unix milliseconds.

use sea_orm::entity::prelude::*;

/// A mesh.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "mesh")]
pub struct Model {
    /// Opaque.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Short name, unique on this broker.
    pub slug: String,
    /// Name for people.
    pub name: String,
    /// The owner's key, which signs invites.
    pub owner_pubkey: String,
    /// What happens on a second connection of a member.
    pub clone_concurrency_policy: String,
    /// When.
    pub created_at: i64,
    /// `retention_scoped` or `permanent`.
    pub dedupe_mode: String,
    /// When the row was last written.
    pub changed_at: i64,
}

/// No relations: rows are joined by hand where needed.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
