//! Table `audit`. Times are Unix milliseconds.

use sea_orm::entity::prelude::*;

/// Something an operator may ask about later.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit")]
pub struct Model {
    /// Opaque.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// The mesh.
    pub mesh_id: String,
    /// What.
    pub event: String,
    /// JSON.
    pub payload: String,
    /// When.
    pub at: i64,
}

/// No relations: rows are joined by hand where needed.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
