//! Durable sending: from a caller's request to the broker's acceptance.
//!
//! What it is for: a send is on disk before it is answered, and it goes out
//! until the broker has it, the age limit ends it or the operator does.
//! What runs here: the writer (`writer.rs`), the only one to change the table;
//! the sender (`sender.rs`), which claims due rows and transmits them in the
//! order of accept; the keeper (`keeper.rs`), which gives up what is too old.
//! What it guarantees: one row per client message id; an answer only after the
//! commit is synced (R136); at most one transmit of a row at a time (R140). The
//! states of a row are drawn in `domain::outbox`.
//! What it must not do: guess a destination, or seal before it transmits.

mod answer;
pub mod entity;
mod error;
mod keeper;
mod prepare;
pub mod repo;
mod seal;
mod sender;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, mpsc, oneshot, watch};

pub use self::error::Error;
pub use self::prepare::Prepare;
pub use self::sender::SenderDeps;
use self::writer::{Command, Writer};
use crate::config::outbox::Outbox as OutboxConfig;
use crate::db::connect::Sqlite;
use crate::domain::message::SendRequest;
use crate::domain::time::UnixMillis;
use crate::runtime::clock::Clock;
use crate::runtime::supervisor::Supervisor;
use crate::runtime::task_kind::{Phase, TaskKind};

/// Commands that may wait for the writer. Beyond it callers are refused at
/// once instead of filling the memory.
const QUEUE: usize = 4096;

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
    pub accepted_at: UnixMillis,
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
}

/// The outbox for the rest of the daemon. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    db: Sqlite,
    prepare: Prepare,
    shared: Arc<Shared>,
}

/// What the tasks of this folder tell each other.
#[derive(Debug)]
struct Shared {
    /// Rows were added or became due.
    wake: Notify,
    /// Waiting rows, for the limit; corrected by the keeper.
    pending: AtomicU64,
    max_queue_size: u64,
    /// Sends that were answered as duplicates, for the metrics.
    duplicates: AtomicU64,
    depth: watch::Sender<repo::Depth>,
}

/// The tasks of the outbox, built but not started.
#[derive(Debug)]
pub struct Parts {
    writer: Writer,
    keeper: keeper::Keeper,
    handle: Handle,
    window: u32,
    clock: Clock,
}

/// Puts the outbox together on an open, migrated and recovered database.
pub async fn prepare(
    config: &OutboxConfig,
    db: Sqlite,
    clock: Clock,
    prepare: Prepare,
    supervisor: &Supervisor,
) -> Result<Parts, Error> {
    let depth = repo::depth(db.writer()).await.map_err(|error| Error::Read(error.to_string()))?;
    let (commands, queue) = mpsc::channel(QUEUE);
    let shared = Arc::new(Shared {
        wake: Notify::new(),
        pending: AtomicU64::new(depth.pending + depth.inflight),
        max_queue_size: config.max_queue_size,
        duplicates: AtomicU64::new(0),
        depth: watch::Sender::new(depth),
    });
    let handle = Handle { commands, db: db.clone(), prepare, shared };
    let writer = Writer {
        db,
        clock: clock.clone(),
        commands: queue,
        fsync_mode: config.fsync_mode,
        stop: supervisor.token(Phase::Storage),
    };
    let keeper = keeper::Keeper {
        handle: handle.clone(),
        clock: clock.clone(),
        max_age: config.max_age(),
        stop: supervisor.token(Phase::Workers),
    };
    Ok(Parts { writer, keeper, handle, window: config.window, clock })
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
        supervisor.spawn(TaskKind::Maintenance, "outbox keeper", self.keeper.run());
        let sender = sender::Sender {
            handle: self.handle,
            deps,
            clock: self.clock,
            window: self.window,
            stop: supervisor.token(Phase::Workers),
        };
        supervisor.spawn(TaskKind::OutboxSender, "outbox sender", sender.run());
    }
}

// === impl Handle ===

impl Handle {
    /// Makes a send durable and answers. A known id is answered from its row,
    /// without looking its destination up again.
    pub async fn accept(&self, request: SendRequest) -> Result<Accepted, Error> {
        let prepared = match self.prepare.run(self.db.readers(), request).await? {
            prepare::Prepared::Known(answer) => return self.count_duplicate(*answer),
            prepare::Prepared::New(row) => row,
        };
        let id = prepare::id_of(&prepared)?;
        let waiting = self.shared.pending.load(Ordering::Relaxed);
        if waiting >= self.shared.max_queue_size {
            return Err(Error::Full { rows: waiting, limit: self.shared.max_queue_size });
        }
        let (reply, answer) = oneshot::channel();
        match self.commands.try_send(Command::Accept { row: prepared, reply }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return Err(Error::Busy(id)),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(Error::ShuttingDown(id)),
        }
        let accepted = answer.await.unwrap_or(Err(Error::ShuttingDown(id)))?;
        if accepted.state == AcceptedState::Queued {
            self.shared.pending.fetch_add(1, Ordering::Relaxed);
            self.shared.wake.notify_one();
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

    /// Notes that receivers have stored messages, by the broker's word.
    pub async fn note_delivered(&self, client_message_ids: Vec<String>, at: UnixMillis) {
        // Only information: when the writer is gone the daemon is stopping.
        let _ = self.commands.send(Command::Delivered { client_message_ids, at }).await;
    }

    fn count_duplicate(&self, accepted: Accepted) -> Result<Accepted, Error> {
        if accepted.state == AcceptedState::Duplicate {
            self.shared.duplicates.fetch_add(1, Ordering::Relaxed);
        }
        Ok(accepted)
    }

    async fn claim(&self, limit: u32) -> Option<Result<Vec<entity::Model>, sea_orm::DbErr>> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Claim { limit, reply }).await.ok()?;
        answer.await.ok()
    }

    /// Writes an outcome; false when it could not be written.
    async fn report(&self, id: String, outcome: repo::Outcome) -> bool {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Outcome { id, outcome, reply }).await.is_ok() && answer.await.is_ok()
    }

    async fn expire(&self, accepted_before: UnixMillis) -> Option<Result<Vec<String>, sea_orm::DbErr>> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Expire { accepted_before, reply }).await.ok()?;
        answer.await.ok()
    }
}
