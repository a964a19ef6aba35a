//! Looks for rows that should not be, and remembers when the broker last ran.

use sea_orm::sea_query::{Expr, ExprTrait as _, OnConflict, Query};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DbErr, EntityTrait as _, IntoActiveModel as _, QueryFilter as _,
    QuerySelect as _,
};

use super::entity::{dedupe, history, message, state};

/// The row with the time of the last sweep.
const LAST_SWEEP: &str = "last_sweep";

/// Ids that say their message is there while it is not: how many, by mesh.
pub async fn orphans(db: &impl ConnectionTrait) -> Result<Vec<(String, i64)>, DbErr> {
    let message = Query::select()
        .expr(Expr::val(1))
        .from(message::Entity)
        .and_where(
            Expr::col((message::Entity, message::Column::Id)).equals((dedupe::Entity, dedupe::Column::BrokerMessageId)),
        )
        .take();
    dedupe::Entity::find()
        .select_only()
        .column(dedupe::Column::MeshId)
        .column_as(dedupe::Column::BrokerMessageId.count(), "found")
        .filter(dedupe::Column::HistoryAvailable.eq(true))
        .filter(Expr::exists(message).not())
        .group_by(dedupe::Column::MeshId)
        .into_tuple()
        .all(db)
        .await
}

/// Messages of which a part of their transaction is missing: the place in the
/// history, or the row of their id.
pub async fn torn(db: &impl ConnectionTrait) -> Result<i64, DbErr> {
    let place = Query::select()
        .expr(Expr::val(1))
        .from(history::Entity)
        .and_where(Expr::col((message::Entity, message::Column::Id)).equals((history::Entity, history::Column::Id)))
        .take();
    let id = Query::select()
        .expr(Expr::val(1))
        .from(dedupe::Entity)
        .and_where(
            Expr::col((message::Entity, message::Column::Id)).equals((dedupe::Entity, dedupe::Column::BrokerMessageId)),
        )
        .take();
    let no_id = message::Column::ClientMessageId.is_not_null().and(Expr::exists(id).not());
    let found: Option<i64> = message::Entity::find()
        .select_only()
        .column_as(message::Column::Id.count(), "found")
        .filter(Expr::exists(place).not().or(no_id))
        .into_tuple()
        .one(db)
        .await?;
    Ok(found.unwrap_or(0))
}

/// When a broker over this database last swept.
pub async fn last_sweep(db: &impl ConnectionTrait) -> Result<Option<i64>, DbErr> {
    Ok(state::Entity::find_by_id(LAST_SWEEP).one(db).await?.map(|row| row.value))
}

/// Notes a sweep.
pub async fn note_sweep(db: &impl ConnectionTrait, now: i64) -> Result<(), DbErr> {
    let row = state::Model { key: LAST_SWEEP.to_owned(), value: now };
    let on_conflict = OnConflict::column(state::Column::Key).update_column(state::Column::Value).to_owned();
    state::Entity::insert(row.into_active_model()).on_conflict(on_conflict).exec_without_returning(db).await.map(drop)
}
