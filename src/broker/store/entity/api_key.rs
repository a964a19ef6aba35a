//! Table `api_key`. Times are Unix milliseconds.

use sea_orm::entity::prelude::*;

/// A key with which a member sends over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "api_key")]
pub struct Model {
    /// The first part of the key, which is no secret.
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    /// The mesh.
    pub mesh_id: String,
    /// Who sends with it.
    pub member_id: String,
    /// What it is for.
    pub name: String,
    /// SHA-256 of the whole key, hex.
    pub secret_hash: String,
    /// Whether it may send to targets that are not encrypted.
    pub allow_unencrypted: bool,
    /// When.
    pub created_at: i64,
    /// When it was last used, to the minute.
    pub last_used_at: Option<i64>,
    /// When it was taken back; NULL if it stands.
    pub revoked_at: Option<i64>,
}

/// No relations: rows are joined by hand where needed.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
