//! Every statement on the hook runs, which lie in the inbox database.

use sea_orm::{ConnectionTrait, DbBackend, DbErr, QueryResult, Statement, Value};

use crate::domain::event::HookRun;
use crate::domain::time::UnixMillis;

/// Key of the place up to which messages were looked through.
const CURSOR: &str = "hook_cursor";
/// Ended runs that are kept.
pub(super) const KEPT: u32 = 10_000;

/// A run that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Queued {
    pub(super) id: String,
    pub(super) seq: u64,
    pub(super) hook: String,
    pub(super) message_id: String,
}

/// Which ended runs to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only of this hook; empty: all.
    pub hook: String,
    /// Only for this event; empty: all.
    pub message_id: String,
    /// Only those that did not end in time with exit code 0.
    pub failed_only: bool,
    /// Only those before this one; empty: from the newest on.
    pub before: String,
    /// At most so many.
    pub limit: u32,
}

/// The place up to which messages were looked through; `None` when no hook was there
/// to look for.
pub(super) async fn cursor(db: &impl ConnectionTrait) -> Result<Option<u64>, DbErr> {
    let found = db.query_one_raw(statement("SELECT value FROM meta WHERE key = ?", [CURSOR.into()])).await?;
    let text = found.map_or(Ok(None), |row| row.try_get_by_index::<String>(0).map(Some))?;
    Ok(text.and_then(|text| text.parse().ok()))
}

/// Notes it.
pub(super) async fn set_cursor(db: &impl ConnectionTrait, seq: u64) -> Result<(), DbErr> {
    let sql = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    db.execute_raw(statement(sql, [CURSOR.into(), seq.to_string().into()])).await.map(drop)
}

/// Forgets it: what comes until there are hooks again runs none.
pub(super) async fn clear_cursor(db: &impl ConnectionTrait) -> Result<(), DbErr> {
    db.execute_raw(statement("DELETE FROM meta WHERE key = ?", [CURSOR.into()])).await.map(drop)
}

/// Adds a run that waits. One that is there already is left alone.
pub(super) async fn add(db: &impl ConnectionTrait, run: &Queued, now: UnixMillis) -> Result<bool, DbErr> {
    let sql = "INSERT INTO hook_run (id, seq, hook, message_id, state, queued_at) VALUES (?, ?, ?, ?, 'queued', ?) \
         ON CONFLICT (seq, hook) DO NOTHING";
    let values = [
        run.id.clone().into(),
        signed(run.seq).into(),
        run.hook.clone().into(),
        run.message_id.clone().into(),
        now.0.into(),
    ];
    Ok(db.execute_raw(statement(sql, values)).await?.rows_affected() > 0)
}

/// The runs that wait, in the order of their messages, but for those of some hooks.
pub(super) async fn queued(db: &impl ConnectionTrait, limit: usize, but: &[&str]) -> Result<Vec<Queued>, DbErr> {
    let sql = "SELECT id, seq, hook, message_id FROM hook_run WHERE state = 'queued' \
         AND hook NOT IN (SELECT value FROM json_each(?)) ORDER BY seq, hook LIMIT ?";
    let but = serde_json::to_string(but).unwrap_or_else(|_| "[]".to_owned());
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = db.query_all_raw(statement(sql, [but.into(), limit.into()])).await?;
    rows.iter()
        .map(|row| {
            Ok(Queued {
                id: row.try_get_by_index(0)?,
                seq: row.try_get_by_index::<i64>(1)?.unsigned_abs(),
                hook: row.try_get_by_index(2)?,
                message_id: row.try_get_by_index(3)?,
            })
        })
        .collect()
}

/// How many runs wait.
pub(super) async fn queued_count(db: &impl ConnectionTrait) -> Result<u64, DbErr> {
    let row = db.query_one_raw(statement("SELECT count(*) FROM hook_run WHERE state = 'queued'", [])).await?;
    row.map_or(Ok(0), |row| row.try_get_by_index::<i64>(0)).map(i64::unsigned_abs)
}

/// A run that waits is not wanted any more.
pub(super) async fn forget(db: &impl ConnectionTrait, id: &str) -> Result<(), DbErr> {
    db.execute_raw(statement("DELETE FROM hook_run WHERE id = ?", [id.into()])).await.map(drop)
}

/// Writes how a run ended: over the row that waited, or as a new one.
pub(super) async fn end(db: &impl ConnectionTrait, id: &str, run: &HookRun) -> Result<(), DbErr> {
    let sql = "INSERT INTO hook_run (id, hook, message_id, state, queued_at, started_at, duration_ms, exit_code, signal, \
         timed_out, stdout_bytes, stderr_bytes, replied, capability_calls, unenforced, start_error) \
         VALUES (?1, ?2, ?3, 'ended', ?4, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14) \
         ON CONFLICT (id) DO UPDATE SET state = 'ended', started_at = excluded.started_at, \
         duration_ms = excluded.duration_ms, exit_code = excluded.exit_code, signal = excluded.signal, \
         timed_out = excluded.timed_out, stdout_bytes = excluded.stdout_bytes, stderr_bytes = excluded.stderr_bytes, \
         replied = excluded.replied, capability_calls = excluded.capability_calls, unenforced = excluded.unenforced, \
         start_error = excluded.start_error";
    let list = serde_json::to_string(&run.unenforced).unwrap_or_default();
    let values = [
        id.into(),
        run.hook.clone().into(),
        run.message_id.clone().into(),
        run.started_at.0.into(),
        i64::from(run.duration_ms).into(),
        run.exit_code.into(),
        run.signal.into(),
        run.timed_out.into(),
        i64::from(run.stdout_bytes).into(),
        i64::from(run.stderr_bytes).into(),
        run.replied.into(),
        i64::from(run.capability_calls).into(),
        Some(list).filter(|_| !run.unenforced.is_empty()).into(),
        Some(run.start_error.clone()).filter(|text| !text.is_empty()).into(),
    ];
    db.execute_raw(statement(sql, values)).await.map(drop)
}

/// Removes the oldest ended runs beyond those that are kept.
pub(super) async fn trim(db: &impl ConnectionTrait) -> Result<(), DbErr> {
    let sql = "DELETE FROM hook_run WHERE state = 'ended' AND id < \
         (SELECT id FROM hook_run WHERE state = 'ended' ORDER BY id DESC LIMIT 1 OFFSET ?)";
    db.execute_raw(statement(sql, [i64::from(KEPT - 1).into()])).await.map(drop)
}

/// Ended runs, the newest first, each with its id.
pub(super) async fn ended(db: &impl ConnectionTrait, filter: &Filter) -> Result<Vec<(String, HookRun)>, DbErr> {
    let mut sql = "SELECT id, hook, message_id, started_at, duration_ms, exit_code, signal, timed_out, stdout_bytes, \
         stderr_bytes, replied, capability_calls, unenforced, start_error FROM hook_run WHERE state = 'ended'"
        .to_owned();
    let mut values: Vec<Value> = Vec::new();
    for (condition, value) in
        [(" AND hook = ?", &filter.hook), (" AND message_id = ?", &filter.message_id), (" AND id < ?", &filter.before)]
    {
        if !value.is_empty() {
            sql += condition;
            values.push(value.clone().into());
        }
    }
    if filter.failed_only {
        sql += " AND (exit_code IS NOT 0 OR timed_out)";
    }
    sql += " ORDER BY id DESC LIMIT ?";
    values.push(i64::from(filter.limit).into());
    let rows = db.query_all_raw(statement(&sql, values)).await?;
    rows.iter().map(|row| Ok((row.try_get_by_index(0)?, run_of(row)?))).collect()
}

fn run_of(row: &QueryResult) -> Result<HookRun, DbErr> {
    let count = |at| {
        row.try_get_by_index::<Option<i64>>(at).map(|count| count.map_or(0, |count| u32::try_from(count).unwrap_or(0)))
    };
    let list: Option<String> = row.try_get_by_index(12)?;
    Ok(HookRun {
        hook: row.try_get_by_index(1)?,
        message_id: row.try_get_by_index(2)?,
        started_at: UnixMillis(row.try_get_by_index::<Option<i64>>(3)?.unwrap_or(0)),
        duration_ms: count(4)?,
        exit_code: row.try_get_by_index(5)?,
        signal: row.try_get_by_index(6)?,
        timed_out: row.try_get_by_index(7)?,
        stdout_bytes: count(8)?,
        stderr_bytes: count(9)?,
        replied: row.try_get_by_index(10)?,
        capability_calls: count(11)?,
        unenforced: list.and_then(|json| serde_json::from_str(&json).ok()).unwrap_or_default(),
        start_error: row.try_get_by_index::<Option<String>>(13)?.unwrap_or_default(),
    })
}

fn statement(sql: &str, values: impl IntoIterator<Item = Value>) -> Statement {
    Statement::from_sql_and_values(DbBackend::Sqlite, sql, values)
}

fn signed(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}
