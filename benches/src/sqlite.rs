//! Databases of the subject, while it does not run.

use std::path::Path;

use anyhow::{Context as _, Result};
use sea_orm::sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbBackend, SqlxSqliteConnector, Statement, Value};

/// Opens one that exists, on one connection.
pub async fn open(path: &Path) -> Result<DatabaseConnection> {
    let options = SqliteConnectOptions::new().filename(path);
    Ok(SqlxSqliteConnector::from_sqlx_sqlite_pool(
        SqlitePoolOptions::new().max_connections(1).connect_with(options).await?,
    ))
}

/// The number that a statement gives.
pub async fn number(db: &DatabaseConnection, sql: &str) -> Result<u32> {
    let row = db.query_one_raw(Statement::from_string(DbBackend::Sqlite, sql)).await?.context("no row")?;
    Ok(row.try_get_by_index::<u32>(0)?)
}

/// Runs a statement.
pub async fn run(db: &DatabaseConnection, sql: &str, values: impl IntoIterator<Item = Value>) -> Result<()> {
    db.execute_raw(Statement::from_sql_and_values(DbBackend::Sqlite, sql, values)).await?;
    Ok(())
}
