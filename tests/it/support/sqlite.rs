//! Looks into a database file beside the process that owns it.

use std::path::Path;

use sea_orm::{ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, Statement};
use serde_json::Value;

/// An open database file.
pub(crate) struct Db(DatabaseConnection);

impl Db {
    /// Opens the file, which must exist.
    pub(crate) async fn open(path: &Path) -> Self {
        let mut options = ConnectOptions::new(format!("sqlite://{}?mode=rw", path.display()));
        options.max_connections(1).sqlx_logging(false);
        Self(Database::connect(options).await.unwrap_or_else(|error| panic!("{}: {error}", path.display())))
    }

    /// The first column of each row, which must be text.
    pub(crate) async fn texts(&self, sql: &str) -> Vec<String> {
        let statement = Statement::from_string(sea_orm::DbBackend::Sqlite, sql);
        let rows = self.0.query_all_raw(statement).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        rows.iter()
            .map(|row| row.try_get_by_index::<String>(0).unwrap_or_else(|error| panic!("{sql}: {error}")))
            .collect()
    }

    /// Rows as JSON: `columns` of `rest`, as in `objects("id, status", "FROM outbox")`.
    pub(crate) async fn objects(&self, columns: &str, rest: &str) -> Vec<Value> {
        let pairs: Vec<String> =
            columns.split(',').map(str::trim).map(|column| format!("'{column}', {column}")).collect();
        let sql = format!("SELECT json_object({}) {rest}", pairs.join(", "));
        self.texts(&sql).await.iter().map(|text| serde_json::from_str(text).expect("SQLite writes JSON")).collect()
    }

    /// A single number, such as a count.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        let text = self.texts(&format!("SELECT CAST(({sql}) AS TEXT)")).await;
        text[0].parse().unwrap_or_else(|_| panic!("{sql} gave {text:?}"))
    }

    /// Runs a statement that changes something.
    pub(crate) async fn run(&self, sql: &str) {
        self.0.execute_unprepared(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Whether the statement is refused by the schema.
    pub(crate) async fn refuses(&self, sql: &str) -> bool {
        self.0.execute_unprepared(sql).await.is_err()
    }

    /// Closes it, so that no file stays open.
    pub(crate) async fn close(self) {
        self.0.close().await.expect("the database closes");
    }
}
