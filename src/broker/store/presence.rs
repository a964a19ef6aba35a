//! Generations of connections, and the audit trail.

use sea_orm::sea_query::{Expr, ExprTrait as _, OnConflict};
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DbErr, EntityTrait as _, IntoActiveModel as _, QueryFilter as _,
    QuerySelect as _,
};

use super::entity::{audit, presence};

/// Notes a hello and returns its generation: one more than the last of the same
/// (mesh, member, instance), on whichever broker that was.
pub async fn next_generation(db: &impl ConnectionTrait, first: presence::Model) -> Result<i64, DbErr> {
    let key = (first.mesh_id.clone(), first.member_id.clone(), first.instance_id.clone());
    let on_conflict =
        OnConflict::columns([presence::Column::MeshId, presence::Column::MemberId, presence::Column::InstanceId])
            .value(presence::Column::Generation, Expr::col((presence::Entity, presence::Column::Generation)).add(1))
            .update_columns([
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

/// Removes audit rows older than `before`.
pub async fn prune_audit(db: &impl ConnectionTrait, before: i64) -> Result<u64, DbErr> {
    audit::Entity::delete_many().filter(audit::Column::At.lt(before)).exec(db).await.map(|done| done.rows_affected)
}

/// Writes an audit row.
pub async fn insert_audit(db: &impl ConnectionTrait, row: audit::Model) -> Result<(), DbErr> {
    audit::Entity::insert(row.into_active_model()).exec_without_returning(db).await.map(drop)
}
