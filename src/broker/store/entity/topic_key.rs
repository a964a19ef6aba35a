//! Table `topic_key`. Times are Unix milliseconds.

use sea_orm::entity::prelude::*;

/// A topic's key of one epoch, sealed for one member. No one else opens it.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "topic_key")]
pub struct Model {
    /// The topic.
    #[sea_orm(primary_key, auto_increment = false)]
    pub topic_id: String,
    /// Which key.
    #[sea_orm(primary_key, auto_increment = false)]
    pub epoch: i64,
    /// For whom.
    #[sea_orm(primary_key, auto_increment = false)]
    pub member_id: String,
    /// Base64, as it came.
    pub sealed: String,
    /// Base64, as it came.
    pub nonce: String,
    /// When it came.
    pub created_at: i64,
}

/// No relations: rows are joined by hand where needed.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
