//! Migrations of the broker database, in the order in which they are applied.

use sea_orm_migration::prelude::*;

mod m20261123_000001_initial;
mod m20261125_000002_nodes_and_keys;
mod m20261125_000003_indexes;
mod m20261127_000004_certificates;
mod m20261127_000005_topics;
mod m20261130_000006_outcomes;
mod m20261130_000007_shown;

/// The broker database's migrations.
#[derive(Debug)]
pub struct BrokerMigrator;

#[async_trait::async_trait]
impl MigratorTrait for BrokerMigrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261123_000001_initial::Migration),
            Box::new(m20261125_000002_nodes_and_keys::Migration),
            Box::new(m20261125_000003_indexes::Migration),
            Box::new(m20261127_000004_certificates::Migration),
            Box::new(m20261127_000005_topics::Migration),
            Box::new(m20261130_000006_outcomes::Migration),
            Box::new(m20261130_000007_shown::Migration),
        ]
    }
}
