//! Receivers' copies: the queue of each member.

use std::collections::HashMap;

use sea_orm::sea_query::{Expr, Query, SelectStatement, SimpleExpr};
use sea_orm::{
    ColumnTrait as _, Condition, ConnectionTrait, DbErr, EntityTrait as _, IntoActiveModel as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _,
};
use serde::{Deserialize, Serialize};

use super::dialect::ROWS_PER_STATEMENT;
use super::endings;
use super::entity::delivery::{Column, Entity, Model};

/// Names of one look-up: each is a term of its own, and SQLite nests 1,000.
const NAMES_PER_STATEMENT: usize = 100;

/// A copy that came to its end, with what is needed to tell its sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The copy.
    pub id: String,
    /// The mesh.
    pub mesh_id: String,
    /// Who sent it.
    pub sender_member_id: String,
    /// Who it was for.
    pub recipient_member_id: String,
    /// The sender's id of it.
    pub client_message_id: Option<String>,
    /// What it held in the queue.
    pub bytes: i64,
    /// It had left the queue before: its receiver kept it until a key came, or one of
    /// its devices set it aside.
    pub had_left: bool,
    /// Why its receiver set it aside.
    pub reject_reason: Option<String>,
}

impl Ended {
    /// A copy that never came into the queue.
    pub fn at_once(copy: &Model) -> Self {
        Self {
            id: copy.id.clone(),
            mesh_id: copy.mesh_id.clone(),
            sender_member_id: copy.sender_member_id.clone(),
            recipient_member_id: copy.recipient_member_id.clone(),
            client_message_id: copy.client_message_id.clone(),
            bytes: copy.bytes,
            had_left: true,
            reject_reason: None,
        }
    }
}

/// What waits for one member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// By sender: rows and bytes.
    pub by_sender: HashMap<String, (i64, i64)>,
}

/// Copies from one member to another that nobody may have pushed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wake {
    /// The mesh.
    #[serde(rename = "m")]
    pub mesh_id: String,
    /// Who they are for.
    #[serde(rename = "r")]
    pub recipient_id: String,
    /// Who sent them.
    #[serde(rename = "s")]
    pub sender_id: String,
    /// The first of them.
    #[serde(rename = "f")]
    pub first: String,
}

/// Whose copy an acknowledgement means, when the connection it came on has not
/// pushed it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Claimed {
    /// By the copy's id.
    Delivery(String),
    /// By the message's id.
    Message(String),
}

/// Not at its end yet.
fn open() -> Condition {
    Condition::all().add(Column::DeliveredAt.is_null()).add(Column::ExpiredAt.is_null())
}

/// What a receiver may still say that it stored. Of a member's devices one may have
/// set the copy aside that another one can open.
fn not_stored() -> Condition {
    let aside = Condition::any().add(Column::ExpiredAt.is_null()).add(Column::RejectReason.is_not_null());
    Condition::all().add(Column::DeliveredAt.is_null()).add(aside)
}

/// Not at its receiver yet, so that it is to be pushed and takes room.
fn queued() -> Condition {
    open().add(Column::WaitingAt.is_null())
}

/// Stores copies.
pub async fn insert(db: &impl ConnectionTrait, rows: Vec<Model>) -> Result<(), DbErr> {
    let mut rows = rows.into_iter().map(Model::into_active_model).peekable();
    while rows.peek().is_some() {
        Entity::insert_many(rows.by_ref().take(ROWS_PER_STATEMENT)).exec_without_returning(db).await?;
    }
    Ok(())
}

/// Which of a member's copies a connection takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mine<'a> {
    /// Those for the member itself.
    pub member: bool,
    /// Those for the session with this key.
    pub session_key: Option<&'a str>,
}

impl Mine<'_> {
    fn condition(self) -> Condition {
        let mut which = Condition::any();
        if self.member {
            which = which.add(Column::TargetSessionKey.is_null());
        }
        if let Some(key) = self.session_key {
            which = which.add(Column::TargetSessionKey.eq(key));
        }
        which
    }
}

/// Whose copies wait for a member, each sender with the first of them.
pub async fn senders(
    db: &impl ConnectionTrait,
    member_id: &str,
    mine: Mine<'_>,
) -> Result<Vec<(String, String)>, DbErr> {
    Entity::find()
        .select_only()
        .column(Column::SenderMemberId)
        .column_as(Column::Id.min(), "first")
        .filter(Column::RecipientMemberId.eq(member_id))
        .filter(queued())
        .filter(mine.condition())
        .group_by(Column::SenderMemberId)
        .into_tuple()
        .all(db)
        .await
}

/// Copies of a mesh that have not ended and their bytes, by sender.
pub async fn open_by_sender(db: &impl ConnectionTrait, mesh_id: &str) -> Result<Vec<(String, i64, i64)>, DbErr> {
    Entity::find()
        .select_only()
        .column(Column::SenderMemberId)
        .column_as(Column::Id.count(), "count")
        .expr(Expr::cust("CAST(COALESCE(SUM(bytes), 0) AS BIGINT)"))
        .filter(Column::MeshId.eq(mesh_id))
        .filter(open())
        .group_by(Column::SenderMemberId)
        .into_tuple()
        .all(db)
        .await
}

/// The next copies from one sender to a member in the order of accept, beginning with `from`.
pub async fn page(
    db: &impl ConnectionTrait,
    member_id: &str,
    sender_id: &str,
    mine: Mine<'_>,
    from: &str,
    limit: u64,
) -> Result<Vec<Model>, DbErr> {
    Entity::find()
        .filter(Column::RecipientMemberId.eq(member_id))
        .filter(Column::SenderMemberId.eq(sender_id))
        .filter(queued())
        .filter(Column::Id.gte(from))
        .filter(mine.condition())
        .order_by_asc(Column::Id)
        .limit(limit)
        .all(db)
        .await
}

/// Which of these copies nobody has acknowledged yet.
pub async fn still_open(db: &impl ConnectionTrait, ids: &[String]) -> Result<Vec<Model>, DbErr> {
    let mut rows = Vec::with_capacity(ids.len());
    for chunk in ids.chunks(ROWS_PER_STATEMENT) {
        let found = Entity::find()
            .filter(Column::Id.is_in(chunk.iter().map(String::as_str)))
            .filter(queued())
            .order_by_asc(Column::Id)
            .all(db)
            .await?;
        rows.extend(found);
    }
    Ok(rows)
}

/// The copies that acknowledgements name and that are not stored yet, each name with
/// the member who may mean it: copy, message and receiver by id.
pub async fn own(
    db: &impl ConnectionTrait,
    named: &[(&str, &Claimed)],
) -> Result<Vec<(String, String, String)>, DbErr> {
    let mut rows = Vec::new();
    for chunk in named.chunks(NAMES_PER_STATEMENT) {
        let mut any = Condition::any();
        for (member_id, claimed) in chunk {
            let name = match claimed {
                Claimed::Delivery(id) => Column::Id.eq(id.as_str()),
                Claimed::Message(id) => Column::BrokerMessageId.eq(id.as_str()),
            };
            any = any.add(Condition::all().add(Column::RecipientMemberId.eq(*member_id)).add(name));
        }
        let found = Entity::find()
            .select_only()
            .columns([Column::Id, Column::BrokerMessageId, Column::RecipientMemberId])
            .filter(any)
            .filter(not_stored())
            .into_tuple()
            .all(db)
            .await?;
        rows.extend(found);
    }
    Ok(rows)
}

/// Marks copies as stored by a device of their receiver, whatever another one made of
/// them; returns those that were not yet.
pub async fn settle(db: &impl ConnectionTrait, ids: &[String], now: i64) -> Result<Vec<Ended>, DbErr> {
    let values = [
        (Column::DeliveredAt, now.into()),
        // Kept, so that its room in the queue is given back once.
        (Column::WaitingAt, Expr::cust("COALESCE(waiting_at, expired_at)")),
        (Column::ExpiredAt, None::<i64>.into()),
        (Column::RejectReason, None::<String>.into()),
    ];
    change(db, ids, &not_stored(), &values).await
}

/// Marks copies as set aside by their receiver; returns those that were open.
pub async fn reject(db: &impl ConnectionTrait, ids: &[String], reason: &str, now: i64) -> Result<Vec<Ended>, DbErr> {
    end(db, ids, &[(Column::ExpiredAt, now.into()), (Column::RejectReason, reason.into())]).await
}

/// Marks copies as kept by their receiver until a key comes; returns those that have
/// left the queue by that.
pub async fn park(db: &impl ConnectionTrait, ids: &[String], now: i64) -> Result<Vec<Ended>, DbErr> {
    let mut parked = change(db, ids, &queued(), &[(Column::WaitingAt, now.into())]).await?;
    // The statement gives the rows as it leaves them.
    parked.iter_mut().for_each(|copy| copy.had_left = false);
    Ok(parked)
}

/// Gives up copies that were accepted before `before`; at most `limit` at once.
pub async fn expire(db: &impl ConnectionTrait, before: i64, now: i64, limit: u64) -> Result<Vec<Ended>, DbErr> {
    let due: Vec<String> = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(open())
        .filter(Column::CreatedAt.lt(before))
        .order_by_asc(Column::CreatedAt)
        .limit(limit)
        .into_tuple()
        .all(db)
        .await?;
    end(db, &due, &[(Column::ExpiredAt, now.into())]).await
}

/// Ends copies that need not be kept, and of which nobody is told.
pub async fn forget(db: &impl ConnectionTrait, ids: Vec<String>, now: i64) -> Result<Vec<Ended>, DbErr> {
    let ended = end(db, &ids, &[(Column::ExpiredAt, now.into())]).await?;
    endings::told(db, &ended.iter().map(|copy| copy.id.clone()).collect::<Vec<_>>(), now).await?;
    Ok(ended)
}

/// Gives up everything that waits for a member.
pub async fn give_up(db: &impl ConnectionTrait, member_id: String, now: i64) -> Result<Vec<Ended>, DbErr> {
    let waiting: Vec<String> = Entity::find()
        .select_only()
        .column(Column::Id)
        .filter(open())
        .filter(Column::RecipientMemberId.eq(member_id))
        .order_by_asc(Column::Id)
        .into_tuple()
        .all(db)
        .await?;
    end(db, &waiting, &[(Column::ExpiredAt, now.into())]).await
}

async fn end(db: &impl ConnectionTrait, ids: &[String], values: &[(Column, SimpleExpr)]) -> Result<Vec<Ended>, DbErr> {
    change(db, ids, &open(), values).await
}

/// Sets values of those of these copies that are in a state.
async fn change(
    db: &impl ConnectionTrait,
    ids: &[String],
    state: &Condition,
    values: &[(Column, SimpleExpr)],
) -> Result<Vec<Ended>, DbErr> {
    let mut ended = Vec::with_capacity(ids.len());
    for chunk in ids.chunks(ROWS_PER_STATEMENT) {
        let update = Query::update()
            .table(Entity)
            .values(values.iter().cloned())
            .cond_where(state.clone().add(Column::Id.is_in(chunk.iter().map(String::as_str))))
            .returning(Query::returning().columns([
                Column::Id,
                Column::MeshId,
                Column::SenderMemberId,
                Column::RecipientMemberId,
                Column::ClientMessageId,
                Column::Bytes,
                Column::WaitingAt,
                Column::RejectReason,
            ]))
            .take();
        for row in db.query_all(&update).await? {
            ended.push(Ended {
                id: row.try_get_by_index(0)?,
                mesh_id: row.try_get_by_index(1)?,
                sender_member_id: row.try_get_by_index(2)?,
                recipient_member_id: row.try_get_by_index(3)?,
                client_message_id: row.try_get_by_index(4)?,
                bytes: row.try_get_by_index(5)?,
                had_left: row.try_get_by_index::<Option<i64>>(6)?.is_some(),
                reject_reason: row.try_get_by_index(7)?,
            });
        }
    }
    Ok(ended)
}

/// Notes on which connection copies were pushed, and until when that push counts.
pub async fn claim(
    db: &impl ConnectionTrait,
    ids: &[String],
    claim_id: &str,
    now: i64,
    until: i64,
) -> Result<(), DbErr> {
    for chunk in ids.chunks(ROWS_PER_STATEMENT) {
        Entity::update_many()
            .col_expr(Column::ClaimedAt, Expr::value(now))
            .col_expr(Column::ClaimId, Expr::value(claim_id))
            .col_expr(Column::ClaimExpiresAt, Expr::value(until))
            .filter(Column::Id.is_in(chunk.iter().map(String::as_str)))
            .filter(queued())
            .exec(db)
            .await?;
    }
    Ok(())
}

/// What waits for these members, by sender. Members for whom nothing waits are
/// not in the answer.
pub async fn waiting(db: &impl ConnectionTrait, member_ids: &[String]) -> Result<HashMap<String, Waiting>, DbErr> {
    let mut all: HashMap<String, Waiting> = HashMap::new();
    for chunk in member_ids.chunks(ROWS_PER_STATEMENT) {
        let select: SelectStatement = Query::select()
            .columns([Column::RecipientMemberId, Column::SenderMemberId])
            .expr(Column::Id.count())
            .expr(Expr::cust("CAST(COALESCE(SUM(bytes), 0) AS BIGINT)"))
            .from(Entity)
            .cond_where(queued().add(Column::RecipientMemberId.is_in(chunk.iter().map(String::as_str))))
            .group_by_columns([Column::RecipientMemberId, Column::SenderMemberId])
            .take();
        for row in db.query_all(&select).await? {
            let waiting = all.entry(row.try_get_by_index(0)?).or_default();
            waiting.by_sender.insert(row.try_get_by_index(1)?, (row.try_get_by_index(2)?, row.try_get_by_index(3)?));
        }
    }
    Ok(all)
}

/// Whose copies wait in these meshes that were accepted since `since`; at most `limit` rows
/// of each statement's meshes.
pub async fn recent(
    db: &impl ConnectionTrait,
    mesh_ids: &[String],
    since: i64,
    limit: u64,
) -> Result<Vec<Wake>, DbErr> {
    let mut wakes = Vec::new();
    for chunk in mesh_ids.chunks(ROWS_PER_STATEMENT) {
        let found: Vec<(String, String, String, String)> = Entity::find()
            .select_only()
            .columns([Column::MeshId, Column::RecipientMemberId, Column::SenderMemberId])
            .column_as(Column::Id.min(), "first")
            .filter(queued())
            .filter(Column::CreatedAt.gte(since))
            .filter(Column::MeshId.is_in(chunk.iter().map(String::as_str)))
            .group_by(Column::MeshId)
            .group_by(Column::RecipientMemberId)
            .group_by(Column::SenderMemberId)
            .limit(limit)
            .into_tuple()
            .all(db)
            .await?;
        wakes.extend(found.into_iter().map(|(mesh_id, recipient_id, sender_id, first)| Wake {
            mesh_id,
            recipient_id,
            sender_id,
            first,
        }));
    }
    Ok(wakes)
}

/// A member's copies, the newest first, of messages older than `before`; without
/// those for a session with another key.
pub async fn history(
    db: &impl ConnectionTrait,
    member_id: &str,
    session_key: Option<&str>,
    before: Option<&str>,
    limit: u64,
) -> Result<Vec<Model>, DbErr> {
    let mut which = Condition::any().add(Column::TargetSessionKey.is_null());
    if let Some(key) = session_key {
        which = which.add(Column::TargetSessionKey.eq(key));
    }
    let mut rows = Entity::find().filter(Column::RecipientMemberId.eq(member_id)).filter(which);
    if let Some(before) = before {
        rows = rows.filter(Column::BrokerMessageId.lt(before));
    }
    rows.order_by_desc(Column::BrokerMessageId).limit(limit).all(db).await
}

/// Every copy of one message.
pub async fn of_message(db: &impl ConnectionTrait, message_id: &str, limit: u64) -> Result<Vec<Model>, DbErr> {
    Entity::find().filter(Column::BrokerMessageId.eq(message_id)).order_by_asc(Column::Id).limit(limit).all(db).await
}
