//! Table `member_key`. Times are Unix milliseconds.

use sea_orm::entity::prelude::*;

/// A key that a member has or had.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "member_key")]
pub struct Model {
    /// The mesh.
    #[sea_orm(primary_key, auto_increment = false)]
    pub mesh_id: String,
    /// 64 lower-case hex digits.
    #[sea_orm(primary_key, auto_increment = false)]
    pub pubkey: String,
    /// The member.
    pub member_id: String,
    /// 0 is the key of the join, then one more each rotation.
    pub seq: i64,
    /// When.
    pub registered_at: i64,
    /// When a newer key followed; NULL for the current key.
    pub rotated_out_at: Option<i64>,
    /// The signed rotation that brought this key, as JSON.
    pub statement: Option<String>,
}

/// No relations: rows are joined by hand where needed.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
