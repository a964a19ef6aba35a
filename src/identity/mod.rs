//! Who this daemon is: its member key, its token, its host.
//!
//! What it is for: the one place that holds the member's secret key and signs,
//! seals and opens with it; the bearer token of the local interface; what ties
//! a key to a host.
//! What runs here: nothing.
//! What it guarantees: a secret leaves this folder only inside a file of mode
//! 0600; the shared key of a peer is derived once and kept.
//! What it must not do: decide what is sent, or trust a key that is not pinned.

mod error;
pub mod host;
pub mod keystore;
pub mod token;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

pub use self::error::Error;
use crate::crypto::direct::{NONCE_BYTES, SharedKey};
use crate::crypto::fingerprint::FingerprintKey;
use crate::crypto::keys::{KeyError, MemberSecret};
use crate::crypto::sign::Statement;
use crate::domain::fingerprint::LocalFingerprint;
use crate::domain::ids::{ClientMessageId, MemberId, MemberKey, MeshId};
use crate::domain::time::UnixMillis;
use crate::wire::hello::CapabilityStatement;

/// What this version's daemon can read. Signed and told to peers.
pub const CAPABILITIES: [&str; 1] = [ENVELOPE];
/// The capability of reading sealed envelopes.
pub const ENVELOPE: &str = "envelope_v3";

/// Shared keys that are kept. A mesh has about as many peers; beyond that the
/// whole cache is dropped and filled again.
const MAX_SHARED_KEYS: usize = 20_000;

/// The member that this daemon is. Cheap to clone.
#[derive(Clone)]
pub struct Identity(Arc<Inner>);

struct Inner {
    mesh_id: MeshId,
    member_id: MemberId,
    secret: MemberSecret,
    fingerprints: FingerprintKey,
    // A std mutex: held for a map access, never across an await.
    shared: Mutex<HashMap<MemberKey, Arc<SharedKey>>>,
}

// === impl Identity ===

impl Identity {
    /// A member with its secret key.
    pub fn new(mesh_id: MeshId, member_id: MemberId, secret: MemberSecret) -> Self {
        let fingerprints = FingerprintKey::derive(&secret);
        Self(Arc::new(Inner { mesh_id, member_id, secret, fingerprints, shared: Mutex::default() }))
    }

    /// The mesh's id.
    pub fn mesh_id(&self) -> &MeshId {
        &self.0.mesh_id
    }

    /// The member's id.
    pub fn member_id(&self) -> &MemberId {
        &self.0.member_id
    }

    /// The public key.
    pub fn key(&self) -> MemberKey {
        self.0.secret.public()
    }

    /// The signature of a hello, as 128 hex digits.
    pub fn sign_hello(&self, at: UnixMillis) -> String {
        let statement = Statement::hello(self.0.mesh_id.as_str(), self.0.member_id.as_str(), self.key(), at);
        // Ids are checked when they are read; one with a `|` is refused by the
        // broker like any other bad signature.
        statement.map_or_else(|_| String::new(), |statement| hex::encode(statement.sign(&self.0.secret)))
    }

    /// What this daemon can read, signed.
    pub fn capability_statement(&self, at: UnixMillis) -> CapabilityStatement {
        capability_statement(&self.0.secret, &self.0.mesh_id, at)
    }

    /// The value that stands for a request at the broker and tells it nothing,
    /// as 64 hex digits.
    pub fn wire_fingerprint(&self, id: &ClientMessageId, local: &LocalFingerprint) -> String {
        hex::encode(self.0.fingerprints.wire_fingerprint(&self.0.mesh_id, id, &local.0))
    }

    /// A nonce made of 16 random bytes that this member recognises later. Raw
    /// boxes carry no sender inside, and a box opens in both directions: a
    /// broker could send one back under the receiver's name.
    pub fn own_nonce(&self, random: [u8; 16]) -> [u8; NONCE_BYTES] {
        let mut nonce = [0; NONCE_BYTES];
        nonce[..16].copy_from_slice(&random);
        nonce[16..].copy_from_slice(&self.0.fingerprints.nonce_mark(&random));
        nonce
    }

    /// Whether a nonce was made by [`Self::own_nonce`] with this member's key.
    pub fn is_own_nonce(&self, nonce: &[u8; NONCE_BYTES]) -> bool {
        let (random, mark) = nonce.split_at(16);
        let expected = random.try_into().map(|random| self.0.fingerprints.nonce_mark(random));
        expected.is_ok_and(|expected| expected == mark)
    }

    /// The key that this member shares with a peer.
    pub fn shared_with(&self, peer: MemberKey) -> Result<Arc<SharedKey>, KeyError> {
        let mut shared = self.0.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = shared.get(&peer) {
            return Ok(Arc::clone(key));
        }
        let key = Arc::new(SharedKey::between(&self.0.secret, peer)?);
        if shared.len() >= MAX_SHARED_KEYS {
            shared.clear();
        }
        shared.insert(peer, Arc::clone(&key));
        Ok(key)
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

    fn identity(seed: u8) -> Identity {
        let mesh = MeshId::parse("MESH1").unwrap();
        Identity::new(mesh, MemberId::parse("M").unwrap(), MemberSecret::from_seed(&[seed; 32]))
    }

    #[test]
    fn a_statement_counts_only_with_the_members_own_signature() {
        let (a, b) = (identity(1), identity(2));
        let statement = a.capability_statement(UnixMillis(5));
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
    }

    #[test]
    fn nothing_secret_is_printed() {
        let text = format!("{:?}", identity(1));
        assert!(!text.contains(&hex::encode([1_u8; 32])), "{text}");
    }
}
