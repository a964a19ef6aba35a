//! Who is connected: every connection of this broker, and the leases of those
//! that were lost a moment ago.
//!
//! What it is for: routing (who gets a message), presence (who is shown), and
//! the rule for a second connection of one member.
//! What runs here: one task for each socket ([`connection`]) and one that ends
//! leases ([`presence`]).
//! What it guarantees: a lost connection is shown for the grace time and comes
//! back without a word to others; the close of a replaced socket changes
//! nothing; two members never displace each other, whatever ids they choose.
//! What it must not do: store messages, or hold its lock across an await.
//!
//! ```text
//!            hello                  socket lost            grace over
//!   (none) ---------> online --------------------> lease -------------> (none)
//!                     ^   |  same client again         |               peer_left
//!                     |   +---> replaced (closed)      |
//!                     +--------------------------------+
//!                           same client again: silent
//! ```

pub mod admission;
pub mod connection;
pub mod frames;
pub mod handshake;
pub mod negotiate;
pub mod peer;
pub mod presence;
pub mod push;
pub mod rotation;
pub mod shown;
pub mod terms;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::peer::Peer;
use self::terms::{Facts, Kind};

/// Every connection and lease of this broker.
#[derive(Debug, Default)]
pub struct Registry {
    // A std mutex: held for look-ups and moves of pointers, never across an
    // await.
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    serial: u64,
    meshes: HashMap<String, MeshPeers>,
    /// In the order in which the leases end, since all last equally long.
    leases: VecDeque<(Duration, Arc<Peer>)>,
}

#[derive(Debug, Default)]
struct MeshPeers {
    by_member: HashMap<String, Vec<Arc<Peer>>>,
    by_session_key: HashMap<String, Vec<Arc<Peer>>>,
    online: usize,
}

/// What became of the others when a connection was admitted.
#[derive(Debug, Default)]
pub struct Admitted {
    /// Connections of the same client or session id, which must be closed.
    pub replaced: Vec<Arc<Peer>>,
    /// Other connections of the member, by member key, with a socket.
    pub siblings: Vec<Arc<Peer>>,
}

// === impl Registry ===

impl Registry {
    /// Connections with a socket in a mesh.
    pub fn online_count(&self, mesh_id: &str) -> usize {
        self.lock().meshes.get(mesh_id).map_or(0, |mesh| mesh.online)
    }

    /// All connections with a socket.
    pub fn total_online(&self) -> usize {
        self.lock().meshes.values().map(|mesh| mesh.online).sum()
    }

    /// The meshes that have connections or leases here.
    pub fn mesh_ids(&self) -> Vec<String> {
        self.lock().meshes.keys().cloned().collect()
    }

    /// The connection or lease that a hello of this client continues.
    pub fn predecessor(&self, mesh_id: &str, member_id: &str, kind: Kind, facts: &Facts) -> Option<Arc<Peer>> {
        let inner = self.lock();
        let peers = inner.meshes.get(mesh_id)?.by_member.get(member_id)?;
        peers.iter().find(|old| is_same_client(old, kind, facts)).cloned()
    }

    /// Enters a connection in place of its predecessor, and takes out whatever
    /// else the same session id of the same member holds.
    pub fn admit(&self, peer: &Arc<Peer>) -> Admitted {
        let mut inner = self.lock();
        inner.serial += 1;
        peer.set_serial(inner.serial);
        let mesh = inner.meshes.entry(peer.mesh.id.clone()).or_default();
        let mut admitted = Admitted::default();
        let others = mesh.by_member.get(&peer.member_id).cloned().unwrap_or_default();
        for old in others {
            let same_session = old.kind == peer.kind && old.facts.session_id == peer.facts.session_id;
            if is_same_client(&old, peer.kind, &peer.facts) || same_session {
                mesh.remove(&old);
                admitted.replaced.push(old);
            } else if old.kind == Kind::Member && old.is_online() {
                admitted.siblings.push(old);
            }
        }
        mesh.insert(peer);
        admitted
    }

    /// Begins the lease of a connection whose socket is gone. False if it was
    /// replaced before: then its end concerns nobody.
    pub fn lost(&self, peer: &Arc<Peer>, now: Duration, grace: Duration) -> bool {
        let mut inner = self.lock();
        let Some(mesh) = inner.meshes.get_mut(&peer.mesh.id) else { return false };
        if !mesh.holds(peer) || !peer.lose(now) {
            return false;
        }
        mesh.online = mesh.online.saturating_sub(1);
        inner.leases.push_back((now + grace, Arc::clone(peer)));
        true
    }

    /// Takes a connection out at once, without a lease. False if it was
    /// replaced before.
    pub fn remove(&self, peer: &Arc<Peer>) -> bool {
        let mut inner = self.lock();
        let Some(mesh) = inner.meshes.get_mut(&peer.mesh.id) else { return false };
        let held = mesh.remove(peer);
        if mesh.by_member.is_empty() {
            inner.meshes.remove(&peer.mesh.id);
        }
        held
    }

    /// Takes out the leases whose time is over.
    pub fn expire(&self, now: Duration) -> Vec<Arc<Peer>> {
        let mut expired = Vec::new();
        loop {
            let lease = {
                let mut inner = self.lock();
                match inner.leases.front() {
                    Some((until, _)) if *until <= now => inner.leases.pop_front(),
                    _ => None,
                }
            };
            let Some((_, peer)) = lease else { return expired };
            if self.remove(&peer) {
                expired.push(peer);
            }
        }
    }

    /// What holds the place of this connection or lease now: itself, or the connection
    /// of the same client that took it over.
    pub fn current(&self, peer: &Peer) -> Option<Arc<Peer>> {
        let inner = self.lock();
        let peers = inner.meshes.get(&peer.mesh.id)?.by_member.get(&peer.member_id)?;
        peers.iter().find(|held| held.presence_id == peer.presence_id).cloned()
    }

    /// Connections and leases of a member.
    pub fn of_member(&self, mesh_id: &str, member_id: &str) -> Vec<Arc<Peer>> {
        let inner = self.lock();
        inner.meshes.get(mesh_id).and_then(|mesh| mesh.by_member.get(member_id)).cloned().unwrap_or_default()
    }

    /// The connection or lease with that session key.
    pub fn by_session_key(&self, mesh_id: &str, key: &str) -> Option<Arc<Peer>> {
        let inner = self.lock();
        inner.meshes.get(mesh_id)?.by_session_key.get(key)?.last().cloned()
    }

    /// Every connection and lease of a mesh.
    pub fn of_mesh(&self, mesh_id: &str) -> Vec<Arc<Peer>> {
        let inner = self.lock();
        let Some(mesh) = inner.meshes.get(mesh_id) else { return Vec::new() };
        mesh.by_member.values().flatten().cloned().collect()
    }

    /// Every connection and lease.
    pub fn all(&self) -> Vec<Arc<Peer>> {
        let inner = self.lock();
        inner.meshes.values().flat_map(|mesh| mesh.by_member.values().flatten()).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl MeshPeers ===

impl MeshPeers {
    fn holds(&self, peer: &Arc<Peer>) -> bool {
        self.by_member.get(&peer.member_id).is_some_and(|peers| peers.iter().any(|held| Arc::ptr_eq(held, peer)))
    }

    fn insert(&mut self, peer: &Arc<Peer>) {
        self.online += 1;
        if let Some(key) = &peer.facts.session_pubkey {
            self.by_session_key.entry(key.clone()).or_default().push(Arc::clone(peer));
        }
        self.by_member.entry(peer.member_id.clone()).or_default().push(Arc::clone(peer));
    }

    fn remove(&mut self, peer: &Arc<Peer>) -> bool {
        if !self.holds(peer) {
            return false;
        }
        if peer.is_online() {
            self.online = self.online.saturating_sub(1);
        }
        take_out(&mut self.by_member, &peer.member_id, peer);
        if let Some(key) = &peer.facts.session_pubkey {
            take_out(&mut self.by_session_key, key, peer);
        }
        true
    }
}

fn take_out(map: &mut HashMap<String, Vec<Arc<Peer>>>, key: &str, peer: &Arc<Peer>) {
    if let Some(peers) = map.get_mut(key) {
        peers.retain(|held| !Arc::ptr_eq(held, peer));
        if peers.is_empty() {
            map.remove(key);
        }
    }
}

/// Whether two connections of one member are the same client: our daemons say
/// so by their state directory, sessions by their key, and legacy clients by
/// their session key or, without one, by their session id.
fn is_same_client(old: &Peer, kind: Kind, new: &Facts) -> bool {
    if old.kind != kind {
        return false;
    }
    match (&old.facts.instance_id, &new.instance_id) {
        (Some(theirs), Some(instance)) => theirs == instance && (!new.second_host || old.facts.boot_id == new.boot_id),
        (None, None) => match (&old.facts.session_pubkey, &new.session_pubkey) {
            (Some(old), Some(new)) => old == new,
            (None, None) => old.facts.session_id == new.session_id,
            _ => false,
        },
        _ => false,
    }
}
