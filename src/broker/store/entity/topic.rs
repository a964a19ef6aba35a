//! Table `topic`. Times are Unix milliseconds.

use sea_orm::entity::prelude::*;

/// A named channel of a mesh.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "topic")]
pub struct Model {
    /// Opaque.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// The mesh.
    pub mesh_id: String,
    /// Without `#`; one in a mesh.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// `public`, `private` or `dm`.
    pub visibility: String,
    /// Who made it.
    pub created_by_member_id: Option<String>,
    /// When.
    pub created_at: i64,
    /// Never set by this version.
    pub archived_at: Option<i64>,
    /// The newest epoch of its key; 0 for a topic of the first version.
    pub epoch: i64,
    /// When another broker has to tell its members.
    pub changed_at: i64,
}

/// No relations: rows are joined by hand where needed.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
