//! Marks messages that were written before the inbox was made anew after
//! damage: what was done for them is not known any more, so no hook runs.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

const CHANGE: &str = "ALTER TABLE inbox ADD COLUMN before_recovery INTEGER NOT NULL DEFAULT 0;";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared(CHANGE).await.map(drop)
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
