//! API keys.

use sea_orm::sea_query::Expr;
use sea_orm::{
    ColumnTrait as _, ConnectionTrait, DbErr, EntityTrait as _, IntoActiveModel as _, PaginatorTrait as _,
    QueryFilter as _, QueryOrder as _, QuerySelect as _,
};

use super::entity::api_key::{Column, Entity, Model};

/// Stores a key.
pub async fn insert(db: &impl ConnectionTrait, row: Model) -> Result<(), DbErr> {
    Entity::insert(row.into_active_model()).exec_without_returning(db).await.map(drop)
}

/// The key with that id.
pub async fn find(db: &impl ConnectionTrait, id: &str) -> Result<Option<Model>, DbErr> {
    Entity::find_by_id(id).one(db).await
}

/// The keys of a mesh, or of one member of it, newest first; at most `limit`.
pub async fn list(
    db: &impl ConnectionTrait,
    mesh_id: &str,
    member_id: Option<&str>,
    limit: u64,
) -> Result<Vec<Model>, DbErr> {
    let mut rows = Entity::find().filter(Column::MeshId.eq(mesh_id));
    if let Some(member_id) = member_id {
        rows = rows.filter(Column::MemberId.eq(member_id));
    }
    rows.order_by_desc(Column::CreatedAt).order_by_desc(Column::Id).limit(limit).all(db).await
}

/// How many keys in force each member of a mesh has.
pub async fn in_force(db: &impl ConnectionTrait, mesh_id: &str) -> Result<Vec<(String, i64)>, DbErr> {
    Entity::find()
        .select_only()
        .column(Column::MemberId)
        .column_as(Column::Id.count(), "count")
        .filter(Column::MeshId.eq(mesh_id))
        .filter(Column::RevokedAt.is_null())
        .group_by(Column::MemberId)
        .into_tuple()
        .all(db)
        .await
}

/// How many keys in force a member has.
pub async fn count(db: &impl ConnectionTrait, mesh_id: &str, member_id: &str) -> Result<u64, DbErr> {
    let own = Entity::find().filter(Column::MeshId.eq(mesh_id)).filter(Column::MemberId.eq(member_id));
    own.filter(Column::RevokedAt.is_null()).count(db).await
}

/// Ends a key.
pub async fn revoke(db: &impl ConnectionTrait, id: &str, now: i64) -> Result<(), DbErr> {
    Entity::update_many()
        .col_expr(Column::RevokedAt, Expr::value(now))
        .filter(Column::Id.eq(id))
        .filter(Column::RevokedAt.is_null())
        .exec(db)
        .await
        .map(drop)
}

/// Ends every key of a member.
pub async fn revoke_all(db: &impl ConnectionTrait, member_id: &str, now: i64) -> Result<(), DbErr> {
    Entity::update_many()
        .col_expr(Column::RevokedAt, Expr::value(now))
        .filter(Column::MemberId.eq(member_id))
        .filter(Column::RevokedAt.is_null())
        .exec(db)
        .await
        .map(drop)
}

/// Notes that a key was used.
pub async fn used(db: &impl ConnectionTrait, id: &str, now: i64) -> Result<(), DbErr> {
    Entity::update_many()
        .col_expr(Column::LastUsedAt, Expr::value(now))
        .filter(Column::Id.eq(id))
        .exec(db)
        .await
        .map(drop)
}
