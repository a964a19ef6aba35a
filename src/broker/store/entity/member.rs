//! Table `member`. Times are Unix milliseconds.

use sea_orm::entity::prelude::*;

/// A member of a mesh.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "member")]
pub struct Model {
    /// Opaque.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// The mesh.
    pub mesh_id: String,
    /// The current key.
    pub pubkey: String,
    /// Name.
    pub display_name: String,
    /// `admin` or `member`.
    pub role: String,
    /// The newest signed statement, as JSON.
    pub capabilities: Option<String>,
    /// When it joined.
    pub joined_at: i64,
    /// When it was last connected.
    pub last_seen_at: Option<i64>,
    /// When it was taken back; NULL if it stands.
    pub revoked_at: Option<i64>,
    /// When the row, or a key of the member, was last written.
    pub changed_at: i64,
    /// That the owner let it in, as JSON.
    pub certificate: Option<String>,
    /// What it shows of itself, as JSON; NULL for one that never said.
    pub shown: Option<String>,
}

/// No relations: rows are joined by hand where needed.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
