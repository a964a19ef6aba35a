//! Moves the write-ahead log into the database file without making anybody wait
//! for it.
//!
//! A checkpoint inside a commit delays whoever happens to commit, and one beside
//! the writer never ends while the writer goes on: the log starts over only when
//! everything in it has been moved. So the bulk is moved beside the writer, and
//! the little that came meanwhile while the writer pauses.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

use futures_util::poll;

use super::Error;
use super::connect::{CheckpointMode, Checkpointed, Sqlite};

/// Bytes in the log at which they are moved.
const MOVE_AT: u64 = 16 << 20;
/// Bytes in the log that are few enough to be moved while the writer waits.
const FEW: u64 = 4 << 20;
/// Bytes in the log at which the writer waits in any case.
const TOO_MUCH: u64 = 64 << 20;
const PAGE: u64 = 4096;

type Moving = Pin<Box<dyn Future<Output = Result<Checkpointed, Error>> + Send>>;

/// Belongs to the task that writes; it tells what it wrote.
pub struct WalKeeper {
    db: Sqlite,
    /// Bytes in the log, estimated from what was written.
    waiting: u64,
    /// Those of them that came after the move began.
    later: u64,
    moving: Option<Moving>,
}

// === impl WalKeeper ===

impl WalKeeper {
    /// For the writer of `db`.
    pub fn new(db: Sqlite) -> Self {
        // What an earlier process has left is moved with the first share.
        let waiting = db.wal_bytes();
        Self { db, waiting, later: 0, moving: None }
    }

    /// To be called after each commit, with the pages that it changed, roughly.
    /// Waits only when little is left to move, or far too much.
    pub async fn wrote(&mut self, pages: u64) {
        let bytes = pages.saturating_mul(PAGE);
        self.waiting = self.waiting.saturating_add(bytes);
        self.later = self.later.saturating_add(bytes);
        if self.waiting > TOO_MUCH {
            self.moving = None;
            self.finish().await;
        } else if let Some(moving) = &mut self.moving {
            if let Poll::Ready(result) = poll!(moving.as_mut()) {
                self.moved(result).await;
            }
        } else if self.waiting > MOVE_AT {
            let db = self.db.clone();
            self.later = 0;
            let moving = self.moving.insert(Box::pin(async move { db.checkpoint(CheckpointMode::Passive).await }));
            // The first poll hands it to the engine's own thread.
            if let Poll::Ready(result) = poll!(moving.as_mut()) {
                self.moved(result).await;
            }
        }
    }

    /// The bulk is in the file.
    async fn moved(&mut self, result: Result<Checkpointed, Error>) {
        self.moving = None;
        self.note(result, self.later);
        if self.waiting <= FEW {
            self.finish().await;
        }
    }

    /// Moves everything; nobody writes meanwhile.
    async fn finish(&mut self) {
        let result = self.db.checkpoint(CheckpointMode::Passive).await;
        self.note(result, 0);
    }

    fn note(&mut self, result: Result<Checkpointed, Error>, later: u64) {
        let left = match result {
            Ok(done) => u64::try_from(done.wal_pages - done.moved_pages).unwrap_or(0).saturating_mul(PAGE),
            Err(error) => {
                tracing::warn!(error = %error, "A database log was not moved into its file: {error}");
                0
            }
        };
        self.waiting = left + later;
    }
}

impl fmt::Debug for WalKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WalKeeper").field("waiting", &self.waiting).field("moving", &self.moving.is_some()).finish()
    }
}
