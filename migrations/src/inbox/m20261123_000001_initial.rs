//! What a daemon has received: opened messages, sealed ones that wait for a
//! key, refused ones, and a memory of everything seen.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

/// A message is unique by (mesh, sender, id): ids are chosen by senders, so
/// across senders they prove nothing and must not suppress each other's
/// messages. `seq` is given by the writer and never reused, unlike a rowid.
/// `inbox_seen` outlives pruned messages. Times are Unix milliseconds.
const SCHEMA: &str = "
CREATE TABLE inbox (
    id TEXT PRIMARY KEY NOT NULL,
    seq INTEGER NOT NULL UNIQUE,
    client_message_id TEXT NOT NULL,
    broker_message_id TEXT,
    mesh TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('direct', 'topic', 'broadcast', 'group', 'file')),
    topic TEXT,
    topic_id TEXT,
    sender_member_id TEXT NOT NULL,
    sender_pubkey TEXT NOT NULL,
    sender_name TEXT NOT NULL,
    body TEXT,
    meta TEXT,
    priority TEXT NOT NULL,
    mentions TEXT,
    received_at INTEGER NOT NULL,
    sent_at INTEGER,
    reply_to_id TEXT,
    history_id TEXT,
    auto_hops INTEGER,
    unencrypted INTEGER NOT NULL DEFAULT 0,
    stale INTEGER NOT NULL DEFAULT 0,
    UNIQUE (mesh, sender_member_id, client_message_id)
) STRICT;
CREATE INDEX inbox_received_at ON inbox (received_at);
CREATE INDEX inbox_topic ON inbox (topic);
CREATE INDEX inbox_sender ON inbox (sender_pubkey);

CREATE TABLE inbox_seen (
    hash BLOB PRIMARY KEY NOT NULL CHECK (length(hash) = 16),
    seen_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX inbox_seen_at ON inbox_seen (seen_at);

CREATE TABLE inbox_waiting (
    id TEXT PRIMARY KEY NOT NULL,
    broker_message_id TEXT NOT NULL UNIQUE,
    client_message_id TEXT,
    sender_pubkey TEXT NOT NULL,
    nonce BLOB NOT NULL,
    ciphertext BLOB NOT NULL,
    reason TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    grace_until INTEGER NOT NULL,
    frame TEXT NOT NULL
) STRICT;
CREATE INDEX inbox_waiting_grace ON inbox_waiting (grace_until);

CREATE TABLE inbox_quarantine (
    id TEXT PRIMARY KEY NOT NULL,
    reason TEXT NOT NULL,
    sender_pubkey TEXT,
    broker_message_id TEXT,
    client_message_id TEXT,
    received_at INTEGER NOT NULL,
    sealed BLOB CHECK (sealed IS NULL OR length(sealed) <= 65536)
) STRICT;
CREATE INDEX inbox_quarantine_at ON inbox_quarantine (received_at);

CREATE TABLE meta (
    key TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
";

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared(SCHEMA).await.map(drop)
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}
