//! What differs between SQLite and PostgreSQL.

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbErr, Statement};
#[cfg(feature = "postgres")]
use sea_orm::{RuntimeErr, sqlx};

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

    /// What is said on a channel of the server from now on. A file has one broker, and
    /// nobody says anything.
    pub(super) async fn notices(&self, channel: &str) -> Result<BoxStream<'static, Result<String, DbErr>>, DbErr> {
        match self {
            Self::Sqlite(_) => Ok(stream::pending().boxed()),
            #[cfg(feature = "postgres")]
            Self::Postgres { pool, .. } => {
                let failed = |error: sqlx::Error| DbErr::Conn(RuntimeErr::SqlxError(error.into()));
                let pool = pool.get_postgres_connection_pool();
                let mut listener = sqlx::postgres::PgListener::connect_with(pool).await.map_err(failed)?;
                listener.listen(channel).await.map_err(failed)?;
                let text = move |next: Result<sqlx::postgres::PgNotification, _>| {
                    next.map(|notice| notice.payload().to_owned()).map_err(failed)
                };
                Ok(listener.into_stream().map(text).boxed())
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
