//! Generations of connections, and the audit trail.

use std::collections::HashMap;

use sea_orm::sea_query::{Expr, ExprTrait as _, OnConflict, Query};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DbErr, EntityTrait as _, FromQueryResult, IntoActiveModel as _,
    QueryFilter as _, QuerySelect as _,
};

use super::dialect::ROWS_PER_STATEMENT;
use super::entity::{audit, node, presence};

/// Notes a hello and returns its generation: one more than the last of the same
/// (mesh, member, instance), on whichever broker that was.
pub async fn next_generation(db: &impl ConnectionTrait, first: presence::Model) -> Result<i64, DbErr> {
    let key = (first.mesh_id.clone(), first.member_id.clone(), first.instance_id.clone());
    let on_conflict =
        OnConflict::columns([presence::Column::MeshId, presence::Column::MemberId, presence::Column::InstanceId])
            .value(presence::Column::Generation, Expr::col((presence::Entity, presence::Column::Generation)).add(1))
            .update_columns([
                presence::Column::BootId,
                presence::Column::NodeId,
                presence::Column::ConnectedAt,
                presence::Column::LastSeenAt,
                presence::Column::DisconnectedAt,
            ])
            .to_owned();
    presence::Entity::insert(first.into_active_model()).on_conflict(on_conflict).exec_without_returning(db).await?;
    let generation: Option<i64> = presence::Entity::find_by_id(key)
        .select_only()
        .column(presence::Column::Generation)
        .into_tuple()
        .one(db)
        .await?;
    generation.ok_or_else(|| DbErr::RecordNotFound("the presence that was just written".to_owned()))
}

/// Notes the end of a connection, unless a newer one of the instance came.
pub async fn disconnected(
    db: &impl ConnectionTrait,
    mesh_id: &str,
    member_id: &str,
    instance_id: &str,
    generation: i64,
    now: i64,
) -> Result<(), DbErr> {
    presence::Entity::update_many()
        .col_expr(presence::Column::DisconnectedAt, Expr::value(now))
        .col_expr(presence::Column::LastSeenAt, Expr::value(now))
        .filter(presence::Column::MeshId.eq(mesh_id))
        .filter(presence::Column::MemberId.eq(member_id))
        .filter(presence::Column::InstanceId.eq(instance_id))
        .filter(presence::Column::Generation.eq(generation))
        .exec(db)
        .await
        .map(drop)
}

/// Notes that a connection was not let in after its hello: it was never there.
pub async fn refused(
    db: &impl ConnectionTrait,
    mesh_id: &str,
    member_id: &str,
    instance_id: &str,
    generation: i64,
) -> Result<(), DbErr> {
    presence::Entity::update_many()
        .col_expr(presence::Column::DisconnectedAt, Expr::value(0_i64))
        .filter(presence::Column::MeshId.eq(mesh_id))
        .filter(presence::Column::MemberId.eq(member_id))
        .filter(presence::Column::InstanceId.eq(instance_id))
        .filter(presence::Column::Generation.eq(generation))
        .exec(db)
        .await
        .map(drop)
}

/// Hellos that other brokers took since `since`: mesh, member, instance and
/// generation.
pub async fn moved(
    db: &impl ConnectionTrait,
    since: i64,
    node_id: &str,
) -> Result<Vec<(String, String, String, i64)>, DbErr> {
    presence::Entity::find()
        .select_only()
        .columns([
            presence::Column::MeshId,
            presence::Column::MemberId,
            presence::Column::InstanceId,
            presence::Column::Generation,
        ])
        .filter(presence::Column::ConnectedAt.gte(since))
        .filter(presence::Column::NodeId.ne(node_id))
        .into_tuple()
        .all(db)
        .await
}

/// Connections of a member that brokers other than this one hold and that were
/// there since `live_since`.
pub async fn elsewhere(
    db: &impl ConnectionTrait,
    mesh_id: &str,
    member_id: &str,
    node_id: &str,
    live_since: i64,
) -> Result<Vec<presence::Model>, DbErr> {
    let live = Query::select()
        .column(node::Column::Id)
        .from(node::Entity)
        .and_where(node::Column::LastSeenAt.gte(live_since))
        .take();
    presence::Entity::find()
        .filter(presence::Column::MeshId.eq(mesh_id))
        .filter(presence::Column::MemberId.eq(member_id))
        .filter(presence::Column::DisconnectedAt.is_null())
        .filter(presence::Column::NodeId.ne(node_id))
        .filter(presence::Column::NodeId.in_subquery(live))
        .all(db)
        .await
}

/// A connection that another broker has.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub struct Elsewhere {
    /// The mesh.
    pub mesh_id: String,
    /// The member.
    pub member_id: String,
    /// Its state directory.
    pub instance_id: String,
    /// Since when.
    pub connected_at: i64,
}

/// Connections to these meshes that brokers other than this one have, as far as these
/// brokers were there since `live_since`; one that was lost counts until `lost_since`.
pub async fn of_others(
    db: &impl ConnectionTrait,
    mesh_ids: &[String],
    node_id: &str,
    live_since: i64,
    lost_since: i64,
) -> Result<Vec<Elsewhere>, DbErr> {
    let live = Query::select()
        .column(node::Column::Id)
        .from(node::Entity)
        .and_where(node::Column::LastSeenAt.gte(live_since))
        .take();
    let is_there = presence::Column::DisconnectedAt.is_null().or(presence::Column::DisconnectedAt.gte(lost_since));
    let mut rows = Vec::new();
    for chunk in mesh_ids.chunks(ROWS_PER_STATEMENT) {
        let found = presence::Entity::find()
            .select_only()
            .columns([
                presence::Column::MeshId,
                presence::Column::MemberId,
                presence::Column::InstanceId,
                presence::Column::ConnectedAt,
            ])
            // The first column of the primary key.
            .filter(presence::Column::MeshId.is_in(chunk.iter().map(String::as_str)))
            .filter(is_there.clone())
            .filter(presence::Column::NodeId.ne(node_id))
            .filter(presence::Column::NodeId.in_subquery(live.clone()))
            .into_model()
            .all(db)
            .await?;
        rows.extend::<Vec<Elsewhere>>(found);
    }
    Ok(rows)
}

/// Ends a connection that another broker holds: its generation is over, which
/// that broker sees at its next look.
pub async fn supersede(db: &impl ConnectionTrait, row: &presence::Model, node_id: &str, now: i64) -> Result<(), DbErr> {
    presence::Entity::update_many()
        .col_expr(presence::Column::Generation, Expr::col(presence::Column::Generation).add(1))
        .col_expr(presence::Column::NodeId, Expr::value(node_id))
        .col_expr(presence::Column::ConnectedAt, Expr::value(now))
        .col_expr(presence::Column::DisconnectedAt, Expr::value(now))
        .filter(presence::Column::MeshId.eq(row.mesh_id.as_str()))
        .filter(presence::Column::MemberId.eq(row.member_id.as_str()))
        .filter(presence::Column::InstanceId.eq(row.instance_id.as_str()))
        .filter(presence::Column::Generation.eq(row.generation))
        .exec(db)
        .await
        .map(drop)
}

/// The newest hello of each of these members' state directories: its generation
/// by (mesh, member, instance).
pub async fn newest(
    db: &impl ConnectionTrait,
    member_ids: &[&str],
) -> Result<HashMap<(String, String, String), i64>, DbErr> {
    let mut newest = HashMap::new();
    for chunk in member_ids.chunks(ROWS_PER_STATEMENT) {
        let rows = presence::Entity::find().filter(presence::Column::MemberId.is_in(chunk.iter().copied())).all(db);
        let key = |row: presence::Model| ((row.mesh_id, row.member_id, row.instance_id), row.generation);
        newest.extend(rows.await?.into_iter().map(key));
    }
    Ok(newest)
}

/// Forgets state directories that have not been connected since `before`.
pub async fn forget(db: &impl ConnectionTrait, before: i64) -> Result<(), DbErr> {
    presence::Entity::delete_many()
        .filter(presence::Column::LastSeenAt.lt(before))
        .filter(presence::Column::DisconnectedAt.is_not_null())
        .exec(db)
        .await
        .map(drop)
}

/// Removes audit rows older than `before`.
pub async fn prune_audit(db: &impl ConnectionTrait, before: i64) -> Result<u64, DbErr> {
    audit::Entity::delete_many().filter(audit::Column::At.lt(before)).exec(db).await.map(|done| done.rows_affected)
}

/// Writes an audit row.
pub async fn insert_audit(db: &impl ConnectionTrait, row: audit::Model) -> Result<(), DbErr> {
    audit::Entity::insert(row.into_active_model()).exec_without_returning(db).await.map(drop)
}
