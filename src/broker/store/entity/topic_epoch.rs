//! Table `topic_epoch`. Times are Unix milliseconds.

use sea_orm::entity::prelude::*;

/// The signed beginning of an epoch of a topic's key.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "topic_epoch")]
pub struct Model {
    /// The topic.
    #[sea_orm(primary_key, auto_increment = false)]
    pub topic_id: String,
    /// 1 for the first.
    #[sea_orm(primary_key, auto_increment = false)]
    pub epoch: i64,
    /// JSON, as its signer sent it.
    pub statement: String,
    /// When it was accepted.
    pub created_at: i64,
}

/// No relations: rows are joined by hand where needed.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
