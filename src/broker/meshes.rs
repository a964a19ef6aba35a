//! Making meshes, and storing the invites that their owners sign.
//!
//! A mesh is made by whoever holds the broker's admin token. Everything else
//! in it is the owner's: the owner's key never comes here, only its signatures.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Request, StatusCode};
use hyper::body::Incoming;
use sea_orm::DbErr;

use super::admin::Denied;
use super::http::{Answer, body, json, problem};
use super::roster::{Mesh, dedupe_mode_name, policy_name};
use super::shared::Shared;
use super::store::entity::{invite, mesh};
use super::store::members;
use crate::crypto::sign::{self, Statement};
use crate::domain::ids::MemberKey;
use crate::domain::time::UnixMillis;
use crate::wire::features::DedupeMode;
use crate::wire::hello::MAX_HELLO_SKEW_MS;
use crate::wire::join::{
    CreateMeshRequest, CreateMeshResponse, InviteError, InviteV1, RegisterInviteRequest, RegisterInviteResponse,
};
use crate::wire::refusal::Refusal;
use crate::wire::text;

/// Longest name of a mesh, in bytes.
const MAX_NAME_BYTES: usize = 128;

/// Answers `POST /v1/meshes`. The same request of the same owner gives the same
/// mesh, so that a lost answer can be asked for again.
pub async fn create(shared: &Arc<Shared>, request: Request<Incoming>) -> Answer {
    if !bearer(request.headers()).is_some_and(|token| shared.admin_token.is(token)) {
        let message = "the bearer token is not this broker's admin_token; read it from the broker's directory";
        return problem(StatusCode::UNAUTHORIZED, "admin_token_refused", message);
    }
    let request: CreateMeshRequest = match body(request).await {
        Ok(request) => request,
        Err((status, message)) => return problem(status, code_of(status), &message),
    };
    let Ok(owner) = MemberKey::parse(&request.owner_pubkey) else {
        return problem(StatusCode::BAD_REQUEST, "invalid_argument", "owner_pubkey must be 64 hex digits");
    };
    if !is_slug(&request.slug) {
        return problem(StatusCode::BAD_REQUEST, "invalid_argument", "slug must be 1 to 32 of a-z, 0-9 and -");
    }
    let name = request.name.unwrap_or_else(|| request.slug.clone());
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
        let message = "name must be 1 to 128 bytes without control characters";
        return problem(StatusCode::BAD_REQUEST, "invalid_argument", message);
    }
    let now = shared.store.now().0;
    let row = mesh::Model {
        id: shared.ids.ulid(),
        slug: request.slug,
        name,
        owner_pubkey: owner.to_hex(),
        clone_concurrency_policy: policy_name(request.concurrency_policy.unwrap_or_default()).to_owned(),
        dedupe_mode: dedupe_mode_name(DedupeMode::RetentionScoped).to_owned(),
        created_at: now,
        changed_at: now,
    };
    let slug = row.slug.clone();
    match insert_mesh(shared, row).await {
        Ok(Some((mesh_id, status))) => json(status, &CreateMeshResponse { mesh_id, slug }),
        Ok(None) => {
            let message = format!("this broker has a mesh {slug} of another owner; choose another slug");
            problem(StatusCode::CONFLICT, "mesh_exists", &message)
        }
        Err(error) => failed("create a mesh", &error),
    }
}

/// Answers `POST /v1/meshes/:id/invites`.
pub async fn register_invite(shared: &Arc<Shared>, mesh_id: &str, request: Request<Incoming>) -> Answer {
    let request: RegisterInviteRequest = match body(request).await {
        Ok(request) => request,
        Err((status, message)) => return problem(status, code_of(status), &message),
    };
    let mesh = match shared.roster.mesh(mesh_id).await {
        Ok(Some(mesh)) => mesh,
        Ok(None) => return problem(StatusCode::NOT_FOUND, "mesh_not_found", "this broker has no such mesh"),
        Err(error) => return failed("read a mesh", &error),
    };
    if let Err((status, code, message)) = check(shared, &request, &mesh.id, &mesh.owner_pubkey) {
        return problem(status, code, &message);
    }
    let row = invite_row(shared, &mesh.id, request.token, &request.payload, request.max_uses);
    match insert_invite(shared, row).await {
        Ok(stored) if stored.mesh_id == mesh.id => {
            json(StatusCode::CREATED, &RegisterInviteResponse { invite_id: stored.id })
        }
        Ok(_) => problem(StatusCode::CONFLICT, "invite_invalid", "the token belongs to another mesh"),
        Err(error) => failed("store an invite", &error),
    }
}

/// Stores an invite whose token holds the owner's signature. The same token
/// gives the same invite.
pub async fn store_signed_invite(
    shared: &Shared,
    mesh: &Mesh,
    token: String,
    max_uses: u32,
) -> Result<invite::Model, Denied> {
    let invalid = |message: &str| Denied::new(Refusal::Invalid, message);
    if max_uses == 0 {
        return Err(invalid("maxUses must be at least 1"));
    }
    let payload = InviteV1::parse(&token).map_err(|error| invalid(&error.to_string()))?;
    check_payload(shared, &payload, &mesh.id, &mesh.owner_pubkey).map_err(|(_, _, message)| invalid(&message))?;
    let stored = insert_invite(shared, invite_row(shared, &mesh.id, token, &payload, max_uses)).await?;
    if stored.mesh_id == mesh.id { Ok(stored) } else { Err(invalid("the token belongs to another mesh")) }
}

fn invite_row(shared: &Shared, mesh_id: &str, token: String, payload: &InviteV1, max_uses: u32) -> invite::Model {
    invite::Model {
        id: shared.ids.ulid(),
        mesh_id: mesh_id.to_owned(),
        token,
        role: payload.role.clone(),
        max_uses: i64::from(max_uses),
        used_count: 0,
        created_at: shared.store.now().0,
        expires_at: payload.expires_at.saturating_mul(1000),
        revoked_at: None,
    }
}

type Problem = (StatusCode, &'static str, String);

/// The owner signed the payload, and signed that it is to be stored now.
fn check(shared: &Shared, request: &RegisterInviteRequest, mesh_id: &str, owner: &str) -> Result<(), Problem> {
    let invalid = |code, message: &str| (StatusCode::BAD_REQUEST, code, message.to_owned());
    let forbidden = |message: &str| (StatusCode::FORBIDDEN, "forbidden", message.to_owned());
    if request.max_uses == 0 {
        return Err(invalid("invalid_argument", "max_uses must be at least 1"));
    }
    if UnixMillis(request.ts).distance_ms(shared.clock.now()) > MAX_HELLO_SKEW_MS {
        return Err(forbidden("ts is more than 60 s from the broker's clock"));
    }
    let key = MemberKey::parse(owner).map_err(|_| forbidden("the mesh has no usable owner key"))?;
    let signature = text::signature_from_hex(&request.signature);
    let statement = Statement::invite_registration(mesh_id, &request.token, request.max_uses, UnixMillis(request.ts));
    let signed = matches!((signature, statement), (Some(signature), Ok(text)) if text.verify(key, &signature));
    if !signed {
        return Err(forbidden("the request is not signed by the mesh's owner"));
    }
    if InviteV1::parse(&request.token).as_ref() != Ok(&request.payload) {
        return Err(invalid("invite_invalid", "the token does not hold the payload"));
    }
    check_payload(shared, &request.payload, mesh_id, owner)
}

/// The owner of this mesh signed the payload, and its time is not over.
fn check_payload(shared: &Shared, payload: &InviteV1, mesh_id: &str, owner: &str) -> Result<(), Problem> {
    let invalid = |code, message: &str| (StatusCode::BAD_REQUEST, code, message.to_owned());
    if payload.mesh_id != mesh_id || !payload.owner_pubkey.eq_ignore_ascii_case(owner) {
        return Err(invalid("invite_invalid", "the payload names another mesh or owner"));
    }
    let verify = |key, text: &str, signature: &[u8; 64]| sign::verify(key, text.as_bytes(), signature);
    match payload.verify(shared.clock.now(), verify) {
        Ok(_) => Ok(()),
        Err(InviteError::Expired) => Err(invalid("invite_expired", "the invite has expired already")),
        Err(error) => Err(invalid("invite_invalid", &error.to_string())),
    }
}

/// The mesh's id and whether it is new; `None` if the slug is another owner's.
async fn insert_mesh(shared: &Shared, row: mesh::Model) -> Result<Option<(String, StatusCode)>, DbErr> {
    let transaction = shared.store.begin().await?;
    if let Some(stored) = members::mesh_by_slug(&transaction, &row.slug).await? {
        return Ok((stored.owner_pubkey == row.owner_pubkey).then_some((stored.id, StatusCode::OK)));
    }
    let id = row.id.clone();
    members::insert_mesh(&transaction, row).await?;
    transaction.commit().await?;
    tracing::info!(mesh_id = id, "A mesh was created");
    Ok(Some((id, StatusCode::CREATED)))
}

async fn insert_invite(shared: &Shared, row: invite::Model) -> Result<invite::Model, DbErr> {
    let transaction = shared.store.begin().await?;
    let stored = members::insert_invite(&transaction, row).await?;
    transaction.commit().await?;
    Ok(stored)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ").map(str::trim)
}

fn is_slug(slug: &str) -> bool {
    (1..=32).contains(&slug.len()) && slug.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn code_of(status: StatusCode) -> &'static str {
    if status == StatusCode::PAYLOAD_TOO_LARGE { "payload_too_large" } else { "invalid_json" }
}

fn failed(action: &str, error: &DbErr) -> Answer {
    tracing::error!(error = %error, "Cannot {action}: {error}");
    problem(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "the broker failed; its log has more")
}
