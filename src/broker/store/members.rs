//! Meshes, members, their keys, and invites.

use std::collections::HashSet;

use sea_orm::sea_query::{Expr, ExprTrait as _};
use sea_orm::{
    ActiveModelTrait as _, ColumnTrait as _, ConnectionTrait, DbErr, EntityTrait as _, IntoActiveModel as _,
    PaginatorTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _,
};

use super::dialect::ROWS_PER_STATEMENT;
use super::entity::{invite, member, member_key, mesh};

/// A mesh with all of its members and their keys.
#[derive(Debug)]
pub struct MeshRows {
    /// The mesh.
    pub mesh: mesh::Model,
    /// Its members, revoked ones included, in the order of joining.
    pub members: Vec<member::Model>,
    /// Their keys, rotated-out ones included.
    pub keys: Vec<member_key::Model>,
}

/// Reads a mesh; `None` if there is none with that id.
pub async fn load_mesh(db: &impl ConnectionTrait, mesh_id: &str) -> Result<Option<MeshRows>, DbErr> {
    let Some(mesh) = mesh::Entity::find_by_id(mesh_id).one(db).await? else { return Ok(None) };
    let members = member::Entity::find()
        .filter(member::Column::MeshId.eq(mesh_id))
        .order_by_asc(member::Column::JoinedAt)
        .order_by_asc(member::Column::Id)
        .all(db)
        .await?;
    let keys = member_key::Entity::find().filter(member_key::Column::MeshId.eq(mesh_id)).all(db).await?;
    Ok(Some(MeshRows { mesh, members, keys }))
}

/// What was written since a moment.
#[derive(Debug)]
pub struct Changed {
    /// Meshes.
    pub meshes: Vec<mesh::Model>,
    /// Members.
    pub members: Vec<member::Model>,
    /// The keys of those members.
    pub keys: Vec<member_key::Model>,
}

/// Meshes and members that were written since `since`.
pub async fn changed(db: &impl ConnectionTrait, since: i64) -> Result<Changed, DbErr> {
    let meshes = mesh::Entity::find().filter(mesh::Column::ChangedAt.gte(since)).all(db).await?;
    let members = member::Entity::find().filter(member::Column::ChangedAt.gte(since)).all(db).await?;
    let mut keys = Vec::new();
    for chunk in members.chunks(ROWS_PER_STATEMENT) {
        let ids = chunk.iter().map(|member| member.id.as_str());
        keys.extend(member_key::Entity::find().filter(member_key::Column::MemberId.is_in(ids)).all(db).await?);
    }
    Ok(Changed { meshes, members, keys })
}

/// Stores what the owner has set.
pub async fn set_settings(
    db: &impl ConnectionTrait,
    mesh_id: &str,
    policy: &str,
    dedupe_mode: &str,
    now: i64,
) -> Result<(), DbErr> {
    mesh::Entity::update_many()
        .col_expr(mesh::Column::CloneConcurrencyPolicy, Expr::value(policy))
        .col_expr(mesh::Column::DedupeMode, Expr::value(dedupe_mode))
        .col_expr(mesh::Column::ChangedAt, Expr::value(now))
        .filter(mesh::Column::Id.eq(mesh_id))
        .exec(db)
        .await
        .map(drop)
}

/// The mesh with that short name.
pub async fn mesh_by_slug(db: &impl ConnectionTrait, slug: &str) -> Result<Option<mesh::Model>, DbErr> {
    mesh::Entity::find().filter(mesh::Column::Slug.eq(slug)).one(db).await
}

/// Stores a mesh.
pub async fn insert_mesh(db: &impl ConnectionTrait, row: mesh::Model) -> Result<(), DbErr> {
    mesh::Entity::insert(row.into_active_model()).exec_without_returning(db).await.map(drop)
}

/// Stores a member with its first key.
pub async fn insert_member(db: &impl ConnectionTrait, row: member::Model) -> Result<(), DbErr> {
    let key = member_key::Model {
        mesh_id: row.mesh_id.clone(),
        pubkey: row.pubkey.clone(),
        member_id: row.id.clone(),
        seq: 0,
        registered_at: row.joined_at,
        rotated_out_at: None,
        statement: None,
    };
    member::Entity::insert(row.into_active_model()).exec_without_returning(db).await?;
    member_key::Entity::insert(key.into_active_model()).exec_without_returning(db).await.map(drop)
}

/// The member that has or had the key.
pub async fn member_by_key(
    db: &impl ConnectionTrait,
    mesh_id: &str,
    pubkey: &str,
) -> Result<Option<member::Model>, DbErr> {
    let key = member_key::Entity::find_by_id((mesh_id.to_owned(), pubkey.to_owned())).one(db).await?;
    match key {
        Some(key) => member::Entity::find_by_id(key.member_id).one(db).await,
        None => Ok(None),
    }
}

/// Which of these members are there and not revoked.
pub async fn standing(db: &impl ConnectionTrait, ids: &HashSet<&str>) -> Result<HashSet<String>, DbErr> {
    let ids: Vec<&str> = ids.iter().copied().collect();
    let mut standing = HashSet::with_capacity(ids.len());
    for chunk in ids.chunks(ROWS_PER_STATEMENT) {
        let rows: Vec<String> = member::Entity::find()
            .select_only()
            .column(member::Column::Id)
            .filter(member::Column::Id.is_in(chunk.iter().copied()))
            .filter(member::Column::RevokedAt.is_null())
            .into_tuple()
            .all(db)
            .await?;
        standing.extend(rows);
    }
    Ok(standing)
}

/// Makes `key` the member's key in place of `old`, which is kept as rotated out.
/// An error if `old` is not the current key: another node was faster.
pub async fn rotate_key(db: &impl ConnectionTrait, old: &str, key: member_key::Model, now: i64) -> Result<(), DbErr> {
    let retired = member_key::Entity::update_many()
        .col_expr(member_key::Column::RotatedOutAt, Expr::value(now))
        .filter(member_key::Column::MeshId.eq(&key.mesh_id))
        .filter(member_key::Column::Pubkey.eq(old))
        .filter(member_key::Column::MemberId.eq(&key.member_id))
        .filter(member_key::Column::RotatedOutAt.is_null())
        .exec(db)
        .await?;
    if retired.rows_affected != 1 {
        return Err(DbErr::RecordNotUpdated);
    }
    member::Entity::update_many()
        .col_expr(member::Column::Pubkey, Expr::value(&key.pubkey))
        .col_expr(member::Column::ChangedAt, Expr::value(now))
        .filter(member::Column::Id.eq(&key.member_id))
        .exec(db)
        .await?;
    member_key::Entity::insert(key.into_active_model()).exec_without_returning(db).await.map(drop)
}

/// How often a member's key has changed since then.
pub async fn rotations_since(
    db: &impl ConnectionTrait,
    mesh_id: &str,
    member_id: &str,
    since: i64,
) -> Result<u64, DbErr> {
    member_key::Entity::find()
        .filter(member_key::Column::MeshId.eq(mesh_id))
        .filter(member_key::Column::MemberId.eq(member_id))
        .filter(member_key::Column::Seq.gt(0))
        .filter(member_key::Column::RegisteredAt.gt(since))
        .count(db)
        .await
}

/// Stores the member's newest capability statement.
pub async fn set_capabilities(db: &impl ConnectionTrait, member_id: &str, json: &str, now: i64) -> Result<(), DbErr> {
    member::Entity::update_many()
        .col_expr(member::Column::Capabilities, Expr::value(json))
        .col_expr(member::Column::ChangedAt, Expr::value(now))
        .filter(member::Column::Id.eq(member_id))
        .exec(db)
        .await
        .map(drop)
}

/// Stores the member's certificate.
pub async fn set_certificate(db: &impl ConnectionTrait, member_id: &str, json: &str, now: i64) -> Result<(), DbErr> {
    member::Entity::update_many()
        .col_expr(member::Column::Certificate, Expr::value(json))
        .col_expr(member::Column::ChangedAt, Expr::value(now))
        .filter(member::Column::Id.eq(member_id))
        .exec(db)
        .await
        .map(drop)
}

/// Stores what the member shows of itself.
pub async fn set_shown(db: &impl ConnectionTrait, member_id: &str, json: &str, now: i64) -> Result<(), DbErr> {
    member::Entity::update_many()
        .col_expr(member::Column::Shown, Expr::value(json))
        .col_expr(member::Column::ChangedAt, Expr::value(now))
        .filter(member::Column::Id.eq(member_id))
        .exec(db)
        .await
        .map(drop)
}

/// Stores the member's name.
pub async fn set_display_name(db: &impl ConnectionTrait, member_id: &str, name: &str, now: i64) -> Result<(), DbErr> {
    member::Entity::update_many()
        .col_expr(member::Column::DisplayName, Expr::value(name))
        .col_expr(member::Column::ChangedAt, Expr::value(now))
        .filter(member::Column::Id.eq(member_id))
        .exec(db)
        .await
        .map(drop)
}

/// Ends a membership. False if it had ended before.
pub async fn revoke(db: &impl ConnectionTrait, member_id: &str, now: i64) -> Result<bool, DbErr> {
    let done = member::Entity::update_many()
        .col_expr(member::Column::RevokedAt, Expr::value(now))
        .col_expr(member::Column::ChangedAt, Expr::value(now))
        .filter(member::Column::Id.eq(member_id))
        .filter(member::Column::RevokedAt.is_null())
        .exec(db)
        .await?;
    Ok(done.rows_affected == 1)
}

/// Notes that the member was connected.
pub async fn touch(db: &impl ConnectionTrait, member_id: &str, now: i64) -> Result<(), DbErr> {
    member::Entity::update_many()
        .col_expr(member::Column::LastSeenAt, Expr::value(now))
        .filter(member::Column::Id.eq(member_id))
        .exec(db)
        .await
        .map(drop)
}

/// Stores an invite. An invite whose token is stored already is left alone and
/// returned.
pub async fn insert_invite(db: &impl ConnectionTrait, row: invite::Model) -> Result<invite::Model, DbErr> {
    if let Some(stored) = invite_by_token(db, &row.token).await? {
        return Ok(stored);
    }
    row.into_active_model().reset_all().insert(db).await
}

/// The invites of a mesh, newest first; at most `limit`.
pub async fn invites(db: &impl ConnectionTrait, mesh_id: &str, limit: u64) -> Result<Vec<invite::Model>, DbErr> {
    invite::Entity::find()
        .filter(invite::Column::MeshId.eq(mesh_id))
        .order_by_desc(invite::Column::CreatedAt)
        .order_by_desc(invite::Column::Id)
        .limit(limit)
        .all(db)
        .await
}

/// Takes an invite back. False if the mesh has no such invite.
pub async fn revoke_invite(db: &impl ConnectionTrait, mesh_id: &str, invite_id: &str, now: i64) -> Result<bool, DbErr> {
    let Some(row) = invite::Entity::find_by_id(invite_id).one(db).await?.filter(|row| row.mesh_id == mesh_id) else {
        return Ok(false);
    };
    invite::Entity::update_many()
        .col_expr(invite::Column::RevokedAt, Expr::value(row.revoked_at.unwrap_or(now)))
        .filter(invite::Column::Id.eq(invite_id))
        .exec(db)
        .await?;
    Ok(true)
}

/// The invite with exactly that token.
pub async fn invite_by_token(db: &impl ConnectionTrait, token: &str) -> Result<Option<invite::Model>, DbErr> {
    invite::Entity::find().filter(invite::Column::Token.eq(token)).one(db).await
}

/// Spends one use. False if none is left: count and limit are compared in the
/// statement that counts, so two joins at once cannot share the last use.
pub async fn use_invite(db: &impl ConnectionTrait, invite_id: &str) -> Result<bool, DbErr> {
    let done = invite::Entity::update_many()
        .col_expr(invite::Column::UsedCount, Expr::col(invite::Column::UsedCount).add(1))
        .filter(invite::Column::Id.eq(invite_id))
        .filter(Expr::col(invite::Column::UsedCount).lt(Expr::col(invite::Column::MaxUses)))
        .exec(db)
        .await?;
    Ok(done.rows_affected == 1)
}
