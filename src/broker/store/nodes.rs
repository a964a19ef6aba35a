//! The brokers that share a database.

use sea_orm::sea_query::OnConflict;
use sea_orm::{ColumnTrait as _, ConnectionTrait, DbErr, EntityTrait as _, IntoActiveModel as _, QueryFilter as _};

use super::entity::node::{Column, Entity, Model};

/// Notes that a broker is there.
pub async fn beat(db: &impl ConnectionTrait, row: Model) -> Result<(), DbErr> {
    let on_conflict = OnConflict::column(Column::Id).update_column(Column::LastSeenAt).to_owned();
    Entity::insert(row.into_active_model()).on_conflict(on_conflict).exec_without_returning(db).await.map(drop)
}

/// Brokers that said so since `since`.
pub async fn live(db: &impl ConnectionTrait, since: i64) -> Result<Vec<Model>, DbErr> {
    Entity::find().filter(Column::LastSeenAt.gte(since)).all(db).await
}

/// Takes a broker out that stops.
pub async fn remove(db: &impl ConnectionTrait, id: &str) -> Result<(), DbErr> {
    Entity::delete_by_id(id).exec(db).await.map(drop)
}

/// Forgets brokers that have not been there since `before`.
pub async fn forget(db: &impl ConnectionTrait, before: i64) -> Result<(), DbErr> {
    Entity::delete_many().filter(Column::LastSeenAt.lt(before)).exec(db).await.map(drop)
}
