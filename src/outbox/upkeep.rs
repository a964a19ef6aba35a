//! What the keeper does rarely: clear what was accepted long ago, forget what
//! nobody can repeat, and give freed pages back to the disk.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::keeper::Keeper;
use super::operator::{Done, SMALL_STEP, STEP, Task};
use super::{Error, LAST_VACUUM};
use crate::db::connect::CheckpointMode;
use crate::domain::pressure::Level;
use crate::domain::time::UnixMillis;

/// Pause between two rounds while there is room.
const ROUND: Duration = Duration::from_secs(3600);
/// Under pressure a round is followed by a pause of so many times its length.
const REST: u32 = 20;
/// Pause between two vacuums on a full disk.
const COMPACT_EVERY: Duration = Duration::from_secs(5);
/// Pause between two vacuums (R180).
const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// What the rounds remember.
#[derive(Debug, Default)]
pub(super) struct Upkeep {
    /// Monotonic time of the last round's begin, and how long it took.
    pub(super) round: Option<(Duration, Duration)>,
    /// Monotonic time of the last look whether a vacuum fits on the full disk.
    pub(super) compacted: Option<Duration>,
    /// Wall time of the last vacuum, stored.
    pub(super) vacuumed_at: Option<UnixMillis>,
}

// === impl Keeper ===

impl Keeper {
    /// Does what is due. Under pressure each look clears what may be cleared, so
    /// that a drain makes room by itself (R198).
    pub(super) async fn keep_up(&mut self, level: Level) {
        if self.handle.held_log() > 0
            && let Err(error) = self.handle.task(Task::LookAtLog).await
        {
            tracing::debug!(error = %error, "The log of the outbox was not looked at: {error}");
        }
        if self.handle.is_disk_full()
            && let Err(error) = self.make_room().await
        {
            tracing::warn!(error = %error, "No room was made on the full disk: {error}");
        }
        if !self.handle.guard.may_destroy() {
            return;
        }
        let now = self.clock.monotonic();
        let is_due = |(at, took): (Duration, Duration)| {
            let pause = if level > Level::Normal { took.saturating_mul(REST) } else { ROUND };
            now.saturating_sub(at) >= pause
        };
        if self.upkeep.round.is_none_or(is_due) {
            if let Err(error) = self.round().await {
                tracing::warn!(error = %error, "The outbox was not tidied: {error}");
            }
            self.upkeep.round = Some((now, self.clock.monotonic().saturating_sub(now)));
        }
        if let Err(error) = self.vacuum_when_idle(now).await {
            tracing::warn!(error = %error, "The outbox was not vacuumed: {error}");
        }
    }

    /// On a full disk nothing may be worth more than taking sends again: the texts of
    /// accepted ones go, however young, and the log of the other database is cut.
    async fn make_room(&mut self) -> Result<(), Error> {
        self.handle.task(Task::MakeRoom { vacuumed: None }).await?;
        if !self.handle.is_disk_full() {
            return Ok(());
        }
        if let Err(error) = self.inbox.checkpoint(CheckpointMode::Truncate).await {
            tracing::debug!(error = %error, "The log of the inbox was not cut: {error}");
        }
        let cleared = self.handle.clear_ended_before(UnixMillis(i64::MAX), SMALL_STEP).await?;
        if cleared.rows > 0 {
            tracing::warn!(
                entries = cleared.rows,
                bytes = cleared.bytes,
                "Texts of accepted sends were cleared, since the disk is full"
            );
        }
        // Short rows leave their pages half empty: only a VACUUM gives these back.
        let now = self.clock.monotonic();
        let is_due = self.upkeep.compacted.is_none_or(|at| now.saturating_sub(at) >= COMPACT_EVERY);
        let vacuumed = if is_due { Some(self.handle.vacuumed_bytes().await?) } else { None };
        if is_due {
            self.upkeep.compacted = Some(now);
        }
        self.handle.task(Task::MakeRoom { vacuumed }).await.map(drop)
    }

    async fn round(&self) -> Result<(), Error> {
        let now = self.clock.now();
        let cleared = self.handle.clear_ended_before(now.minus(self.handle.shared.done_retention), STEP).await?;
        if cleared.rows > 0 {
            tracing::info!(entries = cleared.rows, bytes = cleared.bytes, "Texts of accepted sends were cleared");
        }
        let Some(life) = self.handle.terms().window.tombstone_life() else { return Ok(()) };
        let ended_before = now.minus(life);
        let bound = ulid::Ulid::from_parts(u64::try_from(ended_before.0).unwrap_or(0), 0).to_string();
        loop {
            let task = Task::Forget { ended_before, id_bound: bound.clone() };
            match self.handle.task(task).await? {
                Done::Rows(0) | Done::Written | Done::Cleared(..) => return Ok(()),
                Done::Rows(rows) => tracing::info!(rows, "Ids that nobody can repeat any more were forgotten"),
            }
        }
    }

    /// Once a week, when nothing was sent for a while (R180).
    async fn vacuum_when_idle(&mut self, now: Duration) -> Result<(), Error> {
        let wall = self.clock.now();
        let active = Duration::from_millis(self.handle.shared.active_ms.load(Ordering::Relaxed));
        let Some(last) = self.upkeep.vacuumed_at else {
            // A new database has nothing to give back; the week begins.
            return self.note_vacuum(wall).await;
        };
        let is_idle = now.saturating_sub(active) >= self.disk.vacuum_after_idle();
        if wall.since(last) < WEEK || !is_idle {
            return Ok(());
        }
        self.handle.task(Task::Vacuum).await?;
        tracing::info!(database = "outbox", "database_vacuumed: the outbox was vacuumed");
        self.note_vacuum(wall).await
    }

    async fn note_vacuum(&mut self, at: UnixMillis) -> Result<(), Error> {
        self.handle.task(Task::SetMeta { key: LAST_VACUUM, value: at.to_string() }).await?;
        self.upkeep.vacuumed_at = Some(at);
        Ok(())
    }
}
