//! Every statement on the outbox table; the operator's are in `operator`.

pub mod operator;

mod batch;

use std::collections::HashMap;

use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DbBackend, DbErr, EntityTrait as _, FromQueryResult, PaginatorTrait as _,
    QueryFilter as _, QuerySelect as _, Statement, Value,
};

#[cfg(test)]
pub(super) use self::batch::tests::{database, row};
pub use self::batch::{AtReceiver, Reported};
pub(super) use self::batch::{Batch, write};
use super::entity::{Column, Entity, Model};
use crate::domain::outbox::OutboxState;
use crate::domain::time::UnixMillis;

/// What the broker, or the lack of it, made of one transmit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The broker has it, now or from an earlier transmit.
    Accepted {
        /// Its id there.
        broker_message_id: String,
        /// Its id in the broker's history.
        history_id: Option<String>,
        /// What the receiver could not be told, as a JSON array.
        degraded: Option<String>,
    },
    /// It was for this member, and is in the inbox here.
    Kept,
    /// Try again at that time.
    Retry {
        /// Not before.
        at: UnixMillis,
        /// Why, for people.
        error: String,
    },
    /// Try again at that time; the transmit does not count as an attempt, since
    /// the broker refused it only because too many came at once.
    Deferred {
        /// Not before.
        at: UnixMillis,
        /// Why, for people.
        error: String,
    },
    /// Give it up.
    Dead {
        /// Why, for people.
        error: String,
    },
}

/// The state of the row that holds an id.
#[derive(Clone, Debug, FromQueryResult)]
pub struct Existing {
    /// The row.
    pub id: String,
    /// The id.
    pub client_message_id: String,
    /// Its state's name.
    pub status: String,
    /// Its fingerprint.
    pub request_fingerprint: Vec<u8>,
    /// When it was accepted, Unix ms.
    pub enqueued_at: i64,
    /// The broker's id.
    pub broker_message_id: Option<String>,
    /// The broker's history id.
    pub history_id: Option<String>,
    /// Why it was given up.
    pub dead_reason: Option<String>,
    /// How it is addressed.
    pub destination_kind: String,
    /// Whom it goes to.
    pub target_id: String,
    /// With which key.
    pub target_key: Option<String>,
    /// Under which name.
    pub target_name: Option<String>,
    /// What the receiver could not be told, as a JSON array.
    pub degraded: Option<String>,
    /// When the receiver stored it, Unix ms.
    pub receiver_stored_at: Option<i64>,
    /// Receivers that have stored it.
    pub delivered_count: i32,
}

/// Rows per state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Rows that wait.
    pub pending: u64,
    /// Rows on their way.
    pub inflight: u64,
    /// Rows that were given up.
    pub dead: u64,
    /// When the oldest waiting row was accepted.
    pub oldest_pending: Option<UnixMillis>,
}

/// The rows that hold these ids.
pub async fn find(db: &impl ConnectionTrait, client_message_ids: &[&str]) -> Result<Vec<Existing>, DbErr> {
    Entity::find()
        .select_only()
        .columns([
            Column::Id,
            Column::ClientMessageId,
            Column::Status,
            Column::RequestFingerprint,
            Column::EnqueuedAt,
            Column::BrokerMessageId,
            Column::HistoryId,
            Column::DeadReason,
            Column::DestinationKind,
            Column::TargetId,
            Column::TargetKey,
            Column::TargetName,
            Column::Degraded,
            Column::ReceiverStoredAt,
            Column::DeliveredCount,
        ])
        .filter(Column::ClientMessageId.is_in(client_message_ids.iter().copied()))
        .into_model::<Existing>()
        .all(db)
        .await
}

/// Which receivers a claim takes rows for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Only {
    /// All but those who are held, in turns: the first is the next one after this
    /// receiver in the order of ids.
    Free {
        /// Who is held.
        held: Vec<String>,
        /// Who had the last turn.
        after: String,
    },
    /// This one.
    Target(String),
    /// This member itself; all others are without it.
    OwnMember,
}

/// What a claim took.
#[derive(Debug)]
pub struct Claimed {
    /// The rows in the order of accept.
    pub rows: Vec<Model>,
    /// There may be more.
    pub more: bool,
}

const CLAIM_TO_SELF: &str = "UPDATE outbox SET status = 'inflight', attempts = attempts + 1, \
     first_transmit_at = COALESCE(first_transmit_at, ?1) \
     WHERE id IN (SELECT id FROM outbox INDEXED BY outbox_to_self \
     WHERE status = 'pending' AND to_self = 1 AND next_attempt_at <= ?1 ORDER BY next_attempt_at, id LIMIT ?2) \
     RETURNING *";

/// One receiver.
const ONE: &str = "SELECT ?3";

/// Receivers with due rows, at most as many as the claim has places: one step of the
/// index for each, whatever waits for those who are passed over. The inner `WITH`
/// lets SQLite stop there.
const IN_TURN: &str = "WITH RECURSIVE target(id, lap) AS (VALUES (?3, 0), ('', 1) \
     UNION ALL SELECT (SELECT MIN(target_id) FROM outbox INDEXED BY outbox_target \
     WHERE status = 'pending' AND to_self = 0 AND target_id > target.id), lap \
     FROM target WHERE id IS NOT NULL AND (lap = 0 OR id < ?3) ORDER BY lap) \
     SELECT id FROM target WHERE CASE lap WHEN 0 THEN id > ?3 ELSE id <> '' AND id <= ?3 END \
     AND id NOT IN (SELECT value FROM json_each(?4)) \
     AND EXISTS (SELECT 1 FROM outbox INDEXED BY outbox_target WHERE status = 'pending' AND to_self = 0 \
     AND target_id = target.id AND next_attempt_at <= ?1) LIMIT ?2";

/// Each receiver has an equal share of the places. The index holds the rows of each in
/// the order in which they were inserted, that of accept.
fn claim_sql(receivers: &str) -> String {
    format!(
        "UPDATE outbox SET status = 'inflight', attempts = attempts + 1, \
         first_transmit_at = COALESCE(first_transmit_at, ?1) WHERE rowid IN ( \
         WITH receiver(id) AS MATERIALIZED ({receivers}) \
         SELECT due.rowid FROM receiver CROSS JOIN outbox AS due ON due.rowid IN ( \
         SELECT next.rowid FROM outbox AS next INDEXED BY outbox_target \
         WHERE next.status = 'pending' AND next.to_self = 0 AND next.target_id = receiver.id \
         AND next.next_attempt_at <= ?1 ORDER BY next.rowid LIMIT MAX(1, ?2 / (SELECT count(*) FROM receiver)))) \
         RETURNING *"
    )
}

const OLDEST_PENDING: &str = "SELECT MIN(at) FROM ( \
     SELECT MIN(next_attempt_at) AS at FROM outbox INDEXED BY outbox_pending WHERE status = 'pending' \
     UNION ALL SELECT MIN(enqueued_at) FROM outbox INDEXED BY outbox_moved \
     WHERE status = 'pending' AND next_attempt_at <> enqueued_at)";

/// Moves up to `limit` due rows to `inflight`, the oldest of each receiver first. They
/// are read from an index in their order: sorting a long backlog for every claim, or
/// walking through it, would stall the writer.
pub async fn claim_due(db: &impl ConnectionTrait, now: UnixMillis, limit: u32, only: &Only) -> Result<Claimed, DbErr> {
    let mut values = vec![Value::from(now.0), Value::from(i64::from(limit))];
    let sql = match only {
        Only::OwnMember => CLAIM_TO_SELF.to_owned(),
        Only::Target(target) => {
            values.push(target.as_str().into());
            claim_sql(ONE)
        }
        Only::Free { held, after } => {
            values.extend([after.as_str().into(), serde_json::json!(held).to_string().into()]);
            claim_sql(IN_TURN)
        }
    };
    let statement = Statement::from_sql_and_values(DbBackend::Sqlite, sql, values);
    let mut rows = Entity::find().from_raw_sql(statement).all(db).await?;
    // RETURNING promises no order.
    rows.sort_unstable_by(|one, other| one.id.cmp(&other.id));
    let more = may_be_more(&rows, limit as usize);
    Ok(Claimed { rows, more })
}

/// Whether a receiver has had all of its share, or there may have been no place for one.
fn may_be_more(rows: &[Model], limit: usize) -> bool {
    let mut shares = HashMap::<&str, usize>::new();
    for row in rows {
        *shares.entry(&row.target_id).or_default() += 1;
    }
    let share = limit.checked_div(shares.len()).unwrap_or(1).max(1);
    shares.len() >= limit || shares.values().any(|taken| *taken >= share)
}

/// Puts every `inflight` row back: the process that awaited the answer is gone
/// (R184). Stored times that lie too far ahead are brought near.
pub async fn recover(db: &impl ConnectionTrait, now: UnixMillis, pause_ms: i64) -> Result<u64, DbErr> {
    let recovered = Statement::from_sql_and_values(
        DbBackend::Sqlite,
        "UPDATE outbox SET status = 'pending', attempts = attempts + 1, next_attempt_at = ?1, \
         last_error = 'the daemon stopped before the broker answered' WHERE status = 'inflight'",
        [Value::from(now.0 + pause_ms)],
    );
    let rows = db.execute_raw(recovered).await?.rows_affected();
    let clamped = Statement::from_sql_and_values(
        DbBackend::Sqlite,
        "UPDATE outbox SET next_attempt_at = ?1 WHERE status = 'pending' AND next_attempt_at > ?1",
        [Value::from(now.0 + 30_000)],
    );
    db.execute_raw(clamped).await?;
    Ok(rows)
}

/// Gives up the rows that are older than the limit. Returns their ids.
pub async fn expire(
    db: &impl ConnectionTrait,
    accepted_before: UnixMillis,
    now: UnixMillis,
) -> Result<Vec<String>, DbErr> {
    let statement = Statement::from_sql_and_values(
        DbBackend::Sqlite,
        "UPDATE outbox SET status = 'dead', dead_at = ?2, dead_reason = 'max_age', \
         last_error = COALESCE(last_error, 'it was not accepted within the age limit') \
         WHERE status = 'pending' AND COALESCE(requeued_at, enqueued_at) < ?1 RETURNING client_message_id",
        [Value::from(accepted_before.0), Value::from(now.0)],
    );
    let rows = db.query_all_raw(statement).await?;
    rows.iter().map(|row| row.try_get_by_index(0)).collect()
}

/// The time that the age of the oldest open row counts from.
pub async fn oldest(db: &impl ConnectionTrait) -> Result<Option<UnixMillis>, DbErr> {
    let statement = Statement::from_string(
        DbBackend::Sqlite,
        "SELECT MIN(COALESCE(requeued_at, enqueued_at)) FROM outbox WHERE status IN ('pending', 'inflight')",
    );
    let row = db.query_one_raw(statement).await?;
    row.map_or(Ok(None), |row| row.try_get_by_index::<Option<i64>>(0)).map(|at| at.map(UnixMillis))
}

/// Puts rows that were to leave at once, but did not, back among those that wait.
pub async fn put_back(db: &impl ConnectionTrait, ids: &[String]) -> Result<(), DbErr> {
    Entity::update_many()
        .col_expr(Column::Status, OutboxState::Pending.name().into())
        .col_expr(Column::Attempts, 0.into())
        .col_expr(Column::FirstTransmitAt, Option::<i64>::None.into())
        .filter(Column::Id.is_in(ids))
        .filter(Column::Status.eq(OutboxState::Inflight.name()))
        .exec(db)
        .await
        .map(drop)
}

/// When the next row becomes due of those that are not yet due at a time. A row that
/// is due and waits, waits for something else.
pub async fn next_due(db: &impl ConnectionTrait, after: UnixMillis) -> Result<Option<UnixMillis>, DbErr> {
    let sql = "SELECT MIN(next_attempt_at) FROM outbox INDEXED BY outbox_pending \
               WHERE status = 'pending' AND to_self = 0 AND next_attempt_at > ?1";
    let row = db.query_one_raw(Statement::from_sql_and_values(DbBackend::Sqlite, sql, [Value::from(after.0)])).await?;
    row.map_or(Ok(None), |row| row.try_get_by_index::<Option<i64>>(0)).map(|at| at.map(UnixMillis))
}

/// When the next waiting row to this member itself becomes due.
pub async fn next_due_to_self(db: &impl ConnectionTrait) -> Result<Option<UnixMillis>, DbErr> {
    let sql =
        "SELECT MIN(next_attempt_at) FROM outbox INDEXED BY outbox_to_self WHERE status = 'pending' AND to_self = 1";
    let row = db.query_one_raw(Statement::from_string(DbBackend::Sqlite, sql)).await?;
    row.map_or(Ok(None), |row| row.try_get_by_index::<Option<i64>>(0)).map(|at| at.map(UnixMillis))
}

/// Rows per state and the age of the oldest.
pub async fn depth(db: &impl ConnectionTrait) -> Result<Depth, DbErr> {
    let count = |state: OutboxState| Entity::find().filter(Column::Status.eq(state.name())).count(db);
    Ok(Depth {
        pending: count(OutboxState::Pending).await?,
        inflight: count(OutboxState::Inflight).await?,
        dead: count(OutboxState::Dead).await?,
        oldest_pending: oldest_pending(db).await?,
    })
}

/// When the oldest row that waits was accepted. Rows whose due time was never
/// changed are due since their accept, so the first of them is the oldest; all
/// others are in an index of their own.
async fn oldest_pending(db: &impl ConnectionTrait) -> Result<Option<UnixMillis>, DbErr> {
    let first = Statement::from_string(DbBackend::Sqlite, OLDEST_PENDING);
    let row = db.query_one_raw(first).await?;
    row.map_or(Ok(None), |row| row.try_get_by_index::<Option<i64>>(0)).map(|at| at.map(UnixMillis))
}

#[cfg(test)]
mod tests;
