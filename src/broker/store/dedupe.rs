//! Ids that senders have used.

use std::collections::{HashMap, HashSet};

use sea_orm::sea_query::{Expr, OnConflict, Query};
use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, DbErr, EntityTrait as _, IntoActiveModel as _, QueryFilter as _,
    QueryTrait as _,
};

use super::dialect::ROWS_PER_STATEMENT;
use super::entity::dedupe::{self, Column, Entity, Model};
use crate::domain::dedupe::Seen;

/// Marks the error of a row that another transaction held and took away.
pub const VANISHED: &str = "an id that was taken a moment ago is free again";

/// Whether it is that error: the same transaction may succeed when tried again.
pub fn has_vanished(error: &DbErr) -> bool {
    matches!(error, DbErr::RecordNotFound(text) if text == VANISHED)
}

/// Who used which id: (mesh, sender, client message id).
pub type Key = (String, String, String);

/// Takes the ids that are free and returns the broker message ids of the rows
/// that were written. Rows must come sorted by their key: two brokers that take
/// the same ids in the same order cannot wait for each other in a circle.
pub async fn take(db: &impl ConnectionTrait, rows: Vec<Model>) -> Result<HashSet<String>, DbErr> {
    let mut won = HashSet::with_capacity(rows.len());
    let mut rows = rows.into_iter().map(Model::into_active_model).peekable();
    while rows.peek().is_some() {
        let mut insert = Entity::insert_many(rows.by_ref().take(ROWS_PER_STATEMENT))
            .on_conflict(OnConflict::new().do_nothing().to_owned())
            .into_query();
        insert.returning(Query::returning().column(Column::BrokerMessageId));
        for row in db.query_all(&insert).await? {
            won.insert(row.try_get_by_index::<String>(0)?);
        }
    }
    Ok(won)
}

/// What is stored under these keys.
pub async fn find(db: &impl ConnectionTrait, keys: &[Key]) -> Result<HashMap<Key, Seen>, DbErr> {
    let mut found = HashMap::with_capacity(keys.len());
    // Looked up by the whole key, so that the primary key's index serves it.
    for chunk in keys.chunks(100) {
        let any = chunk.iter().fold(Condition::any(), |any, (mesh, sender, id)| {
            any.add(
                Condition::all()
                    .add(Column::MeshId.eq(mesh.as_str()))
                    .add(Column::SenderMemberId.eq(sender.as_str()))
                    .add(Column::ClientMessageId.eq(id.as_str())),
            )
        });
        for row in Entity::find().filter(any).all(db).await? {
            let key = (row.mesh_id, row.sender_member_id, row.client_message_id);
            let seen = Seen {
                fingerprint: row.request_fingerprint,
                broker_message_id: row.broker_message_id,
                history_id: row.history_id,
                first_seen_at: row.first_seen_at,
                history_available: row.history_available,
            };
            found.insert(key, seen);
        }
    }
    Ok(found)
}

/// Forgets ids whose time is over; at most `limit` at once.
pub async fn expire(db: &impl ConnectionTrait, now: i64, limit: u64) -> Result<u64, DbErr> {
    let due = Query::select()
        .columns([Column::BrokerMessageId])
        .from(dedupe::Entity)
        .and_where(Column::ExpiresAt.lte(now))
        .limit(limit)
        .take();
    let done = Entity::delete_many().filter(Column::BrokerMessageId.in_subquery(due)).exec(db).await?;
    Ok(done.rows_affected)
}

/// Notes that these messages can no longer be read back.
pub async fn history_gone(db: &impl ConnectionTrait, message_ids: &[String]) -> Result<(), DbErr> {
    Entity::update_many()
        .col_expr(Column::HistoryAvailable, Expr::value(false))
        .filter(Column::BrokerMessageId.is_in(message_ids.iter().map(String::as_str)))
        .exec(db)
        .await
        .map(drop)
}
