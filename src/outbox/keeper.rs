//! Keeps the outbox within its age limit and its numbers true.
//!
//! What it is for: rows that the broker has not accepted in time are given up;
//! the counts that metrics and limits use are read again from the table.
//! What runs here: one task on a timer.
//! What it guarantees: no row is given up because the clock jumped: after a
//! jump of the wall clock against the monotonic one nothing dies until the
//! clock has been steady again.
//! What it must not do: delete a row.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Handle;
use crate::runtime::clock::Clock;

/// Pause between two looks.
const PERIOD: Duration = Duration::from_secs(5);
/// A difference between the two clocks above this is a jump.
const JUMP: Duration = Duration::from_secs(300);
/// How long the clocks must agree after a jump before rows may die again.
const STEADY: Duration = Duration::from_secs(3600);

/// The task's belongings.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) handle: Handle,
    pub(super) clock: Clock,
    pub(super) max_age: Duration,
    pub(super) stop: CancellationToken,
}

// === impl Keeper ===

impl Keeper {
    pub(super) async fn run(self) {
        let mut wall = self.clock.now();
        let mut monotonic = self.clock.monotonic();
        let mut steady_since = None;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
            let elapsed = self.clock.monotonic().saturating_sub(monotonic);
            let expected = wall.plus(elapsed);
            (wall, monotonic) = (self.clock.now(), self.clock.monotonic());
            if Duration::from_millis(wall.distance_ms(expected)) > JUMP {
                tracing::warn!("The wall clock jumped; sends are not given up for age for the next hour");
                steady_since = Some(monotonic);
            }
            if steady_since.is_some_and(|since| monotonic.saturating_sub(since) > STEADY) {
                steady_since = None;
            }
            if steady_since.is_none() {
                self.give_up_old(wall).await;
            }
            self.count().await;
        }
    }

    async fn give_up_old(&self, now: crate::domain::time::UnixMillis) {
        match self.handle.expire(now.minus(self.max_age)).await {
            Some(Ok(ids)) if !ids.is_empty() => {
                tracing::warn!(sends = ids.len(), "{} sends were not accepted in time and are dead", ids.len());
            }
            Some(Err(error)) => tracing::warn!(error = %error, "The age of sends could not be checked: {error}"),
            _ => {}
        }
    }

    async fn count(&self) {
        match self.handle.count().await {
            Ok(depth) => {
                self.handle.shared.pending.store(depth.pending + depth.inflight, Ordering::Relaxed);
                self.handle.shared.depth.send_replace(depth);
            }
            Err(error) => tracing::warn!(error = %error, "The outbox could not be counted: {error}"),
        }
    }
}
