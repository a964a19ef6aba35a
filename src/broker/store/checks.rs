//! Looks for rows that should not be, and remembers when the broker last ran.

use sea_orm::sea_query::{Expr, ExprTrait as _, IntoColumnRef, OnConflict, Query, SimpleExpr};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DbErr, EntityTrait as _, IntoActiveModel as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _,
};

use super::entity::{dedupe, delivery, history, message, state, topic_message};

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
    let post = Query::select()
        .expr(Expr::val(1))
        .from(topic_message::Entity)
        .and_where(
            Expr::col((topic_message::Entity, topic_message::Column::Id))
                .equals((dedupe::Entity, dedupe::Column::BrokerMessageId)),
        )
        .take();
    dedupe::Entity::find()
        .select_only()
        .column(dedupe::Column::MeshId)
        .column_as(dedupe::Column::BrokerMessageId.count(), "found")
        .filter(dedupe::Column::HistoryAvailable.eq(true))
        .filter(Expr::exists(message).not())
        .filter(Expr::exists(post).not())
        .group_by(dedupe::Column::MeshId)
        .into_tuple()
        .all(db)
        .await
}

/// The greatest id of a message or a copy, of whichever run; `None` where there is none.
pub async fn greatest_id(db: &impl ConnectionTrait) -> Result<Option<String>, DbErr> {
    let message = greatest::<message::Entity>(db, message::Column::Id).await?;
    let post = greatest::<topic_message::Entity>(db, topic_message::Column::Id).await?;
    let copy = greatest::<delivery::Entity>(db, delivery::Column::Id).await?;
    Ok([message, post, copy].into_iter().flatten().max())
}

async fn greatest<E: sea_orm::EntityTrait>(db: &impl ConnectionTrait, id: E::Column) -> Result<Option<String>, DbErr> {
    E::find().select_only().column(id).order_by_desc(id).limit(1).into_tuple().one(db).await
}

/// Messages and posts of which a part of their transaction is missing: the place
/// in the history, or the row of their id.
pub async fn torn(db: &impl ConnectionTrait) -> Result<i64, DbErr> {
    let queued = lacking((message::Entity, message::Column::Id), message::Column::ClientMessageId.is_not_null());
    let queued: Option<i64> = message::Entity::find()
        .select_only()
        .column_as(message::Column::Id.count(), "found")
        .filter(queued)
        .into_tuple()
        .one(db)
        .await?;
    let posts = (topic_message::Entity, topic_message::Column::Id);
    let posts = lacking(posts, topic_message::Column::ClientMessageId.is_not_null());
    let posts: Option<i64> = topic_message::Entity::find()
        .select_only()
        .column_as(topic_message::Column::Id.count(), "found")
        .filter(posts)
        .into_tuple()
        .one(db)
        .await?;
    Ok(queued.unwrap_or(0) + posts.unwrap_or(0))
}

/// Whether a row's place in the history is missing, or that of its id if it has one.
fn lacking(id: impl IntoColumnRef, has_id: SimpleExpr) -> SimpleExpr {
    let id = Expr::col(id);
    let place = Query::select()
        .expr(Expr::val(1))
        .from(history::Entity)
        .and_where(Expr::col((history::Entity, history::Column::Id)).eq(id.clone()))
        .take();
    let dedupe = Query::select()
        .expr(Expr::val(1))
        .from(dedupe::Entity)
        .and_where(Expr::col((dedupe::Entity, dedupe::Column::BrokerMessageId)).eq(id))
        .take();
    Expr::exists(place).not().or(has_id.and(Expr::exists(dedupe).not()))
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
