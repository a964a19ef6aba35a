//! The statements under every send: a batch of the writer is one script, so one
//! trip to the engine and one commit.
//!
//! Written for the engine's own interface. A statement built anew from all
//! columns costs more than its commit. What varies in number goes in as rows of
//! a power of two or as one JSON array, so that the texts are few and stay
//! prepared.

use std::collections::BTreeMap;

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
     first_transmit_at, to_self";
const COLUMN_COUNT: usize = 26;

// The states from which each outcome may leave are those of
// `domain::outbox::next`; a test holds the two together. The plus keeps SQLite from
// walking through all rows of a state for each outcome.
const ACCEPTED: &str = "UPDATE outbox SET status = 'done', delivered_at = ?, accepted_at = ?, last_error = NULL, \
     broker_message_id = v.value ->> 1, history_id = v.value ->> 2, degraded = v.value ->> 3 \
     FROM json_each(?) AS v WHERE outbox.id = v.value ->> 0 AND +outbox.status IN ('pending', 'inflight')";
const KEPT: &str = "UPDATE outbox SET status = 'done', delivered_at = ?, accepted_at = ?, receiver_stored_at = ?, \
     last_error = NULL FROM json_each(?) AS v WHERE outbox.id = v.value AND +outbox.status IN ('pending', 'inflight')";
const RETRIED: &str = "UPDATE outbox SET status = 'pending', next_attempt_at = v.value ->> 1, \
     last_error = v.value ->> 2 FROM json_each(?) AS v WHERE outbox.id = v.value ->> 0 AND +outbox.status = 'inflight'";
const DEFERRED: &str = "UPDATE outbox SET status = 'pending', attempts = MAX(attempts - 1, 0), \
     next_attempt_at = v.value ->> 1, last_error = v.value ->> 2 \
     FROM json_each(?) AS v WHERE outbox.id = v.value ->> 0 AND +outbox.status = 'inflight'";
const DEAD: &str = "UPDATE outbox SET status = 'dead', dead_at = ?, dead_reason = v.value ->> 1, \
     last_error = v.value ->> 1 \
     FROM json_each(?) AS v WHERE outbox.id = v.value ->> 0 AND +outbox.status IN ('pending', 'inflight')";
// One receiver of a post that has it or not says nothing of the others: only their
// number is kept.
const STORED: &str = "UPDATE outbox SET receiver_stored_at = COALESCE(outbox.receiver_stored_at, v.value ->> 1), \
     delivered_count = outbox.delivered_count + (v.value ->> 2) \
     FROM json_each(?) AS v WHERE outbox.client_message_id = v.value ->> 0";
const REJECTED: &str = "UPDATE outbox SET rejected_at = v.value ->> 1, reject_reason = v.value ->> 2 \
     FROM json_each(?) AS v WHERE outbox.client_message_id = v.value ->> 0 AND outbox.destination_kind = 'dm' \
     AND outbox.rejected_at IS NULL AND outbox.receiver_stored_at IS NULL";
const EXPIRED: &str = "UPDATE outbox SET expired_at = v.value ->> 1 \
     FROM json_each(?) AS v WHERE outbox.client_message_id = v.value ->> 0 AND outbox.destination_kind = 'dm' \
     AND outbox.expired_at IS NULL AND outbox.receiver_stored_at IS NULL";

/// What became of a send at a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtReceiver {
    /// Its daemon has stored it.
    Stored,
    /// Its daemon set it aside, for this reason.
    Rejected(&'static str),
    /// It did not take it in time.
    Expired,
}

/// The broker's word on one receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// Of which send.
    pub client_message_id: String,
    /// When.
    pub at: UnixMillis,
    /// What became of it.
    pub outcome: AtReceiver,
}

/// What one commit of the writer changes.
#[derive(Clone, Copy, Debug)]
pub(in crate::outbox) struct Batch<'a> {
    /// New rows.
    pub(in crate::outbox) rows: &'a [Model],
    /// What became of transmits, by row id.
    pub(in crate::outbox) outcomes: &'a [(String, Outcome)],
    /// What receivers have made of sends.
    pub(in crate::outbox) reported: &'a [Reported],
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
    let (mut accepted, mut kept, mut retried) = (Vec::new(), Vec::new(), Vec::new());
    let (mut deferred, mut dead) = (Vec::new(), Vec::new());
    for (id, outcome) in batch.outcomes {
        match outcome {
            Outcome::Accepted { broker_message_id, history_id, degraded } => {
                accepted.push(json!([id, broker_message_id, history_id, degraded]));
            }
            Outcome::Kept => kept.push(json!(id)),
            Outcome::Retry { at, error } => retried.push(json!([id, at.0, error])),
            Outcome::Deferred { at, error } => deferred.push(json!([id, at.0, error])),
            Outcome::Dead { error } => dead.push(json!([id, error])),
        }
    }
    let [stored, rejected, expired] = reported(batch.reported);
    let all = [
        (ACCEPTED, 2, accepted),
        (KEPT, 3, kept),
        (RETRIED, 0, retried),
        (DEFERRED, 0, deferred),
        (DEAD, 1, dead),
        (STORED, 0, stored),
        (REJECTED, 0, rejected),
        (EXPIRED, 0, expired),
    ];
    all.into_iter().filter(|(_, _, list)| !list.is_empty()).collect()
}

/// What receivers have stored, set aside and not taken, each row once: a statement
/// changes a row once, whatever its list says.
fn reported(reported: &[Reported]) -> [Vec<Value>; 3] {
    let (mut stored, mut rejected, mut expired) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for Reported { client_message_id: id, at, outcome } in reported {
        match outcome {
            AtReceiver::Stored => {
                let (first, count) = stored.entry(id).or_insert((at.0, 0));
                *first = at.0.min(*first);
                *count += 1;
            }
            AtReceiver::Rejected(reason) => drop(rejected.entry(id).or_insert((at.0, reason))),
            AtReceiver::Expired => drop(expired.entry(id).or_insert(at.0)),
        }
    }
    [
        stored.into_iter().map(|(id, (at, count))| json!([id, at, count])).collect(),
        rejected.into_iter().map(|(id, (at, reason))| json!([id, at, reason])).collect(),
        expired.into_iter().map(|(id, at)| json!([id, at])).collect(),
    ]
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
                .bind(row.first_transmit_at)
                .bind(row.to_self);
        }
    });
}

#[cfg(test)]
pub(super) mod tests;
