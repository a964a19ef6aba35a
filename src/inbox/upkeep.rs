//! What the pipeline does beside receiving: remove what is too old, forget what
//! the broker has forgotten, and give freed pages back to the disk.

use std::sync::atomic::Ordering;
use std::time::Duration;

use sea_orm::ConnectionTrait as _;

use super::pipeline::Pipeline;
use super::{Error, MIN_MEMORY, receipts, repo};
use crate::db::tx;
use crate::domain::time::UnixMillis;
use crate::runtime::time_guard::Database;

/// Rows that one commit removes at most; deliveries wait no longer than for one.
const PRUNE_ROWS: u64 = 5000;
/// Pause between two prunings.
const PRUNE_EVERY: Duration = Duration::from_secs(3600);
/// Pause between two vacuums (R180).
const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// How long what was set aside is kept.
const ASIDE_KEPT: Duration = Duration::from_secs(30 * 86_400);

/// When what was done last, and whether more is to be done at once.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    /// Monotonic time of the last pruning that came to its end.
    pruned: Option<Duration>,
    /// Monotonic time of the last delivery.
    pub(super) active: Duration,
}

// === impl Pipeline ===

impl Pipeline {
    /// Does what is due, in a step short enough for deliveries to wait for it.
    /// Nothing is removed while the clock is not believed.
    pub(super) async fn keep_up(&self, upkeep: &mut Upkeep) {
        self.wal.lock().await.look_again().await;
        if let Some(span) = self.deps.guard.wrong_times(Database::Inbox) {
            match repo::rebase(self.db.writer(), span, self.deps.clock.now()).await {
                Ok(()) => self.deps.guard.corrected(Database::Inbox),
                Err(error) => {
                    tracing::warn!(error = %error, "Times of a wrong clock were not corrected: {error}");
                    self.reopen().await;
                }
            }
        }
        if !self.deps.guard.may_destroy() {
            return;
        }
        let now = self.deps.clock.monotonic();
        if upkeep.pruned.is_none_or(|at| now.saturating_sub(at) >= PRUNE_EVERY) {
            match self.prune().await {
                Ok(true) => upkeep.pruned = Some(now),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(error = %error, "Old messages could not be removed: {error}");
                    self.reopen().await;
                }
            }
        }
        let is_idle = now.saturating_sub(upkeep.active) >= self.deps.disk.vacuum_after_idle();
        if let Err(error) = self.vacuum_when_due(is_idle).await {
            tracing::warn!(error = %error, "The inbox was not vacuumed: {error}");
        }
    }

    /// Removes a step of what is too old. True when nothing is left.
    async fn prune(&self) -> Result<bool, sea_orm::DbErr> {
        let now = self.deps.clock.now();
        let transaction = tx::begin(self.db.writer()).await?;
        let before = repo::count_before(&transaction, now.minus(self.retention), PRUNE_ROWS).await?;
        let removed = repo::prune(&transaction, now.minus(self.retention), PRUNE_ROWS).await?;
        let pruned_to = removed.max(Some(self.shared.pruned_to.load(Ordering::Acquire)).filter(|seq| *seq > 0));
        if let (Some(_), Some(seq)) = (removed, pruned_to) {
            repo::set_meta(&transaction, "pruned_to", &seq.to_string()).await?;
        }
        repo::forget_seen(&transaction, now.minus(self.memory())).await?;
        repo::forget_old_receipts(&transaction, now.minus(receipts::KEPT)).await?;
        repo::forget_aside(&transaction, now.minus(ASIDE_KEPT)).await?;
        transaction.commit().await?;
        if let (Some(_), Some(seq)) = (removed, pruned_to) {
            self.shared.pruned_to.store(seq, Ordering::Release);
            self.shared.rows.store(repo::count(self.db.readers()).await?, Ordering::Relaxed);
            tracing::info!(messages = before, "Messages older than the retention were removed");
        }
        Ok(before < PRUNE_ROWS)
    }

    /// Once a week, when nothing came for a while (R180).
    async fn vacuum_when_due(&self, is_idle: bool) -> Result<(), sea_orm::DbErr> {
        const KEY: &str = "last_vacuum";
        let now = self.deps.clock.now();
        let last = repo::meta(self.db.readers(), KEY).await?.and_then(|text| text.parse().ok()).map(UnixMillis);
        match last {
            // A new database has nothing to give back; the week begins.
            None => repo::set_meta(self.db.writer(), KEY, &now.to_string()).await,
            Some(last) if is_idle && now.since(last) >= WEEK => {
                self.db.writer().execute_unprepared("VACUUM").await?;
                tracing::info!(database = "inbox", "database_vacuumed: the inbox was vacuumed");
                repo::set_meta(self.db.writer(), KEY, &now.to_string()).await
            }
            Some(_) => Ok(()),
        }
    }

    /// How long ids are remembered: as long as rows are kept, and as long as
    /// the broker may push an old message.
    pub(super) fn memory(&self) -> Duration {
        let broker = self
            .deps
            .link
            .session()
            .and_then(|session| session.negotiated.dedupe_retention_days)
            .map_or(Duration::from_secs(365 * 86_400), |days| Duration::from_secs(u64::from(days) * 86_400));
        self.retention.max(broker).max(MIN_MEMORY)
    }

    /// After an error it is unknown what the engine has kept of a transaction; a
    /// new connection begins outside of any.
    pub(super) async fn reopen(&self) {
        if let Err(error) = self.db.reopen_writer().await {
            tracing::error!(error = %error, "The inbox could not be opened again: {error}");
        }
    }
}

/// Whether a message is not stored for lack of room on the disk.
pub(super) fn is_full(error: &Error) -> bool {
    matches!(error, Error::NoRoom) || matches!(error, Error::Storage(error) if tx::is_full(error))
}
