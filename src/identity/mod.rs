//! Who this daemon is: its member key, its token, its host.
//!
//! What it is for: the one place that holds the member's secret key and signs,
//! seals and opens with it; the bearer token of the local interface; what ties
//! a key to a host.
//! What runs here: nothing.
//! What it guarantees: a secret leaves this folder only inside a file of mode
//! 0600; the shared key of a peer is derived once and kept.
//! What it must not do: decide what is sent, or trust a key that is not pinned.

pub mod archive;
mod error;
pub mod host;
pub mod keystore;
mod own_key;
pub mod token;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

pub use self::error::Error;
pub use self::own_key::{OpeningKey, OwnKey};
use crate::crypto::direct::NONCE_BYTES;
use crate::crypto::keys::MemberSecret;
use crate::crypto::safety_number::safety_number;
use crate::crypto::sign::Statement;
use crate::domain::fingerprint::LocalFingerprint;
use crate::domain::ids::{ClientMessageId, MemberId, MemberKey, MeshId};
use crate::domain::time::UnixMillis;
use crate::wire::hello::CapabilityStatement;

/// What this version's daemon can read. Signed and told to peers.
pub const CAPABILITIES: [&str; 1] = [ENVELOPE];
/// The capability of reading sealed envelopes.
pub const ENVELOPE: &str = "envelope_v3";

/// The member that this daemon is. Cheap to clone; all clones see a rotation.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    mesh_id: MeshId,
    member_id: MemberId,
    // A std lock: held to copy pointers, never across an await.
    ring: RwLock<Ring>,
}

/// The keys of this member.
struct Ring {
    current: Arc<OwnKey>,
    /// The key of a rotation that is under way: peers may use it before the
    /// broker's answer is here.
    next: Option<Arc<OwnKey>>,
    /// Rotated-out keys, the newest first.
    archived: Vec<Archived>,
}

/// A rotated-out key and its end.
#[derive(Clone, Debug)]
pub struct Archived {
    /// What opens.
    pub key: Arc<OpeningKey>,
    /// When it is erased.
    pub expires_at: UnixMillis,
}

// === impl Identity ===

impl Identity {
    /// A member with its key.
    pub fn new(mesh_id: MeshId, member_id: MemberId, key: OwnKey) -> Self {
        let ring = Ring { current: Arc::new(key), next: None, archived: Vec::new() };
        Self(Arc::new(Inner { mesh_id, member_id, ring: RwLock::new(ring) }))
    }

    /// The mesh's id.
    pub fn mesh_id(&self) -> &MeshId {
        &self.0.mesh_id
    }

    /// The member's id.
    pub fn member_id(&self) -> &MemberId {
        &self.0.member_id
    }

    /// The public key of this moment.
    pub fn key(&self) -> MemberKey {
        self.read().current.public()
    }

    /// The key of this moment. Whoever uses more than one thing of it takes it
    /// once, since a rotation may come in between.
    pub fn current(&self) -> Arc<OwnKey> {
        Arc::clone(&self.read().current)
    }

    /// The key of a rotation that is under way.
    pub fn next(&self) -> Option<Arc<OwnKey>> {
        self.read().next.clone()
    }

    /// The rotated-out keys that still open, the newest first.
    pub fn archived(&self) -> Vec<Archived> {
        self.read().archived.clone()
    }

    /// Every key that opens: the current one first, then that of a rotation
    /// under way, then the rotated-out ones.
    pub fn opening_keys(&self) -> Vec<Arc<OpeningKey>> {
        let ring = self.read();
        let own = std::iter::once(&ring.current).chain(&ring.next).map(|key| &key.opening);
        own.chain(ring.archived.iter().map(|archived| &archived.key)).map(Arc::clone).collect()
    }

    /// Begins to open with the key that follows; nothing is signed or sealed
    /// with it yet.
    pub fn begin_rotation(&self, next: OwnKey) -> Arc<OwnKey> {
        let next = Arc::new(next);
        self.write().next = Some(Arc::clone(&next));
        next
    }

    /// The key that was to follow does not.
    pub fn abandon_rotation(&self) {
        self.write().next = None;
    }

    /// The key that followed is the current one from now on; the one before
    /// opens until `expires_at`.
    pub fn finish_rotation(&self, expires_at: UnixMillis) {
        let mut ring = self.write();
        if let Some(next) = ring.next.take() {
            let old = std::mem::replace(&mut ring.current, next);
            ring.archived.retain(|archived| archived.key.public() != old.public());
            ring.archived.insert(0, Archived { key: Arc::clone(&old.opening), expires_at });
        }
    }

    /// Sets which rotated-out keys still open. The current key is none.
    pub fn set_archived(&self, archived: Vec<Archived>) {
        let mut ring = self.write();
        let current = ring.current.public();
        ring.archived = archived;
        ring.archived.retain(|archived| archived.key.public() != current);
    }

    /// The signature of a hello, as 128 hex digits.
    pub fn sign_hello(&self, key: &OwnKey, at: UnixMillis) -> String {
        let statement = Statement::hello(self.0.mesh_id.as_str(), self.0.member_id.as_str(), key.public(), at);
        // Ids are checked when they are read; one with a `|` is refused by the
        // broker like any other bad signature.
        statement.map_or_else(|_| String::new(), |statement| hex::encode(statement.sign(&key.secret)))
    }

    /// What this daemon can read, signed.
    pub fn capability_statement(&self, key: &OwnKey, at: UnixMillis) -> CapabilityStatement {
        capability_statement(&key.secret, &self.0.mesh_id, at)
    }

    /// The value that stands for a request at the broker and tells it nothing,
    /// as 64 hex digits.
    pub fn wire_fingerprint(&self, id: &ClientMessageId, local: &LocalFingerprint) -> String {
        hex::encode(self.current().fingerprints.wire_fingerprint(&self.0.mesh_id, id, &local.0))
    }

    /// A nonce made of 16 random bytes that this member recognises later. Raw
    /// boxes carry no sender inside, and a box opens in both directions: a
    /// broker could send one back under the receiver's name.
    pub fn own_nonce(&self, random: [u8; 16]) -> [u8; NONCE_BYTES] {
        self.current().opening.own_nonce(random)
    }

    /// Whether a nonce was made by [`Self::own_nonce`] with a key that this
    /// member has or had.
    pub fn is_own_nonce(&self, nonce: &[u8; NONCE_BYTES]) -> bool {
        self.opening_keys().iter().any(|key| key.is_own_nonce(nonce))
    }

    /// The number that two people compare to know that these are their keys.
    pub fn safety_number(&self, peer: MemberKey) -> String {
        safety_number(self.key(), peer)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Ring> {
        self.0.ring.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Ring> {
        self.0.ring.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} {})", self.0.member_id, self.key().short())
    }
}

/// What a member's daemon can read, signed by the member's key.
pub fn capability_statement(secret: &MemberSecret, mesh_id: &MeshId, at: UnixMillis) -> CapabilityStatement {
    let statement = Statement::capabilities(mesh_id.as_str(), secret.public(), CAPABILITIES, at);
    CapabilityStatement {
        capabilities: CAPABILITIES.map(str::to_owned).to_vec(),
        ts: at.0,
        signature: statement.map_or_else(|_| String::new(), |statement| hex::encode(statement.sign(secret))),
    }
}

/// The capabilities of a statement that the member's key has signed; `None`
/// when the signature is not its own.
pub fn verified_capabilities(
    statement: &CapabilityStatement,
    mesh_id: &MeshId,
    member: MemberKey,
) -> Option<Vec<String>> {
    let mut signature = [0_u8; 64];
    hex::decode_to_slice(&statement.signature, &mut signature).ok()?;
    let names = statement.capabilities.iter().map(String::as_str);
    let text = Statement::capabilities(mesh_id.as_str(), member, names, UnixMillis(statement.ts)).ok()?;
    text.verify(member, &signature).then(|| statement.capabilities.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_key(seed: u8) -> OwnKey {
        OwnKey::new(MemberSecret::from_seed(&[seed; 32]), 0)
    }

    fn identity(seed: u8) -> Identity {
        let mesh = MeshId::parse("MESH1").unwrap();
        Identity::new(mesh, MemberId::parse("M").unwrap(), own_key(seed))
    }

    #[test]
    fn a_statement_counts_only_with_the_members_own_signature() {
        let (a, b) = (identity(1), identity(2));
        let statement = a.capability_statement(&a.current(), UnixMillis(5));
        let of = |statement: &CapabilityStatement, key| verified_capabilities(statement, a.mesh_id(), key);
        assert_eq!(of(&statement, a.key()), Some(vec!["envelope_v3".to_owned()]));
        assert_eq!(of(&statement, b.key()), None);
        let mut hidden = statement;
        hidden.capabilities.clear();
        assert_eq!(of(&hidden, a.key()), None);
    }

    #[test]
    fn own_nonces_are_recognised_and_others_are_not() {
        let (a, b) = (identity(1), identity(2));
        let nonce = a.own_nonce([9; 16]);
        assert!(a.is_own_nonce(&nonce) && !b.is_own_nonce(&nonce) && !a.is_own_nonce(&[9; 24]));
        // Also after a rotation, as long as the old key opens.
        a.begin_rotation(own_key(3));
        a.finish_rotation(UnixMillis(9));
        assert!(a.is_own_nonce(&nonce));
        a.set_archived(Vec::new());
        assert!(!a.is_own_nonce(&nonce));
    }

    #[test]
    fn a_rotation_opens_with_both_keys_and_signs_with_one() {
        let identity = identity(1);
        let publics = |identity: &Identity| identity.opening_keys().iter().map(|key| key.public()).collect::<Vec<_>>();
        let (old, new) = (own_key(1).public(), own_key(2).public());
        identity.begin_rotation(own_key(2));
        assert_eq!((identity.key(), publics(&identity)), (old, vec![old, new]));
        identity.finish_rotation(UnixMillis(9));
        assert_eq!((identity.key(), publics(&identity)), (new, vec![new, old]));
        assert!(identity.next().is_none());
    }

    #[test]
    fn nothing_secret_is_printed() {
        let text = format!("{:?}", identity(1));
        assert!(!text.contains(&hex::encode([1_u8; 32])), "{text}");
    }
}
