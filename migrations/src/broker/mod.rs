//! Migrations of the broker database, in the order in which they are applied.

use sea_orm_migration::prelude::*;

mod m20261123_000001_initial;

/// The broker database's migrations.
#[derive(Debug)]
pub struct BrokerMigrator;

#[async_trait::async_trait]
impl MigratorTrait for BrokerMigrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(m20261123_000001_initial::Migration)]
    }
}
