//! Write transactions that take their lock at the start, and what may be retried.

use std::pin::Pin;
use std::time::Duration;

use sea_orm::{
    DatabaseConnection, DatabaseTransaction, DbErr, RuntimeErr, SqliteTransactionMode, TransactionOptions,
    TransactionTrait as _,
};

/// How often a transaction that found the database busy is tried.
const ATTEMPTS: u32 = 4;

/// The work of one transaction.
pub type Work<'t, T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send + 't>>;

/// Begins a transaction that holds the write lock from the start: on SQLite
/// `BEGIN IMMEDIATE`, so that reading first and writing later cannot fail in
/// between. On PostgreSQL an ordinary transaction.
pub async fn begin(connection: &DatabaseConnection) -> Result<DatabaseTransaction, DbErr> {
    let options = TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    connection.begin_with_options(options).await
}

/// Runs `work` in one transaction and commits. Rolls back on an error. Runs it
/// again, up to four times in all, when the engine says that a retry may succeed
/// (busy, deadlock, serialisation failure), so `work` must touch nothing but the
/// transaction.
pub async fn write<T, E, F>(connection: &DatabaseConnection, work: F) -> Result<T, E>
where
    E: From<DbErr> + AsDbErr,
    F: for<'t> Fn(&'t DatabaseTransaction) -> Work<'t, T, E>,
{
    let mut attempt = 1;
    loop {
        let error = match once(connection, &work).await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let retry = error.as_db_err().is_some_and(is_retryable);
        if !retry || attempt == ATTEMPTS {
            return Err(error);
        }
        tokio::time::sleep(Duration::from_millis(10 << attempt)).await;
        attempt += 1;
    }
}

async fn once<T, E, F>(connection: &DatabaseConnection, work: &F) -> Result<T, E>
where
    E: From<DbErr>,
    F: for<'t> Fn(&'t DatabaseTransaction) -> Work<'t, T, E>,
{
    let transaction = begin(connection).await?;
    match work(&transaction).await {
        Ok(value) => {
            transaction.commit().await?;
            Ok(value)
        }
        Err(error) => {
            // The first error is the one worth reporting; a failed rollback
            // leaves nothing behind, the engine drops the transaction itself.
            let _ = transaction.rollback().await;
            Err(error)
        }
    }
}

/// Errors that may carry an engine error.
pub trait AsDbErr {
    /// The engine error, if it is one.
    fn as_db_err(&self) -> Option<&DbErr>;
}

impl AsDbErr for DbErr {
    fn as_db_err(&self) -> Option<&DbErr> {
        Some(self)
    }
}

/// True if the same statement may succeed when tried again: SQLite busy or
/// locked, PostgreSQL serialisation failure or deadlock.
pub fn is_retryable(error: &DbErr) -> bool {
    engine_code(error).is_some_and(|code| match code.parse::<u32>() {
        // SQLite's primary code is the low byte of the extended one.
        Ok(number) if code.len() < 5 => matches!(number & 0xff, 5 | 6),
        _ => matches!(code.as_str(), "40001" | "40P01"),
    })
}

/// True if a SQLite database refuses what was to be written (a constraint, a type, a size),
/// and would again, whatever else is the case.
pub fn is_refused(error: &DbErr) -> bool {
    engine_code(error)
        .is_some_and(|code| code.len() < 5 && code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 18..=20)))
}

/// True if the file is not a sound SQLite database.
pub fn is_damaged(error: &DbErr) -> bool {
    engine_code(error)
        .is_some_and(|code| code.len() < 5 && code.parse::<u32>().is_ok_and(|number| matches!(number & 0xff, 11 | 26)))
}

/// The file of the write-ahead log's index could not grow. On a full disk this
/// comes before any write does.
const SQLITE_IOERR_SHMSIZE: u32 = 4874;

/// True if the disk is full (SQLite).
pub fn is_full(error: &DbErr) -> bool {
    let is_full = |number: u32| number & 0xff == 13 || number == SQLITE_IOERR_SHMSIZE;
    engine_code(error).is_some_and(|code| code.len() < 5 && code.parse::<u32>().is_ok_and(is_full))
}

/// True if the server could not be asked, or ended the connection: nothing is
/// wrong with what was asked. Whether a commit that ended so was done is open.
pub fn is_unreachable(error: &DbErr) -> bool {
    use sea_orm::sqlx::Error as Sqlx;
    let (DbErr::Exec(RuntimeErr::SqlxError(inner))
    | DbErr::Query(RuntimeErr::SqlxError(inner))
    | DbErr::Conn(RuntimeErr::SqlxError(inner))) = error
    else {
        return matches!(error, DbErr::ConnectionAcquire(_) | DbErr::Conn(_));
    };
    match &**inner {
        Sqlx::Io(_)
        | Sqlx::Tls(_)
        | Sqlx::Protocol(_)
        | Sqlx::PoolTimedOut
        | Sqlx::PoolClosed
        | Sqlx::WorkerCrashed => true,
        // Connection exceptions, a shutdown, a cut, a server that starts or is full.
        Sqlx::Database(inner) => inner.code().is_some_and(|code| {
            code.len() == 5 && (code.starts_with("08") || code.starts_with("57P") || code == "53300")
        }),
        _ => false,
    }
}

/// True if a unique key or primary key refused the row.
pub fn is_unique_violation(error: &DbErr) -> bool {
    matches!(error.sql_err(), Some(sea_orm::SqlErr::UniqueConstraintViolation(_)))
}

fn engine_code(error: &DbErr) -> Option<String> {
    let (DbErr::Exec(RuntimeErr::SqlxError(error))
    | DbErr::Query(RuntimeErr::SqlxError(error))
    | DbErr::Conn(RuntimeErr::SqlxError(error))) = error
    else {
        return None;
    };
    error.as_database_error()?.code().map(std::borrow::Cow::into_owned)
}
