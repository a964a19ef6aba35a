//! `PeerService`: who is in the mesh.

use super::Services;
use super::keys::pin_state;
use crate::api::convert;
use crate::api::page::{Encoding, Page};
use crate::api::status::Failure;
use crate::domain::error_code::ErrorCode;
use crate::domain::roster::PinnedMember;
use crate::identity::ENVELOPE;
use crate::peers::{Presence, Sightings};
use crate::proto::pb;

// === impl Services ===

impl Services {
    /// A page of members.
    pub fn list_peers(
        &self,
        mut request: pb::ListPeersRequest,
        encoding: Encoding,
    ) -> Result<pb::ListPeersResponse, Failure> {
        let page = Page::of(&mut request, encoding)?;
        let deps = &self.0.deps;
        if !request.mesh.is_empty() && request.mesh != deps.mesh {
            let text =
                format!("this daemon serves mesh {}, not {}; ask that mesh's own daemon", deps.mesh, request.mesh);
            return Err(Failure::new(ErrorCode::MeshNotFound, text).with("mesh", &deps.mesh));
        }
        if let Some(number) = request.roles.iter().find(|number| pb::PeerRole::try_from(**number).is_err()) {
            return Err(Failure::field("roles", format!("{number} is no role")));
        }
        let (members, presence) = (deps.peers.members(), deps.peers.presence());
        let sightings = deps.peers.sightings();
        let mut peers: Vec<pb::Peer> = members.iter().map(|member| self.peer(member, &presence, &sightings)).collect();
        peers.retain(|peer| {
            (peer.online() || request.include_offline)
                && (request.roles.is_empty() || request.roles.contains(&peer.role))
                && page.takes(&place(peer))
        });
        peers.sort_by_cached_key(place);
        let (peers, next_page_token) = page.fill(peers.into_iter().map(|peer| (place(&peer), peer)), false);
        Ok(pb::ListPeersResponse { peers, next_page_token, presence_as_of: sightings.as_of.map(convert::timestamp) })
    }

    /// Changes what others see of this member.
    pub fn set_profile(&self, _request: pb::SetProfileRequest) -> Result<pb::SetProfileResponse, Failure> {
        Err(Failure::not_served("profiles"))
    }

    fn peer(&self, member: &PinnedMember, presence: &[Presence], sightings: &Sightings) -> pb::Peer {
        let is_own = |one: &&Presence| member.is_known_by(one.member_key);
        let live: Vec<&Presence> = presence.iter().filter(is_own).collect();
        let sessions: Vec<pb::PeerSession> = live.iter().map(|one| session(one)).collect();
        let busiest = [pb::PeerStatus::Working, pb::PeerStatus::Dnd, pb::PeerStatus::Idle];
        let roles = [pb::PeerRole::Session, pb::PeerRole::Service, pb::PeerRole::ControlPlane];
        let has = |status: &pb::PeerStatus| sessions.iter().any(|session| session.status() == *status);
        let status = busiest.into_iter().find(has).unwrap_or_default();
        let has = |role: &pb::PeerRole| sessions.iter().any(|session| session.role() == *role);
        let role = roles.into_iter().find(has).unwrap_or_default();
        let first = |text: fn(&pb::PeerSession) -> &String| {
            sessions.iter().map(text).find(|text| !text.is_empty()).cloned().unwrap_or_default()
        };
        let mut groups: Vec<pb::PeerGroup> = Vec::new();
        for group in sessions.iter().flat_map(|session| &session.groups) {
            if !groups.contains(group) {
                groups.push(group.clone());
            }
        }
        pb::Peer {
            member_id: member.member_id.to_string(),
            pubkey: member.key.to_hex(),
            display_name: member.display_name.clone(),
            status: status.into(),
            summary: first(|session| &session.summary),
            online: Some(!live.is_empty()),
            role: role.into(),
            hostname: first(|session| &session.hostname),
            sessions,
            capabilities: member.capabilities.clone(),
            provenance: Some(pb::Provenance { pin_state: pin_state(member).into(), ..pb::Provenance::default() }),
            groups,
            visible: live.is_empty() || live.iter().any(|one| one.visible),
            is_self: member.member_id == *self.0.deps.identity.member_id(),
            legacy: !member.capabilities.iter().any(|one| one == ENVELOPE),
            last_seen_at: sightings
                .last_seen
                .get(&member.key)
                .map(|at| convert::timestamp(self.0.link.broker_time(*at))),
        }
    }
}

fn session(one: &Presence) -> pb::PeerSession {
    let status = match one.status.as_str() {
        "idle" => pb::PeerStatus::Idle,
        "working" => pb::PeerStatus::Working,
        "dnd" => pb::PeerStatus::Dnd,
        _ => pb::PeerStatus::Unspecified,
    };
    let role = match one.role.as_str() {
        "control-plane" => pb::PeerRole::ControlPlane,
        "session" => pb::PeerRole::Session,
        "service" => pb::PeerRole::Service,
        _ => pb::PeerRole::Unspecified,
    };
    pb::PeerSession {
        session_id: one.session_id.clone(),
        pubkey: one.key.to_hex(),
        role: role.into(),
        display_name: one.display_name.clone(),
        status: status.into(),
        summary: one.summary.clone().unwrap_or_default(),
        hostname: one.hostname.clone().unwrap_or_default(),
        cwd: String::new(),
        groups: one.groups.iter().map(|name| pb::PeerGroup { name: name.clone(), role: String::new() }).collect(),
        // The broker's word; what is no time is left out.
        connected_at: one.connected_at.parse().ok(),
    }
}

/// Where a peer stands in the list: by name, then by id.
fn place(peer: &pb::Peer) -> String {
    format!("{}\0{}", peer.display_name, peer.member_id)
}
