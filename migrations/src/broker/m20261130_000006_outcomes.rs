//! What receivers make of their copies beyond storing them.
//!
//! Adds columns that may be NULL: a broker of the release before goes on meanwhile.
//! A copy that its receiver set aside has ended like one that nobody took, so the
//! indexes and the bookkeeping of those serve it too; the reason tells them apart.

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer_null, text_null};

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in [big_integer_null("waiting_at").take(), text_null("reject_reason").take()] {
            manager.alter_table(Table::alter().table("delivery").add_column(column).take()).await?;
        }
        Ok(())
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
