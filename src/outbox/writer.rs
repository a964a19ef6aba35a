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
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sea_orm::sqlx::sqlite::SqliteConnection;
use sea_orm::{DatabaseConnection, DbErr};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::entity::Model;
use super::operator::{self, Done, Task, Terms};
use super::repo::{self, Existing, Only, Outcome};
use super::{Accepted, answer};
use crate::config::outbox::FsyncMode;
use crate::db::connect::Sqlite;
use crate::db::tx;
use crate::db::wal::WalKeeper;
use crate::domain::fingerprint::LocalFingerprint;
use crate::domain::time::UnixMillis;
use crate::runtime::clock::Clock;

/// Commands that one commit covers at most.
const MAX_BATCH: usize = 256;
/// Pages that a commit changes beside its rows, roughly.
const PAGES_A_COMMIT: u64 = 8;

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Insert a row, or answer from the one that holds the id.
    Accept { row: Box<Model>, reply: oneshot::Sender<Result<Accepted, super::Error>> },
    /// Move due rows to `inflight`.
    Claim { limit: u32, only: Only, reply: oneshot::Sender<Result<Vec<Model>, DbErr>> },
    /// Write what became of a transmit.
    Outcome { id: String, outcome: Outcome, reply: oneshot::Sender<()> },
    /// Note that receivers have stored messages.
    Delivered { client_message_ids: Vec<String>, at: UnixMillis },
    /// Give up what is too old.
    Expire { accepted_before: UnixMillis, reply: oneshot::Sender<Result<Vec<String>, DbErr>> },
    /// Do what an operator or the keeper asks.
    Task { task: Task, terms: Terms, reply: oneshot::Sender<Result<Done, super::Error>> },
}

/// The task's belongings.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) db: Sqlite,
    /// For new rows alone; opened on first use.
    pub(super) connection: Option<SqliteConnection>,
    pub(super) wal: WalKeeper,
    pub(super) clock: Clock,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) fsync_mode: FsyncMode,
    /// Whether the last write found the disk full.
    pub(super) disk_full: Arc<AtomicBool>,
    /// Cancelled in the storage phase; what waits then is still written.
    pub(super) stop: CancellationToken,
}

/// What the broker made of rows; one transaction.
#[derive(Default)]
struct Reports {
    outcomes: Vec<(String, Outcome)>,
    /// Answers to `outcomes`, in their order.
    replies: Vec<oneshot::Sender<()>>,
    delivered: Vec<(Vec<String>, UnixMillis)>,
}

// === impl Writer ===

impl Writer {
    pub(super) async fn run(mut self) {
        let mut batch = Vec::with_capacity(MAX_BATCH);
        loop {
            batch.clear();
            let count = tokio::select! {
                biased;
                count = self.commands.recv_many(&mut batch, MAX_BATCH) => count,
                () = self.stop.cancelled() => 0,
            };
            if count == 0 {
                break;
            }
            if self.fsync_mode == FsyncMode::Batched50ms && count < MAX_BATCH {
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
            if self.commands.recv_many(&mut batch, MAX_BATCH).await == 0 {
                return;
            }
            self.write(std::mem::take(&mut batch)).await;
        }
    }

    async fn collect_more(&mut self, batch: &mut Vec<Command>) {
        let until = tokio::time::sleep(Duration::from_millis(50));
        tokio::pin!(until);
        while batch.len() < MAX_BATCH {
            tokio::select! {
                () = &mut until => return,
                command = self.commands.recv() => match command {
                    Some(command) => batch.push(command),
                    None => return,
                },
            }
        }
    }

    /// Writes a batch with one commit for each kind, however the kinds are mixed
    /// in the queue: all of its commands were given before any was answered, so
    /// no caller relies on an order between them. New rows come first, so that a
    /// claim of the same batch finds them.
    async fn write(&mut self, batch: Vec<Command>) {
        let mut accepts = Vec::new();
        let mut reports = Reports::default();
        let mut claims = Vec::new();
        let mut expiries = Vec::new();
        let mut tasks = Vec::new();
        for command in batch {
            match command {
                Command::Accept { row, reply } => accepts.push((*row, reply)),
                Command::Outcome { id, outcome, reply } => {
                    reports.outcomes.push((id, outcome));
                    reports.replies.push(reply);
                }
                Command::Delivered { client_message_ids, at } => reports.delivered.push((client_message_ids, at)),
                Command::Claim { limit, only, reply } => claims.push((limit, only, reply)),
                Command::Expire { accepted_before, reply } => expiries.push((accepted_before, reply)),
                Command::Task { task, terms, reply } => tasks.push((task, terms, reply)),
            }
        }
        let pages = PAGES_A_COMMIT + accepts.iter().map(|(row, _)| pages_of(row)).sum::<u64>();
        self.write_accepts(accepts).await;
        self.write_reports(reports).await;
        for (limit, only, reply) in claims {
            let claimed = repo::claim_due(self.writer(), self.clock.now(), limit, &only).await;
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
            let done = operator::run(self.writer(), task, terms).await;
            if let Err(super::Error::NotWritten(_) | super::Error::NoRoom(_)) = done {
                self.reopen().await;
            }
            let _ = reply.send(done);
        }
        self.wal.wrote(pages).await;
    }

    async fn write_accepts(&mut self, waiting: Vec<(Model, oneshot::Sender<Result<Accepted, super::Error>>)>) {
        if waiting.is_empty() {
            return;
        }
        let (rows, replies): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        let inserted = self.insert(&rows).await;
        let failure = inserted.as_ref().err().map(ToString::to_string);
        let is_full = inserted.as_ref().err().is_some_and(tx::is_full);
        self.after(inserted.as_ref().err()).await;
        // Where not all are new, some ids are held by older rows; where the
        // statement failed, only the table knows. Rows are never deleted, so the
        // look-up after the statement sees what the statement saw.
        let all_new = inserted.is_ok_and(|count| count == rows.len() as u64);
        let ids: Vec<&str> =
            if all_new { Vec::new() } else { rows.iter().map(|row| row.client_message_id.as_str()).collect() };
        let existing = self.look_up(&ids).await;
        for (row, reply) in rows.iter().zip(replies) {
            let answer = if all_new {
                Ok(answer::queued(row))
            } else {
                match (&existing, existing.as_ref().ok().and_then(|found| found.get(&row.client_message_id))) {
                    (_, Some(found)) if found.id == row.id => Ok(answer::queued(row)),
                    (_, Some(found)) => answer::from_existing(found, &fingerprint(&row.request_fingerprint)),
                    (Err(error), None) => Err(answer::storage(row, error)),
                    (Ok(_), None) if is_full => Err(answer::disk_full(row, self.db.path())),
                    (Ok(_), None) => Err(answer::storage(row, failure.as_deref().unwrap_or("the row is not there"))),
                }
            };
            // The caller may have gone; its row stays and a retry finds it.
            let _ = reply.send(answer);
        }
        if let Some(error) = failure {
            tracing::error!(sends = rows.len(), error, "A batch of sends was not written: {error}");
        }
    }

    /// On a connection of its own, which is opened again after an error: what the
    /// engine has kept of a failed statement is unknown.
    async fn insert(&mut self, rows: &[Model]) -> Result<u64, DbErr> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.db.own_writer().await?,
        };
        let inserted = repo::insert_new(&mut connection, rows).await?;
        self.connection = Some(connection);
        Ok(inserted)
    }

    async fn look_up(&mut self, ids: &[&str]) -> Result<HashMap<String, Existing>, String> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let found = repo::find(self.writer(), ids).await.map_err(|error| error.to_string())?;
        Ok(found.into_iter().map(|row| (row.client_message_id.clone(), row)).collect())
    }

    async fn write_reports(&mut self, reports: Reports) {
        if reports.outcomes.is_empty() && reports.delivered.is_empty() {
            return;
        }
        if let Err(error) = self.apply(&reports, self.clock.now()).await {
            // The rows stay `inflight`; the replies are dropped, by which the
            // sender learns it and asks again. The broker recognises the ids. A
            // delivery report is for information, and may be lost.
            tracing::error!(rows = reports.outcomes.len(), error = %error, "Outcomes were not written: {error}");
            self.after(Some(&error)).await;
            return;
        }
        for reply in reports.replies {
            let _ = reply.send(());
        }
    }

    async fn apply(&mut self, reports: &Reports, now: UnixMillis) -> Result<(), DbErr> {
        let is_one = |outcomes: &[(String, Outcome)]| {
            outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Accepted { .. }))
        };
        if reports.delivered.is_empty() && is_one(&reports.outcomes) {
            // One statement is atomic by itself, and two trips to the engine less.
            return repo::apply(self.db.writer(), &reports.outcomes, now).await;
        }
        let transaction = tx::begin(self.writer()).await?;
        repo::apply(&transaction, &reports.outcomes, now).await?;
        for (ids, at) in &reports.delivered {
            repo::note_delivered(&transaction, ids, *at).await?;
        }
        transaction.commit().await
    }

    /// After an error it is unknown what the engine has kept of the statement and
    /// of a transaction around it: SQLite may have rolled back on its own. No
    /// further statement goes over that connection; a new one begins outside of
    /// any transaction.
    async fn after(&mut self, error: Option<&DbErr>) {
        self.disk_full.store(error.is_some_and(tx::is_full), Ordering::Relaxed);
        if error.is_some_and(|error| !tx::is_unique_violation(error)) {
            self.reopen().await;
        }
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

/// Pages that a new row fills, roughly.
fn pages_of(row: &Model) -> u64 {
    1 + row.payload.len() as u64 / 4096
}

fn fingerprint(bytes: &[u8]) -> LocalFingerprint {
    LocalFingerprint(bytes.try_into().unwrap_or([0; 32]))
}
