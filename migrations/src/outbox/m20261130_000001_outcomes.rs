//! What became of sends at their receivers, and which never leave this host.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

/// Posts have many receivers: `delivered_count` counts those that have stored one.
/// Sends to oneself are found by an index of their own, however many others wait.
const CHANGE: &str = "
ALTER TABLE outbox ADD COLUMN rejected_at INTEGER;
ALTER TABLE outbox ADD COLUMN reject_reason TEXT;
ALTER TABLE outbox ADD COLUMN expired_at INTEGER;
ALTER TABLE outbox ADD COLUMN delivered_count INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN to_self INTEGER NOT NULL DEFAULT 0;
CREATE INDEX outbox_to_self ON outbox (next_attempt_at, id) WHERE status = 'pending' AND to_self = 1;
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
