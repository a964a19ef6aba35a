//! Durable receiving: from the broker's push to a stored message.
//!
//! What it is for: what a peer sent is opened, checked, stored once and told.
//! What runs here: the pipeline (`pipeline.rs`), the only writer of the
//! database, with a short way for the usual batch (`fast_store.rs`); it also
//! removes what is too old (`upkeep.rs`), tells the broker what has become of
//! messages that waited for a key (`receipts.rs`), and stores what this member sends
//! to itself (`to_self.rs`).
//! What it guarantees: a delivery is acknowledged after the commit of its row,
//! duplicates too; a message is stored once per sender and id, also after its
//! row was pruned; an event follows its commit. Places in the inbox grow and
//! are never reused. A full disk stops the reading of the link: nothing is
//! acknowledged that is not stored.
//! What it must not do: take anything outside the box for proof, or drop what
//! cannot be opened: it waits for a key or is kept aside with a reason.

pub mod entity;
mod error;
mod fast_store;
mod open;
mod open_post;
mod pipeline;
mod receipts;
mod repo;
mod row;
pub mod salvage;
mod shares;
mod stream;
mod to_self;
mod upkeep;
mod waiting;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};

pub use self::error::Error;
use self::pipeline::Pipeline;
pub use self::stream::{EventStream, GapReason, Item, Start};
use crate::broker_client::{self, Delivery};
use crate::config::disk::Disk;
use crate::config::inbox::Inbox as InboxConfig;
use crate::db::connect::Sqlite;
use crate::db::wal::WalKeeper;
use crate::domain::event::StoredMessage;
use crate::domain::ids::{EventId, MemberId};
use crate::domain::reply;
use crate::domain::time::UnixMillis;
use crate::events::Hub;
use crate::identity::Identity;
use crate::peers;
use crate::runtime::ballast::Ballast;
use crate::runtime::clock::Clock;
use crate::runtime::ids::IdSource;
use crate::runtime::supervisor::Supervisor;
use crate::runtime::task_kind::{Phase, TaskKind};
use crate::runtime::time_guard::TimeGuard;
use crate::telemetry::metrics::Metrics;
use crate::topics;

/// Messages that a page holds at most.
pub const MAX_PAGE: u32 = 1000;
/// Messages that a page holds when the caller does not say.
pub const DEFAULT_PAGE: u32 = 100;

/// What the inbox works with.
#[derive(Debug)]
pub struct Deps {
    /// The mesh's slug.
    pub mesh: String,
    /// Whose keys open.
    pub identity: Identity,
    /// Who may send.
    pub peers: peers::Handle,
    /// What opens posts.
    pub topics: topics::Handle,
    /// Where acknowledgements go.
    pub link: broker_client::Handle,
    /// Where stored messages are told.
    pub hub: Hub,
    /// Row ids.
    pub ids: IdSource,
    /// Now.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Metrics,
    /// Whether the clock may decide what is too old.
    pub guard: TimeGuard,
    /// `[disk]`.
    pub disk: Disk,
    /// What is held back for a full disk.
    pub ballast: Ballast,
}

/// Which messages a page takes.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Only what was stored at or after this time (R181).
    pub since: Option<UnixMillis>,
    /// Only this topic, by name.
    pub topic: Option<String>,
    /// Only this sender, by member id.
    pub from: Option<String>,
    /// Only what lies after this place.
    pub after: Option<EventId>,
    /// At most so many, 1 to 1000; 100 when zero.
    pub limit: u32,
    /// Where the page before ended.
    pub page_token: Option<String>,
    /// Newest first instead of oldest first.
    pub newest_first: bool,
}

/// A page of messages.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The messages.
    pub messages: Vec<StoredMessage>,
    /// Where the next page begins; `None` at the end.
    pub next_page_token: Option<String>,
}

/// The inbox for the rest of the daemon. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    db: Sqlite,
    hub: Hub,
    /// Messages of this member to itself.
    own: mpsc::Sender<to_self::Kept>,
    shared: Arc<Shared>,
}

/// What the pipeline tells the readers.
#[derive(Debug)]
struct Shared {
    generation: String,
    last_seq: AtomicU64,
    /// The latest time at which a message was stored, Unix ms.
    latest: AtomicI64,
    /// Greatest place that was pruned.
    pruned_to: AtomicU64,
    rows: AtomicU64,
    /// Messages wait at the broker because the disk is full.
    disk_full: AtomicBool,
    /// Whether the last look at what waits for a key ended with an error.
    waiting_failed: AtomicBool,
    /// When this inbox was made anew after damage.
    recovered_at: Option<UnixMillis>,
}

/// How much is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Rows in the table.
    pub rows: u64,
    /// Size of the database and its log in bytes.
    pub bytes: u64,
}

/// The inbox, built but not started.
#[derive(Debug)]
pub struct Parts {
    pipeline: Pipeline,
    handle: Handle,
}

/// Puts the inbox together on an open and migrated database.
pub async fn prepare(config: &InboxConfig, db: Sqlite, deps: Deps, supervisor: &Supervisor) -> Result<Parts, Error> {
    let writer = db.writer();
    let generation = match repo::meta(writer, "generation").await? {
        Some(generation) => generation,
        None => {
            let generation = deps.ids.ulid();
            repo::set_meta(writer, "generation", &generation).await?;
            generation
        }
    };
    let pruned_to = repo::meta(writer, "pruned_to").await?.and_then(|text| text.parse().ok()).unwrap_or(0);
    let last_seq = repo::last_seq(writer).await?.max(pruned_to);
    let shared = Arc::new(Shared {
        generation,
        last_seq: AtomicU64::new(last_seq),
        latest: AtomicI64::new(repo::latest(writer).await?),
        pruned_to: AtomicU64::new(pruned_to),
        rows: AtomicU64::new(repo::count(writer).await?),
        disk_full: AtomicBool::new(false),
        waiting_failed: AtomicBool::new(false),
        recovered_at: repo::meta(writer, RECOVERED_AT).await?.and_then(|text| text.parse().ok()).map(UnixMillis),
    });
    let (own, own_messages) = mpsc::channel(OWN_MESSAGES);
    let handle = Handle { db: db.clone(), hub: deps.hub.clone(), own, shared: Arc::clone(&shared) };
    let wal = Mutex::new(WalKeeper::new(db.clone()).with_ballast(deps.ballast.clone()));
    let stop = supervisor.token(Phase::Workers);
    let own = Mutex::new(db.own_writer());
    let pipeline = Pipeline {
        db,
        own,
        wal,
        deps,
        shared,
        asked: Mutex::default(),
        retention: config.retention(),
        own_messages,
        stop,
    };
    Ok(Parts { pipeline, handle })
}

// === impl Parts ===

impl Parts {
    /// The handle, also before the task runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Starts the task.
    pub fn spawn(self, deliveries: mpsc::Receiver<Delivery>, supervisor: &Supervisor) {
        supervisor.spawn(TaskKind::InboxPipeline, "inbox pipeline", self.pipeline.run(deliveries));
    }
}

// === impl Handle ===

impl Handle {
    /// A page of stored messages.
    pub async fn list(&self, query: Query) -> Result<Page, Error> {
        let limit = if query.limit == 0 { DEFAULT_PAGE } else { query.limit.min(MAX_PAGE) };
        let position = match query.page_token.as_deref().filter(|token| !token.is_empty()) {
            Some(token) => Some(self.place("page_token", token)?),
            None => None,
        };
        let after = match &query.after {
            Some(id) if id.generation == self.shared.generation => Some(id.seq),
            // A place of an inbox that is gone: everything here is after it.
            _ => None,
        };
        let filter = repo::Filter {
            after_seq: if query.newest_first { after } else { position.max(after) },
            before_seq: if query.newest_first { position } else { None },
            since: query.since,
            topic: query.topic,
            from: query.from,
            newest_first: query.newest_first,
            // One more than asked tells whether there is a next page.
            limit: u64::from(limit) + 1,
        };
        let mut rows = repo::page(self.db.readers(), &filter).await?;
        let more = rows.len() > limit as usize;
        rows.truncate(limit as usize);
        let next_page_token = rows.last().filter(|_| more).map(|row| format!("{}-{}", self.shared.generation, row.seq));
        let messages = rows.into_iter().map(|row| row::stored(row, &self.shared.generation)).collect();
        Ok(Page { messages, next_page_token })
    }

    /// Whether a message of that topic is stored.
    pub async fn has_topic(&self, name: &str) -> Result<bool, Error> {
        let filter = repo::Filter { topic: Some(name.to_owned()), limit: 1, ..repo::Filter::default() };
        Ok(!repo::page(self.db.readers(), &filter).await?.is_empty())
    }

    /// The messages after a place, oldest first.
    pub async fn after(&self, seq: u64, limit: u64) -> Result<Vec<StoredMessage>, Error> {
        let filter = repo::Filter { after_seq: Some(seq), limit, ..repo::Filter::default() };
        let rows = repo::page(self.db.readers(), &filter).await?;
        Ok(rows.into_iter().map(|row| row::stored(row, &self.shared.generation)).collect())
    }

    /// What is stored under an id that a reply names, of these senders where the id
    /// is their own.
    pub async fn answered(&self, mesh: &str, id: &str, senders: &[MemberId]) -> Result<Vec<reply::Match>, Error> {
        Ok(repo::answered(self.db.readers(), mesh, id, senders).await?)
    }

    /// Follows all events: stored ones from a place on, then live.
    pub fn follow(&self, start: Start) -> EventStream {
        EventStream::new(self.clone(), start)
    }

    /// How much is stored.
    pub fn size(&self) -> Size {
        let bytes = std::fs::metadata(self.db.path()).map_or(0, |file| file.len()) + self.db.wal_bytes();
        Size { rows: self.shared.rows.load(Ordering::Relaxed), bytes }
    }

    /// Bytes of a long log of the database that cannot start over; zero if it can.
    pub fn held_log(&self) -> u64 {
        self.db.held_log()
    }

    /// Whether messages are left at the broker because the disk is full.
    pub fn is_disk_full(&self) -> bool {
        self.shared.disk_full.load(Ordering::Relaxed)
    }

    /// When the inbox was made anew after damage.
    pub fn recovered_at(&self) -> Option<UnixMillis> {
        self.shared.recovered_at
    }

    /// The newest place; `None` in an empty inbox.
    pub fn newest(&self) -> Option<EventId> {
        let seq = Some(self.seq()).filter(|seq| *seq > 0)?;
        Some(EventId { generation: self.shared.generation.clone(), seq })
    }

    /// Messages that wait for a key, and messages that are kept aside.
    pub async fn set_aside(&self) -> Result<(u64, u64), Error> {
        let readers = self.db.readers();
        Ok((repo::waiting_count(readers).await?, repo::quarantined_count(readers).await?))
    }

    /// Names one life of the inbox file.
    pub fn generation(&self) -> &str {
        &self.shared.generation
    }

    fn place(&self, field: &'static str, text: &str) -> Result<u64, Error> {
        let wrong = |reason: String| Error::Position { field, reason };
        let id: EventId = text.parse().map_err(|error: crate::domain::ids::IdError| wrong(error.to_string()))?;
        if id.generation != self.shared.generation {
            return Err(wrong("it belongs to an inbox that was replaced; start from the first page".to_owned()));
        }
        Ok(id.seq)
    }

    fn seq(&self) -> u64 {
        self.shared.last_seq.load(Ordering::Acquire)
    }
}

/// Batches of messages to oneself that may wait.
const OWN_MESSAGES: usize = 4;
/// Key of the time at which the inbox was made anew.
const RECOVERED_AT: &str = "recovered_at";
/// How long ids of senders are remembered at least.
const MIN_MEMORY: Duration = Duration::from_secs(30 * 86_400);
