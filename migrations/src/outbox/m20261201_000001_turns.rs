//! Whom sends wait for is found one receiver at a time, however many rows wait for
//! those who take none. Rows that leave at once are not in the index.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

const CHANGE: &str = "CREATE INDEX outbox_target ON outbox (target_id) WHERE status = 'pending' AND to_self = 0";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared(CHANGE).await.map(drop)
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
