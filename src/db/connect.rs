//! Opens SQLite as one writer and a pool of readers, and PostgreSQL safely.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sea_orm::sqlx::Connection as _;
use sea_orm::sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sea_orm::{ConnectionTrait as _, DatabaseConnection, SqlxSqliteConnector, Statement};

use super::{Error, OwnWriter};

/// How long a connection to a server may take.
#[cfg(feature = "postgres")]
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// How long a connection waits for another process's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for what can be done later as well: a writer waits for it.
const MAINTENANCE_TIMEOUT: Duration = Duration::from_millis(250);
/// Pages of 4 KiB in the WAL at which a commit checkpoints by itself. High,
/// since that checkpoint delays whoever happens to commit; the owner of the
/// database calls [`Sqlite::checkpoint`] long before.
const WAL_AUTOCHECKPOINT_PAGES: u32 = 20_000;
/// Statements a connection keeps prepared. Batches of each size are a
/// statement of their own.
const STATEMENT_CACHE: usize = 256;
/// Rows that a statement may be ahead of whoever takes them: more than any gives. One
/// that waits for its caller keeps the state that it reads, and with that the log from
/// starting over; the caller may itself wait for the writer, who waits for the log.
const ROW_BUFFER: usize = 1 << 20;

/// How much a checkpoint may disturb.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckpointMode {
    /// Moves what it can without waiting for anyone.
    Passive,
    /// Waits for writer and readers, then cuts the WAL file to zero length.
    Truncate,
}

/// What a checkpoint did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpointed {
    /// True if someone's lock kept it from finishing.
    pub blocked: bool,
    /// Pages in the WAL.
    pub wal_pages: i64,
    /// Pages of them now in the database file.
    pub moved_pages: i64,
}

/// One SQLite database: a single writer connection beside read-only ones.
///
/// A single writer, because SQLite has one write lock: further connections
/// would only wait for it, and a transaction that reads first and writes later
/// would fail when another connection commits in between. The one further writer
/// ([`Sqlite::own_writer`]) takes the lock with the first statement of a script.
#[derive(Clone, Debug)]
pub struct Sqlite {
    path: PathBuf,
    writer: DatabaseConnection,
    readers: DatabaseConnection,
    maintenance: DatabaseConnection,
    held_log: Arc<AtomicU64>,
}

impl Sqlite {
    /// Opens or creates the database at `path`, with `readers` read-only
    /// connections (at least one), opened on first use. The directory must exist.
    pub async fn open(path: &Path, readers: u32) -> Result<Self, Error> {
        make_private(path)?;
        let engine = |action| move |source| Error::Engine { action, database: path.display().to_string(), source };
        let writer = pool(1, 1).connect_with(options(path)).await.map_err(connect_error).map_err(engine("open it"))?;
        let readers =
            pool(0, readers.max(1)).connect_lazy_with(options(path).read_only(true).pragma("query_only", "on"));
        let maintenance = options(path).busy_timeout(MAINTENANCE_TIMEOUT);
        let maintenance = pool(0, 1).idle_timeout(Duration::from_secs(60)).connect_lazy_with(maintenance);
        Ok(Self {
            path: path.to_owned(),
            writer: SqlxSqliteConnector::from_sqlx_sqlite_pool(writer),
            readers: SqlxSqliteConnector::from_sqlx_sqlite_pool(readers),
            maintenance: SqlxSqliteConnector::from_sqlx_sqlite_pool(maintenance),
            held_log: Arc::default(),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The one connection that may write. Callers queue for it.
    pub fn writer(&self) -> &DatabaseConnection {
        &self.writer
    }

    /// Read-only connections; they see the last committed state and never wait
    /// for the writer.
    pub fn readers(&self) -> &DatabaseConnection {
        &self.readers
    }

    /// A further connection that may write, for the one task that runs scripts.
    pub fn own_writer(&self) -> OwnWriter {
        OwnWriter::new(self.clone())
    }

    pub(super) async fn connect(&self) -> Result<SqliteConnection, sea_orm::DbErr> {
        SqliteConnection::connect_with(&options(&self.path)).await.map_err(connect_error)
    }

    /// Bytes in the write-ahead log; zero when there is none.
    pub fn wal_bytes(&self) -> u64 {
        fs::metadata(side_file(&self.path, "-wal")).map_or(0, |meta| meta.len())
    }

    /// Bytes of a long write-ahead log that cannot start over, since somebody reads an
    /// old state of the database; zero if it can.
    pub fn held_log(&self) -> u64 {
        self.held_log.load(Ordering::Relaxed)
    }

    pub(super) fn set_held_log(&self, bytes: u64) {
        self.held_log.store(bytes, Ordering::Relaxed);
    }

    /// Moves the write-ahead log into the database file, on a connection of
    /// its own, so that no commit has to do it.
    pub async fn checkpoint(&self, mode: CheckpointMode) -> Result<Checkpointed, Error> {
        let sql = match mode {
            CheckpointMode::Passive => "PRAGMA wal_checkpoint(PASSIVE)",
            CheckpointMode::Truncate => "PRAGMA wal_checkpoint(TRUNCATE)",
        };
        let run = async {
            let backend = self.maintenance.get_database_backend();
            let row = self.maintenance.query_one_raw(Statement::from_string(backend, sql)).await?;
            let row = row.ok_or_else(|| sea_orm::DbErr::RecordNotFound("wal_checkpoint".to_owned()))?;
            Ok(Checkpointed {
                blocked: row.try_get_by_index::<i64>(0)? != 0,
                wal_pages: row.try_get_by_index(1)?,
                moved_pages: row.try_get_by_index(2)?,
            })
        };
        run.await.map_err(|source| self.error("checkpoint it", source))
    }

    /// Bytes in pages that hold something. The file may be larger: pages that were
    /// freed are used again before it grows.
    pub async fn used_bytes(&self) -> Result<u64, Error> {
        self.measured(
            "SELECT (count.page_count - free.freelist_count) * size.page_size FROM pragma_page_count AS count, \
             pragma_freelist_count AS free, pragma_page_size AS size",
        )
        .await
    }

    /// Bytes in pages that hold nothing: so much can be stored before the file grows.
    pub async fn free_bytes(&self) -> Result<u64, Error> {
        self.measured(
            "SELECT free.freelist_count * size.page_size FROM pragma_freelist_count AS free, pragma_page_size AS size",
        )
        .await
    }

    async fn measured(&self, sql: &str) -> Result<u64, Error> {
        let run = async {
            let row = self.readers.query_one_raw(Statement::from_string(sea_orm::DbBackend::Sqlite, sql)).await?;
            row.map_or(Ok(0), |row| row.try_get_by_index::<i64>(0)).map(i64::unsigned_abs)
        };
        run.await.map_err(|source| self.error("measure it", source))
    }

    /// Closes the writing connection; the next use opens a new one. For after an
    /// error that leaves open what the engine has kept: a new connection is
    /// outside of any transaction.
    pub async fn reopen_writer(&self) -> Result<(), Error> {
        let run = async {
            let connection = self.writer.get_sqlite_connection_pool().acquire().await?;
            connection.close().await
        };
        run.await.map_err(|error| self.error("open it again", connect_error(error)))
    }

    /// Closes every connection; the last one moves the log into the file.
    pub async fn close(&self) -> Result<(), Error> {
        let mut result = Ok(());
        for part in [&self.readers, &self.maintenance, &self.writer] {
            result = result.and(part.close_by_ref().await.map_err(|source| self.error("close it", source)));
        }
        result
    }

    /// Puts the file's name to an engine error.
    pub fn error(&self, action: &'static str, source: sea_orm::DbErr) -> Error {
        Error::Engine { action, database: self.path.display().to_string(), source }
    }
}

/// The engine's error of a failed connect, as sea-orm would wrap it.
pub(super) fn connect_error(error: sea_orm::sqlx::Error) -> sea_orm::DbErr {
    sea_orm::DbErr::Conn(sea_orm::RuntimeErr::SqlxError(error.into()))
}

fn pool(min: u32, max: u32) -> SqlitePoolOptions {
    // A local file cannot go away like a server: no ping before each use, no
    // reconnects by age.
    SqlitePoolOptions::new()
        .min_connections(min)
        .max_connections(max)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(Duration::from_secs(30))
}

pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    use sea_orm::sqlx::ConnectOptions as _;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("wal_autocheckpoint", WAL_AUTOCHECKPOINT_PAGES.to_string())
        .statement_cache_capacity(STATEMENT_CACHE)
        .row_buffer_size(ROW_BUFFER)
        .disable_statement_logging();
    if cfg!(target_os = "macos") {
        // Plain fsync there returns before the drive has written.
        options.pragma("fullfsync", "on").pragma("checkpoint_fullfsync", "on")
    } else {
        options
    }
}

/// Creates the file with mode 0600, and takes group and others away from an
/// existing one. SQLite gives `-wal` and `-shm` the mode of the database file.
fn make_private(path: &Path) -> Result<(), Error> {
    let file = |action| move |source: io::Error| Error::File { action, path: path.to_owned(), source };
    let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(file("open or create"))?;
    let mode = opened.metadata().map_err(file("read the mode of"))?.permissions().mode();
    if mode & 0o077 != 0 {
        opened.set_permissions(fs::Permissions::from_mode(0o600)).map_err(file("restrict the mode of"))?;
    }
    Ok(())
}

pub(super) fn side_file(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Connects to a PostgreSQL server and refuses one that may lose commits.
#[cfg(feature = "postgres")]
pub async fn postgres(url: &str, connections: u32) -> Result<DatabaseConnection, Error> {
    let database = without_credentials(url);
    let engine = |action| {
        let database = database.clone();
        move |source| Error::Engine { action, database, source }
    };
    let mut options = sea_orm::ConnectOptions::new(url);
    options
        .max_connections(connections.max(1))
        .connect_timeout(CONNECT_LIMIT)
        // A server that is gone is told to those who wait as a refusal that they
        // may repeat, soon enough that they still wait.
        .acquire_timeout(CONNECT_LIMIT)
        .sqlx_logging(false);
    // The pool tries again until its time is over, and says only that.
    let first = sea_orm::sqlx::PgConnection::connect(url);
    if let Ok(Err(error)) = tokio::time::timeout(CONNECT_LIMIT, first).await {
        return Err(engine("connect to it")(sea_orm::DbErr::Conn(sea_orm::RuntimeErr::SqlxError(error.into()))));
    }
    let connection = sea_orm::Database::connect(options).await.map_err(engine("connect to it"))?;
    for setting in ["fsync", "synchronous_commit"] {
        let row = connection
            .query_one_raw(Statement::from_string(connection.get_database_backend(), format!("SHOW {setting}")))
            .await
            .map_err(engine("read its settings"))?;
        let value: String = match row {
            Some(row) => row.try_get_by_index(0).map_err(engine("read its settings"))?,
            None => String::new(),
        };
        if value == "off" {
            return Err(Error::Unsafe { database, setting, value });
        }
    }
    Ok(connection)
}

/// The URL without user, password and parameters, for messages.
pub fn without_credentials(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}/{path}")
        }
        // It may be anything, also a password.
        None => "(not shown)".to_owned(),
    }
}
