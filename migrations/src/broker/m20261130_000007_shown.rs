//! What members show of themselves.
//!
//! Adds a column that may be NULL, which needs no rewrite of the rows: a broker
//! of the release before goes on meanwhile.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::text_null;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // JSON: who hides itself stays hidden while it is away, and the other brokers
        // of the database see what a member shows at this one.
        let column = text_null("shown").take();
        manager.alter_table(Table::alter().table("member").add_column(column).take()).await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
