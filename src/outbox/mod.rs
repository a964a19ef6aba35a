//! Durable sending: from a caller's request to the broker's acceptance.
//!
//! What it is for: a send is on disk before it is answered, and it goes out
//! until the broker has it, the age limit ends it or the operator does.
//! What runs here: the writer (`writer.rs`), the only one to change the table;
//! the sender (`sender.rs`), which transmits due rows in the order of accept, new
//! ones without a claim (`handover.rs`), and has their outcomes written
//! (`reporter.rs`); the way of sends to oneself, which never leave (`to_self.rs`); the
//! keeper (`keeper.rs`), which gives up what is too old,
//! measures how full it is and tidies up.
//! What it guarantees: one row per client message id; an answer only after the
//! commit is synced (R136); at most one transmit of a row at a time (R140). The
//! states of a row are drawn in `domain::outbox`.
//! What it must not do: guess a destination, or seal before it transmits.

mod answer;
pub mod entity;
mod error;
mod flow;
mod handover;
mod keeper;
mod measure;
mod news;
pub mod operator;
mod prepare;
pub mod repo;
mod reporter;
mod seal;
mod seal_topic;
mod sender;
mod shared;
mod to_self;
mod unsent;
mod upkeep;
mod verdict;
mod writer;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::sync::{mpsc, oneshot, watch};

pub use self::error::Error;
pub use self::news::{dead, expired, rejected};
pub use self::prepare::Prepare;
pub use self::sender::SenderDeps;
use self::shared::Shared;
pub use self::to_self::{Keep, Kept};
use self::writer::{Command, Writer};
use crate::config::disk::Disk;
use crate::config::outbox::Outbox as OutboxConfig;
use crate::db::connect::Sqlite;
use crate::db::wal::WalKeeper;
use crate::domain::age_limit::{AgeLimit, DedupeWindow, age_limit};
use crate::domain::fingerprint::LocalFingerprint;
use crate::domain::ids::ClientMessageId;
use crate::domain::message::SendRequest;
use crate::domain::time::UnixMillis;
use crate::runtime::ballast::Ballast;
use crate::runtime::clock::Clock;
use crate::runtime::repeated::Repeated;
use crate::runtime::supervisor::Supervisor;
use crate::runtime::task_kind::{Phase, TaskKind};
use crate::runtime::time_guard::TimeGuard;

/// Commands that may wait for the writer. Beyond it callers are refused at
/// once instead of filling the memory.
const QUEUE: usize = 4096;
/// Keys of values that belong to the file as a whole.
const LAST_TICK: &str = "last_tick";
const LAST_VACUUM: &str = "last_vacuum";
const DEDUPE_WINDOW: &str = "dedupe_window";

/// How far a send is at its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptedState {
    /// On disk, not transmitted.
    Queued,
    /// Transmitted; the broker's answer is awaited.
    Inflight,
    /// The broker has it already; nothing was done.
    Duplicate,
}

/// The answer to a send that is durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The id to retry and to follow the send with.
    pub client_message_id: String,
    /// How far it is.
    pub state: AcceptedState,
    /// When the row was accepted first.
    pub queued_at: UnixMillis,
    /// The broker's id, once it has it.
    pub broker_message_id: Option<String>,
    /// The broker's history id, once it has one.
    pub history_id: Option<String>,
    /// The member or topic that it goes to.
    pub target_id: String,
    /// With which key.
    pub target_key: Option<String>,
    /// Under which name.
    pub target_name: Option<String>,
    /// What the receiver cannot be told, such as `meta`.
    pub degraded: Vec<String>,
    /// When the receiver's daemon stored it, by the broker's word.
    pub delivered_at: Option<UnixMillis>,
    /// Subscribers of the topic whose daemons have stored it, by the broker's word.
    pub delivered_count: Option<u32>,
}

/// The outbox for the rest of the daemon. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    db: Sqlite,
    prepare: Prepare,
    guard: TimeGuard,
    shared: Arc<Shared>,
}

/// What became of the writing of an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Report {
    Written,
    Failed,
    Stopping,
}

/// What the outbox works with.
#[derive(Debug)]
pub struct Setup {
    /// `[outbox]`.
    pub config: OutboxConfig,
    /// `[disk]`.
    pub disk: Disk,
    /// What is held back for a full disk.
    pub ballast: Ballast,
    /// The open, migrated and recovered database.
    pub db: Sqlite,
    /// The inbox's database, to measure both.
    pub inbox: Sqlite,
    /// Whether the clock may decide what is too old.
    pub guard: TimeGuard,
    /// Turns requests into rows.
    pub prepare: Prepare,
}

/// The tasks of the outbox, built but not started.
#[derive(Debug)]
pub struct Parts {
    writer: Writer,
    handle: Handle,
    arriving: mpsc::Receiver<entity::Model>,
    window: u32,
    disk: Disk,
    inbox: Sqlite,
    vacuumed_at: Option<UnixMillis>,
    clock: Clock,
}

/// The last time that a daemon of this outbox has noted.
pub async fn last_tick(db: &Sqlite) -> Result<Option<UnixMillis>, Error> {
    stored_time(db, LAST_TICK).await
}

/// Puts the outbox together. Refuses an age limit that the broker's memory does
/// not cover.
pub async fn prepare(setup: Setup, supervisor: &Supervisor) -> Result<Parts, Error> {
    let Setup { config, disk, ballast, db, inbox, guard, prepare } = setup;
    let unreadable = |error: sea_orm::DbErr| Error::Read(error.to_string());
    let clock = prepare.clock.clone();
    let depth = repo::depth(db.writer()).await.map_err(unreadable)?;
    let stored = repo::operator::meta(db.writer(), DEDUPE_WINDOW).await.map_err(unreadable)?;
    let window = stored.map_or(DedupeWindow::Unknown, |text| DedupeWindow::from_text(&text));
    let hours = age_hours(&config, window)?;
    let (commands, queue) = mpsc::channel(QUEUE);
    let (shared, arriving) = Shared::new(&config, depth, ballast.is_given_up());
    shared.set_terms(window, hours);
    let vacuumed_at = stored_time(&db, LAST_VACUUM).await?;
    let handle = Handle { commands, db: db.clone(), prepare, guard, shared: Arc::clone(&shared) };
    let writer = Writer {
        wal: WalKeeper::new(db.clone()).with_ballast(ballast),
        own: db.own_writer(),
        db,
        clock: clock.clone(),
        commands: queue,
        fsync_mode: config.fsync_mode,
        shared,
        step: writer::MAX_BATCH,
        orphans: Vec::new(),
        unwritten: Vec::new(),
        failures: Repeated::default(),
        resumed: false,
        stop: supervisor.token(Phase::Storage),
    };
    Ok(Parts { writer, handle, arriving, window: config.window, disk, inbox, vacuumed_at, clock })
}

/// The age limit of this start in hours.
fn age_hours(config: &OutboxConfig, window: DedupeWindow) -> Result<u32, Error> {
    match age_limit(config.max_age_hours, config.accept_redelivery_risk, window) {
        AgeLimit::Use { hours } => Ok(hours),
        AgeLimit::UseLess { hours } => {
            tracing::info!(
                "The broker has not said yet how long it remembers ids; until then sends live {hours} hours"
            );
            Ok(hours)
        }
        AgeLimit::UseAtRisk { hours, safe_hours } => {
            tracing::warn!(
                "outbox_max_age_above_dedupe_window: [outbox] max_age_hours = {hours} is accepted at your risk; beyond \
                 {safe_hours} hours a retry may be delivered twice"
            );
            Ok(hours)
        }
        AgeLimit::Refuse { safe_hours } => Err(Error::MaxAge { hours: config.max_age_hours, safe_hours }),
    }
}

async fn stored_time(db: &Sqlite, key: &str) -> Result<Option<UnixMillis>, Error> {
    let stored = repo::operator::meta(db.writer(), key).await.map_err(|error| Error::Read(error.to_string()))?;
    Ok(stored.and_then(|text| text.parse().ok()).map(UnixMillis))
}

// === impl Parts ===

impl Parts {
    /// The handle, also before the tasks run.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Starts the tasks.
    pub fn spawn(self, supervisor: &Supervisor, deps: SenderDeps) {
        supervisor.spawn(TaskKind::OutboxWriter, "outbox writer", self.writer.run());
        let keeper = keeper::Keeper {
            handle: self.handle.clone(),
            clock: self.clock.clone(),
            hub: deps.hub.clone(),
            metrics: deps.metrics.clone(),
            link: deps.link.state(),
            disk: self.disk,
            inbox: self.inbox,
            upkeep: upkeep::Upkeep { vacuumed_at: self.vacuumed_at, ..upkeep::Upkeep::default() },
            oldest: None,
            stop: supervisor.token(Phase::Workers),
        };
        supervisor.spawn(TaskKind::Maintenance, "outbox keeper", keeper.run());
        let stop = supervisor.token(Phase::Workers);
        let reporter = reporter::Reporter {
            handle: self.handle.clone(),
            ids: deps.ids.clone(),
            hub: deps.hub.clone(),
            metrics: deps.metrics.clone(),
            peers: deps.peers.clone(),
            backoff: deps.backoff,
            clock: self.clock.clone(),
            stop: stop.clone(),
        };
        let to_self = to_self::ToSelf {
            reporter: reporter.clone(),
            keep: deps.keep.clone(),
            member_id: deps.identity.member_id().clone(),
            stop: stop.clone(),
        };
        supervisor.spawn(TaskKind::OutboxSender, "sends to oneself", to_self.clone().run());
        let sender = sender::Sender {
            handle: self.handle,
            deps,
            arriving: self.arriving,
            reporter,
            to_self,
            clock: self.clock,
            window: self.window,
            flow: flow::Flow::new(),
            due: None,
            unread: Repeated::default(),
            stop,
        };
        supervisor.spawn(TaskKind::OutboxSender, "outbox sender", sender.run());
    }
}

// === impl Handle ===

impl Handle {
    /// Makes a send durable and answers. A known id is answered from its row, also
    /// when it could not be accepted any more.
    pub async fn accept(&self, request: SendRequest) -> Result<Accepted, Error> {
        self.accept_with(request, None).await
    }

    /// The same for a request that was changed after its caller wrote it; the
    /// fingerprint is that of what the caller wrote.
    pub async fn accept_as(&self, request: SendRequest, written: LocalFingerprint) -> Result<Accepted, Error> {
        self.accept_with(request, Some(written)).await
    }

    /// The fingerprint of a request, and the answer from the row that holds its id, if
    /// there is one.
    pub async fn lookup(&self, request: &SendRequest) -> Result<(LocalFingerprint, Option<Accepted>), Error> {
        let (fingerprint, known) = self.prepare.lookup(&self.db, request).await?;
        Ok((fingerprint, known.map(|known| self.count_duplicate(known)).transpose()?))
    }

    async fn accept_with(&self, request: SendRequest, written: Option<LocalFingerprint>) -> Result<Accepted, Error> {
        let room = |id: &ClientMessageId| self.check_room(id);
        let prepared = match self.prepare.run(&self.db, request, written, room).await? {
            prepare::Prepared::Known(answer) => return self.count_duplicate(*answer),
            prepare::Prepared::New(row) => row,
        };
        let id = prepare::id_of(&prepared)?;
        let (reply, answer) = oneshot::channel();
        match self.commands.try_send(Command::Accept { row: prepared, reply }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(Error::Busy(id)),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(Error::ShuttingDown(id)),
        }
        let accepted = answer.await.unwrap_or(Err(Error::ShuttingDown(id)))?;
        if accepted.state == AcceptedState::Queued {
            self.row_added();
            self.shared.note_activity(self.prepare.clock.monotonic());
        }
        self.count_duplicate(accepted)
    }

    /// Rows per state, as the keeper last saw them.
    pub fn depth(&self) -> watch::Receiver<repo::Depth> {
        self.shared.depth.subscribe()
    }

    /// Rows per state now.
    pub async fn count(&self) -> Result<repo::Depth, Error> {
        repo::depth(self.db.readers()).await.map_err(|error| Error::Read(error.to_string()))
    }

    /// Sends that were answered from an existing row since the start.
    pub fn duplicates(&self) -> u64 {
        self.shared.duplicates.load(Ordering::Relaxed)
    }

    /// Notes what receivers have made of sends, by the broker's word. Returns
    /// when that is written or could not be.
    async fn note_reported(&self, reported: Vec<repo::Reported>) {
        let (reply, written) = oneshot::channel();
        // Only information: when the writer is gone the daemon is stopping.
        if self.commands.send(Command::Reported { reported, reply }).await.is_ok() {
            let _ = written.await;
        }
    }

    fn count_duplicate(&self, accepted: Accepted) -> Result<Accepted, Error> {
        if accepted.state == AcceptedState::Duplicate {
            self.shared.duplicates.fetch_add(1, Ordering::Relaxed);
        }
        Ok(accepted)
    }

    /// The rows that hold these client ids. What cannot be read is left out: it is
    /// wanted to tell more of an event.
    async fn rows_of(&self, ids: &[String]) -> HashMap<String, repo::Existing> {
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let found = repo::find(self.db.readers(), &ids).await.unwrap_or_default();
        found.into_iter().map(|row| (row.client_message_id.clone(), row)).collect()
    }

    /// What the broker remembers, the age limit in force, and now.
    fn terms(&self) -> operator::Terms {
        let (window, max_age) = self.shared.terms();
        operator::Terms { now: self.prepare.clock.now(), window, max_age }
    }

    async fn claim(&self, limit: u32, only: repo::Only) -> Option<Result<repo::Claimed, sea_orm::DbErr>> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Claim { limit, only, reply }).await.ok()?;
        answer.await.ok()
    }

    /// Writes an outcome.
    async fn report(&self, id: String, outcome: repo::Outcome) -> Report {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(Command::Outcome { id, outcome, reply }).await.is_err() {
            return Report::Stopping;
        }
        if answer.await.is_ok() { Report::Written } else { Report::Failed }
    }

    async fn expire(&self, accepted_before: UnixMillis) -> Option<Result<Vec<String>, sea_orm::DbErr>> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Expire { accepted_before, reply }).await.ok()?;
        answer.await.ok()
    }
}
