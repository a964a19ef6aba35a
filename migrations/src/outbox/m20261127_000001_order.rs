//! The order of accept is that of the due times, for which there is an index
//! already, but for rows whose due time was changed. An index of all of them cost
//! every send a page; one of those rows costs only them.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

const CHANGE: &str = "
DROP INDEX IF EXISTS outbox_due;
CREATE INDEX outbox_moved ON outbox (enqueued_at, next_attempt_at)
    WHERE status = 'pending' AND next_attempt_at <> enqueued_at;
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
