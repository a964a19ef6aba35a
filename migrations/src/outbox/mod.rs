//! Migrations of the outbox database, in the order in which they are applied.

use sea_orm_migration::prelude::*;

mod m20261123_000001_initial;
mod m20261125_000001_key_chain;
mod m20261127_000001_order;
mod m20261130_000001_outcomes;
mod m20261130_000002_answered;
mod m20261201_000001_turns;
mod m20261201_000002_accepted_names;

/// The outbox database's migrations.
#[derive(Debug)]
pub struct OutboxMigrator;

#[async_trait::async_trait]
impl MigratorTrait for OutboxMigrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261123_000001_initial::Migration),
            Box::new(m20261125_000001_key_chain::Migration),
            Box::new(m20261127_000001_order::Migration),
            Box::new(m20261130_000001_outcomes::Migration),
            Box::new(m20261130_000002_answered::Migration),
            Box::new(m20261201_000001_turns::Migration),
            Box::new(m20261201_000002_accepted_names::Migration),
        ]
    }
}
