//! `PeerService`: who is in the mesh.

use std::sync::Arc;

use super::Services;
use crate::api::convert;
use crate::api::page::{Encoding, Page};
use crate::api::status::Failure;
use crate::domain::error_code::ErrorCode;
use crate::domain::profile::{Change, Status};
use crate::domain::provenance::Judge;
use crate::domain::roster::PinnedMember;
use crate::identity::ENVELOPE;
use crate::peers::{self, Presence, Sightings};
use crate::proto::pb;

/// What is known of all peers at one moment.
struct Seen {
    /// Who is connected now is known.
    is_known: bool,
    presence: Arc<Vec<Presence>>,
    sightings: Arc<Sightings>,
    judge: Arc<Judge>,
}

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
        let seen = Seen {
            is_known: deps.peers.is_presence_known(),
            presence: deps.peers.presence(),
            sightings: deps.peers.sightings(),
            judge: deps.peers.judge(),
        };
        let own = deps.identity.member_id();
        let is_shown =
            |member: &&PinnedMember| member.member_id == *own || !seen.sightings.hidden.contains(&member.member_id);
        let members = deps.peers.members();
        let mut peers: Vec<pb::Peer> = members.iter().filter(is_shown).map(|member| self.peer(member, &seen)).collect();
        peers.retain(|peer| {
            (peer.online != Some(false) || request.include_offline)
                && (request.roles.is_empty() || request.roles.contains(&peer.role))
                && page.takes(&place(peer))
        });
        peers.sort_by_cached_key(place);
        let (peers, next_page_token) = page.fill(peers.into_iter().map(|peer| (place(&peer), peer)), false);
        let presence_as_of = seen.sightings.as_of.map(convert::timestamp);
        Ok(pb::ListPeersResponse { peers, next_page_token, presence_as_of })
    }

    /// Changes what others see of this member.
    pub async fn set_profile(&self, request: pb::SetProfileRequest) -> Result<pb::SetProfileResponse, Failure> {
        let status = match request.status.map(pb::PeerStatus::try_from) {
            None => None,
            Some(Ok(pb::PeerStatus::Idle)) => Some(Status::Idle),
            Some(Ok(pb::PeerStatus::Working)) => Some(Status::Working),
            Some(Ok(pb::PeerStatus::Dnd)) => Some(Status::Dnd),
            Some(Ok(pb::PeerStatus::Unspecified) | Err(_)) => {
                return Err(Failure::field("status", "it is none of idle (1), working (2) and dnd (3)"));
            }
        };
        let change = Change { summary: request.summary, status, visible: request.visible };
        let profile = self.0.deps.peers.profile().change(change).await.map_err(|error| match error {
            peers::Error::Summary(error) => Failure::field("summary", error.to_string()),
            other => other.into(),
        })?;
        Ok(pb::SetProfileResponse {
            status: status_of(profile.status).into(),
            summary: profile.summary,
            visible: profile.visible,
        })
    }

    fn peer(&self, member: &PinnedMember, seen: &Seen) -> pb::Peer {
        let is_self = member.member_id == *self.0.deps.identity.member_id();
        let is_own = |one: &&Presence| member.is_known_by(one.member_key);
        let live: Vec<&Presence> = seen.presence.iter().filter(is_own).collect();
        let own = is_self.then(|| self.0.deps.peers.profile().get());
        let mut sessions: Vec<pb::PeerSession> = live.iter().map(|one| session(one)).collect();
        if let Some(own) = &own {
            // What this daemon says counts here, whatever the broker has of it yet.
            let key = member.key.to_hex();
            for one in sessions.iter_mut().filter(|one| one.role() == pb::PeerRole::ControlPlane && one.pubkey == key) {
                one.status = status_of(own.status).into();
                one.summary.clone_from(&own.summary);
            }
        }
        let busiest = [pb::PeerStatus::Working, pb::PeerStatus::Dnd, pb::PeerStatus::Idle];
        let roles = [pb::PeerRole::Session, pb::PeerRole::Service, pb::PeerRole::ControlPlane];
        let has = |status: &pb::PeerStatus| sessions.iter().any(|session| session.status() == *status);
        let said = own.as_ref().map_or(pb::PeerStatus::Unspecified, |own| status_of(own.status));
        let status = busiest.into_iter().find(|status| has(status) || said == *status).unwrap_or_default();
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
            summary: own.as_ref().map_or_else(|| first(|session| &session.summary), |own| own.summary.clone()),
            online: if is_self { Some(self.0.link.is_up()) } else { seen.is_known.then_some(!live.is_empty()) },
            role: role.into(),
            hostname: first(|session| &session.hostname),
            sessions,
            capabilities: member.capabilities.clone(),
            provenance: Some(convert::provenance(&seen.judge.member(member))),
            groups,
            visible: own.is_none_or(|own| own.visible),
            is_self,
            legacy: !member.capabilities.iter().any(|one| one == ENVELOPE),
            last_seen_at: seen
                .sightings
                .last_seen
                .get(&member.key)
                .map(|at| convert::timestamp(self.0.link.broker_time(*at))),
        }
    }
}

fn status_of(status: Status) -> pb::PeerStatus {
    match status {
        Status::Idle => pb::PeerStatus::Idle,
        Status::Working => pb::PeerStatus::Working,
        Status::Dnd => pb::PeerStatus::Dnd,
    }
}

fn session(one: &Presence) -> pb::PeerSession {
    let status = Status::parse(&one.status).map(status_of).unwrap_or_default();
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
