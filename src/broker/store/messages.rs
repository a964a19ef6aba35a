//! Accepted messages and their place in the history. Posts to topics have a table
//! of their own; from here on they are messages like others.

use std::collections::{HashMap, HashSet};

use sea_orm::sea_query::{Expr, ExprTrait as _, Query, SimpleExpr};
use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, DbErr, EntityTrait as _, IntoActiveModel as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _,
};

use super::dialect::ROWS_PER_STATEMENT;
use super::endings;
use super::entity::{delivery, history, message, topic_message};

/// Stores messages with their history rows.
pub async fn insert(
    db: &impl ConnectionTrait,
    messages: Vec<message::Model>,
    histories: Vec<history::Model>,
) -> Result<(), DbErr> {
    let posts: Vec<topic_message::Model> = messages.iter().filter_map(topic_message::Model::of).collect();
    for chunk in posts.chunks(ROWS_PER_STATEMENT) {
        let rows = chunk.iter().cloned().map(topic_message::Model::into_active_model);
        topic_message::Entity::insert_many(rows).exec_without_returning(db).await?;
    }
    let others = messages.into_iter().filter(|message| !message.is_post());
    let mut messages = others.map(message::Model::into_active_model).peekable();
    while messages.peek().is_some() {
        let chunk = messages.by_ref().take(ROWS_PER_STATEMENT);
        message::Entity::insert_many(chunk).exec_without_returning(db).await?;
    }
    let mut histories = histories.into_iter().map(history::Model::into_active_model).peekable();
    while histories.peek().is_some() {
        let chunk = histories.by_ref().take(ROWS_PER_STATEMENT);
        history::Entity::insert_many(chunk).exec_without_returning(db).await?;
    }
    Ok(())
}

/// Messages by id.
pub async fn load(
    db: &impl ConnectionTrait,
    ids: impl IntoIterator<Item = &str>,
) -> Result<HashMap<String, message::Model>, DbErr> {
    let mut missing: HashSet<&str> = ids.into_iter().collect();
    let rows = message::Entity::find().filter(message::Column::Id.is_in(missing.iter().copied())).all(db).await?;
    let mut found: HashMap<String, message::Model> = rows.into_iter().map(|row| (row.id.clone(), row)).collect();
    missing.retain(|id| !found.contains_key(*id));
    if !missing.is_empty() {
        let posts = topic_message::Entity::find().filter(topic_message::Column::Id.is_in(missing)).all(db).await?;
        found.extend(posts.into_iter().map(|row| (row.id.clone(), row.into())));
    }
    Ok(found)
}

/// A message of this sender by id or the beginning of it; `None` if there is
/// none, or more than one.
pub async fn of_sender(
    db: &impl ConnectionTrait,
    mesh_id: &str,
    sender_member_id: &str,
    prefix: &str,
) -> Result<Option<message::Model>, DbErr> {
    let mut rows = message::Entity::find()
        .filter(message::Column::MeshId.eq(mesh_id))
        .filter(message::Column::SenderMemberId.eq(sender_member_id))
        .filter(message::Column::Id.gte(prefix))
        // Z is the last letter of an id, in every collation.
        .filter(message::Column::Id.lte(format!("{prefix:Z<32}")))
        .limit(2)
        .all(db)
        .await?;
    let posts = topic_message::Entity::find()
        .filter(topic_message::Column::MeshId.eq(mesh_id))
        .filter(topic_message::Column::SenderMemberId.eq(sender_member_id))
        .filter(topic_message::Column::Id.gte(prefix))
        .filter(topic_message::Column::Id.lte(format!("{prefix:Z<32}")))
        .limit(2)
        .all(db)
        .await?;
    rows.extend(posts.into_iter().map(message::Model::from));
    Ok(if rows.len() == 1 { rows.pop() } else { None })
}

/// Removes messages accepted before `before`, with their copies and history
/// rows; at most `limit` at once. Returns their ids. Stays what somebody waits
/// for, and what ended since `untold_before` without its sender knowing.
pub async fn purge(
    db: &impl ConnectionTrait,
    before: i64,
    untold_before: i64,
    limit: u64,
) -> Result<Vec<String>, DbErr> {
    // A sender that is away has as long to hear of the end as the receiver had
    // to take the message.
    let open = Condition::all().add(delivery::Column::DeliveredAt.is_null()).add(delivery::Column::ExpiredAt.is_null());
    let untold = endings::waits_to_be_told().add(delivery::Column::ExpiredAt.gte(untold_before));
    let waited_for = |id: SimpleExpr| {
        let copy = (delivery::Entity, delivery::Column::BrokerMessageId);
        Query::select()
            .expr(Expr::val(1))
            .from(delivery::Entity)
            .and_where(Expr::col(copy).eq(id))
            .cond_where(Condition::any().add(open.clone()).add(untold.clone()))
            .take()
    };
    let mut ids: Vec<String> = message::Entity::find()
        .select_only()
        .column(message::Column::Id)
        .filter(message::Column::CreatedAt.lt(before))
        .filter(Expr::exists(waited_for(Expr::col((message::Entity, message::Column::Id)))).not())
        .order_by_asc(message::Column::CreatedAt)
        .limit(limit)
        .into_tuple()
        .all(db)
        .await?;
    let left = limit.saturating_sub(ids.len() as u64);
    let posts: Vec<String> = topic_message::Entity::find()
        .select_only()
        .column(topic_message::Column::Id)
        .filter(topic_message::Column::CreatedAt.lt(before))
        .filter(Expr::exists(waited_for(Expr::col((topic_message::Entity, topic_message::Column::Id)))).not())
        .order_by_asc(topic_message::Column::CreatedAt)
        .limit(left)
        .into_tuple()
        .all(db)
        .await?;
    ids.extend(posts);
    for chunk in ids.chunks(ROWS_PER_STATEMENT) {
        let chunk = || chunk.iter().map(String::as_str);
        delivery::Entity::delete_many().filter(delivery::Column::BrokerMessageId.is_in(chunk())).exec(db).await?;
        history::Entity::delete_many().filter(history::Column::Id.is_in(chunk())).exec(db).await?;
        message::Entity::delete_many().filter(message::Column::Id.is_in(chunk())).exec(db).await?;
        topic_message::Entity::delete_many().filter(topic_message::Column::Id.is_in(chunk())).exec(db).await?;
    }
    Ok(ids)
}
