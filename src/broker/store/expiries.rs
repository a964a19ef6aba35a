//! Copies that were given up, and whether their senders know.

use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, DbErr, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _,
};

use super::dialect::ROWS_PER_STATEMENT;
use super::entity::delivery::{Column, Entity};

/// A copy whose sender does not know that it was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untold {
    /// The copy.
    pub id: String,
    /// The sender's id of the message.
    pub client_message_id: String,
    /// When it was given up.
    pub expired_at: i64,
}

/// Rows that wait to be told. Messages without an id of the sender have no name
/// that it knows.
pub fn waits_to_be_told() -> Condition {
    Condition::all()
        .add(Column::ExpiredAt.is_not_null())
        .add(Column::ExpiryToldAt.is_null())
        .add(Column::ClientMessageId.is_not_null())
}

/// What this sender was not told yet, oldest first.
pub async fn untold(db: &impl ConnectionTrait, sender_member_id: &str, limit: u64) -> Result<Vec<Untold>, DbErr> {
    let rows: Vec<(String, Option<String>, Option<i64>)> = Entity::find()
        .select_only()
        .columns([Column::Id, Column::ClientMessageId, Column::ExpiredAt])
        .filter(Column::SenderMemberId.eq(sender_member_id))
        .filter(waits_to_be_told())
        .order_by_asc(Column::Id)
        .limit(limit)
        .into_tuple()
        .all(db)
        .await?;
    let untold = |(id, client_message_id, expired_at)| Untold {
        id,
        client_message_id: Option::unwrap_or_default(client_message_id),
        expired_at: Option::unwrap_or_default(expired_at),
    };
    Ok(rows.into_iter().map(untold).collect())
}

/// Senders who were not told everything, each with its mesh.
pub async fn untold_senders(db: &impl ConnectionTrait, limit: u64) -> Result<Vec<(String, String)>, DbErr> {
    Entity::find()
        .select_only()
        .columns([Column::MeshId, Column::SenderMemberId])
        .distinct()
        .filter(waits_to_be_told())
        .limit(limit)
        .into_tuple()
        .all(db)
        .await
}

/// Notes that the sender knows.
pub async fn told(db: &impl ConnectionTrait, ids: &[String], now: i64) -> Result<(), DbErr> {
    for chunk in ids.chunks(ROWS_PER_STATEMENT) {
        Entity::update_many()
            .col_expr(Column::ExpiryToldAt, Expr::value(now))
            .filter(Column::Id.is_in(chunk.iter().map(String::as_str)))
            .exec(db)
            .await?;
    }
    Ok(())
}
