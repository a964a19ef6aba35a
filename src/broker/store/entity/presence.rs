//! Table `presence`. Times are Unix milliseconds.

use sea_orm::entity::prelude::*;

/// The newest connection of one state directory.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "presence")]
pub struct Model {
    /// The mesh.
    #[sea_orm(primary_key, auto_increment = false)]
    pub mesh_id: String,
    /// The member.
    #[sea_orm(primary_key, auto_increment = false)]
    pub member_id: String,
    /// The state directory.
    #[sea_orm(primary_key, auto_increment = false)]
    pub instance_id: String,
    /// The process of that directory.
    pub boot_id: Option<String>,
    /// Counts the hellos.
    pub generation: i64,
    /// The broker process that holds the connection.
    pub node_id: String,
    /// When it said hello.
    pub connected_at: i64,
    /// When it was last connected.
    pub last_seen_at: i64,
    /// When it was lost; NULL while it is there.
    pub disconnected_at: Option<i64>,
}

/// No relations: rows are joined by hand where needed.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
