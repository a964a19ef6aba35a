//! API keys, and the sends that come with one: `POST /v1/messages`.
//!
//! A key speaks for one member. The message is sealed before it comes here, as
//! on the link: a key opens no box and reads nothing. It is shown once; the
//! broker keeps its hash.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::accept;
use super::admin::{Caller, Denied, MAX_ROWS, Outcome};
use super::holdings::MEMBER_API_KEYS;
use super::http::{Answer, body_within, json as answer_json, problem};
use super::roster::Mesh;
use super::session::peer::Peer;
use super::session::terms::{Facts, Identity, Kind, Profile, Reply};
use super::shared::{MAX_INLINE_BYTES, Shared};
use super::store::api_keys as store;
use super::store::entity::api_key::Model;
use crate::domain::time::UnixMillis;
use crate::wire::admin::{ApiKeyCreate, ApiKeyCreated, ApiKeyRow, ApiKeysList};
use crate::wire::codec::{self, Limits};
use crate::wire::delivery::Ack;
use crate::wire::frame::{ClientFrame, ServerFrame};
use crate::wire::refusal::Refusal;
use crate::wire::text;

/// What every key begins with, so that it is known for what it is.
const PREFIX: &str = "cmk_";
/// Longest name, in bytes.
const MAX_NAME_BYTES: usize = 128;
/// How exact the time of the last use is: one write a minute and key.
const USED_MS: i64 = 60_000;

/// Makes a key for the signing member.
pub async fn create(shared: &Arc<Shared>, mesh: &Mesh, caller: &Caller, request: ApiKeyCreate) -> Outcome {
    let Some(member) = &caller.member else {
        return Err(Denied::new(Refusal::Forbidden, "a key speaks for a member: sign with a member key"));
    };
    let name = request.name.trim();
    if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
        return Err(Denied::new(Refusal::Invalid, "name must be 1 to 128 bytes without control characters"));
    }
    let secret = shared.ids.random::<32>().map_err(|error| {
        tracing::error!(error = %error, "Cannot make a key: {error}");
        Denied::new(Refusal::Internal, "the broker failed; its log has more")
    })?;
    let id = shared.ids.ulid();
    let key = format!("{PREFIX}{id}_{}", text::to_base64url(&secret));
    let row = Model {
        id: id.clone(),
        mesh_id: request.mesh_id,
        member_id: member.id.clone(),
        name: name.to_owned(),
        secret_hash: hash(&key),
        allow_unencrypted: request.allow_unencrypted,
        created_at: shared.store.now().0,
        last_used_at: None,
        revoked_at: None,
    };
    let transaction = shared.store.begin().await?;
    if store::count(&transaction, &mesh.id, &member.id).await? >= MEMBER_API_KEYS {
        let text = format!("this member has {MEMBER_API_KEYS} keys; revoke one that is not used");
        return Err(Denied::new(Refusal::Forbidden, text));
    }
    store::insert(&transaction, row).await?;
    transaction.commit().await?;
    Ok(Some(ServerFrame::ApiKeyCreated(ApiKeyCreated { key_id: id, key, req_id: request.req_id })))
}

/// Lists keys: all of the mesh for who may administer it, else one's own.
pub async fn list(shared: &Shared, mesh: &Mesh, caller: &Caller, req_id: Option<String>) -> Outcome {
    let of = if caller.is_admin() { None } else { caller.member.as_ref().map(|member| member.id.as_str()) };
    let rows = store::list(shared.store.readers(), &mesh.id, of, MAX_ROWS).await?;
    let row = |row: Model| ApiKeyRow {
        key_id: row.id,
        member_id: row.member_id,
        name: row.name,
        allow_unencrypted: row.allow_unencrypted,
        created_at: row.created_at,
        last_used_at: row.last_used_at,
        revoked_at: row.revoked_at,
    };
    Ok(Some(ServerFrame::ApiKeysList(ApiKeysList { keys: rows.into_iter().map(row).collect(), req_id })))
}

/// Ends a key.
pub async fn revoke(shared: &Shared, mesh: &Mesh, caller: &Caller, key_id: &str) -> Outcome {
    let own = |row: &Model| caller.member.as_ref().is_some_and(|member| member.id == row.member_id);
    let row = store::find(shared.store.readers(), key_id).await?;
    if !row.is_some_and(|row| row.mesh_id == mesh.id && (caller.is_admin() || own(&row))) {
        return Err(Denied::new(Refusal::RecipientNotFound, "there is no such key of yours in this mesh"));
    }
    let transaction = shared.store.begin().await?;
    store::revoke(&transaction, key_id, shared.store.now().0).await?;
    transaction.commit().await?;
    Ok(None)
}

/// Answers `POST /v1/messages`: the fields of a `send` frame as the body, the id
/// in the header `Idempotency-Key` or in `client_message_id`.
pub async fn send(shared: &Arc<Shared>, request: Request<Incoming>) -> Answer {
    let bearer = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = bearer.and_then(|value| value.strip_prefix("Bearer ")).map(|key| key.trim().to_owned());
    let header = request.headers().get("idempotency-key").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (key, mesh) = match identify(shared, bearer.as_deref()).await {
        Ok(Some(found)) => found,
        Ok(None) => {
            let message = "the bearer token is no API key of this broker, or was revoked";
            return problem(StatusCode::UNAUTHORIZED, "unauthenticated", message);
        }
        Err(denied) => return problem(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", &denied.message),
    };
    let mut value: Value = match body_within(request, MAX_INLINE_BYTES).await {
        Ok(value) => value,
        Err((StatusCode::PAYLOAD_TOO_LARGE, message)) => {
            return problem(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", &message);
        }
        Err((status, message)) => return problem(status, "invalid_json", &message),
    };
    let invalid = |message: &str| problem(StatusCode::BAD_REQUEST, "invalid_argument", message);
    let Some(fields) = value.as_object_mut() else { return invalid("the body must be an object") };
    fields.insert("type".to_owned(), json!("send"));
    if let Some(id) = header {
        fields.insert("client_message_id".to_owned(), json!(id));
    }
    let limits = Limits { max_bytes: MAX_INLINE_BYTES, strict: true };
    let send = match codec::decode_client(&value.to_string(), &limits) {
        Ok(decoded) => match decoded.frame {
            ClientFrame::Send(send) => send,
            _ => return invalid("the body is no send"),
        },
        Err(error) => return invalid(&error.kind.to_string()),
    };
    let plain_post = send.target_spec.starts_with('#') && send.key_epoch.is_none();
    let plain = plain_post || send.target_spec.starts_with(['*', '@']) || send.body_version == Some(1);
    if plain && !key.allow_unencrypted {
        let message = "this target is not encrypted, and the key does not allow that";
        return problem(StatusCode::FORBIDDEN, Refusal::Unencrypted.as_str(), message);
    }
    let client_message_id = send.client_message_id.clone();
    let Some(peer) = sender(shared, &mesh, &key) else {
        return problem(StatusCode::FORBIDDEN, "forbidden", "the key's member was revoked");
    };
    let (peer, mut queues) = peer;
    accept::submit(shared, &peer, *send).await;
    match queues.replies.recv().await {
        Some(Reply::Ack(frame) | Reply::Frame(frame)) => match *frame {
            ServerFrame::Ack(ack) => answer(&ack, client_message_id.as_deref()),
            _ => problem(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "the broker gave no answer"),
        },
        _ => problem(StatusCode::SERVICE_UNAVAILABLE, "busy", "the broker stops; try again later"),
    }
}

/// The key with its mesh. A key that is unknown, revoked or wrong looks the same.
async fn identify(shared: &Arc<Shared>, bearer: Option<&str>) -> Result<Option<(Model, Arc<Mesh>)>, Denied> {
    let Some(bearer) = bearer.filter(|key| key.len() <= 128 && key.starts_with(PREFIX)) else { return Ok(None) };
    let Some((id, _)) = bearer[PREFIX.len()..].split_once('_') else { return Ok(None) };
    let Some(row) = store::find(shared.store.readers(), id).await? else { return Ok(None) };
    let is_it: bool = row.secret_hash.as_bytes().ct_eq(hash(bearer).as_bytes()).into();
    if !is_it || row.revoked_at.is_some() {
        return Ok(None);
    }
    let Some(mesh) = shared.roster.mesh(&row.mesh_id).await? else { return Ok(None) };
    let now = shared.store.now().0;
    if row.last_used_at.is_none_or(|at| at + USED_MS <= now) {
        let transaction = shared.store.begin().await?;
        store::used(&transaction, &row.id, now).await?;
        transaction.commit().await?;
    }
    Ok(Some((row, mesh)))
}

/// A sender without a connection: nobody sees it, and its only reply is read
/// here.
fn sender(shared: &Shared, mesh: &Arc<Mesh>, key: &Model) -> Option<(Arc<Peer>, super::session::terms::Queues)> {
    let member = mesh.member(&key.member_id).filter(|member| member.revoked_at.is_none())?;
    let identity = Identity {
        presence_id: format!("api-{}", key.id),
        mesh: Arc::clone(mesh),
        member_id: member.id.clone(),
        member_pubkey: member.pubkey.clone(),
        kind: Kind::Member,
        facts: Facts { session_id: format!("api-{}", key.id), ..Facts::default() },
        connected_at: UnixMillis(shared.clock.now().0),
        generation: 0,
        profile: Profile::default(),
    };
    Some(Peer::new(identity, shared.clock.monotonic()))
}

fn answer(ack: &Ack, client_message_id: Option<&str>) -> Answer {
    if ack.queued {
        let duplicate = ack.duplicate.unwrap_or(false);
        let status = if duplicate { StatusCode::OK } else { StatusCode::CREATED };
        let fields = json!({
            "messageId": ack.message_id,
            "historyId": ack.history_id,
            "client_message_id": client_message_id,
            "duplicate": duplicate,
            "historyAvailable": ack.history_available.unwrap_or(true),
            "firstSeenAt": ack.first_seen_at,
        });
        return answer_json(status, &fields);
    }
    let refusal = ack.code.as_deref().and_then(Refusal::parse).unwrap_or(Refusal::Internal);
    let status = match refusal {
        Refusal::IdempotencyKeyReused => StatusCode::CONFLICT,
        Refusal::RateLimit | Refusal::RecipientQueueFull => StatusCode::TOO_MANY_REQUESTS,
        Refusal::Busy => StatusCode::SERVICE_UNAVAILABLE,
        Refusal::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Refusal::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Refusal::RecipientNotFound | Refusal::TopicNotFound | Refusal::MeshNotFound => StatusCode::NOT_FOUND,
        Refusal::Forbidden | Refusal::Unencrypted | Refusal::RecipientRevoked => StatusCode::FORBIDDEN,
        _ => StatusCode::BAD_REQUEST,
    };
    let mut fields = json!({
        "code": refusal.as_str(),
        "message": ack.error.as_deref().unwrap_or_default(),
        "retryable": refusal.retryable(),
    });
    if !ack.message_id.is_empty() {
        fields["messageId"] = json!(ack.message_id);
        fields["historyId"] = json!(ack.history_id);
    }
    if let Some(after) = ack.retry_after_ms {
        fields["retryAfterMs"] = json!(after);
    }
    let mut answer: Response<_> = answer_json(status, &fields);
    if let Some(after) = ack.retry_after_ms
        && let Ok(seconds) = http::HeaderValue::from_str(&after.div_ceil(1000).max(1).to_string())
    {
        answer.headers_mut().insert(http::header::RETRY_AFTER, seconds);
    }
    answer
}

fn hash(key: &str) -> String {
    hex::encode(Sha256::digest(key.as_bytes()))
}
