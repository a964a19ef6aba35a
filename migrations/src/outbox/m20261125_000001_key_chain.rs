//! What a pinned member needs beside its key: the keys before it, the names
//! before this one, what the broker shows of its capabilities, and which key the
//! operator verified.

use sea_orm_migration::prelude::*;

#[derive(DeriveMigrationName)]
pub(super) struct Migration;

/// Lists are JSON. A member that was pinned before counts as shown with all of
/// its capabilities, so that the first look tells no loss.
const SCHEMA: &str = "
ALTER TABLE pinned_member ADD COLUMN rotation_seq INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pinned_member ADD COLUMN previous_keys TEXT NOT NULL DEFAULT '[]';
ALTER TABLE pinned_member ADD COLUMN former_names TEXT NOT NULL DEFAULT '[]';
ALTER TABLE pinned_member ADD COLUMN shown_capabilities TEXT NOT NULL DEFAULT '[]';
ALTER TABLE pinned_member ADD COLUMN verified_key TEXT;
UPDATE pinned_member SET shown_capabilities = COALESCE(capabilities, '[]');
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
