//! The operator's statements: look, requeue, retire, clear, forget.

use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DbBackend, DbErr, EntityTrait as _, FromQueryResult, IntoActiveModel as _,
    QueryFilter as _, Statement, Value,
};

use super::super::entity::{Column, Entity, Model};
use crate::domain::outbox::OutboxState;
use crate::domain::reply;
use crate::domain::time::UnixMillis;

/// Inserts a successor. False when its client id is taken.
pub async fn insert(db: &impl ConnectionTrait, row: &Model) -> Result<bool, DbErr> {
    let inserted = Entity::insert_many([row.clone().into_active_model()])
        .on_conflict(OnConflict::column(Column::ClientMessageId).do_nothing().to_owned())
        .exec_with_returning_keys(db)
        .await?;
    Ok(!inserted.is_empty())
}

/// A row without its text and metadata.
#[derive(Clone, Debug, PartialEq, FromQueryResult)]
pub struct Entry {
    /// The row's id.
    pub id: String,
    /// The key of every deduplication.
    pub client_message_id: String,
    /// The name of its state.
    pub status: String,
    /// How it is addressed.
    pub destination_kind: String,
    /// The destination as the caller wrote it.
    pub destination_ref: String,
    /// What it means.
    pub target_id: String,
    /// With which key.
    pub target_key: Option<String>,
    /// Under which name.
    pub target_name: Option<String>,
    /// How urgent.
    pub priority: String,
    /// The message that it answers.
    pub reply_to_id: Option<String>,
    /// JSON array.
    pub mentions: Option<String>,
    /// How many automatic sends led to it.
    pub auto_hops: i32,
    /// The caller accepts clear text.
    pub allow_unencrypted: bool,
    /// Length of the text in bytes.
    pub size_bytes: i64,
    /// JSON array of what the receiver could not be told.
    pub degraded: Option<String>,
    /// The sender's key.
    pub sender_key: String,
    /// SHA-256 of the request.
    pub request_fingerprint: Vec<u8>,
    /// Transmits so far.
    pub attempts: i32,
    /// The last failure.
    pub last_error: Option<String>,
    /// The broker's id.
    pub broker_message_id: Option<String>,
    /// The broker's history id.
    pub history_id: Option<String>,
    /// Unix ms of the accept.
    pub enqueued_at: i64,
    /// Unix ms before which no transmit is tried.
    pub next_attempt_at: i64,
    /// Unix ms of the first transmit.
    pub first_transmit_at: Option<i64>,
    /// Unix ms of the broker's acceptance.
    pub accepted_at: Option<i64>,
    /// Unix ms of the receiver's storing.
    pub receiver_stored_at: Option<i64>,
    /// Unix ms of the last requeue.
    pub requeued_at: Option<i64>,
    /// Unix ms at which it was given up.
    pub dead_at: Option<i64>,
    /// Why it was given up.
    pub dead_reason: Option<String>,
    /// Unix ms at which it was retired.
    pub aborted_at: Option<i64>,
    /// Who retired it.
    pub aborted_by: Option<String>,
    /// The row that took its place.
    pub superseded_by: Option<String>,
    /// Unix ms at which the receiver's daemon set it aside.
    pub rejected_at: Option<i64>,
    /// Why it did.
    pub reject_reason: Option<String>,
    /// Unix ms at which the broker gave it up for its receiver.
    pub expired_at: Option<i64>,
    /// Receivers whose daemons have stored it; see [`Entry::delivered_count`].
    delivered_count: i32,
}

// === impl Entry ===

impl Entry {
    /// Subscribers of the topic whose daemons have stored it, as far as the broker
    /// has told; `None` for other sends.
    pub fn delivered_count(&self) -> Option<u32> {
        posted_to(&self.destination_kind, self.delivered_count)
    }
}

/// How many receivers of a post have stored it, as far as the broker has told.
pub(in crate::outbox) fn posted_to(destination_kind: &str, count: i32) -> Option<u32> {
    u32::try_from(count).ok().filter(|count| destination_kind == "topic" && *count > 0)
}

/// A send of this member that a reply may mean.
#[derive(Clone, Debug, FromQueryResult)]
pub struct OwnSend {
    /// Its id.
    pub client_message_id: String,
    /// The broker's id.
    pub broker_message_id: Option<String>,
    /// The member or topic that it went to.
    pub target_id: String,
    /// It has the id that was looked for as its own.
    pub by_own_id: bool,
}

const ENTRY: &str = "SELECT id, client_message_id, status, destination_kind, destination_ref, target_id, target_key, \
     target_name, priority, reply_to_id, mentions, auto_hops, allow_unencrypted, length(payload) AS size_bytes, degraded, \
     sender_key, request_fingerprint, attempts, last_error, broker_message_id, history_id, enqueued_at, next_attempt_at, \
     first_transmit_at, accepted_at, receiver_stored_at, requeued_at, dead_at, dead_reason, aborted_at, aborted_by, \
     superseded_by, rejected_at, reject_reason, expired_at, delivered_count FROM outbox";

/// Text and metadata of rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleared {
    /// Rows.
    pub rows: u64,
    /// Bytes that they held.
    pub bytes: u64,
}

fn sqlite(sql: impl Into<String>, values: impl IntoIterator<Item = Value>) -> Statement {
    Statement::from_sql_and_values(DbBackend::Sqlite, sql, values)
}

/// A page of entries in the order of accept, after a row id.
pub async fn entries(
    db: &impl ConnectionTrait,
    states: &[OutboxState],
    after: Option<&str>,
    limit: u64,
) -> Result<Vec<Entry>, DbErr> {
    // Names of states are fixed words, so they may stand in the text.
    let names: Vec<String> = states.iter().map(|state| format!("'{}'", state.name())).collect();
    let sql = format!("{ENTRY} WHERE id > ?1 AND status IN ({}) ORDER BY id LIMIT ?2", names.join(", "));
    let values = [after.unwrap_or_default().into(), Value::from(i64::try_from(limit).unwrap_or(i64::MAX))];
    Entry::find_by_statement(sqlite(sql, values)).all(db).await
}

/// The entry that a text names: by row id, else by client message id.
pub async fn entry(db: &impl ConnectionTrait, id: &str) -> Result<Option<Entry>, DbErr> {
    for column in ["id", "client_message_id"] {
        let sql = format!("{ENTRY} WHERE {column} = ?1");
        let found = Entry::find_by_statement(sqlite(sql, [Value::from(id)])).one(db).await?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The entry of this client message id.
pub async fn sent(db: &impl ConnectionTrait, client_message_id: &str) -> Result<Option<Entry>, DbErr> {
    let sql = format!("{ENTRY} WHERE client_message_id = ?1");
    Entry::find_by_statement(sqlite(sql, [Value::from(client_message_id)])).one(db).await
}

/// Own sends that an id names, by their own id or by the broker's.
pub async fn answered(db: &impl ConnectionTrait, id: &str) -> Result<Vec<OwnSend>, DbErr> {
    let sql = format!(
        "SELECT client_message_id, broker_message_id, target_id, client_message_id = ?1 AS by_own_id FROM outbox \
         WHERE client_message_id = ?1 \
         UNION ALL SELECT client_message_id, broker_message_id, target_id, 0 FROM outbox WHERE broker_message_id = ?1 \
         LIMIT {}",
        reply::MAX_MATCHES
    );
    OwnSend::find_by_statement(sqlite(sql, [Value::from(id)])).all(db).await
}

/// The whole row.
pub async fn whole(db: &impl ConnectionTrait, row_id: &str) -> Result<Option<Model>, DbErr> {
    Entity::find().filter(Column::Id.eq(row_id)).one(db).await
}

/// Queues a dead row again under its own id; its age counts from now.
pub async fn requeue(db: &impl ConnectionTrait, row_id: &str, now: UnixMillis) -> Result<(), DbErr> {
    let sql = "UPDATE outbox SET status = 'pending', requeued_at = ?2, next_attempt_at = ?2, dead_at = NULL, \
               dead_reason = NULL WHERE id = ?1 AND status = 'dead'";
    db.execute_raw(sqlite(sql, [row_id.into(), now.0.into()])).await.map(drop)
}

/// Retires a row for the operator. A successor takes its text along, so the old
/// text is only kept when it differs; a dropped one is cleared.
pub async fn abort(
    db: &impl ConnectionTrait,
    row_id: &str,
    now: UnixMillis,
    superseded_by: Option<&str>,
) -> Result<(), DbErr> {
    let clear = if superseded_by.is_none() { ", payload = x'', meta = NULL, mentions = NULL" } else { "" };
    let sql = format!(
        "UPDATE outbox SET status = 'aborted', aborted_at = ?2, aborted_by = 'operator', superseded_by = ?3{clear} \
         WHERE id = ?1 AND status IN ('pending', 'dead')"
    );
    db.execute_raw(sqlite(sql, [row_id.into(), now.0.into(), superseded_by.map(str::to_owned).into()])).await.map(drop)
}

const CLEARABLE: &str = "status IN ('done', 'aborted') AND length(payload) > 0";
const HELD: &str = "length(payload) + COALESCE(length(meta), 0) + COALESCE(length(mentions), 0)";

/// What [`clear`] would do over all rows.
pub async fn clearable(db: &impl ConnectionTrait) -> Result<Cleared, DbErr> {
    let sql = format!("SELECT count(*), COALESCE(sum({HELD}), 0) FROM outbox WHERE {CLEARABLE}");
    let row = db.query_one_raw(Statement::from_string(DbBackend::Sqlite, sql)).await?;
    let Some(row) = row else { return Ok(Cleared::default()) };
    let number = |index| row.try_get_by_index::<i64>(index).map(i64::unsigned_abs);
    Ok(Cleared { rows: number(0)?, bytes: number(1)? })
}

/// About the size of the database after a VACUUM. A row without its text takes some
/// 500 bytes with its places in the indexes.
pub async fn vacuumed_bytes(db: &impl ConnectionTrait) -> Result<u64, DbErr> {
    let sql = format!("SELECT count(*) * 600 + COALESCE(sum({HELD}), 0) FROM outbox");
    let row = db.query_one_raw(Statement::from_string(DbBackend::Sqlite, sql)).await?;
    row.map_or(Ok(0), |row| row.try_get_by_index::<i64>(0)).map(i64::unsigned_abs)
}

/// Clears text and metadata of rows that are done or aborted, of those after a
/// row id and at most `limit`; what recognises a repeat stays. `ended_before`
/// spares newer ones. Gives the last row id that was looked at, `None` at the
/// end of the table.
pub async fn clear(
    db: &impl ConnectionTrait,
    after: &str,
    ended_before: UnixMillis,
    limit: u64,
) -> Result<(Cleared, Option<String>), DbErr> {
    // First how far this step goes, so that rows which are not to be cleared are
    // passed over once and not by every step again.
    let step = sqlite(
        "SELECT max(id) FROM (SELECT id FROM outbox WHERE id > ?1 ORDER BY id LIMIT ?2)",
        [after.into(), Value::from(i64::try_from(limit).unwrap_or(i64::MAX))],
    );
    let row = db.query_one_raw(step).await?;
    let Some(to) = row.map_or(Ok(None), |row| row.try_get_by_index::<Option<String>>(0))? else {
        return Ok((Cleared::default(), None));
    };
    let chosen =
        format!("id > ?1 AND id <= ?2 AND {CLEARABLE} AND COALESCE(accepted_at, aborted_at, enqueued_at) <= ?3");
    let values = || [Value::from(after), Value::from(to.as_str()), Value::from(ended_before.0)];
    let count = format!("SELECT count(*), COALESCE(sum({HELD}), 0) FROM outbox WHERE {chosen}");
    let mut cleared = Cleared::default();
    if let Some(row) = db.query_one_raw(sqlite(count, values())).await? {
        cleared.rows = row.try_get_by_index::<i64>(0)?.unsigned_abs();
        cleared.bytes = row.try_get_by_index::<i64>(1)?.unsigned_abs();
    }
    if cleared.rows > 0 {
        let sql = format!("UPDATE outbox SET payload = x'', meta = NULL, mentions = NULL WHERE {chosen}");
        db.execute_raw(sqlite(sql, values())).await?;
    }
    Ok((cleared, Some(to)))
}

/// Deletes rows whose ids nobody can repeat any more: cleared ones that ended
/// before a time. Ids grow with time, so the oldest are looked at first, and the
/// look ends at the first `limit` rows before the bound.
pub async fn forget(
    db: &impl ConnectionTrait,
    ended_before: UnixMillis,
    id_bound: &str,
    limit: u64,
) -> Result<u64, DbErr> {
    let sql = "DELETE FROM outbox WHERE id IN (SELECT id FROM outbox WHERE id < ?1 AND status IN ('done', 'aborted') \
               AND length(payload) = 0 AND COALESCE(accepted_at, aborted_at, enqueued_at) < ?2 ORDER BY id LIMIT ?3)";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let values = [id_bound.into(), ended_before.0.into(), limit.into()];
    Ok(db.execute_raw(sqlite(sql, values)).await?.rows_affected())
}

/// Rows that are done, and rows that are retired.
pub async fn ended(db: &impl ConnectionTrait) -> Result<(u64, u64), DbErr> {
    let sql = "SELECT (SELECT count(*) FROM outbox WHERE status = 'done'), \
               (SELECT count(*) FROM outbox WHERE status = 'aborted')";
    let row = db.query_one_raw(Statement::from_string(DbBackend::Sqlite, sql)).await?;
    let Some(row) = row else { return Ok((0, 0)) };
    let number = |index| row.try_get_by_index::<i64>(index).map(i64::unsigned_abs);
    Ok((number(0)?, number(1)?))
}

/// A value that belongs to the file as a whole.
pub async fn meta(db: &impl ConnectionTrait, key: &str) -> Result<Option<String>, DbErr> {
    let row = db.query_one_raw(sqlite("SELECT value FROM meta WHERE key = ?1", [Value::from(key)])).await?;
    row.map_or(Ok(None), |row| row.try_get_by_index(0).map(Some))
}

/// Sets a value that belongs to the file as a whole.
pub async fn set_meta(db: &impl ConnectionTrait, key: &str, value: &str) -> Result<(), DbErr> {
    let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    db.execute_raw(sqlite(sql, [key.into(), value.into()])).await.map(drop)
}

/// Counts the age of rows that were accepted, or ended, under a wrong clock from now.
pub async fn rebase(
    db: &impl ConnectionTrait,
    from: UnixMillis,
    to: UnixMillis,
    now: UnixMillis,
) -> Result<u64, DbErr> {
    let sql = "UPDATE outbox SET requeued_at = ?3, next_attempt_at = MIN(next_attempt_at, ?3) WHERE status = 'pending' \
               AND COALESCE(requeued_at, enqueued_at) BETWEEN ?1 AND ?2";
    let values = || [from.0.into(), to.0.into(), now.0.into()];
    for (status, ended) in [("done", "accepted_at"), ("aborted", "aborted_at")] {
        let sql = format!(
            "UPDATE outbox SET {ended} = ?3 WHERE status = '{status}' AND COALESCE({ended}, enqueued_at) BETWEEN ?1 AND ?2"
        );
        db.execute_raw(sqlite(sql, values())).await?;
    }
    Ok(db.execute_raw(sqlite(sql, values())).await?.rows_affected())
}

/// Lets no waiting row wait beyond a time.
pub async fn clamp(db: &impl ConnectionTrait, to: UnixMillis) -> Result<u64, DbErr> {
    let sql = "UPDATE outbox SET next_attempt_at = ?1 WHERE status = 'pending' AND next_attempt_at > ?1";
    Ok(db.execute_raw(sqlite(sql, [Value::from(to.0)])).await?.rows_affected())
}
