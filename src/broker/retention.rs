//! Removes what has outlived its time, in small steps.
//!
//! What it is for: undelivered copies end after 30 days and their senders are
//! told; delivered messages go after 7; ids are forgotten after the advertised
//! retention, the audit trail reaches back a year. An id outlives its message.
//! Once a day the rows are compared with what must hold among them.
//! What runs here: one task, until the broker stops.
//! What it guarantees: nothing is removed while the clock is not to be trusted
//! ([`SweepGuard`]): a wrong clock must not destroy anything. Ages are measured
//! by the database's clock.
//! What it must not do: hold the writer for long, or repair what it finds.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::DbErr;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::accept::writer::Command;
use super::endings;
use super::metrics::MeshLabel;
use super::shared::Shared;
use super::store::{checks, dedupe, messages, nodes, presence};
use crate::domain::sweep_guard::{SweepGuard, Verdict};
use crate::domain::time::UnixMillis;

/// Rows of one transaction.
const STEP: u64 = 500;
/// Between two steps, so that sends come in between.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the audit trail reaches back.
const AUDIT: Duration = Duration::from_secs(365 * 24 * 3600);
/// How long a state directory that is not connected is remembered.
const PRESENCE: Duration = Duration::from_secs(90 * 24 * 3600);
/// How long a broker that is gone is remembered.
const NODE: Duration = Duration::from_secs(24 * 3600);

/// Sweeps until `stop`.
pub async fn sweep(shared: Arc<Shared>, stop: CancellationToken) {
    let mut guard = SweepGuard::new(shared.clock.now(), shared.clock.monotonic());
    let mut checked = shared.clock.monotonic();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(shared.config.timers.sweep) => {}
        }
        let now = shared.clock.monotonic();
        let check = now.saturating_sub(checked) >= shared.config.timers.check;
        if check {
            checked = now;
        }
        let round = async {
            let swept = round(&shared, &mut guard).await;
            let found = if check { search(&shared).await } else { Ok(()) };
            swept.and(found)
        };
        tokio::select! {
            () = stop.cancelled() => return,
            result = round => {
                if let Err(error) = result {
                    tracing::warn!(error = %error, "The sweep of old rows failed: {error}");
                }
            }
        }
    }
}

async fn round(shared: &Arc<Shared>, guard: &mut SweepGuard) -> Result<(), DbErr> {
    shared.store.compare_clocks().await?;
    // Ages are measured by the database's clock, so that is the one to doubt.
    let now = shared.store.now();
    let last = checks::last_sweep(shared.store.readers()).await?.map(UnixMillis);
    match guard.look(now, shared.clock.monotonic(), last) {
        Verdict::Remove => {}
        Verdict::Jumped(jump_ms) => {
            tracing::warn!(jump_ms, "The clock jumped by {jump_ms} ms; nothing is removed in this sweep");
            return Ok(());
        }
        Verdict::Backwards => {
            tracing::warn!("The clock is behind the last sweep; nothing is removed until it has caught up");
            return Ok(());
        }
        Verdict::LongGap => {
            tracing::warn!("The last sweep is more than a week ago; nothing is removed for a day");
            return Ok(());
        }
    }
    end_copies(shared).await;
    endings::tell_rest(shared).await?;
    purge_messages(shared).await?;
    forget_ids(shared).await?;
    let transaction = shared.store.begin().await?;
    presence::prune_audit(&transaction, ago(shared, AUDIT).0).await?;
    presence::forget(&transaction, ago(shared, PRESENCE).0).await?;
    nodes::forget(&transaction, ago(shared, NODE).0).await?;
    checks::note_sweep(&transaction, now.0).await?;
    transaction.commit().await
}

/// Looks for ids and messages without each other. There are none, unless a
/// database was restored in part or somebody wrote to it.
async fn search(shared: &Shared) -> Result<(), DbErr> {
    let orphans = checks::orphans(shared.store.readers()).await?;
    let torn = checks::torn(shared.store.readers()).await?;
    shared.metrics.orphan_checks.inc();
    shared.metrics.orphans.clear();
    for (mesh_id, found) in orphans {
        tracing::error!(mesh_id, found, "Ids of accepted messages have lost their message");
        shared.metrics.orphans.get_or_create(&MeshLabel { mesh_id }).set(found);
    }
    shared.metrics.atomicity_violations.set(torn);
    if torn > 0 {
        tracing::error!(found = torn, "Messages have lost a part of what was stored with them");
    }
    Ok(())
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
        let untold = ago(shared, shared.config.timers.undelivered);
        let transaction = shared.store.begin().await?;
        let gone = messages::purge(&transaction, before.0, untold.0, STEP).await?;
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
        let transaction = shared.store.begin().await?;
        let gone = dedupe::expire(&transaction, shared.store.now().0, STEP).await?;
        transaction.commit().await?;
        if gone < STEP {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}
