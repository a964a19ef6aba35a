//! Looks into a database beside the process that owns it.

use std::path::Path;

use sea_orm::{
    ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, DbBackend, DbErr, RuntimeErr, Statement,
};
use serde_json::Value;

/// An open database: a file, or one on a server.
pub(crate) struct Db(DatabaseConnection);

impl Db {
    /// Opens the file, which must exist.
    pub(crate) async fn open(path: &Path) -> Self {
        Self::connect(&format!("sqlite://{}?mode=rw", path.display())).await
    }

    /// Makes a file with these statements.
    pub(crate) async fn make(path: &Path, sql: &str) {
        let db = Self::connect(&format!("sqlite://{}?mode=rwc", path.display())).await;
        db.run(sql).await;
        db.close().await;
    }

    /// Opens the database of a URL, which must exist.
    pub(crate) async fn connect(url: &str) -> Self {
        let mut options = ConnectOptions::new(url);
        options.max_connections(1).sqlx_logging(false);
        Self(Database::connect(options).await.unwrap_or_else(|error| panic!("{url}: {error}")))
    }

    /// The first column of each row, which must be text.
    pub(crate) async fn texts(&self, sql: &str) -> Vec<String> {
        let statement = Statement::from_string(self.0.get_database_backend(), sql);
        let rows = self.0.query_all_raw(statement).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        rows.iter()
            .map(|row| row.try_get_by_index::<String>(0).unwrap_or_else(|error| panic!("{sql}: {error}")))
            .collect()
    }

    /// Rows as JSON: `columns` of `rest`, as in `objects("id, status", "FROM outbox")`.
    pub(crate) async fn objects(&self, columns: &str, rest: &str) -> Vec<Value> {
        let pairs: Vec<String> =
            columns.split(',').map(str::trim).map(|column| format!("'{column}', {column}")).collect();
        let object = match self.0.get_database_backend() {
            DbBackend::Postgres => format!("CAST(json_build_object({}) AS TEXT)", pairs.join(", ")),
            _ => format!("json_object({})", pairs.join(", ")),
        };
        let sql = format!("SELECT {object} {rest}");
        self.texts(&sql).await.iter().map(|text| serde_json::from_str(text).expect("the engine writes JSON")).collect()
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

    /// The engine's code for a statement that it refuses; `None` when it runs it.
    pub(crate) async fn refusal(&self, sql: &str) -> Option<String> {
        match self.0.execute_unprepared(sql).await {
            Ok(_) => None,
            Err(DbErr::Exec(RuntimeErr::SqlxError(error))) => {
                let code = error.as_database_error().and_then(|error| error.code());
                Some(code.unwrap_or_else(|| panic!("{sql}: {error}")).into_owned())
            }
            Err(error) => panic!("{sql}: {error}"),
        }
    }

    /// Closes it, so that no file stays open.
    pub(crate) async fn close(self) {
        self.0.close().await.expect("the database closes");
    }
}
