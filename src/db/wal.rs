//! Moves the write-ahead log into the database file without making anybody wait
//! for it.
//!
//! A checkpoint inside a commit delays whoever happens to commit, and one beside
//! the writer never ends while the writer goes on: the log starts over only when
//! everything in it has been moved. So the bulk is moved beside the writer, and
//! the little that came meanwhile while the writer pauses.
//!
//! While room on the disk is short the log is moved and cut after each commit: it
//! could not be later, since its rows need room in the file.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

use futures_util::poll;

use super::Error;
use super::connect::{CheckpointMode, Checkpointed, Sqlite};
use crate::runtime::ballast::{self, Ballast};
use crate::runtime::repeated::Repeated;

/// Bytes of rows at which they are moved: few enough that nobody waits long, many
/// enough that a page which every commit changes is moved once for many of them.
const MOVE_AT: u64 = 4 << 20;
/// Bytes in the log at which they are moved, however few rows they hold.
const LOG_AT: u64 = 16 << 20;
/// Bytes of rows that are few enough to be moved while the writer waits.
const FEW: u64 = 1 << 20;
/// Length of the log at which it has to start over, however much is left to move: it
/// starts over only when all of it is moved, and a busy writer always adds more.
const LONG: u64 = 24 << 20;
/// Bytes left to move at which the writer waits in any case.
const TOO_MUCH: u64 = 48 << 20;
/// Pages that a commit changes beside those of its rows, roughly. The next commit
/// changes the same ones again.
const PAGES_A_COMMIT: u64 = 8;
const PAGE: u64 = 4096;

type Moving = Pin<Box<dyn Future<Output = Result<Checkpointed, Error>> + Send>>;

/// Belongs to the task that writes; it tells what it wrote.
pub struct WalKeeper {
    db: Sqlite,
    /// What is in the log, estimated from what was written.
    waiting: Amount,
    /// The part of it that came after the move began.
    later: Amount,
    moving: Option<Moving>,
    /// Where there is one, what it holds back is used to move the log on a full disk.
    ballast: Option<Ballast>,
    held: Repeated,
}

/// Bytes in the log.
#[derive(Clone, Copy, Debug, Default)]
struct Amount {
    /// All of them.
    log: u64,
    /// Those of pages that only one commit changed.
    rows: u64,
}

// === impl Amount ===

impl Amount {
    fn add(&mut self, row_pages: u64, again: u64) {
        let rows = row_pages.saturating_mul(PAGE);
        self.rows = self.rows.saturating_add(rows);
        self.log =
            self.log.saturating_add(rows).saturating_add(again.saturating_add(PAGES_A_COMMIT).saturating_mul(PAGE));
    }
}

// === impl WalKeeper ===

impl WalKeeper {
    /// For the writer of `db`.
    pub fn new(db: Sqlite) -> Self {
        // What an earlier process has left is moved with the first share.
        let bytes = db.wal_bytes();
        Self {
            db,
            waiting: Amount { log: bytes, rows: bytes },
            later: Amount::default(),
            moving: None,
            ballast: None,
            held: Repeated::default(),
        }
    }

    /// Looks after the room on the disk, too.
    pub fn with_ballast(self, ballast: Ballast) -> Self {
        Self { ballast: Some(ballast), ..self }
    }

    /// To be called after each commit, with the pages that its new rows fill and those
    /// that it writes again, roughly: they lengthen the log and are moved once.
    /// Waits only when little is left to move, or far too much, or the log is long.
    pub async fn wrote(&mut self, row_pages: u64, again: u64) {
        self.waiting.add(row_pages, again);
        self.later.add(row_pages, again);
        if self.is_room_short() {
            self.cut().await;
        } else if self.waiting.log > TOO_MUCH {
            self.moving = None;
            self.finish().await;
        } else if let Some(moving) = &mut self.moving {
            if let Poll::Ready(result) = poll!(moving.as_mut()) {
                self.moved(result).await;
            }
        } else if self.waiting.rows > MOVE_AT || self.waiting.log > LOG_AT {
            let db = self.db.clone();
            self.later = Amount::default();
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
        let length = self.note(result, self.later);
        if self.waiting.rows <= FEW || length.is_some_and(|length| length > LONG) {
            self.finish().await;
        }
    }

    /// Moves everything; nobody writes meanwhile.
    async fn finish(&mut self) {
        let result = self.db.checkpoint(CheckpointMode::Passive).await;
        // Of a log that could not be moved nothing is known.
        let Some(length) = self.note(result, Amount::default()) else { return };
        let was_held = self.db.held_log() > 0;
        if length > LONG && self.waiting.log > FEW {
            self.db.set_held_log(length);
            if let Some(times) = self.held.tell() {
                let (path, mb) = (self.db.path().display(), length / 1_000_000);
                tracing::warn!(
                    bytes = length,
                    times,
                    "The log {path}-wal grows, {mb} MB by now: another program reads {path} and keeps it from starting \
                     over; end its transaction (see who it is: fuser {path})"
                );
            }
        } else if was_held {
            self.db.set_held_log(0);
            // So long a file is of no use to anybody.
            self.cut().await;
            tracing::info!("The log {}-wal starts over again", self.db.path().display());
        }
    }

    /// Looks again whether a log that was held can start over, also when nothing is
    /// written.
    pub async fn look_again(&mut self) {
        if self.db.held_log() > 0 && self.moving.is_none() {
            self.finish().await;
        }
    }

    /// Whether what is in the log would hardly find room in the file.
    fn is_room_short(&self) -> bool {
        self.ballast.as_ref().is_some_and(|it| it.free_bytes() < self.waiting.rows.saturating_add(ballast::BYTES))
    }

    /// Moves everything, with the room of the ballast if there is no other, and gives
    /// the log's own room back.
    async fn cut(&mut self) {
        self.moving = None;
        let mut result = self.db.checkpoint(CheckpointMode::Truncate).await;
        if let (Err(error), Some(ballast)) = (&result, &self.ballast)
            && error.is_full()
        {
            ballast.give_up_all();
            result = self.db.checkpoint(CheckpointMode::Truncate).await;
        }
        if result.is_ok()
            && let Some(ballast) = &self.ballast
        {
            ballast.hold_last();
        }
        self.note(result, Amount::default());
    }

    /// After a write that found no room: makes some for what has to be written, which
    /// is not new rows. See [`Self::has_room`] for these.
    pub async fn make_room(&mut self) {
        self.cut().await;
        if let Some(ballast) = &self.ballast {
            ballast.free_for_writes(ballast::BYTES / 2);
        }
    }

    /// Gives all that is held back up if there are not so many bytes on the disk
    /// without it. False if there are not with it.
    pub fn free_for(&self, bytes: u64) -> bool {
        let Some(ballast) = &self.ballast else { return true };
        if ballast.free_bytes() < bytes {
            if ballast.free_bytes().saturating_add(ballast.held_bytes()) < bytes {
                return false;
            }
            ballast.give_up_all();
        }
        ballast.free_bytes() >= bytes
    }

    /// Whether new rows of so many bytes may be written: not where they would take the
    /// room that the rest needs.
    pub fn has_room(&self, bytes: u64) -> bool {
        let Some(ballast) = &self.ballast else { return true };
        !ballast.is_given_up() || ballast.hold() || ballast.free_bytes() >= ballast::BYTES / 2 + bytes
    }

    /// Whether what is held back for a full disk is whole.
    pub fn is_whole(&self) -> bool {
        self.ballast.as_ref().is_none_or(|ballast| !ballast.is_given_up())
    }

    /// Whether there is room for them in pages of the file that are free.
    pub async fn has_free_pages(&mut self, bytes: u64) -> bool {
        self.db.free_bytes().await.is_ok_and(|free| free >= ballast::BYTES / 4 + bytes)
    }

    /// Notes what is left; returns the length of the log, if it is known.
    fn note(&mut self, result: Result<Checkpointed, Error>, later: Amount) -> Option<u64> {
        let bytes = |pages: i64| u64::try_from(pages).unwrap_or(0).saturating_mul(PAGE);
        let (left, length) = match result {
            Ok(done) if done.wal_pages >= 0 => (bytes(done.wal_pages - done.moved_pages), Some(bytes(done.wal_pages))),
            // Another program moves it just now.
            Ok(_) => (0, None),
            Err(error) => {
                tracing::warn!(error = %error, "A database log was not moved into its file: {error}");
                (0, None)
            }
        };
        self.waiting = Amount { log: left + later.log, rows: left + later.rows };
        length
    }
}

impl fmt::Debug for WalKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WalKeeper").field("waiting", &self.waiting).field("moving", &self.moving.is_some()).finish()
    }
}

#[cfg(test)]
mod tests {
    use sea_orm::ConnectionTrait as _;

    use super::*;
    use crate::db::script::Script;

    async fn write(db: &Sqlite, own: &mut crate::db::OwnWriter, keeper: &mut WalKeeper) {
        let mut script = Script::default();
        script.insert("t (payload)", 1, 64, "", |script| {
            for _ in 0..64 {
                script.bind(vec![7_u8; 3500]);
            }
        });
        own.run(script).await.unwrap_or_else(|error| panic!("{}: {error}", db.path().display()));
        keeper.wrote(64, 0).await;
    }

    #[tokio::test]
    async fn a_log_that_a_reader_holds_is_told_and_cut_after_it() {
        use sea_orm::TransactionTrait as _;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.db");
        let db = Sqlite::open(&path, 1).await.expect("opens");
        db.writer().execute_unprepared("CREATE TABLE t (id INTEGER PRIMARY KEY, payload BLOB)").await.expect("a table");
        let mut own = db.own_writer();
        let mut keeper = WalKeeper::new(db.clone());
        let other = Sqlite::open(&path, 1).await.expect("opens");
        let reading = other.readers().begin().await.expect("begins");
        reading.execute_unprepared("SELECT count(*) FROM t").await.expect("reads");
        for _ in 0..250 {
            write(&db, &mut own, &mut keeper).await;
        }
        assert!(db.held_log() > LONG, "{} bytes", db.held_log());
        reading.rollback().await.expect("ends");
        keeper.look_again().await;
        assert_eq!(db.held_log(), 0);
        assert_eq!(db.wal_bytes(), 0, "the file is short again");
    }

    #[tokio::test]
    async fn the_log_starts_over_while_the_writer_goes_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let db = Sqlite::open(&folder.path().join("t.db"), 1).await.expect("opens");
        db.writer().execute_unprepared("CREATE TABLE t (id INTEGER PRIMARY KEY, payload BLOB)").await.expect("a table");
        let mut own = db.own_writer();
        let mut keeper = WalKeeper::new(db.clone());
        // 150 MiB in all. Without the keeper SQLite would move them at 80 MB.
        for _ in 0..600 {
            write(&db, &mut own, &mut keeper).await;
        }
        assert!(db.wal_bytes() < LONG + TOO_MUCH, "{} bytes", db.wal_bytes());
    }
}
