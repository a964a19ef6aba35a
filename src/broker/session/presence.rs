//! Who is shown as present, who is told, and the end of leases.

use std::sync::Arc;

use serde_json::json;
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;

use super::negotiate;
use super::peer::Peer;
use super::terms::Kind;
use crate::broker::fanout::Audience;
use crate::broker::roster::Mesh;
use crate::broker::shared::Shared;
use crate::broker::store::entity::{audit, presence as row};
use crate::broker::store::presence as store;
use crate::wire::codec;
use crate::wire::event::{ConcurrentConnection, PeerEvent, SystemEvent};
use crate::wire::frame::ServerFrame;
use crate::wire::roster::{MemberRow, MembersList, PeerRow, PeersList};
use crate::wire::text;

/// Connections of a mesh above which comings and goings are no longer told:
/// each would cost a frame to everybody.
const MAX_AUDIENCE: usize = 1_000;
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
pub fn peers_list(shared: &Shared, asker: &Peer, req_id: Option<String>) -> PeersList {
    let mut peers = shared.registry.of_mesh(&asker.mesh.id);
    peers.retain(|peer| peer.member_id == asker.member_id || peer.profile().visible);
    peers.sort_by_key(|peer| (peer.connected_at, peer.serial()));
    PeersList { peers: peers.iter().map(|peer| peer_row(peer, asker)).collect(), req_id }
}

/// The answer to `member_list`: all members, whatever they show and wherever
/// they are.
pub fn members_list(mesh: &Mesh, req_id: Option<String>) -> MembersList {
    let row = |member: Arc<crate::broker::roster::Member>| MemberRow {
        member_id: member.id.clone(),
        pubkey: member.pubkey.clone(),
        display_name: member.display_name.clone(),
        role: member.role.clone(),
        joined_at: member.joined_at,
        revoked_at: member.revoked_at,
        capabilities: member.capabilities.clone(),
        rotations: Some(mesh.rotations(&member.id)).filter(|chain| !chain.is_empty()),
        certificate: member.certificate.clone(),
    };
    MembersList { members: mesh.all().into_iter().map(row).collect(), req_id }
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
    }
}

fn tell_all(shared: &Shared, peer: &Peer, audience: &Audience, event: SystemEvent) {
    let hidden = !peer.profile().visible && !matches!(event, SystemEvent::PeerHidden(_));
    if !hidden && shared.registry.online_count(&peer.mesh.id) <= MAX_AUDIENCE {
        send_event(shared, &peer.mesh.id, audience, event);
    }
}

fn subject(peer: &Peer) -> PeerEvent {
    PeerEvent { name: peer.name(), pubkey: peer.routing_key().to_owned(), ..PeerEvent::default() }
}

fn peer_row(peer: &Peer, asker: &Peer) -> PeerRow {
    let display_name = peer.name();
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
        visible: (peer.member_id == asker.member_id).then_some(profile.visible),
        profile: profile.profile.clone(),
        capabilities: peer.mesh.member(&peer.member_id).and_then(|member| member.capabilities.clone()),
    }
}
