//! Rows that wait are taken in the order of their due times, for which there is an
//! index already. The one in the order of accept cost every send a page; what it
//! was for besides, the age of the oldest row, needs only the rows whose due time
//! was changed.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

const CHANGE: &str = "
DROP INDEX outbox_due;
CREATE INDEX outbox_moved ON outbox (enqueued_at) WHERE status = 'pending' AND next_attempt_at <> enqueued_at;
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
