//! `member_rotate`: a member's new key.
//!
//! The old key and the new one both sign the change, and a key has one
//! successor. Repeating a change that is registered changes nothing and gets the
//! same answer, since a client may not have heard the first. The old key stays
//! known as rotated out: messages under it are still on their way, but it opens
//! no connection any more.

use std::sync::Arc;

use sea_orm::DbErr;
use serde_json::json;

use super::peer::Peer;
use super::presence;
use super::terms::Kind;
use crate::broker::fanout::Audience;
use crate::broker::holdings::{MEMBER_ROTATIONS, ROTATION_WINDOW_MS};
use crate::broker::roster::{Changing, Member};
use crate::broker::shared::Shared;
use crate::broker::store::entity::{audit, member_key};
use crate::broker::store::{members, presence as store};
use crate::crypto::keys::check_member_key;
use crate::crypto::sign::{KeyRotation, RotationSignatures};
use crate::domain::ids::MemberKey;
use crate::domain::time::UnixMillis;
use crate::wire::event::SystemEvent;
use crate::wire::refusal::Refusal;
use crate::wire::roster::{MemberRotated, RotationStatement};
use crate::wire::text;

/// Registers the change. The caller's own member is the only one it can be for.
pub async fn rotate(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    statement: RotationStatement,
    req_id: Option<String>,
) -> Result<MemberRotated, Refusal> {
    // A session speaks for itself and not for its member.
    if peer.kind != Kind::Member || statement.member_id != peer.member_id {
        return Err(Refusal::Forbidden);
    }
    check_signatures(&peer.mesh.id, &statement)?;
    let changing = shared.roster.changing().await;
    let member = peer.mesh.member(&peer.member_id).filter(|member| member.revoked_at.is_none());
    let member = member.ok_or(Refusal::Forbidden)?;
    let chain = peer.mesh.rotations(&member.id);
    let answer = |pubkey: &str| MemberRotated {
        member_id: member.id.clone(),
        seq: statement.seq,
        pubkey: pubkey.to_owned(),
        req_id: req_id.clone(),
    };
    if chain.contains(&statement) {
        return Ok(answer(&member.pubkey));
    }
    let next_seq = chain.last().map_or(0, |last| last.seq).saturating_add(1);
    if statement.old_pubkey != member.pubkey || statement.seq != next_seq {
        // Either the old key has another successor, or it is no key of this
        // member at all.
        return Err(Refusal::Forbidden);
    }
    if peer.mesh.key(&statement.new_pubkey).is_some() {
        return Err(Refusal::Invalid);
    }
    let internal = |error: DbErr| {
        tracing::error!(error = %error, "Cannot store a member's new key: {error}");
        Refusal::Internal
    };
    let since = shared.store.now().0 - ROTATION_WINDOW_MS;
    let recent = members::rotations_since(shared.store.readers(), &peer.mesh.id, &member.id, since).await;
    if recent.map_err(internal)? >= MEMBER_ROTATIONS {
        return Err(Refusal::RateLimit);
    }
    write(shared, &changing, peer, &member, &statement).await.map_err(internal)?;
    drop(changing);
    tracing::info!(member_id = member.id, seq = statement.seq, "member_keypair_rotated");
    let answer = answer(&statement.new_pubkey);
    let audience = Audience::OtherMembers(member.id.clone());
    presence::send_event(shared, &peer.mesh.id, &audience, SystemEvent::MemberKeypairRotated(statement));
    Ok(answer)
}

fn check_signatures(mesh_id: &str, statement: &RotationStatement) -> Result<(), Refusal> {
    let key = |text: &str| {
        let key = MemberKey::parse(text).ok().filter(|key| key.to_hex() == text)?;
        check_member_key(key).is_ok().then_some(key)
    };
    let old = key(&statement.old_pubkey).ok_or(Refusal::Invalid)?;
    let new = key(&statement.new_pubkey).ok_or(Refusal::Invalid)?;
    let signatures = RotationSignatures {
        old: text::signature_from_hex(&statement.old_signature).ok_or(Refusal::Invalid)?,
        new: text::signature_from_hex(&statement.new_signature).ok_or(Refusal::Invalid)?,
    };
    let change = KeyRotation {
        mesh_id,
        member_id: &statement.member_id,
        seq: statement.seq,
        old,
        new,
        at: UnixMillis(statement.ts),
    };
    if change.verify(&signatures) { Ok(()) } else { Err(Refusal::Forbidden) }
}

/// Writes the change: database first, then memory.
async fn write(
    shared: &Shared,
    changing: &Changing<'_>,
    peer: &Peer,
    member: &Member,
    statement: &RotationStatement,
) -> Result<(), DbErr> {
    let now = shared.store.now().0;
    let key = member_key::Model {
        mesh_id: peer.mesh.id.clone(),
        pubkey: statement.new_pubkey.clone(),
        member_id: member.id.clone(),
        seq: i64::try_from(statement.seq).unwrap_or(i64::MAX),
        registered_at: now,
        rotated_out_at: None,
        statement: serde_json::to_string(statement).ok(),
    };
    let audit = audit::Model {
        id: shared.ids.ulid(),
        mesh_id: peer.mesh.id.clone(),
        event: "member_keypair_rotated".to_owned(),
        payload: json!({
            "member_id": member.id,
            "seq": statement.seq,
            "old_pubkey": statement.old_pubkey,
            "new_pubkey": statement.new_pubkey,
        })
        .to_string(),
        at: now,
    };
    let transaction = shared.store.begin().await?;
    members::rotate_key(&transaction, &statement.old_pubkey, key, now).await?;
    store::insert_audit(&transaction, audit).await?;
    transaction.commit().await?;
    let new = Member { pubkey: statement.new_pubkey.clone(), ..member.clone() };
    peer.mesh.put_rotation(changing, new, statement.clone(), now);
    Ok(())
}
