//! Removes what has outlived its time, in small steps.
//!
//! What it is for: undelivered copies end after 30 days and their senders are
//! told; delivered messages go after 7; ids are forgotten after the advertised
//! retention, the audit trail reaches back a year. An id outlives its message.
//! What runs here: one task, until the broker stops.
//! What it guarantees: nothing is removed after the clock jumped, until it has
//! gone on evenly for one sweep: a wrong clock must not destroy anything.
//! What it must not do: hold the writer for long.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::DbErr;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::accept::writer::Command;
use super::shared::Shared;
use super::store::{dedupe, messages, presence};
use crate::db::tx;
use crate::domain::time::UnixMillis;

/// Rows of one transaction.
const STEP: u64 = 500;
/// Between two steps, so that sends come in between.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the audit trail reaches back.
const AUDIT: Duration = Duration::from_secs(365 * 24 * 3600);
/// How far wall time and monotonic time may drift apart within one sweep.
const MAX_JUMP_MS: u64 = 300_000;

/// Sweeps until `stop`.
pub async fn sweep(shared: Arc<Shared>, stop: CancellationToken) {
    let mut before = (shared.clock.now(), shared.clock.monotonic());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(shared.config.timers.sweep) => {}
        }
        let (wall, monotonic) = (shared.clock.now(), shared.clock.monotonic());
        let expected = before.0.plus(monotonic.saturating_sub(before.1));
        before = (wall, monotonic);
        let jump_ms = wall.distance_ms(expected);
        if jump_ms > MAX_JUMP_MS {
            tracing::warn!(jump_ms, "The clock jumped by {jump_ms} ms; nothing is removed in this sweep");
            continue;
        }
        let swept = async {
            shared.store.compare_clocks().await?;
            end_copies(&shared).await;
            purge_messages(&shared).await?;
            forget_ids(&shared).await?;
            let transaction = tx::begin(shared.store.writer()).await?;
            presence::prune_audit(&transaction, ago(&shared, AUDIT).0).await?;
            transaction.commit().await
        };
        tokio::select! {
            () = stop.cancelled() => return,
            result = swept => {
                if let Err(error) = result {
                    tracing::warn!(error = %error, "The sweep of old rows failed: {error}");
                }
            }
        }
    }
}

/// Keeps the database's own files small, until `stop`.
pub async fn maintain(shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        if let Err(error) = shared.store.maintain().await {
            tracing::warn!(error = %error, "{error}");
        }
    }
}

fn ago(shared: &Shared, age: Duration) -> UnixMillis {
    shared.store.now().minus(age)
}

/// The writer does this one, because it counts what waits.
async fn end_copies(shared: &Shared) {
    loop {
        let (answer, more) = oneshot::channel();
        let before = ago(shared, shared.config.timers.undelivered);
        if shared.writer.submit(Command::Expire(before, answer)).await.is_err() {
            return;
        }
        if !more.await.unwrap_or(false) {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn purge_messages(shared: &Shared) -> Result<(), DbErr> {
    loop {
        let before = ago(shared, shared.config.timers.delivered);
        let transaction = tx::begin(shared.store.writer()).await?;
        let gone = messages::purge(&transaction, before.0, STEP).await?;
        dedupe::history_gone(&transaction, &gone).await?;
        transaction.commit().await?;
        shared.metrics.history_pruned.inc_by(gone.len() as u64);
        if (gone.len() as u64) < STEP {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn forget_ids(shared: &Shared) -> Result<(), DbErr> {
    loop {
        let transaction = tx::begin(shared.store.writer()).await?;
        let gone = dedupe::expire(&transaction, shared.store.now().0, STEP).await?;
        transaction.commit().await?;
        if gone < STEP {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}
