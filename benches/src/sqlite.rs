//! Databases of the subject, while it does not run.

use std::path::Path;

use anyhow::Result;
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbBackend, SqlxSqliteConnector, Statement, Value};

/// Opens one that exists, on one connection.
pub async fn open(path: &Path) -> Result<DatabaseConnection> {
    let options = SqliteConnectOptions::new().filename(path);
    Ok(SqlxSqliteConnector::from_sqlx_sqlite_pool(
        SqlitePoolOptions::new().max_connections(1).connect_with(options).await?,
    ))
}

/// Runs a statement.
pub async fn run(db: &DatabaseConnection, sql: &str, values: impl IntoIterator<Item = Value>) -> Result<()> {
    db.execute_raw(Statement::from_sql_and_values(DbBackend::Sqlite, sql, values)).await?;
    Ok(())
}
