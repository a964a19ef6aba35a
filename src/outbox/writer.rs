//! The outbox's writer: group commit without a timer.
//!
//! What it is for: every change of the outbox table goes through this one task,
//! so that changes have one order and share their synced commits.
//! What runs here: one task. It takes the commands that wait, writes them, and
//! answers. While one commit is synced to disk the next batch collects.
//! What it guarantees: a caller is answered after the commit of its row is on
//! disk (R136); after a failed batch each caller is answered from what the
//! table holds, not from what was attempted.
//! What it must not do: wait for more commands, or for anything but the disk.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sea_orm::{DatabaseConnection, DbErr};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::entity::Model;
use super::operator::{self, Done, Task, Terms};
use super::repo::{self, Batch, Claimed, Existing, Only, Outcome, Reported};
use super::{Accepted, Shared, answer};
use crate::config::outbox::FsyncMode;
use crate::db::OwnWriter;
use crate::db::connect::Sqlite;
use crate::db::script::MAX_ROWS;
use crate::db::tx;
use crate::db::wal::WalKeeper;
use crate::domain::fingerprint::LocalFingerprint;
use crate::domain::outbox::OutboxState;
use crate::domain::time::UnixMillis;
use crate::runtime::clock::Clock;
use crate::runtime::repeated::Repeated;

/// Commands that one commit covers at most.
pub(super) const MAX_BATCH: usize = MAX_ROWS;

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Insert a row, or answer from the one that holds the id.
    Accept { row: Box<Model>, reply: oneshot::Sender<Result<Accepted, super::Error>> },
    /// Move due rows to `inflight`.
    Claim { limit: u32, only: Only, reply: oneshot::Sender<Result<Claimed, DbErr>> },
    /// Write what became of a transmit.
    Outcome { id: String, outcome: Outcome, reply: oneshot::Sender<()> },
    /// Note what receivers have made of sends.
    Reported { reported: Vec<Reported>, reply: oneshot::Sender<()> },
    /// Give up what is too old.
    Expire { accepted_before: UnixMillis, reply: oneshot::Sender<Result<Vec<String>, DbErr>> },
    /// Do what an operator or the keeper asks.
    Task { task: Task, terms: Terms, reply: oneshot::Sender<Result<Done, super::Error>> },
}

/// The task's belongings.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) db: Sqlite,
    /// For new rows and outcomes.
    pub(super) own: OwnWriter,
    pub(super) wal: WalKeeper,
    pub(super) clock: Clock,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) fsync_mode: FsyncMode,
    pub(super) shared: Arc<Shared>,
    /// Commands that share a commit, and rows that a claim takes: fewer on a full disk,
    /// where the commit has to fit into what is left.
    pub(super) step: usize,
    /// Rows that were to leave at once; whether they are there is not known.
    pub(super) orphans: Vec<String>,
    /// News of receivers that could not be written; the broker does not tell them
    /// again, so they go with the next batch.
    pub(super) unwritten: Vec<Reported>,
    pub(super) failures: Repeated,
    /// New rows are taken although what is held back for a full disk is not whole.
    pub(super) resumed: bool,
    /// Cancelled in the storage phase; what waits then is still written.
    pub(super) stop: CancellationToken,
}

/// News of receivers that wait for a commit at most; they are for information.
const MAX_UNWRITTEN: usize = 10_000;

/// Room on the disk that a VACUUM needs beside its result.
const SPARE: u64 = 64 << 10;
/// What must be free, beyond the room that new rows leave over, to take some again.
const RESUME: u64 = 1 << 20;

/// A caller that waits for its row.
type Waiting = oneshot::Sender<Result<Accepted, super::Error>>;

/// Why rows were not inserted.
struct Unwritten {
    is_full: bool,
    detail: String,
}

/// What shares one commit.
#[derive(Default)]
struct Together {
    rows: Vec<Model>,
    callers: Vec<Waiting>,
    outcomes: Vec<(String, Outcome)>,
    reported: Vec<Reported>,
    /// Who waits for outcomes and for what receivers have made of sends.
    replies: Vec<oneshot::Sender<()>>,
}

// === impl Writer ===

impl Writer {
    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        loop {
            batch.clear();
            let count = tokio::select! {
                biased;
                count = self.commands.recv_many(&mut batch, self.step) => count,
                () = self.stop.cancelled() => 0,
            };
            if count == 0 {
                break;
            }
            if self.fsync_mode == FsyncMode::Batched50ms && count < self.step {
                self.collect_more(&mut batch).await;
            }
            self.write(std::mem::take(&mut batch)).await;
        }
        // Everybody who writes may be gone before this phase begins.
        self.stop.cancelled().await;
        // Nobody may be left without an answer: the queue is closed, then emptied.
        self.commands.close();
        loop {
            batch.clear();
            if self.commands.recv_many(&mut batch, self.step).await == 0 {
                break;
            }
            self.write(std::mem::take(&mut batch)).await;
        }
        self.own.close().await;
    }

    async fn collect_more(&mut self, batch: &mut Vec<Command>) {
        let until = tokio::time::sleep(Duration::from_millis(50));
        tokio::pin!(until);
        while batch.len() < self.step {
            tokio::select! {
                () = &mut until => return,
                command = self.commands.recv() => match command {
                    Some(command) => batch.push(command),
                    None => return,
                },
            }
        }
    }

    /// Writes new rows and outcomes with one commit, however they are mixed in the
    /// queue: all of a batch's commands were given before any was answered, so no
    /// caller relies on an order between them. Claims come after, so that they find
    /// the rows of the same batch.
    async fn write(&mut self, batch: Vec<Command>) {
        let mut together = Together::default();
        let mut claims = Vec::new();
        let mut expiries = Vec::new();
        let mut tasks = Vec::new();
        for command in batch {
            match command {
                Command::Accept { row, reply } => {
                    together.rows.push(*row);
                    together.callers.push(reply);
                }
                Command::Outcome { id, outcome, reply } => {
                    together.outcomes.push((id, outcome));
                    together.replies.push(reply);
                }
                Command::Reported { reported, reply } => {
                    self.unwritten.extend(reported);
                    together.replies.push(reply);
                }
                Command::Claim { limit, only, reply } => claims.push((limit, only, reply)),
                Command::Expire { accepted_before, reply } => expiries.push((accepted_before, reply)),
                Command::Task { task, terms, reply } => tasks.push((task, terms, reply)),
            }
        }
        self.put_back_orphans().await;
        let pages = together.rows.iter().map(pages_of).sum::<u64>();
        // Each row that is changed is written again, with its page.
        let mut again = (together.outcomes.len() + self.unwritten.len()) as u64;
        together.reported = self.next_news();
        let mut written = self.write_together(together).await;
        while written && !self.unwritten.is_empty() {
            let reported = self.next_news();
            written = self.write_together(Together { reported, ..Together::default() }).await;
        }
        for (limit, only, reply) in claims {
            let limit = limit.min(u32::try_from(self.step).unwrap_or(u32::MAX));
            let claimed = repo::claim_due(self.writer(), self.clock.now(), limit, &only).await;
            again += claimed.iter().flat_map(|claimed| &claimed.rows).map(pages_of).sum::<u64>();
            self.after(claimed.as_ref().err()).await;
            // The sender asks again when its link or this task is gone.
            let _ = reply.send(claimed);
        }
        for (accepted_before, reply) in expiries {
            let expired = repo::expire(self.writer(), accepted_before, self.clock.now()).await;
            self.after(expired.as_ref().err()).await;
            let _ = reply.send(expired);
        }
        for (task, terms, reply) in tasks {
            let done = match task {
                Task::MakeRoom { vacuumed } => self.make_room(vacuumed, terms).await,
                Task::LookAtLog => {
                    self.wal.look_again().await;
                    Ok(Done::Written)
                }
                task => operator::run(self.writer(), task, terms).await,
            };
            match done {
                Err(super::Error::NotWritten(_)) => self.reopen().await,
                Err(super::Error::NoRoom(_)) => {
                    self.reopen().await;
                    self.full().await;
                }
                _ => {}
            }
            let _ = reply.send(done);
        }
        self.wal.wrote(pages, again).await;
        if !self.has_room(0).await {
            self.note_full();
        }
    }

    /// News of receivers for one commit. Each changes a row, so that on a full disk all of
    /// them might never find room.
    fn next_news(&mut self) -> Vec<Reported> {
        let count = self.unwritten.len().min(self.step);
        self.unwritten.drain(..count).collect()
    }

    /// False if nothing was written.
    async fn write_together(&mut self, together: Together) -> bool {
        let Together { mut rows, callers, outcomes, reported, replies } = together;
        if callers.is_empty() && replies.is_empty() && reported.is_empty() {
            return true;
        }
        let now = self.clock.now();
        // What goes to this member itself has a way of its own.
        let leaving = rows.iter().filter(|row| !row.to_self).count();
        let has_room = rows.is_empty() || self.has_room(bytes_of(&rows)).await;
        let at_once = leaving > 0 && has_room && self.shared.handover.take(leaving);
        if at_once {
            for row in rows.iter_mut().filter(|row| !row.to_self) {
                row.status = OutboxState::Inflight.name().to_owned();
                row.attempts = 1;
                row.first_transmit_at = Some(now.0);
            }
        }
        // What was accepted before has to end in order, also where nothing new is taken.
        let new = if has_room { rows.as_slice() } else { &[] };
        let together = Batch { rows: new, outcomes: &outcomes, reported: &reported };
        let written = repo::write(&mut self.own, together, now).await;
        self.after(written.as_ref().err()).await;
        match &written {
            Ok(_) => {
                // On a full disk what has found room does so again, and more may not.
                if !self.shared.disk_full.load(Ordering::Relaxed) {
                    self.step = (self.step * 2).min(MAX_BATCH);
                }
                self.note_room().await;
                for reply in replies {
                    let _ = reply.send(());
                }
            }
            // Rows stay `inflight`; the replies are dropped, by which the sender
            // learns it and asks again. The broker recognises the ids.
            Err(error) => {
                if let Some(times) = self.failures.tell() {
                    let (sends, outcomes) = (rows.len(), outcomes.len());
                    tracing::error!(sends, outcomes, times, error = %error, "A batch was not written: {error}");
                }
                self.unwritten.splice(..0, reported);
                self.unwritten.truncate(MAX_UNWRITTEN);
            }
        }
        let is_written = written.is_ok();
        if !rows.is_empty() {
            let written = match written {
                Ok(_) if !has_room => Err(Unwritten { is_full: true, detail: "the disk is full".to_owned() }),
                Ok(count) => Ok(count),
                Err(error) => Err(Unwritten { is_full: tx::is_full(&error), detail: error.to_string() }),
            };
            self.answer(rows, callers, written, at_once).await;
        }
        is_written
    }

    /// Answers the callers, and hands rows over that are to leave at once.
    async fn answer(
        &mut self,
        rows: Vec<Model>,
        callers: Vec<Waiting>,
        written: Result<u64, Unwritten>,
        at_once: bool,
    ) {
        // Where not all are new, some ids are held by older rows; where the
        // statement failed, only the table knows. Rows are never deleted, so the
        // look-up after the statement sees what the statement saw.
        let all_new = written.as_ref().is_ok_and(|count| *count == rows.len() as u64);
        let ids: Vec<&str> =
            if all_new { Vec::new() } else { rows.iter().map(|row| row.client_message_id.as_str()).collect() };
        let existing = self.look_up(&ids).await;
        for (row, reply) in rows.into_iter().zip(callers) {
            let found = existing.as_ref().map(|found| found.get(&row.client_message_id));
            // Not every row that holds the id is this one.
            let is_there = all_new || matches!(found, Ok(Some(found)) if found.id == row.id);
            let answer = match found {
                _ if is_there => Ok(answer::queued(&row)),
                Ok(Some(found)) => answer::from_existing(found, &fingerprint(&row.request_fingerprint)),
                Err(error) => Err(answer::storage(&row, error)),
                Ok(None) => Err(match &written {
                    Err(Unwritten { is_full: true, .. }) => answer::disk_full(&row, self.db.path()),
                    Err(Unwritten { detail, .. }) => answer::storage(&row, detail),
                    Ok(_) => answer::storage(&row, "the row is not there"),
                }),
            };
            if row.to_self {
                self.shared.wake_to_self.notify_one();
            } else if at_once {
                self.hand_over(row, is_there, existing.is_err());
            }
            // The caller may have gone; its row stays and a retry finds it.
            let _ = reply.send(answer);
        }
        if !at_once {
            self.shared.wake.notify_one();
        }
    }

    /// Hands a row over that was inserted for that. One that is not there, or may
    /// not be, has no place in the window any more.
    fn hand_over(&mut self, row: Model, is_there: bool, is_unknown: bool) {
        let left = if is_there { self.shared.handover.give(row).err() } else { Some(Box::new(row)) };
        let Some(row) = left else { return };
        self.shared.handover.arrived(1);
        if is_there || is_unknown {
            // If it is there it has to wait like others.
            self.orphans.push(row.id);
        }
    }

    /// Lets rows wait like others that were to leave at once and did not.
    async fn put_back_orphans(&mut self) {
        if self.orphans.is_empty() {
            return;
        }
        let done = repo::put_back(self.writer(), &self.orphans).await;
        self.after(done.as_ref().err()).await;
        if done.is_ok() {
            self.orphans.clear();
            self.shared.wake.notify_one();
        }
    }

    async fn look_up(&mut self, ids: &[&str]) -> Result<HashMap<String, Existing>, String> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let found = repo::find(self.writer(), ids).await.map_err(|error| error.to_string())?;
        Ok(found.into_iter().map(|row| (row.client_message_id.clone(), row)).collect())
    }

    /// After an error it is unknown what the engine has kept of the statement and
    /// of a transaction around it: SQLite may have rolled back on its own. No
    /// further statement goes over that connection; a new one begins outside of
    /// any transaction.
    async fn after(&mut self, error: Option<&DbErr>) {
        if error.is_some_and(|error| !tx::is_unique_violation(error)) {
            self.reopen().await;
        }
        if error.is_some_and(tx::is_full) {
            self.full().await;
        }
    }

    /// After a write that found no room: the next ones are smaller, and find some if
    /// any can be made.
    async fn full(&mut self) {
        self.note_full();
        self.step = (self.step / 4).max(1);
        self.wal.make_room().await;
    }

    fn note_full(&self) {
        if !self.shared.disk_full.swap(true, Ordering::Relaxed) {
            self.shared.recount.notify_one();
        }
    }

    async fn make_room(&mut self, vacuumed: Option<u64>, terms: Terms) -> Result<Done, super::Error> {
        self.wal.make_room().await;
        // In the log, too, each page has a header, and some is written meanwhile.
        if vacuumed.is_some_and(|bytes| self.wal.free_for(bytes + bytes / 64 + SPARE)) {
            operator::run(self.writer(), Task::Vacuum, terms).await?;
            self.wal.make_room().await;
        }
        self.note_room().await;
        Ok(Done::Written)
    }

    /// After a write that needed room, or after some was made.
    async fn note_room(&mut self) {
        if self.shared.disk_full.load(Ordering::Relaxed) && self.has_room(0).await {
            self.shared.disk_full.store(false, Ordering::Relaxed);
        }
    }

    /// Whether new rows of so many bytes may be written. Once the disk was full only into
    /// free pages, since what waits may need the rest, until nothing waits and more is
    /// free than a full disk has.
    async fn has_room(&mut self, bytes: u64) -> bool {
        if !self.wal.has_room(bytes) || self.wal.is_whole() {
            self.resumed = false;
            return self.wal.is_whole();
        }
        if !self.resumed && self.shared.pending.load(Ordering::Relaxed) == 0 {
            self.resumed = self.wal.has_room(RESUME + bytes);
        }
        self.resumed || self.wal.has_free_pages(bytes).await
    }

    async fn reopen(&mut self) {
        if let Err(error) = self.db.reopen_writer().await {
            tracing::error!(error = %error, "The outbox could not be opened again: {error}");
        }
    }

    fn writer(&self) -> &DatabaseConnection {
        self.db.writer()
    }
}

/// Pages that a row fills, roughly.
fn pages_of(row: &Model) -> u64 {
    1 + row.payload.len() as u64 / 4096
}

fn bytes_of(rows: &[Model]) -> u64 {
    rows.iter().map(pages_of).sum::<u64>() * 4096
}

fn fingerprint(bytes: &[u8]) -> LocalFingerprint {
    LocalFingerprint(bytes.try_into().unwrap_or([0; 32]))
}

#[cfg(test)]
mod tests;
