//! What a page of a large inbox is found by: where the clock was set back, and the
//! messages of one member in their order.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

const CHANGE: &str = "
ALTER TABLE inbox ADD COLUMN clock_back INTEGER NOT NULL DEFAULT 0;
UPDATE inbox SET clock_back = 1 WHERE id IN (
    SELECT id FROM (
        SELECT id, received_at,
            max(received_at) OVER (ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS latest
        FROM inbox
    ) WHERE received_at < latest
);
CREATE INDEX inbox_member ON inbox (sender_member_id, seq);
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
