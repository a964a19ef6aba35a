//! The statement under every send: many rows, one commit, one trip to the
//! engine.
//!
//! Written for the engine's own interface. A statement built anew from all
//! columns costs more than its commit.

use sea_orm::sqlx::sqlite::SqliteConnection;
use sea_orm::sqlx::{self, AssertSqlSafe};
use sea_orm::{DbErr, RuntimeErr};

use crate::outbox::entity::Model;

/// What a new row holds; every other column starts as NULL.
const COLUMNS: &str = "id, client_message_id, payload, enqueued_at, attempts, next_attempt_at, status, \
     request_fingerprint, fingerprint_version, wire_fingerprint, mesh, sender_key, destination_kind, destination_ref, \
     target_id, target_key, target_name, reply_to_id, priority, mentions, meta, auto_hops, allow_unencrypted, degraded";
const COLUMN_COUNT: usize = 24;

/// Inserts rows in one statement, which is atomic by itself. Returns how many
/// are new; a row whose client id is taken is left out.
pub(in crate::outbox) async fn insert_new(connection: &mut SqliteConnection, rows: &[Model]) -> Result<u64, DbErr> {
    let mut query = sqlx::query(AssertSqlSafe(statement(rows.len())));
    for row in rows {
        query = query
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
            .bind(&row.degraded);
    }
    let done = query.execute(connection).await.map_err(|error| DbErr::Exec(RuntimeErr::SqlxError(error.into())))?;
    Ok(done.rows_affected())
}

fn statement(rows: usize) -> String {
    let row = format!("({}?)", "?, ".repeat(COLUMN_COUNT - 1));
    let mut sql = format!("INSERT INTO outbox ({COLUMNS}) VALUES ");
    sql.reserve(rows * (row.len() + 2) + 48);
    for number in 0..rows {
        if number > 0 {
            sql.push_str(", ");
        }
        sql.push_str(&row);
    }
    sql.push_str(" ON CONFLICT (client_message_id) DO NOTHING");
    sql
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_column_has_its_place() {
        assert_eq!(COLUMNS.split(", ").count(), COLUMN_COUNT);
        let sql = statement(2);
        assert_eq!(sql.matches('?').count(), 2 * COLUMN_COUNT);
        assert!(sql.contains("), (") && sql.ends_with("DO NOTHING"), "{sql}");
    }
}
