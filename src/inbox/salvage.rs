//! What can still be read from an inbox that was set aside as damaged: the ids
//! of the messages that it had, so that none of them is stored as new again.

use std::collections::HashMap;
use std::path::Path;

use sea_orm::{ConnectionTrait as _, DbBackend, DbErr, QueryResult, Statement, Value};

use super::open::unique;
use super::pipeline::hash;
use super::repo::{self, SeenHash};
use crate::db::connect::Sqlite;
use crate::db::tx;
use crate::domain::time::UnixMillis;

/// Hashes that one statement inserts.
const CHUNK: usize = 500;
/// Rows that are read at once.
const PAGE: i64 = 500;

/// What was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// Ids that are remembered again.
    pub ids: usize,
}

/// Begins a new inbox's memory with what the damaged file `from` still gives,
/// and notes since when the new one is there. Reads each table from both ends
/// until it meets the damage.
pub async fn salvage(from: &Path, into: &Sqlite, now: UnixMillis) -> Result<Salvaged, crate::db::Error> {
    let mut found: HashMap<SeenHash, i64> = HashMap::new();
    match Sqlite::open(from, 1).await {
        Ok(damaged) => {
            for order in ["ASC", "DESC"] {
                read_seen(&damaged, order, &mut found).await;
                read_messages(&damaged, order, &mut found).await;
            }
            if let Err(error) = damaged.close().await {
                tracing::debug!(error = %error, "The damaged inbox was not closed: {error}");
            }
        }
        Err(error) => tracing::warn!(error = %error, "The damaged inbox cannot be read at all: {error}"),
    }
    write(into, &found, now).await.map_err(|source| into.error("take over what was salvaged", source))?;
    Ok(Salvaged { ids: found.len() })
}

async fn write(into: &Sqlite, found: &HashMap<SeenHash, i64>, now: UnixMillis) -> Result<(), DbErr> {
    let transaction = tx::begin(into.writer()).await?;
    let all: Vec<(&SeenHash, &i64)> = found.iter().collect();
    for chunk in all.chunks(CHUNK) {
        let rows = vec!["(?, ?)"; chunk.len()].join(", ");
        let sql = format!("INSERT INTO inbox_seen (hash, seen_at) VALUES {rows} ON CONFLICT (hash) DO NOTHING");
        let values = chunk.iter().flat_map(|(hash, at)| [Value::from(hash.to_vec()), Value::from(**at)]);
        transaction.execute_raw(Statement::from_sql_and_values(DbBackend::Sqlite, sql, values)).await?;
    }
    repo::set_meta(&transaction, super::RECOVERED_AT, &now.to_string()).await?;
    transaction.commit().await
}

async fn read_seen(damaged: &Sqlite, order: &str, found: &mut HashMap<SeenHash, i64>) {
    // Before the first and after the last hash of 16 bytes.
    let (bound, comparison): (Vec<u8>, _) = if order == "ASC" { (Vec::new(), ">") } else { (vec![0xff; 17], "<") };
    let sql =
        format!("SELECT hash, seen_at FROM inbox_seen WHERE hash {comparison} ?1 ORDER BY hash {order} LIMIT {PAGE}");
    let mut last = Value::from(bound);
    // A page at a time: what was read before the damage counts.
    while let Some(rows) = page(damaged, &sql, last.clone()).await {
        let Some(end) = rows.last().and_then(|row| row.try_get_by_index::<Vec<u8>>(0).ok()) else { return };
        for row in &rows {
            if let (Ok(hash), Ok(at)) = (row.try_get_by_index::<Vec<u8>>(0), row.try_get_by_index(1))
                && let Ok(hash) = SeenHash::try_from(hash)
            {
                found.entry(hash).or_insert(at);
            }
        }
        last = Value::from(end);
    }
}

async fn read_messages(damaged: &Sqlite, order: &str, found: &mut HashMap<SeenHash, i64>) {
    let (bound, comparison) = if order == "ASC" { (i64::MIN, ">") } else { (i64::MAX, "<") };
    let sql = format!(
        "SELECT seq, sender_member_id, client_message_id, received_at FROM inbox WHERE seq {comparison} ?1 \
         ORDER BY seq {order} LIMIT {PAGE}"
    );
    let mut last = bound;
    while let Some(rows) = page(damaged, &sql, Value::from(last)).await {
        let Some(end) = rows.last().and_then(|row| row.try_get_by_index(0).ok()) else { return };
        for row in &rows {
            if let (Ok(sender), Ok(id), Ok(at)) =
                (row.try_get_by_index::<String>(1), row.try_get_by_index::<String>(2), row.try_get_by_index(3))
            {
                found.entry(hash(&unique(&sender, &id))).or_insert(at);
            }
        }
        last = end;
    }
}

/// A page of rows; `None` at the end or at the damage.
async fn page(damaged: &Sqlite, sql: &str, after: Value) -> Option<Vec<QueryResult>> {
    let statement = Statement::from_sql_and_values(DbBackend::Sqlite, sql, [after]);
    damaged.readers().query_all_raw(statement).await.ok().filter(|rows| !rows.is_empty())
}
