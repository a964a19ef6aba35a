//! The broker's tables: every statement the broker runs is below this folder.
//!
//! What it is for: one place that knows the schema, for SQLite and PostgreSQL.
//! What runs here: nothing on its own.
//! What it guarantees: writes go through [`Store::begin`], or through
//! [`Store::batch_writer`] where there is one, in the order in which they asked;
//! reads never wait for a writer on SQLite.
//! What it must not do: decide. Statements in, rows out; what differs between
//! the engines is in [`dialect`] alone, and in [`sqlite_batch`], which dialect
//! gives out for SQLite only.

pub mod api_keys;
pub mod checks;
pub mod dedupe;
pub mod deliveries;
pub mod dialect;
pub mod endings;
pub mod entity;
pub mod members;
pub mod messages;
pub mod nodes;
pub mod notices;
pub mod presence;
pub mod sqlite_batch;
pub mod topics;
mod turns;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use claudemesh_migrations::BrokerMigrator;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use sea_orm::{DatabaseConnection, DbErr};

use self::dialect::Engine;
use self::notices::Notice;
use self::sqlite_batch::BatchWriter;
pub use self::turns::Transaction;
use self::turns::Turns;
use crate::config::broker::Database;
use crate::db;
use crate::domain::time::UnixMillis;
use crate::runtime::clock::Clock;

/// Read-only connections to SQLite.
const READERS: u32 = 4;

/// The open database.
#[derive(Debug)]
pub struct Store {
    engine: Engine,
    turns: Turns,
    clock: Clock,
    /// Database time minus this machine's time, in milliseconds.
    offset_ms: AtomicI64,
    /// This broker, when other ones of the database are to be told of its commits.
    tells_as: RwLock<Option<Arc<str>>>,
}

// === impl Store ===

impl Store {
    /// Opens the database and brings it to this release's schema.
    pub async fn open(database: &Database, clock: Clock) -> Result<Self, db::Error> {
        let engine = Engine::open(database, READERS).await?;
        db::migrate::migrate::<BrokerMigrator>(engine.writer(), &engine.name()).await?;
        let store =
            Self { engine, turns: Turns::default(), clock, offset_ms: AtomicI64::new(0), tells_as: RwLock::default() };
        store.compare_clocks().await.map_err(|source| store.error("read its clock", source))?;
        Ok(store)
    }

    /// The version of this release's schema: the number of its migrations.
    pub fn schema_version() -> usize {
        db::migrate::schema_version::<BrokerMigrator>()
    }

    /// File or server, without credentials.
    pub fn name(&self) -> String {
        self.engine.name()
    }

    /// Begins a transaction that holds the write lock. On SQLite whoever asked before
    /// writes first; on PostgreSQL they write beside each other.
    pub async fn begin(&self) -> Result<Transaction, DbErr> {
        let turn = if self.is_shared() { None } else { Some(self.turns.take().await) };
        Transaction::begin(self.writer(), turn, self.tells_as()).await
    }

    /// Other brokers hear of commits from now on, as from the broker of this name; `None`
    /// while there are none.
    pub fn tell_others(&self, as_node: Option<&str>) {
        *self.tells_as.write().unwrap_or_else(PoisonError::into_inner) = as_node.map(Arc::from);
    }

    /// What brokers of this database say from now on, this one too. Ends with an error
    /// when the connection is lost and cannot be made again.
    pub async fn notices(&self) -> Result<BoxStream<'static, Result<Notice, DbErr>>, DbErr> {
        self.engine.notices(notices::CHANNEL).await.map(|texts| {
            let notice = |text: Result<String, DbErr>| async move {
                // Of another version, or of something else that uses the channel.
                text.map(|text| serde_json::from_str(&text).ok()).transpose()
            };
            texts.filter_map(notice).boxed()
        })
    }

    /// Says something to all brokers of the database, this one too.
    pub async fn say(&self, as_node: &str, notice: Notice) -> Result<(), DbErr> {
        notice.send(self.writer(), as_node).await
    }

    fn tells_as(&self) -> Option<Arc<str>> {
        self.tells_as.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where transactions begin.
    pub fn writer(&self) -> &DatabaseConnection {
        self.engine.writer()
    }

    /// What commits a batch in fewer trips; `None` where the engine has no such way.
    pub fn batch_writer(&self) -> Option<BatchWriter> {
        self.engine.batch_writer(&self.turns)
    }

    /// Where single reads go.
    pub fn readers(&self) -> &DatabaseConnection {
        self.engine.readers()
    }

    /// Whether several brokers can serve from it at once.
    pub fn is_shared(&self) -> bool {
        self.engine.is_server()
    }

    /// The database's time: windows such as the dedupe retention and leases
    /// are measured on one clock, however many brokers share the database.
    pub fn now(&self) -> UnixMillis {
        UnixMillis(self.clock.now().0.saturating_add(self.offset_ms.load(Ordering::Relaxed)))
    }

    /// Measures the offset of the database's clock again.
    pub async fn compare_clocks(&self) -> Result<(), DbErr> {
        if let Some(theirs) = self.engine.clock_ms().await? {
            self.offset_ms.store(theirs - self.clock.now().0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Work that the engine wants done now and then, off the commit path.
    pub async fn maintain(&self) -> Result<(), db::Error> {
        self.engine.maintain().await
    }

    /// True if the database answers.
    pub async fn is_up(&self) -> bool {
        self.readers().ping().await.is_ok()
    }

    /// Closes all connections.
    pub async fn close(&self) -> Result<(), db::Error> {
        self.engine.close().await
    }

    /// Puts the database's name to an engine error.
    pub fn error(&self, action: &'static str, source: DbErr) -> db::Error {
        db::Error::Engine { action, database: self.name(), source }
    }
}
