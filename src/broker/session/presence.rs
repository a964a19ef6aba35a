//! Who is shown as present, who is told, and the end of leases.

use std::sync::Arc;

use serde::Serialize;
use serde_json::json;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;

use super::peer::Peer;
use super::terms::Kind;
use super::{negotiate, shown};
use crate::broker::fanout::Audience;
use crate::broker::roster::Mesh;
use crate::broker::shared::Shared;
use crate::broker::store::entity::{audit, presence as row};
use crate::broker::store::presence as store;
use crate::domain::time::UnixMillis;
use crate::wire::codec;
use crate::wire::event::{ConcurrentConnection, PeerEvent, SystemEvent};
use crate::wire::frame::ServerFrame;
use crate::wire::roster::{ListRequest, MemberRow, MembersList, PeerRow, PeersList};
use crate::wire::text;

/// Connections of a mesh above which comings and goings are no longer told:
/// each would cost a frame to everybody.
const MAX_AUDIENCE: usize = 1_000;
/// Bytes of a page of a list, encoded.
const PAGE_BYTES: usize = 512 * 1024;
/// The event of a second connection.
const CONCURRENT: &str = "member_concurrent_connection";

/// Tells the others that a connection came.
pub fn joined(shared: &Shared, peer: &Peer) {
    let audience = match peer.kind {
        Kind::Member => Audience::OtherMembers(peer.member_id.clone()),
        Kind::Session => Audience::OtherConnections(peer.presence_id.clone()),
    };
    let groups = Some(peer.profile().groups.clone());
    let event = SystemEvent::PeerJoined(PeerEvent { groups, ..subject(peer) });
    tell_all(shared, peer, &audience, event);
}

/// Tells the others that a connection shows or hides itself.
pub fn visibility(shared: &Shared, peer: &Peer, visible: bool) {
    let event = if visible { SystemEvent::PeerVisible(subject(peer)) } else { SystemEvent::PeerHidden(subject(peer)) };
    tell_all(shared, peer, &Audience::OtherConnections(peer.presence_id.clone()), event);
}

/// Sends an event to an audience.
pub fn send_event(shared: &Shared, mesh_id: &str, audience: &Audience, event: SystemEvent) {
    let created_at = text::to_iso(shared.clock.now());
    let push = event.into_push(shared.ids.ulid(), mesh_id.to_owned(), created_at);
    match codec::encode(&ServerFrame::Push(Box::new(push))) {
        Ok(text) => {
            let dropped = shared.fanout.event(mesh_id, audience, &Utf8Bytes::from(text));
            shared.metrics.events_dropped.inc_by(dropped as u64);
        }
        Err(error) => tracing::warn!(error = %error, "Cannot write an event: {error}"),
    }
}

/// The answer to `list_peers`: connections and leases, oldest first. Hidden ones
/// are in nobody else's list.
pub fn peers_list(shared: &Shared, asker: &Peer, request: ListRequest) -> PeersList {
    let mut peers = shared.registry.of_mesh(&asker.mesh.id);
    peers.retain(|peer| peer.member_id == asker.member_id || peer.is_visible());
    let mut rows: Vec<PeerRow> = peers.iter().map(|peer| peer_row(peer, asker)).collect();
    let others = shared.nodes.elsewhere(&asker.mesh.id);
    rows.extend(others.iter().filter_map(|other| elsewhere_row(shared, other, asker)));
    // Times of one form, which sorts as they do.
    let place = |row: &PeerRow| format!("{} {} {}", row.connected_at, row.pubkey, row.session_id);
    rows.sort_by_cached_key(place);
    let (peers, next) = page(rows, request.after.as_deref(), place);
    PeersList { peers, next, req_id: request.req_id }
}

/// The answer to `member_list`: all members, whatever they show and wherever
/// they are.
pub fn members_list(mesh: &Mesh, request: ListRequest) -> MembersList {
    let row = |member: Arc<crate::broker::roster::Member>| MemberRow {
        member_id: member.id.clone(),
        pubkey: member.pubkey.clone(),
        display_name: member.display_name.clone(),
        role: member.role.clone(),
        joined_at: member.joined_at,
        revoked_at: member.revoked_at,
        capabilities: member.capabilities.clone(),
        rotations: Some(mesh.rotations(&member.id)).filter(|chain| !chain.is_empty()),
        hidden: (!member.shown.visible).then_some(true),
        certificate: member.certificate.clone(),
        holds: None,
    };
    let all = mesh.all();
    let from = request.after.as_ref().and_then(|after| all.iter().position(|member| member.id == *after));
    let rows = all.into_iter().skip(from.map_or(0, |at| at + 1)).map(row);
    let (members, next) = page_of(rows, request.after.is_some(), |row| row.member_id.clone());
    MembersList { members, next, req_id: request.req_id }
}

/// The rows of a page that come after a place, and the place of the last one if more
/// follow.
fn page<R: Serialize>(rows: Vec<R>, after: Option<&str>, place: impl Fn(&R) -> String) -> (Vec<R>, Option<String>) {
    let rest = rows.into_iter().skip_while(|row| after.is_some_and(|after| *place(row) <= *after));
    page_of(rest, after.is_some(), &place)
}

/// As many of these rows as a page holds, one at least; all of them for clients that
/// take no pages.
fn page_of<R: Serialize>(
    rows: impl Iterator<Item = R>,
    in_pages: bool,
    place: impl Fn(&R) -> String,
) -> (Vec<R>, Option<String>) {
    let mut rows = rows.peekable();
    let (mut taken, mut bytes): (Vec<R>, usize) = (Vec::new(), 0);
    while let Some(row) = rows.peek() {
        bytes += if in_pages { serde_json::to_string(row).map_or(PAGE_BYTES, |text| text.len()) } else { 0 };
        if bytes > PAGE_BYTES && !taken.is_empty() {
            let last = taken.last().map(place);
            return (taken, last);
        }
        taken.extend(rows.next());
    }
    (taken, None)
}

/// Notes that a member connected while it was connected.
pub async fn audit_concurrent(shared: &Shared, older: &Peer, policy: &str) {
    audit(shared, &older.mesh.id, CONCURRENT, negotiate::audit_payload(older, policy)).await;
}

/// Notes that a member connected while another broker has a connection of it,
/// and tells those who may act on it.
pub async fn tell_concurrent_elsewhere(shared: &Shared, mesh: &Mesh, older: &row::Model, policy: &str) {
    let pubkey = mesh.member(&older.member_id).map(|member| member.pubkey.clone()).unwrap_or_default();
    let payload = json!({
        "member_id": older.member_id,
        "pubkey": pubkey,
        "older_node_id": older.node_id,
        "older_instance_id": older.instance_id,
        "policy": policy,
    });
    audit(shared, &mesh.id, CONCURRENT, payload.to_string()).await;
    let (member_id, policy) = (older.member_id.clone(), mesh.policy());
    let event = SystemEvent::MemberConcurrentConnection(ConcurrentConnection { member_id, pubkey, policy });
    send_event(shared, &mesh.id, &Audience::Admins, event);
}

/// Writes an audit row.
pub async fn audit(shared: &Shared, mesh_id: &str, event: &str, payload: String) {
    let row = audit::Model {
        id: shared.ids.ulid(),
        mesh_id: mesh_id.to_owned(),
        event: event.to_owned(),
        payload,
        at: shared.store.now().0,
    };
    let written = async {
        let transaction = shared.store.begin().await?;
        store::insert_audit(&transaction, row).await?;
        transaction.commit().await
    };
    if let Err(error) = written.await {
        tracing::warn!(error = %error, "Cannot write an audit row: {error}");
    }
}

/// Tells the others that a connection is gone for good.
pub fn tell_left(shared: &Shared, peer: &Peer) {
    tell_all(shared, peer, &Audience::OtherMembers(peer.member_id.clone()), SystemEvent::PeerLeft(subject(peer)));
}

/// Ends leases when their time is over, until `stop`.
pub async fn end_leases(shared: Arc<Shared>, stop: CancellationToken) {
    let tick = (shared.config.timers.grace / 20)
        .clamp(std::time::Duration::from_millis(10), std::time::Duration::from_secs(1));
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(tick) => {}
        }
        for peer in shared.registry.expire(shared.clock.monotonic()) {
            tell_left(&shared, &peer);
        }
        shown::tell_changes(&shared).await;
    }
}

fn tell_all(shared: &Shared, peer: &Peer, audience: &Audience, event: SystemEvent) {
    let hidden = !peer.is_visible() && !matches!(event, SystemEvent::PeerHidden(_));
    if !hidden && is_told(shared, &peer.mesh.id) {
        send_event(shared, &peer.mesh.id, audience, event);
    }
}

/// Whether the mesh is small enough to be told of each coming and going.
pub fn is_told(shared: &Shared, mesh_id: &str) -> bool {
    shared.registry.online_count(mesh_id) <= MAX_AUDIENCE
}

/// Tells the others that a daemon came or went at another broker.
pub fn moved_elsewhere(shared: &Shared, mesh: &Mesh, member_id: &str, came: bool) {
    let Some(member) = mesh.member(member_id).filter(|member| member.shown.visible) else { return };
    let subject =
        PeerEvent { name: member.display_name.clone(), pubkey: member.pubkey.clone(), ..PeerEvent::default() };
    let event = if came { SystemEvent::PeerJoined(subject) } else { SystemEvent::PeerLeft(subject) };
    if is_told(shared, &mesh.id) {
        send_event(shared, &mesh.id, &Audience::OtherMembers(member.id.clone()), event);
    }
}

fn subject(peer: &Peer) -> PeerEvent {
    PeerEvent { name: peer.name(), pubkey: peer.routing_key().to_owned(), ..PeerEvent::default() }
}

/// A daemon that another broker has: what the database knows of it.
fn elsewhere_row(shared: &Shared, other: &store::Elsewhere, asker: &Peer) -> Option<PeerRow> {
    let member = asker.mesh.member(&other.member_id)?;
    let is_own = member.id == asker.member_id;
    let is_here = |peer: &Arc<Peer>| peer.facts.instance_id.as_deref() == Some(other.instance_id.as_str());
    if !(is_own || member.shown.visible) || shared.registry.of_member(&other.mesh_id, &member.id).iter().any(is_here) {
        return None;
    }
    Some(PeerRow {
        pubkey: member.pubkey.clone(),
        member_pubkey: member.pubkey.clone(),
        display_name: member.display_name.clone(),
        status: member.shown.status.clone(),
        summary: Some(member.shown.summary.clone()),
        session_id: other.instance_id.clone(),
        connected_at: text::to_iso(UnixMillis(other.connected_at)),
        peer_role: Some("control-plane".to_owned()),
        visible: is_own.then_some(member.shown.visible),
        capabilities: member.capabilities.clone(),
        ..PeerRow::default()
    })
}

fn peer_row(peer: &Peer, asker: &Peer) -> PeerRow {
    let display_name = peer.name();
    let visible = peer.is_visible();
    let profile = peer.profile();
    PeerRow {
        pubkey: peer.routing_key().to_owned(),
        member_pubkey: peer.member_pubkey.clone(),
        display_name,
        status: profile.status.clone(),
        summary: profile.summary.clone(),
        groups: profile.groups.clone(),
        session_id: peer.facts.session_id.clone(),
        connected_at: text::to_iso(peer.connected_at),
        cwd: peer.facts.cwd.clone(),
        peer_role: Some(match peer.kind {
            Kind::Member => "control-plane".to_owned(),
            Kind::Session => "session".to_owned(),
        }),
        hostname: peer.facts.hostname.clone(),
        peer_type: peer.facts.peer_type.clone(),
        channel: peer.facts.channel.clone(),
        model: peer.facts.model.clone(),
        stats: profile.stats.clone(),
        visible: (peer.member_id == asker.member_id).then_some(visible),
        profile: profile.profile.clone(),
        capabilities: peer.mesh.member(&peer.member_id).and_then(|member| member.capabilities.clone()),
    }
}
