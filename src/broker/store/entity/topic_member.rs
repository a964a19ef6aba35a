//! Table `topic_member`. Times are Unix milliseconds.

use sea_orm::entity::prelude::*;

/// One who is in a topic.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "topic_member")]
pub struct Model {
    /// The topic.
    #[sea_orm(primary_key, auto_increment = false)]
    pub topic_id: String,
    /// The member.
    #[sea_orm(primary_key, auto_increment = false)]
    pub member_id: String,
    /// `lead`, `member` or `observer`.
    pub role: String,
    /// Since when.
    pub joined_at: i64,
    /// When it last said that it has read everything.
    pub last_read_at: Option<i64>,
}

/// No relations: rows are joined by hand where needed.
#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
