//! The sends a daemon has accepted, and the members whose keys it has pinned.
//!
//! Pinned members live beside the sends and not in the inbox: they decide where
//! a send may go, and an inbox that is quarantined must not take them along.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

/// Routing columns are NOT NULL, so no row can exist whose destination would
/// have to be guessed. Times are Unix milliseconds.
const SCHEMA: &str = "
CREATE TABLE outbox (
    id TEXT PRIMARY KEY NOT NULL,
    client_message_id TEXT NOT NULL UNIQUE,
    payload BLOB NOT NULL,
    request_fingerprint BLOB NOT NULL,
    fingerprint_version INTEGER NOT NULL,
    wire_fingerprint TEXT NOT NULL,
    mesh TEXT NOT NULL,
    sender_key TEXT NOT NULL,
    destination_kind TEXT NOT NULL CHECK (destination_kind IN ('dm', 'topic', 'broadcast', 'group')),
    destination_ref TEXT NOT NULL,
    target_id TEXT NOT NULL,
    target_key TEXT,
    target_name TEXT,
    reply_to_id TEXT,
    priority TEXT NOT NULL CHECK (priority IN ('now', 'next', 'low')),
    mentions TEXT,
    meta TEXT,
    auto_hops INTEGER NOT NULL DEFAULT 0,
    allow_unencrypted INTEGER NOT NULL DEFAULT 0,
    degraded TEXT,
    enqueued_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt_at INTEGER NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('pending', 'inflight', 'done', 'dead', 'aborted')),
    last_error TEXT,
    first_transmit_at INTEGER,
    accepted_at INTEGER,
    delivered_at INTEGER,
    receiver_stored_at INTEGER,
    broker_message_id TEXT,
    history_id TEXT,
    requeued_at INTEGER,
    dead_at INTEGER,
    dead_reason TEXT,
    aborted_at INTEGER,
    aborted_by TEXT,
    superseded_by TEXT
) STRICT;
CREATE INDEX outbox_pending ON outbox (status, next_attempt_at);
CREATE INDEX outbox_due ON outbox (id) WHERE status = 'pending';
CREATE INDEX outbox_aborted ON outbox (status, aborted_at) WHERE status = 'aborted';

CREATE TABLE pinned_member (
    member_id TEXT PRIMARY KEY NOT NULL,
    pubkey TEXT NOT NULL,
    display_name TEXT NOT NULL,
    name_key TEXT,
    role TEXT NOT NULL,
    capabilities TEXT,
    capabilities_at INTEGER,
    first_seen_at INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL,
    revoked_at INTEGER,
    changed_key TEXT,
    verified_at INTEGER
) STRICT;
CREATE INDEX pinned_member_pubkey ON pinned_member (pubkey);
CREATE UNIQUE INDEX pinned_member_name ON pinned_member (name_key) WHERE name_key IS NOT NULL;

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
