//! Every statement on the pinned members.

use sea_orm::sea_query::OnConflict;
use sea_orm::{ConnectionTrait, EntityTrait as _, Set};
use serde::{Deserialize, Serialize};

use super::Error;
use super::entity::{ActiveModel, Column, Entity, Model};
use crate::domain::ids::{MemberId, MemberKey};
use crate::domain::key_chain::PreviousKey;
use crate::domain::names;
use crate::domain::roster::PinnedMember;
use crate::domain::time::UnixMillis;

/// A [`PreviousKey`] as it is stored.
#[derive(Serialize, Deserialize)]
struct StoredKey {
    key: String,
    rotated_out_at: i64,
}

/// All pinned members, in the order of their names.
pub(super) async fn all(db: &impl ConnectionTrait) -> Result<Vec<PinnedMember>, Error> {
    let rows = Entity::find().all(db).await?;
    let mut members = rows.into_iter().map(from_row).collect::<Result<Vec<_>, _>>()?;
    members.sort_by(|one, other| one.display_name.cmp(&other.display_name));
    Ok(members)
}

/// Rows of one statement, which is one commit.
const ROWS: usize = 500;

/// Writes members, each chunk of [`ROWS`] whole or not at all. Each is one statement: a
/// transaction that fails for want of room would not let go of its lock.
pub(super) async fn put(db: &impl ConnectionTrait, members: &[PinnedMember], now: UnixMillis) -> Result<(), Error> {
    let changed = [
        Column::Pubkey,
        Column::DisplayName,
        Column::AcceptedName,
        Column::Capabilities,
        Column::CapabilitiesAt,
        Column::LastSeenAt,
        Column::RevokedAt,
        Column::ChangedKey,
        Column::VerifiedAt,
        Column::RotationSeq,
        Column::PreviousKeys,
        Column::FormerNames,
        Column::ShownCapabilities,
        Column::VerifiedKey,
    ];
    for chunk in members.chunks(ROWS) {
        Entity::insert_many(chunk.iter().map(|member| row(member, now)))
            .on_conflict(OnConflict::column(Column::MemberId).update_columns(changed).to_owned())
            .exec_without_returning(db)
            .await?;
    }
    Ok(())
}

fn row(member: &PinnedMember, now: UnixMillis) -> ActiveModel {
    let previous: Vec<StoredKey> = member
        .previous
        .iter()
        .map(|old| StoredKey { key: old.key.to_hex(), rotated_out_at: old.rotated_out_at.0 })
        .collect();
    ActiveModel {
        member_id: Set(member.member_id.to_string()),
        pubkey: Set(member.key.to_hex()),
        display_name: Set(member.display_name.clone()),
        accepted_name: Set(member.accepted_name.clone()),
        role: Set("member".to_owned()),
        capabilities: Set(serde_json::to_string(&member.capabilities).ok()),
        capabilities_at: Set((!member.capabilities.is_empty()).then_some(now.0)),
        first_seen_at: Set(member.first_seen_at.0),
        last_seen_at: Set(now.0),
        revoked_at: Set(member.revoked.then_some(now.0)),
        changed_key: Set(member.changed_key.map(MemberKey::to_hex)),
        verified_at: Set(member.verified_at.map(|at| at.0)),
        rotation_seq: Set(i64::try_from(member.seq).unwrap_or(i64::MAX)),
        previous_keys: Set(json(&previous)),
        former_names: Set(json(&member.former_names)),
        shown_capabilities: Set(json(&member.shown_capabilities)),
        verified_key: Set(member.verified_key.map(MemberKey::to_hex)),
    }
}

fn json(value: &impl Serialize) -> String {
    // Texts and numbers only: it can be written.
    serde_json::to_string(value).unwrap_or_else(|_| "[]".to_owned())
}

fn from_row(row: Model) -> Result<PinnedMember, Error> {
    let damaged = |detail: String| Error::Damaged { member_id: row.member_id.clone(), detail };
    let key = |text: &str| MemberKey::parse(text).map_err(|error| damaged(error.to_string()));
    let list = |text: &str| serde_json::from_str::<Vec<String>>(text).map_err(|error| damaged(error.to_string()));
    let previous: Vec<StoredKey> =
        serde_json::from_str(&row.previous_keys).map_err(|error| damaged(error.to_string()))?;
    let previous = previous
        .iter()
        .map(|old| Ok(PreviousKey { key: key(&old.key)?, rotated_out_at: UnixMillis(old.rotated_out_at) }))
        .collect::<Result<_, Error>>()?;
    Ok(PinnedMember {
        key: key(&row.pubkey)?,
        changed_key: row.changed_key.as_deref().map(key).transpose()?,
        capabilities: row.capabilities.as_deref().map_or(Ok(Vec::new()), list)?,
        shown_capabilities: list(&row.shown_capabilities)?,
        former_names: list(&row.former_names)?,
        seq: u64::try_from(row.rotation_seq).unwrap_or(0),
        previous,
        verified_key: row.verified_key.as_deref().map(key).transpose()?,
        verified_at: row.verified_at.map(UnixMillis),
        first_seen_at: UnixMillis(row.first_seen_at),
        member_id: MemberId::parse(row.member_id.as_str()).map_err(|error| damaged(error.to_string()))?,
        name_key: names::claimed(&row.display_name),
        display_name: row.display_name,
        accepted_name: row.accepted_name,
        revoked: row.revoked_at.is_some(),
    })
}
