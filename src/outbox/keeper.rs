//! Keeps the outbox within its limits and its numbers true.
//!
//! What it is for: rows that the broker has not accepted in time are given up;
//! how full the outbox is, is measured and told (`measure.rs`); what is no longer
//! needed is cleared, forgotten, vacuumed (`upkeep.rs`).
//! What runs here: one task on a timer, woken when a limit is crossed.
//! What it guarantees: nothing is given up, cleared for age or forgotten while
//! the clock is not believed (`runtime::time_guard`).
//! What it must not do: delete a row whose id could still be repeated.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::operator::Task;
use super::upkeep::Upkeep;
use super::{Handle, LAST_TICK, news, repo, reporter};
use crate::broker_client::LinkState;
use crate::config::disk::Disk;
use crate::db::connect::Sqlite;
use crate::domain::age_limit::{AgeLimit, DedupeWindow, age_limit};
use crate::domain::clock_trust::Doubt;
use crate::domain::event::{MeshEvent, SendState};
use crate::domain::pressure::Level;
use crate::domain::time::UnixMillis;
use crate::events::Hub;
use crate::runtime::clock::Clock;
use crate::runtime::time_guard::Database;
use crate::telemetry::metrics::Metrics;
use crate::wire::features::Feature;

/// Pause between two looks, and while the outbox is filling up.
const PERIOD: Duration = Duration::from_secs(5);
const BUSY_PERIOD: Duration = Duration::from_secs(1);
/// Pause between two notes of the time.
const TICK: Duration = Duration::from_secs(60);
/// The longest pause of a row, for stored times of a clock that was wrong.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Rows that are looked up together to be told of.
const TOLD_AT_ONCE: usize = 256;

/// The task's belongings.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) handle: Handle,
    pub(super) clock: Clock,
    pub(super) hub: Hub,
    pub(super) metrics: Metrics,
    pub(super) link: watch::Receiver<LinkState>,
    pub(super) disk: Disk,
    /// The other database that `[disk] reserved_bytes` counts.
    pub(super) inbox: Sqlite,
    pub(super) upkeep: Upkeep,
    /// No open row's age counts from before this; not known at first.
    pub(super) oldest: Option<UnixMillis>,
    pub(super) stop: CancellationToken,
}

// === impl Keeper ===

impl Keeper {
    pub(super) async fn run(mut self) {
        let mut ticked: Option<Duration> = None;
        let mut doubt = None;
        loop {
            self.note_window().await;
            doubt = self.look_at_clock(doubt).await;
            if self.handle.guard.may_destroy() {
                let now = self.clock.monotonic();
                if ticked.is_none_or(|at| now.saturating_sub(at) >= TICK) {
                    self.note_time().await;
                    ticked = Some(now);
                }
                self.give_up_old().await;
            }
            let level = self.measure().await;
            self.keep_up(level).await;
            let calm = level == Level::Normal && !self.handle.is_disk_full();
            let period = if calm { PERIOD } else { BUSY_PERIOD };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.handle.shared.recount.notified() => {}
                changed = self.link.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(period) => {}
            }
        }
    }

    /// Takes over what a broker says of its memory, for now and the next start.
    async fn note_window(&mut self) {
        let window = match &*self.link.borrow_and_update() {
            LinkState::Ready(session) if session.negotiated.has(Feature::ClientMessageIdDedupe) => {
                session.negotiated.dedupe_retention_days.map_or(DedupeWindow::Permanent, DedupeWindow::Days)
            }
            _ => return,
        };
        if window == self.handle.terms().window {
            return;
        }
        let task = Task::SetMeta { key: super::DEDUPE_WINDOW, value: window.to_text() };
        if let Err(error) = self.handle.task(task).await {
            tracing::warn!(error = %error, "The broker's dedupe window was not noted: {error}");
            return;
        }
        let (hours, accepts_risk) = self.handle.shared.configured_age;
        let hours = match age_limit(hours, accepts_risk, window) {
            AgeLimit::Use { hours } | AgeLimit::UseAtRisk { hours, .. } | AgeLimit::UseLess { hours } => hours,
            AgeLimit::Refuse { safe_hours } => {
                tracing::error!(
                    safe_hours,
                    "outbox_max_age_above_dedupe_window: the broker remembers ids for a shorter time than [outbox] \
                     max_age_hours needs; until the next start {safe_hours} hours are used, and then the daemon refuses"
                );
                safe_hours
            }
        };
        self.handle.shared.set_terms(window, hours);
    }

    /// Corrects what a wrong clock has written, once the right time is known.
    async fn look_at_clock(&mut self, before: Option<Doubt>) -> Option<Doubt> {
        let guard = self.handle.guard.clone();
        let doubt = guard.doubt();
        if doubt == Some(Doubt::Jumped) && before != doubt {
            // After a jump backwards rows would wait for a time far ahead.
            let to = self.clock.now().plus(LONGEST_PAUSE);
            if self.correct(Task::Clamp { to }).await {
                self.handle.shared.wake.notify_one();
            }
        }
        if let Some(span) = guard.wrong_times(Database::Outbox)
            && self.correct(Task::Rebase { from: span.from, to: span.to }).await
        {
            guard.corrected(Database::Outbox);
            self.handle.shared.wake.notify_one();
        }
        doubt
    }

    async fn correct(&mut self, task: Task) -> bool {
        self.oldest = None;
        match self.handle.task(task).await {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(error = %error, "Times of a wrong clock were not corrected: {error}");
                false
            }
        }
    }

    async fn note_time(&self) {
        let now = self.clock.now();
        if let Err(error) = self.handle.task(Task::SetMeta { key: LAST_TICK, value: now.to_string() }).await {
            tracing::warn!(error = %error, "The time was not noted: {error}");
        }
    }

    /// Looks through the table only when a row may have become too old: that is
    /// long work for a long backlog, and sends would wait for it.
    async fn give_up_old(&mut self) {
        let now = self.clock.now();
        let before = now.minus(self.handle.terms().max_age);
        if self.oldest.is_none_or(|oldest| oldest < before) {
            match repo::oldest(self.handle.db.readers()).await {
                // Every later row counts from a later time.
                Ok(oldest) => self.oldest = Some(oldest.map_or(now, |oldest| oldest.min(now))),
                Err(error) => {
                    tracing::warn!(error = %error, "The age of sends could not be checked: {error}");
                    return;
                }
            }
        }
        if self.oldest.is_none_or(|oldest| oldest >= before) {
            return;
        }
        match self.handle.expire(before).await {
            Some(Ok(ids)) if !ids.is_empty() => {
                tracing::warn!(sends = ids.len(), "{} sends were not accepted in time and are dead", ids.len());
                self.tell_dead(ids).await;
            }
            Some(Err(error)) => tracing::warn!(error = %error, "The age of sends could not be checked: {error}"),
            _ => {}
        }
    }

    async fn tell_dead(&self, ids: Vec<String>) {
        let at: UnixMillis = self.clock.now();
        for ids in ids.chunks(TOLD_AT_ONCE) {
            let known = self.handle.rows_of(ids).await;
            for id in ids {
                let mut event = match known.get(id) {
                    Some(row) => {
                        self.metrics.sent(reporter::kind(&row.destination_kind), SendState::Dead.name());
                        news::of_existing(row, SendState::Dead, at)
                    }
                    None => news::of_unknown(id.clone(), SendState::Dead, at),
                };
                event.failure = Some(news::dead(news::MAX_AGE.to_owned()));
                self.hub.publish(at, MeshEvent::DeliveryStatus(event));
            }
        }
    }
}
