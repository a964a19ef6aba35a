//! `POST /join`: a new member with an invite.

use std::sync::Arc;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use sea_orm::DbErr;

use super::certificates;
use super::http::{Answer, body, json};
use super::roster::{Member, Mesh};
use super::session::handshake::is_signed;
use super::shared::Shared;
use super::store::entity::member;
use super::store::members;
use crate::crypto::keys::check_member_key;
use crate::crypto::sign;
use crate::domain::ids::MemberKey;
use crate::domain::names;
use crate::wire::hello::CapabilityStatement;
use crate::wire::join::{InviteError, InviteV1, JoinRequest, JoinResponse, join_error};

/// What became of a join.
enum Outcome {
    Joined { member_id: String, already: bool, name_taken: bool },
    Refused(&'static str),
}

/// Answers `POST /join`.
pub async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Answer {
    let refused =
        |status, error: &str| json(status, &JoinResponse { error: Some(error.to_owned()), ..JoinResponse::default() });
    let request: JoinRequest = match body(request).await {
        Ok(request) => request,
        Err((status, message)) => return refused(status, &message),
    };
    let key = match check(shared, &request) {
        Ok(key) => key,
        Err(error) => return refused(StatusCode::BAD_REQUEST, error),
    };
    match Box::pin(join(shared, &request, key)).await {
        Ok(Outcome::Joined { member_id, already, name_taken }) => {
            let response = JoinResponse {
                ok: true,
                member_id: Some(member_id),
                already_member: already.then_some(true),
                name_taken: name_taken.then_some(true),
                error: None,
            };
            json(StatusCode::OK, &response)
        }
        Ok(Outcome::Refused(error)) => refused(StatusCode::BAD_REQUEST, error),
        Err(error) => {
            tracing::error!(error = %error, "A join failed: {error}");
            refused(StatusCode::INTERNAL_SERVER_ERROR, join_error::MEMBER_INSERT_FAILED)
        }
    }
}

/// What can be checked without the database: the payload is what its owner
/// signed.
fn check(shared: &Shared, request: &JoinRequest) -> Result<MemberKey, &'static str> {
    let key = MemberKey::parse(&request.peer_pubkey).map_err(|_| "peer_pubkey must be 64 hex digits")?;
    // Nobody could seal for it, or everybody open.
    check_member_key(key).map_err(|_| "peer_pubkey is no key that a member can have")?;
    let verify = |owner, text: &str, signature: &[u8; 64]| sign::verify(owner, text.as_bytes(), signature);
    match request.invite_payload.verify(shared.clock.now(), verify) {
        Ok(_) => Ok(key),
        Err(InviteError::Expired) => Err(join_error::INVITE_EXPIRED),
        Err(_) => Err(join_error::INVITE_BAD_SIGNATURE),
    }
}

async fn join(shared: &Arc<Shared>, request: &JoinRequest, key: MemberKey) -> Result<Outcome, DbErr> {
    let payload: &InviteV1 = &request.invite_payload;
    let Some(mesh) = shared.roster.mesh(&payload.mesh_id).await? else {
        return Ok(Outcome::Refused(join_error::MESH_NOT_FOUND));
    };
    if !mesh.owner_pubkey.eq_ignore_ascii_case(&payload.owner_pubkey) {
        return Ok(Outcome::Refused(join_error::INVITE_OWNER_MISMATCH));
    }
    let changing = shared.roster.changing().await;
    let now = shared.store.now().0;
    let transaction = shared.store.begin().await?;
    let Some(invite) = members::invite_by_token(&transaction, &request.invite_token).await? else {
        return Ok(Outcome::Refused(join_error::INVITE_NOT_FOUND));
    };
    // The token and the payload travel side by side; each is genuine, but they
    // must also belong together.
    if invite.mesh_id != payload.mesh_id || InviteV1::parse(&invite.token).as_ref() != Ok(payload) {
        return Ok(Outcome::Refused(join_error::INVITE_MESH_MISMATCH));
    }
    if invite.revoked_at.is_some() {
        return Ok(Outcome::Refused(join_error::INVITE_REVOKED));
    }
    if invite.expires_at <= now {
        return Ok(Outcome::Refused(join_error::INVITE_EXPIRED));
    }
    if let Some(known) = members::member_by_key(&transaction, &mesh.id, &key.to_hex()).await? {
        let member_id = known.id.clone();
        // An earlier call may have written it without hearing of its commit.
        if mesh.member(&member_id).is_none() {
            mesh.put(&changing, Member::from_row(known));
        }
        let name_taken = mesh.member(&member_id).is_some_and(|member| is_taken(&mesh, &member));
        return Ok(Outcome::Joined { member_id, already: true, name_taken });
    }
    if !members::use_invite(&transaction, &invite.id).await? {
        return Ok(Outcome::Refused(join_error::INVITE_EXHAUSTED));
    }
    // Peers learn what the member's daemon reads before it connects for the
    // first time; what its key has not signed says nothing.
    let signed = |statement: &&CapabilityStatement| is_signed(&mesh.id, key, statement);
    let row = member::Model {
        id: shared.ids.ulid(),
        mesh_id: mesh.id.clone(),
        pubkey: key.to_hex(),
        // What it may not hold is left out: members of other programs join too.
        display_name: names::cleaned(&request.display_name).unwrap_or_else(|| format!("member-{}", key.short())),
        role: invite.role,
        capabilities: request.capabilities.as_ref().filter(signed).and_then(|it| serde_json::to_string(it).ok()),
        joined_at: now,
        last_seen_at: None,
        revoked_at: None,
        changed_at: now,
        // One that the owner did not sign says nothing either; the member joins.
        certificate: request.certificate.as_ref().and_then(|it| certificates::for_key(&mesh, it, key)),
        shown: None,
    };
    members::insert_member(&transaction, row.clone()).await?;
    transaction.commit().await?;
    let member_id = row.id.clone();
    let member = Member::from_row(row);
    let name_taken = is_taken(&mesh, &member);
    mesh.put(&changing, member);
    tracing::info!(mesh_id = mesh.id, member_id, "A member joined");
    Ok(Outcome::Joined { member_id, already: false, name_taken })
}

/// Whether another member has the name, or had it when it was removed: sends to it are
/// refused by everybody then.
fn is_taken(mesh: &Mesh, member: &Member) -> bool {
    let name = names::key(&member.display_name);
    mesh.all().iter().any(|other| other.id != member.id && names::key(&other.display_name) == name)
}
