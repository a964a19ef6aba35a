//! Table `invite`. Times are Unix milliseconds.

use sea_orm::entity::prelude::*;

/// An invite that the owner registered.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "invite")]
pub struct Model {
    /// Opaque.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// The mesh.
    pub mesh_id: String,
    /// The exact text of the link.
    pub token: String,
    /// `admin` or `member`.
    pub role: String,
    /// How many members may join with it.
    pub max_uses: i64,
    /// How many have.
    pub used_count: i64,
    /// When.
    pub created_at: i64,
    /// Unix milliseconds.
    pub expires_at: i64,
    /// When it was taken back; NULL if it stands.
    pub revoked_at: Option<i64>,
}

/// No relations: rows are joined by hand where needed.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
