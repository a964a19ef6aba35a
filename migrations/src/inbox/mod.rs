//! Migrations of the inbox database, in the order in which they are applied.

use sea_orm_migration::prelude::*;

mod m20261123_000001_initial;
mod m20261125_000001_before_recovery;
mod m20261127_000001_pages;
mod m20261127_000002_hook_runs;
mod m20261130_000001_receipts;
mod m20261130_000002_answered;
mod m20261201_000001_shares;

/// The inbox database's migrations.
#[derive(Debug)]
pub struct InboxMigrator;

#[async_trait::async_trait]
impl MigratorTrait for InboxMigrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261123_000001_initial::Migration),
            Box::new(m20261125_000001_before_recovery::Migration),
            Box::new(m20261127_000001_pages::Migration),
            Box::new(m20261127_000002_hook_runs::Migration),
            Box::new(m20261130_000001_receipts::Migration),
            Box::new(m20261130_000002_answered::Migration),
            Box::new(m20261201_000001_shares::Migration),
        ]
    }
}
