//! One broker process: everybody who must be told is connected here.

use std::sync::Arc;

use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{Audience, Fanout, Outbound, Route};
use crate::broker::session::Registry;
use crate::broker::session::peer::Peer;
use crate::broker::session::terms::Kind;
use crate::wire::features::Feature;

/// Fan-out to this process's connections.
#[derive(Debug)]
pub struct LocalFanout {
    registry: Arc<Registry>,
}

// === impl LocalFanout ===

impl LocalFanout {
    /// Over these connections.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry }
    }

    fn targets(&self, mesh_id: &str, member_id: &str, route: &Route) -> Vec<Arc<Peer>> {
        if let Route::Session(key) = route {
            return self.registry.by_session_key(mesh_id, key).into_iter().filter(|peer| peer.is_online()).collect();
        }
        let mut peers = self.registry.of_member(mesh_id, member_id);
        peers.retain(|peer| peer.is_online());
        match route {
            Route::Member => {
                if peers.iter().any(|peer| peer.kind == Kind::Member) {
                    peers.retain(|peer| peer.kind == Kind::Member);
                }
            }
            Route::Everyone => peers.retain(|peer| peer.is_visible()),
            Route::Group(name) => {
                peers.retain(|peer| peer.is_visible() && peer.profile().groups.iter().any(|group| group.name == *name))
            }
            Route::Session(_) => {}
        }
        peers
    }
}

// === impl Fanout ===

impl Fanout for LocalFanout {
    fn taker(&self, mesh_id: &str, sender_id: &str, member_id: &str, route: &Route) -> Option<String> {
        let targets = self.targets(mesh_id, member_id, route);
        targets.iter().find(|peer| !peer.is_behind(sender_id)).map(|peer| peer.presence_id.clone())
    }

    fn is_online(&self, mesh_id: &str, member_id: &str) -> bool {
        !self.targets(mesh_id, member_id, &Route::Member).is_empty()
    }

    fn copies(&self, mesh_id: &str, copies: Vec<Outbound>) {
        for Outbound { member_id, route, copy } in copies {
            for peer in self.targets(mesh_id, &member_id, &route) {
                peer.offer(copy.clone());
            }
        }
    }

    fn event(&self, mesh_id: &str, audience: &Audience, text: &Utf8Bytes) -> usize {
        let peers = self.registry.of_mesh(mesh_id);
        let hears = |peer: &Arc<Peer>| match audience {
            Audience::OtherMembers(member_id) => peer.member_id != *member_id,
            Audience::OtherConnections(presence_id) => peer.presence_id != *presence_id,
            Audience::TopicMembers(members) => peer.has(Feature::TopicE2e) && members.contains(&peer.member_id),
            Audience::Negotiating => peer.negotiates(),
            Audience::Admins => peer.has(Feature::ConcurrentConnectionPolicy) && peer.is_admin(),
        };
        peers.iter().filter(|peer| peer.is_online() && hears(peer) && !peer.event(text)).count()
    }
}
