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
use std::time::Duration;

use sea_orm::{DatabaseConnection, DbErr};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::entity::Model;
use super::repo::{self, Existing, Outcome};
use super::{Accepted, answer};
use crate::config::outbox::FsyncMode;
use crate::db::connect::{CheckpointMode, Sqlite};
use crate::db::tx;
use crate::domain::fingerprint::LocalFingerprint;
use crate::domain::time::UnixMillis;
use crate::runtime::clock::Clock;

/// Commands that one commit covers at most.
const MAX_BATCH: usize = 256;
/// Write-ahead log size at which the writer asks for a checkpoint.
const CHECKPOINT_BYTES: u64 = 4 << 20;

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Insert a row, or answer from the one that holds the id.
    Accept { row: Box<Model>, reply: oneshot::Sender<Result<Accepted, super::Error>> },
    /// Move due rows to `inflight`.
    Claim { limit: u32, reply: oneshot::Sender<Result<Vec<Model>, DbErr>> },
    /// Write what became of a transmit.
    Outcome { id: String, outcome: Outcome, reply: oneshot::Sender<()> },
    /// Note that receivers have stored messages.
    Delivered { client_message_ids: Vec<String>, at: UnixMillis },
    /// Give up what is too old.
    Expire { accepted_before: UnixMillis, reply: oneshot::Sender<Result<Vec<String>, DbErr>> },
}

/// The task's belongings.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) db: Sqlite,
    pub(super) clock: Clock,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) fsync_mode: FsyncMode,
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
            self.checkpoint_when_large().await;
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
    async fn write(&self, batch: Vec<Command>) {
        let mut accepts = Vec::new();
        let mut reports = Reports::default();
        let mut claims = Vec::new();
        let mut expiries = Vec::new();
        for command in batch {
            match command {
                Command::Accept { row, reply } => accepts.push((*row, reply)),
                Command::Outcome { id, outcome, reply } => {
                    reports.outcomes.push((id, outcome));
                    reports.replies.push(reply);
                }
                Command::Delivered { client_message_ids, at } => reports.delivered.push((client_message_ids, at)),
                Command::Claim { limit, reply } => claims.push((limit, reply)),
                Command::Expire { accepted_before, reply } => expiries.push((accepted_before, reply)),
            }
        }
        self.write_accepts(accepts).await;
        self.write_reports(reports).await;
        for (limit, reply) in claims {
            // The sender asks again when its link or this task is gone.
            let _ = reply.send(repo::claim_due(self.writer(), self.clock.now(), limit).await);
        }
        for (accepted_before, reply) in expiries {
            let _ = reply.send(repo::expire(self.writer(), accepted_before, self.clock.now()).await);
        }
    }

    async fn write_accepts(&self, waiting: Vec<(Model, oneshot::Sender<Result<Accepted, super::Error>>)>) {
        if waiting.is_empty() {
            return;
        }
        let (rows, replies): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        let inserted = repo::insert_new(self.writer(), &rows).await;
        let failure = inserted.as_ref().err().map(ToString::to_string);
        let is_full = inserted.as_ref().err().is_some_and(tx::is_full);
        let inserted: std::collections::HashSet<String> = inserted.unwrap_or_default().into_iter().collect();
        // Ids that did not come back are held by an older row, or the statement
        // failed and only the table knows. Rows are never deleted, so the look-up
        // after the statement sees what the statement saw.
        let unknown: Vec<&str> =
            rows.iter().filter(|row| !inserted.contains(&row.id)).map(|row| row.client_message_id.as_str()).collect();
        let existing = self.look_up(&unknown).await;
        for (row, reply) in rows.iter().zip(replies) {
            let answer = if inserted.contains(&row.id) {
                Ok(answer::queued(row))
            } else {
                match (&existing, existing.as_ref().ok().and_then(|found| found.get(&row.client_message_id))) {
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

    async fn look_up(&self, ids: &[&str]) -> Result<HashMap<String, Existing>, String> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let found = repo::find(self.writer(), ids).await.map_err(|error| error.to_string())?;
        Ok(found.into_iter().map(|row| (row.client_message_id.clone(), row)).collect())
    }

    async fn write_reports(&self, reports: Reports) {
        if reports.outcomes.is_empty() && reports.delivered.is_empty() {
            return;
        }
        if let Err(error) = self.apply(&reports, self.clock.now()).await {
            // The rows stay `inflight`; the replies are dropped, by which the
            // sender learns it and asks again. The broker recognises the ids. A
            // delivery report is for information, and may be lost.
            tracing::error!(rows = reports.outcomes.len(), error = %error, "Outcomes were not written: {error}");
            return;
        }
        for reply in reports.replies {
            let _ = reply.send(());
        }
    }

    async fn apply(&self, reports: &Reports, now: UnixMillis) -> Result<(), DbErr> {
        let transaction = tx::begin(self.writer()).await?;
        repo::apply(&transaction, &reports.outcomes, now).await?;
        for (ids, at) in &reports.delivered {
            repo::note_delivered(&transaction, ids, *at).await?;
        }
        transaction.commit().await
    }

    /// Moves the log into the database on another connection, so that no caller
    /// waits for it inside its commit.
    async fn checkpoint_when_large(&self) {
        if self.db.wal_bytes() > CHECKPOINT_BYTES
            && let Err(error) = self.db.checkpoint(CheckpointMode::Passive).await
        {
            tracing::warn!(error = %error, "The outbox log was not moved into the database: {error}");
        }
    }

    fn writer(&self) -> &DatabaseConnection {
        self.db.writer()
    }
}

fn fingerprint(bytes: &[u8]) -> LocalFingerprint {
    LocalFingerprint(bytes.try_into().unwrap_or([0; 32]))
}
