//! What waits for a key, and what is set aside, counts against whoever sent it: rows
//! and bytes. Sealed bytes are kept once, in the frame, and found by the key that they
//! wait for.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

const CHANGE: &str = "
CREATE TABLE inbox_waiting_new (
    id TEXT PRIMARY KEY NOT NULL,
    broker_message_id TEXT NOT NULL UNIQUE,
    holder TEXT NOT NULL,
    -- `unknown_sender` or `no_topic_key`.
    reason TEXT NOT NULL,
    -- The key of the sender, or the id of the topic, a colon and the epoch.
    waits_for TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    received_at INTEGER NOT NULL,
    grace_until INTEGER NOT NULL,
    frame TEXT NOT NULL
) STRICT;
INSERT INTO inbox_waiting_new
    SELECT id, broker_message_id, sender_pubkey, reason,
        CASE reason
            WHEN 'no_topic_key' THEN coalesce(frame ->> '$.topicId', '') || ':' || coalesce(frame ->> '$.keyEpoch', '')
            ELSE sender_pubkey
        END,
        length(frame), received_at, grace_until, frame
    FROM inbox_waiting;
DROP TABLE inbox_waiting;
ALTER TABLE inbox_waiting_new RENAME TO inbox_waiting;
CREATE INDEX inbox_waiting_holder ON inbox_waiting (holder, bytes);
CREATE INDEX inbox_waiting_key ON inbox_waiting (reason, waits_for);
CREATE INDEX inbox_waiting_grace ON inbox_waiting (grace_until);

ALTER TABLE inbox_quarantine ADD COLUMN holder TEXT NOT NULL DEFAULT '';
UPDATE inbox_quarantine SET holder = coalesce(sender_pubkey, '');
CREATE INDEX inbox_quarantine_holder ON inbox_quarantine (holder);
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
