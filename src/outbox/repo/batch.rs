//! The statements under every send: a batch of the writer is one script, so one
//! trip to the engine and one commit.
//!
//! Written for the engine's own interface. A statement built anew from all
//! columns costs more than its commit. What varies in number goes in as rows of
//! a power of two or as one JSON array, so that the texts are few and stay
//! prepared.

use sea_orm::DbErr;
use serde_json::{Value, json};

use super::Outcome;
use crate::db::OwnWriter;
use crate::db::script::{BEGIN, COMMIT, Script};
use crate::domain::time::UnixMillis;
use crate::outbox::entity::Model;

/// What a new row holds; every other column starts as NULL.
const COLUMNS: &str = "id, client_message_id, payload, enqueued_at, attempts, next_attempt_at, status, \
     request_fingerprint, fingerprint_version, wire_fingerprint, mesh, sender_key, destination_kind, destination_ref, \
     target_id, target_key, target_name, reply_to_id, priority, mentions, meta, auto_hops, allow_unencrypted, degraded, \
     first_transmit_at";
const COLUMN_COUNT: usize = 25;

// The states from which each outcome may leave are those of
// `domain::outbox::next`; a test holds the two together. The plus keeps SQLite from
// walking through all rows of a state for each outcome.
const ACCEPTED: &str = "UPDATE outbox SET status = 'done', delivered_at = ?, accepted_at = ?, last_error = NULL, \
     broker_message_id = v.value ->> 1, history_id = v.value ->> 2, degraded = v.value ->> 3 \
     FROM json_each(?) AS v WHERE outbox.id = v.value ->> 0 AND +outbox.status IN ('pending', 'inflight')";
const RETRIED: &str = "UPDATE outbox SET status = 'pending', next_attempt_at = v.value ->> 1, \
     last_error = v.value ->> 2 FROM json_each(?) AS v WHERE outbox.id = v.value ->> 0 AND +outbox.status = 'inflight'";
const DEFERRED: &str = "UPDATE outbox SET status = 'pending', attempts = MAX(attempts - 1, 0), \
     next_attempt_at = v.value ->> 1, last_error = v.value ->> 2 \
     FROM json_each(?) AS v WHERE outbox.id = v.value ->> 0 AND +outbox.status = 'inflight'";
const DEAD: &str = "UPDATE outbox SET status = 'dead', dead_at = ?, dead_reason = v.value ->> 1, \
     last_error = v.value ->> 1 \
     FROM json_each(?) AS v WHERE outbox.id = v.value ->> 0 AND +outbox.status IN ('pending', 'inflight')";
const STORED: &str = "UPDATE outbox SET receiver_stored_at = v.value ->> 1 \
     FROM json_each(?) AS v WHERE outbox.client_message_id = v.value ->> 0 AND outbox.receiver_stored_at IS NULL";

/// What one commit of the writer changes.
#[derive(Clone, Copy, Debug)]
pub(in crate::outbox) struct Batch<'a> {
    /// New rows.
    pub(in crate::outbox) rows: &'a [Model],
    /// What became of transmits, by row id.
    pub(in crate::outbox) outcomes: &'a [(String, Outcome)],
    /// Client ids that receivers have stored.
    pub(in crate::outbox) stored: &'a [(Vec<String>, UnixMillis)],
}

/// Writes a batch. Returns how many rows are new; one whose client id is taken is
/// left out. Outcomes of rows that the operator has retired meanwhile change
/// nothing.
pub(in crate::outbox) async fn write(writer: &mut OwnWriter, batch: Batch<'_>, now: UnixMillis) -> Result<u64, DbErr> {
    let updates = updates(batch);
    let statements = usize::from(!batch.rows.is_empty()) + updates.len();
    if statements == 0 {
        return Ok(0);
    }
    let mut script = Script::default();
    // A statement alone is atomic by itself.
    if statements > 1 {
        script.add(BEGIN);
    }
    if !batch.rows.is_empty() {
        insert(&mut script, batch.rows);
    }
    for (sql, times, list) in updates {
        script.add(sql);
        for _ in 0..times {
            script.bind(now.0);
        }
        script.bind(Value::Array(list).to_string());
    }
    if statements > 1 {
        script.add(COMMIT);
    }
    let done = writer.run(script).await?;
    let insert = if batch.rows.is_empty() { None } else { done.get(usize::from(statements > 1)) };
    Ok(insert.map_or(0, |done| done.rows_affected))
}

/// The statements that change rows: the text, how often it names the time first,
/// and the rows.
fn updates(batch: Batch<'_>) -> Vec<(&'static str, u32, Vec<Value>)> {
    let (mut accepted, mut retried, mut deferred, mut dead) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (id, outcome) in batch.outcomes {
        match outcome {
            Outcome::Accepted { broker_message_id, history_id, degraded } => {
                accepted.push(json!([id, broker_message_id, history_id, degraded]));
            }
            Outcome::Retry { at, error } => retried.push(json!([id, at.0, error])),
            Outcome::Deferred { at, error } => deferred.push(json!([id, at.0, error])),
            Outcome::Dead { error } => dead.push(json!([id, error])),
        }
    }
    let stored = batch.stored.iter().flat_map(|(ids, at)| ids.iter().map(|id| json!([id, at.0]))).collect();
    let all =
        [(ACCEPTED, 2, accepted), (RETRIED, 0, retried), (DEFERRED, 0, deferred), (DEAD, 1, dead), (STORED, 0, stored)];
    all.into_iter().filter(|(_, _, list)| !list.is_empty()).collect()
}

fn insert(script: &mut Script, rows: &[Model]) {
    let into = format!("outbox ({COLUMNS})");
    script.insert(&into, COLUMN_COUNT, rows.len(), "ON CONFLICT (client_message_id) DO NOTHING", |script| {
        for row in rows {
            script
                .bind(&row.id)
                .bind(&row.client_message_id)
                .bind(&row.payload)
                .bind(row.enqueued_at)
                .bind(row.attempts)
                .bind(row.next_attempt_at)
                .bind(&row.status)
                .bind(&row.request_fingerprint)
                .bind(row.fingerprint_version)
                .bind(&row.wire_fingerprint)
                .bind(&row.mesh)
                .bind(&row.sender_key)
                .bind(&row.destination_kind)
                .bind(&row.destination_ref)
                .bind(&row.target_id)
                .bind(&row.target_key)
                .bind(&row.target_name)
                .bind(&row.reply_to_id)
                .bind(&row.priority)
                .bind(&row.mentions)
                .bind(&row.meta)
                .bind(row.auto_hops)
                .bind(row.allow_unencrypted)
                .bind(&row.degraded)
                .bind(row.first_transmit_at);
        }
    });
}

#[cfg(test)]
pub(super) mod tests;
