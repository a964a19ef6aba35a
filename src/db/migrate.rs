//! Brings a database to this release's schema, or refuses one that is newer.

use std::collections::HashSet;

use sea_orm::DatabaseConnection;
use sea_orm_migration::MigratorTrait;

use super::Error;

/// Applies what is missing, each migration in its own transaction. `database`
/// names the file or server in errors. Refuses before any change of a feature's
/// table when the database holds a migration that is not in `M`.
pub async fn migrate<M: MigratorTrait>(connection: &DatabaseConnection, database: &str) -> Result<(), Error> {
    let engine = |action| move |source| Error::Engine { action, database: database.to_owned(), source };
    let known: HashSet<String> = M::migrations().iter().map(|migration| migration.name().to_owned()).collect();
    let applied = M::get_migration_models(connection).await.map_err(engine("read its schema version"))?;
    if let Some(unknown) = applied.into_iter().find(|model| !known.contains(&model.version)) {
        return Err(Error::SchemaNewer { database: database.to_owned(), version: unknown.version });
    }
    M::up(connection, None).await.map_err(engine("bring it to this release's schema"))
}

/// How many migrations this binary knows: the schema's version as a number.
pub fn schema_version<M: MigratorTrait>() -> usize {
    M::migrations().len()
}
