//! Signed requests about a mesh: its policy, members, invites and API keys.
//!
//! What it is for: one implementation for the link and for
//! `POST /v1/meshes/<id>/admin`; the signature says who asks, wherever it came
//! from.
//! What runs here: nothing on its own.
//! What it guarantees: a request is done for the owner's key or a current
//! member key alone, within a minute of its signature, and once.
//! What it must not do: trust a connection. A member's socket gives no right
//! that its signature does not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use sea_orm::DbErr;
use serde_json::json;

use super::http::{Answer, body, json as answer_json, problem};
use super::roster::{Member, Mesh, Settings, dedupe_mode_name, policy_name};
use super::session::peer::Peer;
use super::session::presence::{audit, members_list};
use super::session::terms::Reply;
use super::shared::Shared;
use super::store::members as store;
use super::{api_keys, departures, holdings, meshes};
use crate::crypto::sign::Statement;
use crate::domain::ids::MemberKey;
use crate::domain::time::UnixMillis;
use crate::wire::admin::{AdminAuth, InviteRow, InvitesList, MembersGet, MeshPolicy, MeshPolicySet};
use crate::wire::codec::{self, Limits};
use crate::wire::delivery::Ack;
use crate::wire::frame::{ClientFrame, ServerFrame};
use crate::wire::hello::MAX_HELLO_SKEW_MS;
use crate::wire::refusal::Refusal;
use crate::wire::roster::{ListRequest, MemberRow};
use crate::wire::text;

/// Invites and keys of one answer.
pub const MAX_ROWS: u64 = 500;
/// Members of one answer whose keys begin alike.
const MOST_NAMED: usize = 10;
/// Requests that are remembered before old ones are forgotten.
const SWEEP_AT: usize = 1_000;

/// Signatures that were used, until their time is over.
#[derive(Debug, Default)]
pub struct Seen(Mutex<HashMap<[u8; 64], Duration>>);

/// Who asks.
#[derive(Debug)]
pub struct Caller {
    /// Signed with the owner's key.
    pub is_owner: bool,
    /// The member with that key.
    pub member: Option<Arc<Member>>,
}

/// Why a request is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The code.
    pub refusal: Refusal,
    /// For people.
    pub message: String,
}

/// What became of a request: an answer of its own, or just "done".
pub type Outcome = Result<Option<ServerFrame>, Denied>;

// === impl Denied ===

impl Denied {
    /// With a text for people.
    pub fn new(refusal: Refusal, message: impl Into<String>) -> Self {
        Self { refusal, message: message.into() }
    }
}

impl From<DbErr> for Denied {
    fn from(error: DbErr) -> Self {
        tracing::error!(error = %error, "A request about a mesh failed: {error}");
        Self::new(Refusal::Internal, "the broker failed; its log has more")
    }
}

// === impl Caller ===

impl Caller {
    /// Whether it may change what others have.
    pub fn is_admin(&self) -> bool {
        self.is_owner || self.member.as_ref().is_some_and(|member| member.role == "admin")
    }

    fn name(&self) -> &str {
        self.member.as_ref().map_or("the owner", |member| &member.id)
    }
}

// === impl Seen ===

impl Seen {
    /// Notes a signature; false if it was used before.
    fn note(&self, signature: [u8; 64], now: Duration) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= SWEEP_AT {
            seen.retain(|_, until| *until > now);
        }
        // A signature holds for the allowed skew on both sides of its time.
        let until = now + Duration::from_millis(2 * MAX_HELLO_SKEW_MS);
        seen.insert(signature, until).is_none_or(|until| until <= now)
    }
}

/// Answers a request that came over the link.
pub async fn on_link(shared: &Arc<Shared>, peer: &Arc<Peer>, frame: ClientFrame) {
    let req_id = frame.admin().and_then(|(_, _, req_id)| req_id.map(str::to_owned));
    let here = frame.admin().is_some_and(|(mesh_id, ..)| mesh_id == peer.mesh.id);
    let outcome = if here {
        Box::pin(run(shared, frame)).await
    } else {
        Err(Denied::new(Refusal::Forbidden, "the request is about another mesh than this connection"))
    };
    let reply = match outcome {
        Ok(Some(frame)) => frame,
        Ok(None) => ServerFrame::Ack(Box::new(Ack { queued: false, req_id, ..Ack::default() })),
        Err(denied) => {
            let ack = Ack::refused("", denied.refusal);
            let error = ack.error.map(|text| format!("{text}; {}", denied.message));
            ServerFrame::Ack(Box::new(Ack { error, req_id, ..ack }))
        }
    };
    peer.reply(Reply::frame(reply));
}

/// Answers `POST /v1/meshes/<id>/admin`.
pub async fn over_http(shared: &Arc<Shared>, mesh_id: &str, request: Request<Incoming>) -> Answer {
    let value: serde_json::Value = match body(request).await {
        Ok(value) => value,
        Err((status, message)) => return problem(status, "invalid_json", &message),
    };
    let invalid = |message: &str| problem(StatusCode::BAD_REQUEST, "invalid_argument", message);
    let limits = Limits { max_bytes: codec::BASE_FRAME_BYTES, strict: true };
    let frame = match codec::decode_client(&value.to_string(), &limits) {
        Ok(decoded) => decoded.frame,
        Err(error) => return invalid(&error.kind.to_string()),
    };
    match frame.admin() {
        Some((named, ..)) if named == mesh_id => {}
        Some(_) => return invalid("meshId is not the mesh of the path"),
        None => return invalid("this type is no request about a mesh"),
    }
    match Box::pin(run(shared, frame)).await {
        Ok(Some(frame)) => answer_json(StatusCode::OK, &frame),
        Ok(None) => answer_json(StatusCode::OK, &json!({ "ok": true })),
        Err(denied) => {
            let status = match denied.refusal {
                Refusal::Forbidden => StatusCode::FORBIDDEN,
                Refusal::MeshNotFound | Refusal::RecipientNotFound => StatusCode::NOT_FOUND,
                Refusal::Internal => StatusCode::INTERNAL_SERVER_ERROR,
                _ => StatusCode::BAD_REQUEST,
            };
            problem(status, denied.refusal.as_str(), &denied.message)
        }
    }
}

async fn run(shared: &Arc<Shared>, frame: ClientFrame) -> Outcome {
    let (Some((mesh_id, auth, req_id)), Some(text)) = (frame.admin(), frame.admin_text()) else {
        return Err(Denied::new(Refusal::Invalid, "this type is no request about a mesh"));
    };
    let Some(mesh) = shared.roster.mesh(mesh_id).await? else {
        return Err(Denied::new(Refusal::MeshNotFound, "this broker has no such mesh"));
    };
    let caller = authenticate(shared, &mesh, auth, &text)?;
    let req_id = req_id.map(str::to_owned);
    match frame {
        ClientFrame::MembersGet(get) => members(shared, &mesh, &caller, get).await,
        ClientFrame::MeshPolicyGet(_) => Ok(Some(policy(mesh.settings(), req_id))),
        ClientFrame::MeshPolicySet(set) => {
            owner_only(&caller)?;
            set_policy(shared, &mesh, &set).await?;
            Ok(Some(policy(mesh.settings(), req_id)))
        }
        ClientFrame::MemberRevoke(revoke) => {
            admin_only(&caller)?;
            if mesh.member(&revoke.member_id).is_none() {
                return Err(Denied::new(Refusal::RecipientNotFound, "the mesh has no member with this id"));
            }
            departures::end(shared, &mesh, &revoke.member_id, caller.name()).await?;
            Ok(None)
        }
        ClientFrame::InviteCreate(create) => {
            owner_only(&caller)?;
            let row = meshes::store_signed_invite(shared, &mesh, create.token, create.max_uses).await?;
            Ok(Some(ServerFrame::InvitesList(InvitesList { invites: vec![invite_row(row)], req_id })))
        }
        ClientFrame::InviteList(_) => {
            admin_only(&caller)?;
            let rows = store::invites(shared.store.readers(), &mesh.id, MAX_ROWS).await?;
            let invites = rows.into_iter().map(invite_row).collect();
            Ok(Some(ServerFrame::InvitesList(InvitesList { invites, req_id })))
        }
        ClientFrame::InviteRevoke(revoke) => {
            admin_only(&caller)?;
            let transaction = shared.store.begin().await?;
            let known = store::revoke_invite(&transaction, &mesh.id, &revoke.invite_id, shared.store.now().0).await?;
            transaction.commit().await?;
            if !known {
                return Err(Denied::new(Refusal::RecipientNotFound, "the mesh has no invite with this id"));
            }
            let payload = json!({ "invite_id": revoke.invite_id, "by": caller.name() });
            audit(shared, &mesh.id, "invite_revoked", payload.to_string()).await;
            Ok(None)
        }
        ClientFrame::ApiKeyCreate(create) => api_keys::create(shared, &mesh, &caller, create).await,
        ClientFrame::ApiKeyList(_) => api_keys::list(shared, &mesh, &caller, req_id).await,
        ClientFrame::ApiKeyRevoke(revoke) => api_keys::revoke(shared, &mesh, &caller, &revoke.key_id).await,
        _ => Err(Denied::new(Refusal::Invalid, "this type is no request about a mesh")),
    }
}

/// Who is a member; for those who may remove somebody also what each holds.
async fn members(shared: &Shared, mesh: &Mesh, caller: &Caller, get: MembersGet) -> Outcome {
    let mut list = match &get.named {
        None => members_list(mesh, ListRequest { after: get.after, req_id: get.req_id }),
        // However large the others' rows are.
        Some(named) => {
            let prefix = named.to_ascii_lowercase();
            let is_it = |row: &MemberRow| row.member_id == *named || row.pubkey.starts_with(&prefix);
            let mut list = members_list(mesh, ListRequest { after: None, req_id: get.req_id });
            list.members.retain(is_it);
            list.members.truncate(MOST_NAMED);
            list
        }
    };
    if caller.is_admin() {
        let mut holds = holdings::of_mesh(shared, mesh).await?;
        for row in &mut list.members {
            row.holds = Some(holds.remove(&row.member_id).unwrap_or_default());
        }
    }
    Ok(Some(ServerFrame::MembersList(list)))
}

fn authenticate(shared: &Shared, mesh: &Mesh, auth: &AdminAuth, text: &str) -> Result<Caller, Denied> {
    let forbidden = |message: &str| Denied::new(Refusal::Forbidden, message);
    if UnixMillis(auth.ts).distance_ms(shared.clock.now()) > MAX_HELLO_SKEW_MS {
        return Err(forbidden("ts is more than 60 s from the broker's clock"));
    }
    let key = MemberKey::parse(&auth.signer).map_err(|_| forbidden("signer is no key"))?;
    let signature = text::signature_from_hex(&auth.signature).ok_or_else(|| forbidden("signature is none"))?;
    let statement = Statement::admin(&mesh.id, key, text, UnixMillis(auth.ts));
    if !statement.is_ok_and(|statement| statement.verify(key, &signature)) {
        return Err(forbidden("the request is not signed by its signer"));
    }
    let member = mesh.member_by_current_key(&key.to_hex()).filter(|member| member.revoked_at.is_none());
    let is_owner = mesh.owner_pubkey.eq_ignore_ascii_case(&key.to_hex());
    if !is_owner && member.is_none() {
        return Err(forbidden("the signer is no member of the mesh"));
    }
    if !shared.admin_seen.note(signature, shared.clock.monotonic()) {
        return Err(forbidden("the request was done before; sign it anew"));
    }
    Ok(Caller { is_owner, member })
}

fn owner_only(caller: &Caller) -> Result<(), Denied> {
    let denied = || Denied::new(Refusal::Forbidden, "only the mesh's owner may do this");
    caller.is_owner.then_some(()).ok_or_else(denied)
}

fn admin_only(caller: &Caller) -> Result<(), Denied> {
    let denied = || Denied::new(Refusal::Forbidden, "only the mesh's owner and its admins may do this");
    caller.is_admin().then_some(()).ok_or_else(denied)
}

async fn set_policy(shared: &Shared, mesh: &Mesh, set: &MeshPolicySet) -> Result<(), Denied> {
    let changing = shared.roster.changing().await;
    let before = mesh.settings();
    let settings = Settings {
        policy: set.concurrency_policy.unwrap_or(before.policy),
        dedupe_mode: set.dedupe_mode.unwrap_or(before.dedupe_mode),
    };
    let (policy, mode) = (policy_name(settings.policy), dedupe_mode_name(settings.dedupe_mode));
    let transaction = shared.store.begin().await?;
    store::set_settings(&transaction, &mesh.id, policy, mode, shared.store.now().0).await?;
    transaction.commit().await?;
    mesh.set_settings(&changing, settings);
    drop(changing);
    let payload = json!({ "concurrency_policy": policy, "dedupe_mode": mode });
    audit(shared, &mesh.id, "mesh_policy_set", payload.to_string()).await;
    Ok(())
}

fn policy(settings: Settings, req_id: Option<String>) -> ServerFrame {
    ServerFrame::MeshPolicy(MeshPolicy {
        concurrency_policy: settings.policy,
        dedupe_mode: settings.dedupe_mode,
        req_id,
    })
}

fn invite_row(row: super::store::entity::invite::Model) -> InviteRow {
    InviteRow {
        invite_id: row.id,
        role: row.role,
        max_uses: u64::try_from(row.max_uses).unwrap_or_default(),
        used_count: u64::try_from(row.used_count).unwrap_or_default(),
        created_at: row.created_at,
        expires_at: row.expires_at,
        revoked_at: row.revoked_at,
    }
}
