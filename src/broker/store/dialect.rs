//! What differs between SQLite and PostgreSQL.

use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbErr, Statement};

use super::sqlite_batch::BatchWriter;
use super::turns::Turns;
use crate::config::broker::Database;
use crate::db::{self, CheckpointMode, Sqlite};

/// Rows of one multi-row statement. SQLite takes 32,766 parameters in a
/// statement, PostgreSQL 65,535; the widest table has 14 columns.
pub const ROWS_PER_STATEMENT: usize = 500;

/// Size of the write-ahead log at which a move waits for readers, so that the file
/// can shrink. [`BatchWriter::tidy`] keeps it well below that; what others write,
/// such as the sweeps, comes on top.
const WAL_TRUNCATE_BYTES: u64 = 64 << 20;
#[cfg(feature = "postgres")]
const POSTGRES_CONNECTIONS: u32 = 16;

/// The open database.
#[derive(Debug)]
pub enum Engine {
    /// A file, with one writer.
    Sqlite(Sqlite),
    /// A server.
    #[cfg(feature = "postgres")]
    Postgres {
        /// Host and database.
        name: String,
        /// Its pool.
        pool: DatabaseConnection,
    },
}

// === impl Engine ===

impl Engine {
    pub(super) async fn open(database: &Database, readers: u32) -> Result<Self, db::Error> {
        match database {
            Database::Sqlite(path) => Ok(Self::Sqlite(Sqlite::open(path, readers).await?)),
            #[cfg(feature = "postgres")]
            Database::Postgres(url) => Ok(Self::Postgres {
                name: db::connect::without_credentials(url),
                pool: db::connect::postgres(url, POSTGRES_CONNECTIONS).await?,
            }),
            #[cfg(not(feature = "postgres"))]
            Database::Postgres(url) => Err(db::Error::Url { url: db::connect::without_credentials(url) }),
        }
    }

    pub(super) fn is_server(&self) -> bool {
        !matches!(self, Self::Sqlite(_))
    }

    pub(super) fn name(&self) -> String {
        match self {
            Self::Sqlite(file) => file.path().display().to_string(),
            #[cfg(feature = "postgres")]
            Self::Postgres { name, .. } => name.clone(),
        }
    }

    pub(super) fn writer(&self) -> &DatabaseConnection {
        match self {
            Self::Sqlite(file) => file.writer(),
            #[cfg(feature = "postgres")]
            Self::Postgres { pool, .. } => pool,
        }
    }

    /// The writer whose batches take few trips to SQLite's thread. A server has no
    /// such thread.
    pub(super) fn batch_writer(&self, turns: &Turns) -> Option<BatchWriter> {
        match self {
            Self::Sqlite(file) => Some(BatchWriter::new(file, turns)),
            #[cfg(feature = "postgres")]
            Self::Postgres { .. } => None,
        }
    }

    pub(super) fn readers(&self) -> &DatabaseConnection {
        match self {
            Self::Sqlite(file) => file.readers(),
            #[cfg(feature = "postgres")]
            Self::Postgres { pool, .. } => pool,
        }
    }

    /// The database's own clock in Unix milliseconds; `None` where it is this
    /// machine's.
    pub(super) async fn clock_ms(&self) -> Result<Option<i64>, DbErr> {
        match self {
            Self::Sqlite(_) => Ok(None),
            #[cfg(feature = "postgres")]
            Self::Postgres { pool, .. } => {
                let sql = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)";
                let row = pool.query_one_raw(Statement::from_string(pool.get_database_backend(), sql)).await?;
                row.map(|row| row.try_get_by_index::<i64>(0)).transpose()
            }
        }
    }

    pub(super) async fn maintain(&self) -> Result<(), db::Error> {
        match self {
            Self::Sqlite(file) => {
                if file.wal_bytes() >= WAL_TRUNCATE_BYTES {
                    file.checkpoint(CheckpointMode::Truncate).await?;
                }
                Ok(())
            }
            #[cfg(feature = "postgres")]
            Self::Postgres { .. } => Ok(()),
        }
    }

    pub(super) async fn close(&self) -> Result<(), db::Error> {
        match self {
            Self::Sqlite(file) => file.close().await,
            #[cfg(feature = "postgres")]
            Self::Postgres { name, pool } => pool.close_by_ref().await.map_err(|source| db::Error::Engine {
                action: "close it",
                database: name.clone(),
                source,
            }),
        }
    }
}
