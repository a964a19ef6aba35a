//! Topics: who is in them, the epochs of their keys, and the sealed copies.

use std::collections::{HashMap, HashSet};

use sea_orm::sea_query::{Alias, Expr, ExprTrait as _, OnConflict, Query};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DbErr, EntityTrait as _, IntoActiveModel as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _,
};

use super::dialect::ROWS_PER_STATEMENT;
use super::entity::{topic, topic_epoch, topic_key, topic_member, topic_message};

/// One who is in a topic and has no copy of its newest key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The topic.
    pub topic_id: String,
    /// Its newest epoch.
    pub epoch: i64,
    /// Who waits.
    pub member_id: String,
    /// Since when it is in the topic, Unix ms.
    pub since: i64,
}

/// The topics of a mesh by name.
pub async fn list(db: &impl ConnectionTrait, mesh_id: &str) -> Result<Vec<topic::Model>, DbErr> {
    topic::Entity::find().filter(topic::Column::MeshId.eq(mesh_id)).order_by_asc(topic::Column::Name).all(db).await
}

/// The topic with that id or that name.
pub async fn find(db: &impl ConnectionTrait, mesh_id: &str, topic: &str) -> Result<Option<topic::Model>, DbErr> {
    let of_mesh = topic::Entity::find().filter(topic::Column::MeshId.eq(mesh_id));
    if let Some(row) = of_mesh.filter(topic::Column::Id.eq(topic)).one(db).await? {
        return Ok(Some(row));
    }
    by_name(db, mesh_id, topic).await
}

/// The topic of that name.
pub async fn by_name(db: &impl ConnectionTrait, mesh_id: &str, name: &str) -> Result<Option<topic::Model>, DbErr> {
    let of_mesh = topic::Entity::find().filter(topic::Column::MeshId.eq(mesh_id));
    of_mesh.filter(topic::Column::Name.eq(name)).one(db).await
}

/// The topic with that id, of whatever mesh.
pub async fn by_id(db: &impl ConnectionTrait, topic_id: &str) -> Result<Option<topic::Model>, DbErr> {
    topic::Entity::find_by_id(topic_id).one(db).await
}

/// How many are in each topic of a mesh.
pub async fn counts(db: &impl ConnectionTrait, mesh_id: &str) -> Result<HashMap<String, i64>, DbErr> {
    let topics = Query::select()
        .column(topic::Column::Id)
        .from(topic::Entity)
        .and_where(Expr::col(topic::Column::MeshId).eq(mesh_id))
        .take();
    let rows: Vec<(String, i64)> = topic_member::Entity::find()
        .select_only()
        .column(topic_member::Column::TopicId)
        .column_as(topic_member::Column::MemberId.count(), "count")
        .filter(topic_member::Column::TopicId.in_subquery(topics))
        .group_by(topic_member::Column::TopicId)
        .into_tuple()
        .all(db)
        .await?;
    Ok(rows.into_iter().collect())
}

/// How many topics each member of a mesh has made.
pub async fn made(db: &impl ConnectionTrait, mesh_id: &str) -> Result<Vec<(String, i64)>, DbErr> {
    topic::Entity::find()
        .select_only()
        .column(topic::Column::CreatedByMemberId)
        .column_as(topic::Column::Id.count(), "count")
        .filter(topic::Column::MeshId.eq(mesh_id))
        .filter(topic::Column::CreatedByMemberId.is_not_null())
        .group_by(topic::Column::CreatedByMemberId)
        .into_tuple()
        .all(db)
        .await
}

/// The topics that a member is in.
pub async fn joined(db: &impl ConnectionTrait, member_id: &str) -> Result<HashSet<String>, DbErr> {
    let rows: Vec<String> = topic_member::Entity::find()
        .select_only()
        .column(topic_member::Column::TopicId)
        .filter(topic_member::Column::MemberId.eq(member_id))
        .into_tuple()
        .all(db)
        .await?;
    Ok(rows.into_iter().collect())
}

/// Who is in a topic, in the order of joining.
pub async fn members(db: &impl ConnectionTrait, topic_id: &str) -> Result<Vec<topic_member::Model>, DbErr> {
    topic_member::Entity::find()
        .filter(topic_member::Column::TopicId.eq(topic_id))
        .order_by_asc(topic_member::Column::JoinedAt)
        .order_by_asc(topic_member::Column::MemberId)
        .all(db)
        .await
}

/// Stores a topic. False if the mesh has one of that name.
pub async fn insert(db: &impl ConnectionTrait, row: topic::Model) -> Result<bool, DbErr> {
    let written = topic::Entity::insert(row.into_active_model())
        .on_conflict(OnConflict::new().do_nothing().to_owned())
        .exec_without_returning(db)
        .await?;
    Ok(written == 1)
}

/// Brings a member into a topic. False if it was there.
pub async fn join(db: &impl ConnectionTrait, row: topic_member::Model) -> Result<bool, DbErr> {
    let written = topic_member::Entity::insert(row.into_active_model())
        .on_conflict(OnConflict::new().do_nothing().to_owned())
        .exec_without_returning(db)
        .await?;
    Ok(written == 1)
}

/// Takes a member out of a topic. False if it was not there.
pub async fn leave(db: &impl ConnectionTrait, topic_id: &str, member_id: &str) -> Result<bool, DbErr> {
    let gone = topic_member::Entity::delete_many()
        .filter(topic_member::Column::TopicId.eq(topic_id))
        .filter(topic_member::Column::MemberId.eq(member_id))
        .exec(db)
        .await?;
    Ok(gone.rows_affected == 1)
}

/// Notes that a member has read everything.
pub async fn mark_read(db: &impl ConnectionTrait, topic_id: &str, member_id: &str, now: i64) -> Result<(), DbErr> {
    topic_member::Entity::update_many()
        .col_expr(topic_member::Column::LastReadAt, Expr::value(now))
        .filter(topic_member::Column::TopicId.eq(topic_id))
        .filter(topic_member::Column::MemberId.eq(member_id))
        .exec(db)
        .await
        .map(drop)
}

/// Notes that other brokers have something to tell of a topic.
pub async fn touch(db: &impl ConnectionTrait, topic_id: &str, now: i64) -> Result<(), DbErr> {
    topic::Entity::update_many()
        .col_expr(topic::Column::ChangedAt, Expr::value(now))
        .filter(topic::Column::Id.eq(topic_id))
        .exec(db)
        .await
        .map(drop)
}

/// Topics that were changed since a moment.
pub async fn changed(db: &impl ConnectionTrait, since: i64) -> Result<Vec<topic::Model>, DbErr> {
    topic::Entity::find().filter(topic::Column::ChangedAt.gte(since)).all(db).await
}

/// Goes on to the next epoch. False if another one was faster.
pub async fn advance(db: &impl ConnectionTrait, topic_id: &str, from: i64, now: i64) -> Result<bool, DbErr> {
    let done = topic::Entity::update_many()
        .col_expr(topic::Column::Epoch, Expr::value(from + 1))
        .col_expr(topic::Column::ChangedAt, Expr::value(now))
        .filter(topic::Column::Id.eq(topic_id))
        .filter(topic::Column::Epoch.eq(from))
        .exec(db)
        .await?;
    Ok(done.rows_affected == 1)
}

/// Stores the beginning of an epoch.
pub async fn insert_epoch(db: &impl ConnectionTrait, row: topic_epoch::Model) -> Result<(), DbErr> {
    topic_epoch::Entity::insert(row.into_active_model()).exec_without_returning(db).await.map(drop)
}

/// The beginning of one epoch.
pub async fn epoch(db: &impl ConnectionTrait, topic_id: &str, epoch: i64) -> Result<Option<topic_epoch::Model>, DbErr> {
    topic_epoch::Entity::find_by_id((topic_id.to_owned(), epoch)).one(db).await
}

/// The beginnings of the epochs after one, the oldest first.
pub async fn epochs(
    db: &impl ConnectionTrait,
    topic_id: &str,
    after: i64,
    limit: u64,
) -> Result<Vec<topic_epoch::Model>, DbErr> {
    topic_epoch::Entity::find()
        .filter(topic_epoch::Column::TopicId.eq(topic_id))
        .filter(topic_epoch::Column::Epoch.gt(after))
        .order_by_asc(topic_epoch::Column::Epoch)
        .limit(limit)
        .all(db)
        .await
}

/// Stores sealed copies. Who has one keeps it.
pub async fn put_keys(db: &impl ConnectionTrait, rows: Vec<topic_key::Model>) -> Result<(), DbErr> {
    for chunk in rows.chunks(ROWS_PER_STATEMENT) {
        topic_key::Entity::insert_many(chunk.iter().cloned().map(topic_key::Model::into_active_model))
            .on_conflict(OnConflict::new().do_nothing().to_owned())
            .exec_without_returning(db)
            .await?;
    }
    Ok(())
}

/// Throws a copy away. False if there was none.
pub async fn drop_key(db: &impl ConnectionTrait, topic_id: &str, epoch: i64, member_id: &str) -> Result<bool, DbErr> {
    let key = (topic_id.to_owned(), epoch, member_id.to_owned());
    let gone = topic_key::Entity::delete_by_id(key).exec(db).await?;
    Ok(gone.rows_affected == 1)
}

/// Forgets epochs up to one, with the copies of their keys.
pub async fn forget_epochs(db: &impl ConnectionTrait, topic_id: &str, up_to: i64) -> Result<(), DbErr> {
    topic_key::Entity::delete_many()
        .filter(topic_key::Column::TopicId.eq(topic_id))
        .filter(topic_key::Column::Epoch.lte(up_to))
        .exec(db)
        .await?;
    topic_epoch::Entity::delete_many()
        .filter(topic_epoch::Column::TopicId.eq(topic_id))
        .filter(topic_epoch::Column::Epoch.lte(up_to))
        .exec(db)
        .await
        .map(drop)
}

/// Removes a topic in which nobody is any more. Its posts go with their time.
pub async fn remove(db: &impl ConnectionTrait, topic_id: &str) -> Result<(), DbErr> {
    forget_epochs(db, topic_id, i64::MAX).await?;
    topic::Entity::delete_by_id(topic_id).exec(db).await.map(drop)
}

/// Takes a member out of all its topics; which they were. Those that nobody is left
/// in go.
pub async fn leave_all(db: &impl ConnectionTrait, member_id: &str, now: i64) -> Result<Vec<String>, DbErr> {
    let mut left: Vec<String> = joined(db, member_id).await?.into_iter().collect();
    left.sort_unstable();
    topic_member::Entity::delete_many().filter(topic_member::Column::MemberId.eq(member_id)).exec(db).await?;
    for topic_id in &left {
        if members(db, topic_id).await?.is_empty() {
            remove(db, topic_id).await?;
        } else {
            touch(db, topic_id, now).await?;
        }
    }
    Ok(left)
}

/// The newest copies of one member.
pub async fn own_keys(
    db: &impl ConnectionTrait,
    topic_id: &str,
    member_id: &str,
    limit: u64,
) -> Result<Vec<topic_key::Model>, DbErr> {
    topic_key::Entity::find()
        .filter(topic_key::Column::TopicId.eq(topic_id))
        .filter(topic_key::Column::MemberId.eq(member_id))
        .order_by_desc(topic_key::Column::Epoch)
        .limit(limit)
        .all(db)
        .await
}

/// Who has a copy of an epoch's key.
pub async fn holders(db: &impl ConnectionTrait, topic_id: &str, epoch: i64) -> Result<Vec<String>, DbErr> {
    topic_key::Entity::find()
        .select_only()
        .column(topic_key::Column::MemberId)
        .filter(topic_key::Column::TopicId.eq(topic_id))
        .filter(topic_key::Column::Epoch.eq(epoch))
        .order_by_asc(topic_key::Column::MemberId)
        .into_tuple()
        .all(db)
        .await
}

/// Who waits for a key that this member has, the longest waiting first.
pub async fn waiting(db: &impl ConnectionTrait, holder: &str, limit: u64) -> Result<Vec<Waiting>, DbErr> {
    let copy_of = |name: &'static str| {
        let of = Alias::new(name);
        let column = |column: topic_key::Column| Expr::col((of.clone(), column));
        let copies = Query::select()
            .expr(Expr::val(1))
            .from_as(topic_key::Entity, of.clone())
            .and_where(column(topic_key::Column::TopicId).equals((topic::Entity, topic::Column::Id)))
            .and_where(column(topic_key::Column::Epoch).equals((topic::Entity, topic::Column::Epoch)))
            .take();
        (copies, Expr::col((of, topic_key::Column::MemberId)))
    };
    let (mut own, own_member) = copy_of("own");
    own.and_where(own_member.eq(holder));
    let (mut theirs, their_member) = copy_of("theirs");
    theirs.and_where(their_member.equals((topic_member::Entity, topic_member::Column::MemberId)));
    let rows: Vec<(String, i64, String, i64)> = topic_member::Entity::find()
        .select_only()
        .column(topic_member::Column::TopicId)
        .column_as(Expr::col((topic::Entity, topic::Column::Epoch)), "epoch")
        .column(topic_member::Column::MemberId)
        .column(topic_member::Column::JoinedAt)
        .join(
            sea_orm::JoinType::InnerJoin,
            topic_member::Entity::belongs_to(topic::Entity)
                .from(topic_member::Column::TopicId)
                .to(topic::Column::Id)
                .into(),
        )
        .filter(Expr::col((topic::Entity, topic::Column::Epoch)).gt(0))
        .filter(Expr::exists(own))
        .filter(Expr::exists(theirs).not())
        .order_by_asc(topic_member::Column::JoinedAt)
        .limit(limit)
        .into_tuple()
        .all(db)
        .await?;
    Ok(rows
        .into_iter()
        .map(|(topic_id, epoch, member_id, since)| Waiting { topic_id, epoch, member_id, since })
        .collect())
}

/// Posts of a topic, the newest first.
pub async fn posts(
    db: &impl ConnectionTrait,
    topic_id: &str,
    before: Option<&str>,
    limit: u64,
) -> Result<Vec<topic_message::Model>, DbErr> {
    let mut query = topic_message::Entity::find().filter(topic_message::Column::TopicId.eq(topic_id));
    if let Some(before) = before {
        query = query.filter(topic_message::Column::Id.lt(before));
    }
    query.order_by_desc(topic_message::Column::Id).limit(limit).all(db).await
}
