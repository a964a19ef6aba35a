//! Several statements in one trip to the engine's thread.
//!
//! What it is for: on a fast disk the way to the engine's thread and back costs as
//! much as the sync, and a batch that goes there once per statement spends its
//! time on the way. A script carries its statements and all of their parameters.
//! What it guarantees: results come in the order of the statements. The text of a
//! script does not depend on how many rows it inserts, only on their power of
//! two: few texts, which stay prepared. That a text may hold several statements
//! with parameters is a trait of the SQLite driver alone; the tests below hold it.
//! What it must not do: go on after an error. A connection whose script failed may
//! be within a transaction; `own_writer.rs`, which runs them, opens another.

use futures_util::TryStreamExt as _;
use sea_orm::sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sea_orm::sqlx::{self, Arguments as _, AssertSqlSafe, Either, Encode, Executor, Sqlite, Type};
use sea_orm::{DbErr, RuntimeErr};

/// Rows that one statement inserts at most.
pub const MAX_ROWS: usize = 256;

/// Begins a transaction that holds the write lock from its start.
pub const BEGIN: &str = "BEGIN IMMEDIATE";
/// Ends it.
pub const COMMIT: &str = "COMMIT";

/// Statements that run in a row.
#[derive(Debug, Default)]
pub struct Script {
    sql: String,
    arguments: SqliteArguments,
    failure: Option<String>,
}

/// What one statement did.
#[derive(Debug, Default)]
pub struct Done {
    /// Rows that it inserted, changed or deleted.
    pub rows_affected: u64,
    /// Rows that it gave.
    pub rows: Vec<SqliteRow>,
}

// === impl Script ===

impl Script {
    /// Adds a statement; its parameters are bound next, in the order of their `?`.
    pub fn add(&mut self, sql: &str) -> &mut Self {
        if !self.sql.is_empty() {
            self.sql.push_str("; ");
        }
        self.sql.push_str(sql);
        self
    }

    /// Adds an insert of `count` rows of `width` columns each, at most
    /// [`MAX_ROWS`]. `bind_rows` binds them row by row, their first column never
    /// NULL. `tail` follows: `ON CONFLICT ..`, `RETURNING ..`.
    pub fn insert(
        &mut self,
        into: &str,
        width: usize,
        count: usize,
        tail: &str,
        bind_rows: impl FnOnce(&mut Self),
    ) -> &mut Self {
        let size = count.next_power_of_two();
        let row = format!("({}?)", "?, ".repeat(width.saturating_sub(1)));
        let mut sql = format!("INSERT INTO {into} SELECT * FROM (VALUES ");
        sql.reserve(size * (row.len() + 2) + tail.len() + 40);
        for number in 0..size {
            if number > 0 {
                sql.push_str(", ");
            }
            sql.push_str(&row);
        }
        // Rows that fill up to the power of two are left out.
        sql.push_str(") WHERE column1 IS NOT NULL ");
        sql.push_str(tail);
        self.add(&sql);
        bind_rows(self);
        for _ in 0..(size - count) * width {
            self.bind(None::<i64>);
        }
        self
    }

    /// Binds the next parameter.
    pub fn bind<'q, T: Encode<'q, Sqlite> + Type<Sqlite>>(&mut self, value: T) -> &mut Self {
        if let Err(error) = self.arguments.add(value) {
            self.failure.get_or_insert_with(|| error.to_string());
        }
        self
    }

    /// Runs it. Gives one result for each statement.
    pub(super) async fn run(self, connection: &mut SqliteConnection) -> Result<Vec<Done>, DbErr> {
        if let Some(failure) = self.failure {
            return Err(DbErr::Type(failure));
        }
        let wrapped = |error: sqlx::Error| DbErr::Exec(RuntimeErr::SqlxError(error.into()));
        let query = sqlx::query_with(AssertSqlSafe(self.sql), self.arguments);
        let mut results = Executor::fetch_many(connection, query);
        let mut all = Vec::new();
        let mut current = Done::default();
        while let Some(result) = results.try_next().await.map_err(wrapped)? {
            match result {
                Either::Left(done) => {
                    current.rows_affected = done.rows_affected();
                    all.push(std::mem::take(&mut current));
                }
                Either::Right(row) => current.rows.push(row),
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::sqlx::{Connection as _, Row as _};

    use super::*;

    async fn memory() -> SqliteConnection {
        SqliteConnection::connect("sqlite::memory:").await.expect("a database")
    }

    fn sql(text: &str) -> Script {
        let mut script = Script::default();
        script.add(text);
        script
    }

    #[tokio::test]
    async fn statements_run_in_a_row_with_their_own_parameters() {
        let mut db = memory().await;
        sql("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT)").run(&mut db).await.expect("a table");
        let mut script = sql(BEGIN);
        for count in [3_i64, 2] {
            script.insert("t (id, name)", 2, count as usize, "RETURNING name", |script| {
                for number in 0..count {
                    script.bind(count * 10 + number).bind(format!("{count}/{number}"));
                }
            });
        }
        script.add("UPDATE t SET name = ? WHERE id >= ?").bind("x").bind(30_i64).add(COMMIT);
        let done = script.run(&mut db).await.expect("it runs");
        assert_eq!(done.len(), 5);
        assert_eq!(done[1].rows_affected, 3, "the fourth row of the text is not one");
        let names: Vec<String> = done[2].rows.iter().map(|row| row.get(0)).collect();
        assert_eq!(names, ["2/0", "2/1"]);
        assert_eq!(done[3].rows_affected, 3);
    }

    #[tokio::test]
    async fn an_error_ends_it_within_its_transaction() {
        let mut db = memory().await;
        sql("CREATE TABLE t (id INTEGER PRIMARY KEY)").run(&mut db).await.expect("a table");
        let mut script = sql(BEGIN);
        script.add("INSERT INTO t VALUES (?)").bind(1_i64).add("INSERT INTO t VALUES (?)").bind(1_i64).add(COMMIT);
        let error = script.run(&mut db).await.expect_err("the same key twice");
        assert!(crate::db::tx::is_unique_violation(&error), "{error}");
        // Nothing was committed: the transaction can still be taken back.
        sql("ROLLBACK").run(&mut db).await.expect("it is open");
        let rows = sql("SELECT id FROM t").run(&mut db).await.expect("it reads");
        assert!(rows[0].rows.is_empty());
    }
}
