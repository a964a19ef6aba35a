//! The connection that one task keeps for its scripts.
//!
//! Beside the pool's writer, since the pool's bookkeeping costs a batch as much as
//! its trip. It waits for SQLite's write lock like any other connection.

use sea_orm::DbErr;
use sea_orm::sqlx::Connection as _;
use sea_orm::sqlx::sqlite::SqliteConnection;

use super::connect::Sqlite;
use super::script::{Done, Script};

/// Opened at the first script, and again at the next one after an error.
#[derive(Debug)]
pub struct OwnWriter {
    db: Sqlite,
    connection: Option<SqliteConnection>,
}

// === impl OwnWriter ===

impl OwnWriter {
    pub(super) fn new(db: Sqlite) -> Self {
        Self { db, connection: None }
    }

    /// Runs a script and gives one result for each statement. After an error
    /// nothing of a transaction that was open is left, and no lock: what the engine
    /// has kept of a failed script is unknown, so its connection is closed.
    pub async fn run(&mut self, script: Script) -> Result<Vec<Done>, DbErr> {
        // Taken out, so that nothing but success puts it back.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.db.connect().await?,
        };
        match script.run(&mut connection).await {
            Ok(done) => {
                self.connection = Some(connection);
                Ok(done)
            }
            Err(error) => {
                close(connection).await;
                Err(error)
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn is_open(&self) -> bool {
        self.connection.is_some()
    }

    /// Closes the connection until the next script: the last one of a database to
    /// be closed moves the log into the file.
    pub async fn close(&mut self) {
        if let Some(connection) = self.connection.take() {
            close(connection).await;
        }
    }
}

/// Waits until a connection is gone, and with it its transaction and the write
/// lock: one that is only dropped ends later, on its own thread.
async fn close(connection: SqliteConnection) {
    // An error means that its thread has ended before; the connection went with it.
    let _ = connection.close().await;
}

#[cfg(test)]
mod tests {
    use sea_orm::ConnectionTrait as _;

    use super::*;
    use crate::db::script::{BEGIN, COMMIT};
    use crate::db::tx;

    fn script(statements: &[&str]) -> Script {
        let mut script = Script::default();
        for sql in statements {
            script.add(sql);
        }
        script
    }

    #[tokio::test]
    async fn an_error_leaves_no_transaction_and_no_lock() {
        let folder = tempfile::tempdir().expect("a folder");
        let db = Sqlite::open(&folder.path().join("t.db"), 1).await.expect("opens");
        db.writer().execute_unprepared("CREATE TABLE t (id INTEGER PRIMARY KEY)").await.expect("a table");
        let mut own = db.own_writer();
        own.run(script(&["INSERT INTO t VALUES (1)"])).await.expect("writes");
        let failing = script(&[BEGIN, "INSERT INTO t VALUES (2)", "INSERT INTO t VALUES (1)", COMMIT]);
        let error = own.run(failing).await.expect_err("the same key twice");
        assert!(tx::is_unique_violation(&error), "{error}");

        let transaction = tx::begin(db.writer()).await.expect("the lock is free");
        transaction.rollback().await.expect("rolls back");
        let done = own.run(script(&["SELECT id FROM t"])).await.expect("it is open again");
        assert_eq!(done[0].rows.len(), 1, "nothing of the failed one is there");
    }
}
