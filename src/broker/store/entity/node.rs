//! Table `node`. Times are Unix milliseconds.

use sea_orm::entity::prelude::*;

/// A broker process that serves from this database.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "node")]
pub struct Model {
    /// New at each start.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// Its release.
    pub version: String,
    /// The features it has, comma between them.
    pub features: String,
    /// When it started.
    pub started_at: i64,
    /// When it last said that it is there.
    pub last_seen_at: i64,
}

/// No relations: rows are joined by hand where needed.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
