//! What became of hooks: runs that wait and runs that ended.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

/// A message runs a hook once: the pair is unique. Runs for events of the daemon
/// itself have no place in the inbox. How far the messages were looked through is
/// the value `hook_cursor` of `meta`.
const CHANGE: &str = "
CREATE TABLE hook_run (
    id TEXT PRIMARY KEY NOT NULL,
    seq INTEGER,
    hook TEXT NOT NULL,
    event_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('queued', 'ended')),
    queued_at INTEGER NOT NULL,
    started_at INTEGER,
    duration_ms INTEGER,
    exit_code INTEGER,
    signal INTEGER,
    timed_out INTEGER NOT NULL DEFAULT 0,
    stdout_bytes INTEGER NOT NULL DEFAULT 0,
    stderr_bytes INTEGER NOT NULL DEFAULT 0,
    replied INTEGER NOT NULL DEFAULT 0,
    capability_calls INTEGER NOT NULL DEFAULT 0,
    unenforced TEXT,
    start_error TEXT,
    UNIQUE (seq, hook)
) STRICT;
CREATE INDEX hook_run_queued ON hook_run (seq, hook) WHERE state = 'queued';
CREATE INDEX hook_run_hook ON hook_run (hook, id);
CREATE INDEX hook_run_event ON hook_run (event_id);
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
