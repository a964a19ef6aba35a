//! Every statement on the inbox database; the one under most batches is in
//! `all_new`.

mod all_new;

use std::collections::HashSet;

use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, DbBackend, DbErr, EntityTrait as _, FromQueryResult,
    IntoActiveModel as _, Order, PaginatorTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, Select,
    Statement, Value,
};

pub(super) use self::all_new::insert_all_new;
use super::entity::{ActiveModel, Column, Entity, Model};
use crate::domain::ids::{MemberId, MemberKey};
use crate::domain::reply;
use crate::domain::roster::Candidate;
use crate::domain::time::UnixMillis;
use crate::runtime::time_guard::Span;

/// 16 bytes that stand for a message in the memory of what was seen.
pub(super) type SeenHash = [u8; 16];

/// Messages that are kept aside: of one member, and of all.
const ASIDE_OF_MEMBER: i64 = 100;
const ASIDE: i64 = 2_000;

/// Which rows a page takes.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    pub(super) after_seq: Option<u64>,
    pub(super) before_seq: Option<u64>,
    pub(super) since: Option<UnixMillis>,
    pub(super) topic: Option<String>,
    /// Member id of the sender.
    pub(super) from: Option<String>,
    pub(super) newest_first: bool,
    pub(super) limit: u64,
}

/// Sealed bytes that wait for a key.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub(super) id: String,
    /// The push as it came, as JSON.
    pub(super) frame: String,
    pub(super) grace_until: UnixMillis,
}

/// The key that a message waits for.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub(super) struct Key {
    /// Whether it is a sender's or a topic's.
    pub(super) reason: String,
    pub(super) waits_for: String,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) rows: u64,
    pub(super) bytes: u64,
}

/// What the broker is to be told of a message that waited for a key.
#[derive(Clone, Debug, FromQueryResult)]
pub(super) struct Receipt {
    pub(super) delivery_id: String,
    pub(super) broker_message_id: String,
    pub(super) client_message_id: Option<String>,
    /// Why it was set aside; `None` when it was stored.
    pub(super) reason: Option<String>,
}

/// A message that is kept aside.
#[derive(Clone, Debug)]
pub(super) struct Quarantined {
    pub(super) id: String,
    /// Whose share it counts against.
    pub(super) holder: String,
    pub(super) reason: String,
    pub(super) sender_pubkey: String,
    pub(super) broker_message_id: String,
    pub(super) client_message_id: Option<String>,
    pub(super) sealed: Option<Vec<u8>>,
}

/// Notes hashes as seen; returns those that were new.
pub(super) async fn note_seen(
    db: &impl ConnectionTrait,
    hashes: &[SeenHash],
    now: UnixMillis,
) -> Result<HashSet<SeenHash>, DbErr> {
    if hashes.is_empty() {
        return Ok(HashSet::new());
    }
    let rows = vec!["(?, ?)"; hashes.len()].join(", ");
    let sql =
        format!("INSERT INTO inbox_seen (hash, seen_at) VALUES {rows} ON CONFLICT (hash) DO NOTHING RETURNING hash");
    let values = hashes.iter().flat_map(|hash| [Value::from(hash.to_vec()), Value::from(now.0)]);
    let found = db.query_all_raw(Statement::from_sql_and_values(DbBackend::Sqlite, sql, values)).await?;
    found
        .iter()
        .map(|row| {
            let hash: Vec<u8> = row.try_get_by_index(0)?;
            hash.try_into().map_err(|_| DbErr::Type("a hash of inbox_seen is not 16 bytes long".to_owned()))
        })
        .collect()
}

/// Inserts messages; returns the row ids that are new (R175).
pub(super) async fn insert(db: &impl ConnectionTrait, rows: Vec<Model>) -> Result<HashSet<String>, DbErr> {
    if rows.is_empty() {
        return Ok(HashSet::new());
    }
    let active: Vec<ActiveModel> = rows.into_iter().map(Model::into_active_model).collect();
    let unique = [Column::Mesh, Column::SenderMemberId, Column::ClientMessageId];
    let keys = Entity::insert_many(active)
        .on_conflict(OnConflict::columns(unique).do_nothing().to_owned())
        .exec_with_returning_keys(db)
        .await?;
    Ok(keys.into_iter().collect())
}

/// Keeps sealed bytes until a key comes. A second push of the same message
/// changes nothing.
pub(super) async fn wait_for_key(
    db: &impl ConnectionTrait,
    waiting: &Waiting,
    key: &Key,
    holder: &str,
    broker_message_id: &str,
    now: UnixMillis,
) -> Result<(), DbErr> {
    let values: [Value; 9] = [
        waiting.id.clone().into(),
        broker_message_id.into(),
        holder.into(),
        key.reason.clone().into(),
        key.waits_for.clone().into(),
        i64::try_from(waiting.frame.len()).unwrap_or(i64::MAX).into(),
        now.0.into(),
        waiting.grace_until.0.into(),
        waiting.frame.clone().into(),
    ];
    let statement = Statement::from_sql_and_values(
        DbBackend::Sqlite,
        "INSERT INTO inbox_waiting (id, broker_message_id, holder, reason, waits_for, bytes, received_at, \
         grace_until, frame) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (broker_message_id) DO NOTHING",
        values,
    );
    db.execute_raw(statement).await.map(drop)
}

/// The keys that messages wait for.
pub(super) async fn keys_waited_for(db: &impl ConnectionTrait) -> Result<Vec<Key>, DbErr> {
    let sql = "SELECT DISTINCT reason, waits_for FROM inbox_waiting";
    Key::find_by_statement(Statement::from_string(DbBackend::Sqlite, sql)).all(db).await
}

/// Messages that waited for one of these keys, and those whose grace ended before
/// `over`; oldest first.
pub(super) async fn waiting(
    db: &impl ConnectionTrait,
    came: &[Key],
    over: UnixMillis,
    after: &str,
    limit: usize,
) -> Result<Vec<Waiting>, DbErr> {
    let came: Vec<String> = came.iter().map(|key| format!("{} {}", key.reason, key.waits_for)).collect();
    let values = [
        Value::from(after),
        Value::from(serde_json::to_string(&came).unwrap_or_else(|_| "[]".to_owned())),
        Value::from(over.0),
        Value::from(i64::try_from(limit).unwrap_or(i64::MAX)),
    ];
    let sql = "SELECT id, frame, grace_until FROM inbox_waiting WHERE id > ? \
         AND (reason || ' ' || waits_for IN (SELECT value FROM json_each(?)) OR grace_until < ?) ORDER BY id LIMIT ?";
    let rows = db.query_all_raw(Statement::from_sql_and_values(DbBackend::Sqlite, sql, values)).await?;
    let waiting = |row: &sea_orm::QueryResult| {
        let grace_until = UnixMillis(row.try_get_by_index(2)?);
        Ok(Waiting { id: row.try_get_by_index(0)?, frame: row.try_get_by_index(1)?, grace_until })
    };
    rows.iter().map(waiting).collect()
}

/// Which of these messages wait already, by the broker's ids.
pub(super) async fn known_waiting(db: &impl ConnectionTrait, ids: &[&str]) -> Result<HashSet<String>, DbErr> {
    let ids = serde_json::to_string(ids).unwrap_or_else(|_| "[]".to_owned());
    let sql = "SELECT broker_message_id FROM inbox_waiting WHERE broker_message_id IN (SELECT value FROM json_each(?))";
    let rows = db.query_all_raw(Statement::from_sql_and_values(DbBackend::Sqlite, sql, [Value::from(ids)])).await?;
    rows.iter().map(|row| row.try_get_by_index(0)).collect()
}

/// How much waits for a key, of all or of one member.
pub(super) async fn waiting_held(db: &impl ConnectionTrait, holder: Option<&str>) -> Result<Held, DbErr> {
    let of = if holder.is_some() { " WHERE holder = ?" } else { "" };
    let sql = format!("SELECT count(*), coalesce(sum(bytes), 0) FROM inbox_waiting{of}");
    let holder = holder.map(Value::from);
    let row = db.query_one_raw(Statement::from_sql_and_values(DbBackend::Sqlite, sql, holder)).await?;
    let Some(row) = row else { return Ok(Held::default()) };
    let number = |at| row.try_get_by_index::<i64>(at).map(i64::unsigned_abs);
    Ok(Held { rows: number(0)?, bytes: number(1)? })
}

/// How many messages wait for a key.
pub(super) async fn waiting_count(db: &impl ConnectionTrait) -> Result<u64, DbErr> {
    let row = db.query_one_raw(Statement::from_string(DbBackend::Sqlite, "SELECT COUNT(*) FROM inbox_waiting")).await?;
    row.map_or(Ok(0), |row| row.try_get_by_index::<i64>(0)).map(i64::unsigned_abs)
}

/// How many messages are kept aside.
pub(super) async fn quarantined_count(db: &impl ConnectionTrait) -> Result<u64, DbErr> {
    let row =
        db.query_one_raw(Statement::from_string(DbBackend::Sqlite, "SELECT COUNT(*) FROM inbox_quarantine")).await?;
    row.map_or(Ok(0), |row| row.try_get_by_index::<i64>(0)).map(i64::unsigned_abs)
}

/// A message that waited has been stored or set aside.
pub(super) async fn stop_waiting(db: &impl ConnectionTrait, id: &str) -> Result<(), DbErr> {
    let statement =
        Statement::from_sql_and_values(DbBackend::Sqlite, "DELETE FROM inbox_waiting WHERE id = ?", [Value::from(id)]);
    db.execute_raw(statement).await.map(drop)
}

/// Keeps what the broker is to be told.
pub(super) async fn owe_receipt(db: &impl ConnectionTrait, receipt: &Receipt, now: UnixMillis) -> Result<(), DbErr> {
    let values: [Value; 5] = [
        receipt.delivery_id.clone().into(),
        receipt.broker_message_id.clone().into(),
        receipt.client_message_id.clone().into(),
        receipt.reason.clone().into(),
        now.0.into(),
    ];
    let statement = Statement::from_sql_and_values(
        DbBackend::Sqlite,
        "INSERT INTO inbox_receipt (delivery_id, broker_message_id, client_message_id, reason, noted_at) \
         VALUES (?, ?, ?, ?, ?) ON CONFLICT (delivery_id) DO NOTHING",
        values,
    );
    db.execute_raw(statement).await.map(drop)
}

/// What the broker is to be told, at most so much.
pub(super) async fn receipts(db: &impl ConnectionTrait, limit: usize) -> Result<Vec<Receipt>, DbErr> {
    let statement = Statement::from_sql_and_values(
        DbBackend::Sqlite,
        "SELECT delivery_id, broker_message_id, client_message_id, reason FROM inbox_receipt \
         ORDER BY delivery_id LIMIT ?",
        [Value::from(i64::try_from(limit).unwrap_or(i64::MAX))],
    );
    Receipt::find_by_statement(statement).all(db).await
}

/// The broker knows these.
pub(super) async fn forget_receipts(db: &impl ConnectionTrait, delivery_ids: &[String]) -> Result<(), DbErr> {
    let ids = serde_json::to_string(delivery_ids).unwrap_or_else(|_| "[]".to_owned());
    let sql = "DELETE FROM inbox_receipt WHERE delivery_id IN (SELECT value FROM json_each(?))";
    db.execute_raw(Statement::from_sql_and_values(DbBackend::Sqlite, sql, [Value::from(ids)])).await.map(drop)
}

/// Forgets what no broker needs to know any more.
pub(super) async fn forget_old_receipts(db: &impl ConnectionTrait, before: UnixMillis) -> Result<(), DbErr> {
    let sql = "DELETE FROM inbox_receipt WHERE noted_at < ?";
    db.execute_raw(Statement::from_sql_and_values(DbBackend::Sqlite, sql, [Value::from(before.0)])).await.map(drop)
}

/// Sets a message aside with its reason. Only the first ones of a member are kept, and
/// each once.
pub(super) async fn quarantine(db: &impl ConnectionTrait, row: &Quarantined, now: UnixMillis) -> Result<(), DbErr> {
    let values: [Value; 10] = [
        row.id.clone().into(),
        row.reason.clone().into(),
        row.sender_pubkey.clone().into(),
        row.broker_message_id.clone().into(),
        row.client_message_id.clone().into(),
        now.0.into(),
        row.sealed.clone().into(),
        row.holder.clone().into(),
        ASIDE_OF_MEMBER.into(),
        ASIDE.into(),
    ];
    let statement = Statement::from_sql_and_values(
        DbBackend::Sqlite,
        "INSERT INTO inbox_quarantine (id, reason, sender_pubkey, broker_message_id, client_message_id, received_at, \
         sealed, holder) SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 \
         WHERE (SELECT count(*) FROM inbox_quarantine WHERE holder = ?8) < ?9 \
         AND (SELECT count(*) FROM inbox_quarantine) < ?10 AND NOT EXISTS \
         (SELECT 1 FROM inbox_quarantine WHERE holder = ?8 AND broker_message_id = ?4)",
        values,
    );
    db.execute_raw(statement).await.map(drop)
}

/// Removes what was set aside before then.
pub(super) async fn forget_aside(db: &impl ConnectionTrait, before: UnixMillis) -> Result<(), DbErr> {
    let sql = "DELETE FROM inbox_quarantine WHERE received_at < ?";
    db.execute_raw(Statement::from_sql_and_values(DbBackend::Sqlite, sql, [Value::from(before.0)])).await.map(drop)
}

/// A page of messages. However large the inbox is, only the rows of the page are
/// read, but for a topic, and for the times around a clock that was set back.
pub(super) async fn page(db: &impl ConnectionTrait, filter: &Filter) -> Result<Vec<Model>, DbErr> {
    let first = match filter.since {
        Some(since) => match first_since(db, since).await? {
            Some(first) => Some(first),
            None => return Ok(Vec::new()),
        },
        None => None,
    };
    select(filter, first).all(db).await
}

/// The rows of a page, of which none lies before `first`.
fn select(filter: &Filter, first: Option<i64>) -> Select<Entity> {
    let condition = Condition::all()
        .add_option(filter.after_seq.map(|seq| Column::Seq.gt(signed(seq))))
        .add_option(filter.before_seq.map(|seq| Column::Seq.lt(signed(seq))))
        .add_option(first.map(|first| Column::Seq.gte(first)))
        .add_option(filter.since.map(|since| Column::ReceivedAt.gte(since.0)))
        .add_option(filter.topic.as_deref().map(|topic| Column::Topic.eq(topic)))
        .add_option(filter.from.as_deref().map(|from| Column::SenderMemberId.eq(from)));
    let order = if filter.newest_first { Order::Desc } else { Order::Asc };
    Entity::find().filter(condition).order_by(Column::Seq, order).limit(filter.limit)
}

/// The first place at which a message was stored at or after a time; `None` when
/// there is none. The clock may have been set back since: then a message before the
/// one with the next time has a later time, and that one is marked.
async fn first_since(db: &impl ConnectionTrait, since: UnixMillis) -> Result<Option<i64>, DbErr> {
    let query = |sql| Statement::from_sql_and_values(DbBackend::Sqlite, sql, [Value::from(since.0)]);
    let next = "SELECT seq, clock_back FROM inbox INDEXED BY inbox_received_at WHERE received_at >= ? \
         ORDER BY received_at, rowid LIMIT 1";
    let Some(row) = db.query_one_raw(query(next)).await? else { return Ok(None) };
    if !row.try_get_by_index::<bool>(1)? {
        return row.try_get_by_index(0).map(Some);
    }
    let all = "SELECT min(seq) FROM inbox WHERE received_at >= ?";
    db.query_one_raw(query(all)).await?.map_or(Ok(None), |row| row.try_get_by_index(0))
}

/// The latest time at which a message was stored, Unix ms; 0 without messages.
pub(super) async fn latest(db: &impl ConnectionTrait) -> Result<i64, DbErr> {
    let row = db.query_one_raw(Statement::from_string(DbBackend::Sqlite, "SELECT max(received_at) FROM inbox")).await?;
    let latest = row.map_or(Ok(None), |row| row.try_get_by_index::<Option<i64>>(0))?;
    Ok(latest.unwrap_or(0))
}

/// The greatest place in use.
pub(super) async fn last_seq(db: &impl ConnectionTrait) -> Result<u64, DbErr> {
    let row = db.query_one_raw(Statement::from_string(DbBackend::Sqlite, "SELECT MAX(seq) FROM inbox")).await?;
    let seq = row.map_or(Ok(None), |row| row.try_get_by_index::<Option<i64>>(0))?;
    Ok(seq.map_or(0, i64::unsigned_abs))
}

/// How many messages are stored.
pub(super) async fn count(db: &impl ConnectionTrait) -> Result<u64, DbErr> {
    Entity::find().count(db).await
}

/// Removes messages that came before a time, at most `limit`. Returns the
/// greatest place that was removed.
pub(super) async fn prune(db: &impl ConnectionTrait, before: UnixMillis, limit: u64) -> Result<Option<u64>, DbErr> {
    let statement = Statement::from_sql_and_values(
        DbBackend::Sqlite,
        "DELETE FROM inbox WHERE seq IN (SELECT seq FROM inbox WHERE received_at < ? ORDER BY seq LIMIT ?) \
         RETURNING seq",
        [Value::from(before.0), Value::from(i64::try_from(limit).unwrap_or(i64::MAX))],
    );
    let rows = db.query_all_raw(statement).await?;
    let mut greatest = None;
    for row in rows {
        greatest = greatest.max(Some(row.try_get_by_index::<i64>(0)?.unsigned_abs()));
    }
    Ok(greatest)
}

/// How many messages came before a time, counted up to `limit`.
pub(super) async fn count_before(db: &impl ConnectionTrait, before: UnixMillis, limit: u64) -> Result<u64, DbErr> {
    let statement = Statement::from_sql_and_values(
        DbBackend::Sqlite,
        "SELECT count(*) FROM (SELECT 1 FROM inbox WHERE received_at < ? LIMIT ?)",
        [Value::from(before.0), Value::from(i64::try_from(limit).unwrap_or(i64::MAX))],
    );
    let row = db.query_one_raw(statement).await?;
    row.map_or(Ok(0), |row| row.try_get_by_index::<i64>(0)).map(i64::unsigned_abs)
}

/// Counts the age of what came under a wrong clock from now: it would be removed as
/// if it had been read for years.
pub(super) async fn rebase(db: &impl ConnectionTrait, wrong: Span, now: UnixMillis) -> Result<(), DbErr> {
    for change in [
        "inbox SET received_at = ?3, clock_back = 0 WHERE received_at",
        "inbox_seen SET seen_at = ?3 WHERE seen_at",
        "inbox_quarantine SET received_at = ?3 WHERE received_at",
        "inbox_receipt SET noted_at = ?3 WHERE noted_at",
        "inbox_waiting SET grace_until = grace_until + ?3 - received_at, received_at = ?3 WHERE received_at",
    ] {
        let values = [Value::from(wrong.from.0), Value::from(wrong.to.0), Value::from(now.0)];
        let sql = format!("UPDATE {change} BETWEEN ?1 AND ?2");
        db.execute_raw(Statement::from_sql_and_values(DbBackend::Sqlite, sql, values)).await?;
    }
    Ok(())
}

/// Forgets hashes that are older than any id the broker would let through.
pub(super) async fn forget_seen(db: &impl ConnectionTrait, before: UnixMillis) -> Result<(), DbErr> {
    let statement = Statement::from_sql_and_values(
        DbBackend::Sqlite,
        "DELETE FROM inbox_seen WHERE seen_at < ?",
        [Value::from(before.0)],
    );
    db.execute_raw(statement).await.map(drop)
}

/// A value that belongs to the file as a whole.
pub(super) async fn meta(db: &impl ConnectionTrait, key: &str) -> Result<Option<String>, DbErr> {
    let statement =
        Statement::from_sql_and_values(DbBackend::Sqlite, "SELECT value FROM meta WHERE key = ?", [Value::from(key)]);
    db.query_one_raw(statement).await?.map_or(Ok(None), |row| row.try_get_by_index(0).map(Some))
}

/// Sets a value that belongs to the file as a whole.
pub(super) async fn set_meta(db: &impl ConnectionTrait, key: &str, value: &str) -> Result<(), DbErr> {
    let statement = Statement::from_sql_and_values(
        DbBackend::Sqlite,
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        [Value::from(key), Value::from(value)],
    );
    db.execute_raw(statement).await.map(drop)
}

fn signed(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

/// The messages that an id names: by the row's own id, the broker's, or that of one
/// of these senders. Each way is an index.
pub(super) async fn answered(
    db: &impl ConnectionTrait,
    mesh: &str,
    id: &str,
    senders: &[MemberId],
) -> Result<Vec<reply::Match>, DbErr> {
    const COLUMNS: &str = "client_message_id, broker_message_id, sender_member_id, sender_pubkey, sender_name, \
         CASE kind WHEN 'topic' THEN COALESCE(topic_id, topic) ELSE sender_member_id END";
    let sql = format!(
        "SELECT 0, {COLUMNS} FROM inbox WHERE id = ?1 \
         UNION ALL SELECT 0, {COLUMNS} FROM inbox WHERE broker_message_id = ?1 \
         UNION ALL SELECT 1, {COLUMNS} FROM inbox WHERE mesh = ?2 AND client_message_id = ?1 \
             AND sender_member_id IN (SELECT value FROM json_each(?3)) \
         LIMIT {}",
        2 * reply::MAX_MATCHES
    );
    let senders: Vec<&str> = senders.iter().map(MemberId::as_str).collect();
    let senders = serde_json::to_string(&senders).unwrap_or_default();
    let values = [Value::from(id), Value::from(mesh), Value::from(senders)];
    let statement = Statement::from_sql_and_values(DbBackend::Sqlite, sql, values);
    let rows = db.query_all_raw(statement).await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let (member, key): (String, String) = (row.try_get_by_index(3)?, row.try_get_by_index(4)?);
        // A damaged row answers nothing.
        let (Ok(member_id), Ok(key)) = (MemberId::parse(member.as_str()), MemberKey::parse(&key)) else { continue };
        let by_sender = row.try_get_by_index::<i64>(0)? == 1;
        found.push(reply::Match {
            client_message_id: row.try_get_by_index(1)?,
            broker_message_id: row.try_get_by_index::<Option<String>>(2)?.unwrap_or_default(),
            sender: Candidate { member_id, key, name: row.try_get_by_index(5)?, removed: false },
            only_in: row.try_get_by_index::<Option<String>>(6)?.filter(|_| by_sender),
        });
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
