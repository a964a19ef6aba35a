//! Copies that were given up or set aside, and whether their senders know. The column
//! `expired_at` has the time of both.

use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, DbErr, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _,
};

use super::dialect::ROWS_PER_STATEMENT;
use super::entity::delivery::{Column, Entity, Model};

/// A copy whose sender does not know that it was given up or set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untold {
    /// The copy.
    pub id: String,
    /// The sender's id of the message.
    pub client_message_id: String,
    /// Who it was for.
    pub recipient_member_id: String,
    /// When it ended.
    pub ended_at: i64,
    /// Why its receiver set it aside.
    pub reject_reason: Option<String>,
}

/// Rows that wait to be told. Messages without an id of the sender have no name
/// that it knows.
pub fn waits_to_be_told() -> Condition {
    Condition::all()
        .add(Column::ExpiredAt.is_not_null())
        .add(Column::ExpiryToldAt.is_null())
        .add(Column::ClientMessageId.is_not_null())
}

/// What this sender was not told yet, oldest first; without what was set aside for
/// one that does not know the word.
pub async fn untold(
    db: &impl ConnectionTrait,
    sender_member_id: &str,
    with_rejected: bool,
    limit: u64,
) -> Result<Vec<Untold>, DbErr> {
    let waits = waits_to_be_told();
    let waits = if with_rejected { waits } else { waits.add(Column::RejectReason.is_null()) };
    let rows = Entity::find()
        .filter(Column::SenderMemberId.eq(sender_member_id))
        .filter(waits)
        .order_by_asc(Column::Id)
        .limit(limit)
        .all(db)
        .await?;
    let untold = |row: Model| Untold {
        id: row.id,
        client_message_id: row.client_message_id.unwrap_or_default(),
        recipient_member_id: row.recipient_member_id,
        ended_at: row.expired_at.unwrap_or_default(),
        reject_reason: row.reject_reason,
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
