//! Brings a database to this release's schema, or refuses one that is newer.

use std::collections::HashSet;
use std::time::Duration;

use sea_orm::{
    ConnectionTrait as _, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, Statement, TransactionTrait as _,
};
use sea_orm_migration::MigratorTrait;

use super::Error;

/// Names the lock of a migration among a server's advisory locks.
const MIGRATION_LOCK: i64 = 0x636d_6967_7261_7465;
/// Between two looks at a lock that another process holds.
const LOCK_POLL: Duration = Duration::from_millis(200);

/// Applies what is missing, each migration in its own transaction. `database`
/// names the file or server in errors. Refuses before any change of a feature's
/// table when the database holds a migration that is not in `M`.
pub async fn migrate<M: MigratorTrait>(connection: &DatabaseConnection, database: &str) -> Result<(), Error> {
    let engine = |action| move |source| Error::Engine { action, database: database.to_owned(), source };
    let lock = exclusive(connection).await.map_err(engine("wait for another migration"))?;
    let known: HashSet<String> = M::migrations().iter().map(|migration| migration.name().to_owned()).collect();
    let applied = M::get_migration_models(connection).await.map_err(engine("read its schema version"))?;
    if let Some(unknown) = applied.into_iter().find(|model| !known.contains(&model.version)) {
        return Err(Error::SchemaNewer { database: database.to_owned(), version: unknown.version });
    }
    M::up(connection, None).await.map_err(engine("bring it to this release's schema"))?;
    match lock {
        Some(lock) => lock.commit().await.map_err(engine("end its migration")),
        None => Ok(()),
    }
}

/// Of several brokers that start over one server, one migrates and the others
/// wait. Asked again and again rather than waited for inside the server: an
/// index that is built without blocking writers waits for every statement that
/// runs, and a waiting one would never end. A SQLite file has one process.
async fn exclusive(connection: &DatabaseConnection) -> Result<Option<DatabaseTransaction>, DbErr> {
    if connection.get_database_backend() != DbBackend::Postgres {
        return Ok(None);
    }
    let transaction = connection.begin().await?;
    let sql = format!("SELECT pg_try_advisory_xact_lock({MIGRATION_LOCK})");
    loop {
        let row = transaction.query_one_raw(Statement::from_string(DbBackend::Postgres, sql.as_str())).await?;
        if row.map(|row| row.try_get_by_index::<bool>(0)).transpose()?.unwrap_or(false) {
            return Ok(Some(transaction));
        }
        tokio::time::sleep(LOCK_POLL).await;
    }
}

/// How many migrations this binary knows: the schema's version as a number.
pub fn schema_version<M: MigratorTrait>() -> usize {
    M::migrations().len()
}
