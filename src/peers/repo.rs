//! Every statement on the pinned members.

use sea_orm::sea_query::OnConflict;
use sea_orm::{ConnectionTrait, EntityTrait as _, Set};

use super::Error;
use super::entity::{ActiveModel, Column, Entity, Model};
use crate::domain::ids::{MemberId, MemberKey};
use crate::domain::roster::PinnedMember;
use crate::domain::time::UnixMillis;

/// All pinned members, in the order of their names.
pub(super) async fn all(db: &impl ConnectionTrait) -> Result<Vec<PinnedMember>, Error> {
    let rows = Entity::find().all(db).await?;
    let mut members = rows.into_iter().map(from_row).collect::<Result<Vec<_>, _>>()?;
    members.sort_by(|one, other| one.display_name.cmp(&other.display_name));
    Ok(members)
}

/// Writes a member as it is now. The first sight stays.
pub(super) async fn put(db: &impl ConnectionTrait, member: &PinnedMember, now: UnixMillis) -> Result<(), Error> {
    let row = ActiveModel {
        member_id: Set(member.member_id.to_string()),
        pubkey: Set(member.key.to_hex()),
        display_name: Set(member.display_name.clone()),
        name_key: Set(member.bound_name.clone()),
        role: Set("member".to_owned()),
        capabilities: Set(serde_json::to_string(&member.capabilities).ok()),
        capabilities_at: Set((!member.capabilities.is_empty()).then_some(now.0)),
        first_seen_at: Set(now.0),
        last_seen_at: Set(now.0),
        revoked_at: Set(member.revoked.then_some(now.0)),
        changed_key: Set(member.changed_key.map(MemberKey::to_hex)),
        verified_at: Set(None),
    };
    let changed = [
        Column::DisplayName,
        Column::NameKey,
        Column::Capabilities,
        Column::CapabilitiesAt,
        Column::LastSeenAt,
        Column::RevokedAt,
        Column::ChangedKey,
    ];
    Entity::insert(row)
        .on_conflict(OnConflict::column(Column::MemberId).update_columns(changed).to_owned())
        .exec_without_returning(db)
        .await?;
    Ok(())
}

fn from_row(row: Model) -> Result<PinnedMember, Error> {
    let damaged = |detail: String| Error::Damaged { member_id: row.member_id.clone(), detail };
    let key = |text: &str| MemberKey::parse(text).map_err(|error| damaged(error.to_string()));
    Ok(PinnedMember {
        key: key(&row.pubkey)?,
        changed_key: row.changed_key.as_deref().map(key).transpose()?,
        capabilities: row
            .capabilities
            .as_deref()
            .map_or(Ok(Vec::new()), |json| serde_json::from_str(json).map_err(|error| damaged(error.to_string())))?,
        member_id: MemberId::parse(row.member_id.as_str()).map_err(|error| damaged(error.to_string()))?,
        display_name: row.display_name,
        bound_name: row.name_key,
        revoked: row.revoked_at.is_some(),
    })
}
