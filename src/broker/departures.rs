//! How a member goes: revoked by others, or by its own wish.
//!
//! What waited for it ends, and the senders are told. What it sent and was
//! accepted still arrives. Its connections are closed at every broker, its API
//! keys end, and its hello is refused from then on.

use std::sync::Arc;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use sea_orm::DbErr;
use serde::Deserialize;
use serde_json::json;

use super::accept::writer::Command;
use super::fanout::Audience;
use super::http::{Answer, body, json as answer_json, problem};
use super::roster::{Member, Mesh};
use super::session::presence::{send_event, tell_left};
use super::session::terms::End;
use super::shared::Shared;
use super::store::entity::audit;
use super::store::{api_keys, members, presence as store, topics};
use crate::crypto::sign::Statement;
use crate::domain::ids::MemberKey;
use crate::domain::time::UnixMillis;
use crate::wire::close;
use crate::wire::event::{MemberRevoked, SystemEvent};
use crate::wire::hello::MAX_HELLO_SKEW_MS;
use crate::wire::text;

/// Body of `POST /v1/me/members/<pubkey>/leave`: the fields of a hello, signed
/// as one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LeaveRequest {
    mesh_id: String,
    member_id: String,
    timestamp: i64,
    signature: String,
}

/// Ends a membership; `by` names who wanted it, for the audit trail. Doing it
/// again changes nothing.
pub async fn end(shared: &Arc<Shared>, mesh: &Arc<Mesh>, member_id: &str, by: &str) -> Result<(), DbErr> {
    let changing = shared.roster.changing().await;
    let now = shared.store.now().0;
    let transaction = shared.store.begin().await?;
    let ended = members::revoke(&transaction, member_id, now).await?;
    if ended {
        api_keys::revoke_all(&transaction, member_id, now).await?;
        let row = audit::Model {
            id: shared.ids.ulid(),
            mesh_id: mesh.id.clone(),
            event: "member_revoked".to_owned(),
            payload: json!({ "member_id": member_id, "by": by }).to_string(),
            at: now,
        };
        store::insert_audit(&transaction, row).await?;
        topics::leave_all(&transaction, member_id, now).await?;
    }
    transaction.commit().await?;
    // Memory decides what is left to do: an earlier call may have written it without hearing of its commit.
    let standing = |member: &Arc<Member>| member.revoked_at.is_none();
    let Some(member) = mesh.member(member_id).filter(standing) else { return Ok(()) };
    let member = Member { revoked_at: Some(now), ..(*member).clone() };
    mesh.put(&changing, member.clone());
    drop(changing);
    tracing::info!(mesh_id = mesh.id, member_id, by, "A membership ended");
    close(shared, mesh, &member);
    // Refused only while the broker stops; a later sweep ends them as well.
    let _ = shared.writer.submit(Command::GiveUp(member_id.to_owned())).await;
    Ok(())
}

/// Closes the connections of a member who is none any more, and tells the
/// others.
pub fn close(shared: &Shared, mesh: &Mesh, member: &Member) {
    for peer in shared.registry.of_member(&mesh.id, &member.id) {
        if shared.registry.remove(&peer) {
            // Old clients know another code for it.
            peer.finish(if peer.negotiates() {
                End::explained(close::REVOKED, "member_revoked", "this member was revoked", false)
            } else {
                End::close(close::BANNED, close::reason(close::BANNED))
            });
            tell_left(shared, &peer);
        }
    }
    let revoked = MemberRevoked {
        member_id: member.id.clone(),
        pubkey: member.pubkey.clone(),
        revoked_at: member.revoked_at.unwrap_or_default(),
    };
    let audience = Audience::OtherMembers(member.id.clone());
    send_event(shared, &mesh.id, &audience, SystemEvent::MemberRevoked(revoked));
}

/// Answers `POST /v1/me/members/<pubkey>/leave`: for a host that goes for good
/// and may have no connection.
pub async fn leave(shared: &Arc<Shared>, pubkey: &str, request: Request<Incoming>) -> Answer {
    let request: LeaveRequest = match body(request).await {
        Ok(request) => request,
        Err((status, message)) => return problem(status, "invalid_json", &message),
    };
    let forbidden = |message: &str| problem(StatusCode::FORBIDDEN, "forbidden", message);
    if UnixMillis(request.timestamp).distance_ms(shared.clock.now()) > MAX_HELLO_SKEW_MS {
        return forbidden("timestamp is more than 60 s from the broker's clock");
    }
    let statement = |key| Statement::hello(&request.mesh_id, &request.member_id, key, UnixMillis(request.timestamp));
    let signed = match (MemberKey::parse(pubkey), text::signature_from_hex(&request.signature)) {
        (Ok(key), Some(signature)) => statement(key).is_ok_and(|statement| statement.verify(key, &signature)),
        _ => false,
    };
    if !signed {
        return forbidden("the request is not signed as a hello of this key");
    }
    let mesh = match shared.roster.mesh(&request.mesh_id).await {
        Ok(mesh) => mesh,
        Err(error) => return failed(&error),
    };
    let member = mesh.as_ref().and_then(|mesh| mesh.member_by_current_key(&pubkey.to_ascii_lowercase()));
    match (mesh, member) {
        (Some(mesh), Some(member)) if member.id == request.member_id => {
            match Box::pin(end(shared, &mesh, &member.id, "itself")).await {
                Ok(()) => answer_json(StatusCode::OK, &json!({ "ok": true })),
                Err(error) => failed(&error),
            }
        }
        _ => forbidden("no member of this mesh has this key"),
    }
}

fn failed(error: &DbErr) -> Answer {
    tracing::error!(error = %error, "Cannot end a membership: {error}");
    problem(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "the broker failed; its log has more")
}
