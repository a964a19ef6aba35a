//! A name is written down for a member only when the operator gave it to that one;
//! otherwise it follows from who has or had it.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

const CHANGE: &str = "
ALTER TABLE pinned_member RENAME COLUMN name_key TO accepted_name;
UPDATE pinned_member SET accepted_name = NULL;
";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared(CHANGE).await.map(drop)
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
