//! What the broker is still to be told of messages that waited for a key, and the
//! name of a column of the hook runs.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

/// A receipt stays until the broker has answered it. `reason` is empty for a message
/// that was stored.
const CHANGE: &str = "
CREATE TABLE inbox_receipt (
    delivery_id TEXT PRIMARY KEY NOT NULL,
    broker_message_id TEXT NOT NULL,
    client_message_id TEXT,
    reason TEXT,
    noted_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
ALTER TABLE hook_run RENAME COLUMN event_id TO message_id;
DROP INDEX hook_run_event;
CREATE INDEX hook_run_message ON hook_run (message_id);
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
