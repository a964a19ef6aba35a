//! The keys that this member has and had.
//!
//! The current key signs, seals and opens. A key that was rotated out only
//! opens what was sealed for it, and recognises nonces of this member.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use crate::crypto::direct::{BoxError, NONCE_BYTES, SharedKey};
use crate::crypto::fingerprint::{FingerprintKey, NonceKey};
use crate::crypto::keys::{BoxPublic, BoxSecret, KeyError, MemberSecret};
use crate::crypto::topic::TopicKey;
use crate::domain::ids::MemberKey;

/// Shared keys that are kept for each own key. A mesh has about as many peers;
/// beyond that the whole cache is dropped and filled again.
const MAX_SHARED_KEYS: usize = 20_000;

/// A key with its signing half.
pub struct OwnKey {
    pub(super) secret: MemberSecret,
    pub(super) fingerprints: FingerprintKey,
    pub(super) opening: Arc<OpeningKey>,
    /// Number of the rotation that brought it; 0 for the key of the join.
    seq: u64,
}

/// The half of a key that opens.
pub struct OpeningKey {
    public: MemberKey,
    secret: BoxSecret,
    nonces: NonceKey,
    // A std mutex: held for a map access, never across an await.
    shared: Mutex<HashMap<MemberKey, Arc<SharedKey>>>,
}

// === impl OwnKey ===

impl OwnKey {
    /// A key that the rotation with this number brought; 0 for the first key.
    pub fn new(secret: MemberSecret, seq: u64) -> Self {
        let fingerprints = FingerprintKey::derive(&secret);
        let opening = Arc::new(OpeningKey::new(secret.public(), secret.box_secret()));
        Self { secret, fingerprints, opening, seq }
    }

    /// The public key.
    pub fn public(&self) -> MemberKey {
        self.opening.public
    }

    /// Number of the rotation that brought it.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The secret key.
    pub fn secret(&self) -> &MemberSecret {
        &self.secret
    }

    /// The key that it shares with a peer.
    pub fn shared_with(&self, peer: MemberKey) -> Result<Arc<SharedKey>, KeyError> {
        self.opening.shared_with(peer)
    }
}

impl fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnKey({} {})", self.seq, self.public().short())
    }
}

// === impl OpeningKey ===

impl OpeningKey {
    /// A key that opens. `secret` belongs to `public`.
    pub fn new(public: MemberKey, secret: BoxSecret) -> Self {
        let nonces = NonceKey::derive(&secret);
        Self { public, secret, nonces, shared: Mutex::default() }
    }

    /// The member key that it belongs to.
    pub fn public(&self) -> MemberKey {
        self.public
    }

    /// Its secret, for the archive.
    pub(super) fn secret(&self) -> &BoxSecret {
        &self.secret
    }

    /// The key that it shares with a peer.
    pub fn shared_with(&self, peer: MemberKey) -> Result<Arc<SharedKey>, KeyError> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = shared.get(&peer) {
            return Ok(Arc::clone(key));
        }
        let key = Arc::new(SharedKey::new(&self.secret, &BoxPublic::of(peer)?));
        if shared.len() >= MAX_SHARED_KEYS {
            shared.clear();
        }
        shared.insert(peer, Arc::clone(&key));
        Ok(key)
    }

    /// Opens a copy of a topic's key that was sealed for this key.
    pub fn open_topic_key(&self, copy: &[u8], nonce: &[u8; NONCE_BYTES]) -> Result<TopicKey, BoxError> {
        TopicKey::open_copy(&self.secret, copy, nonce)
    }

    /// A nonce made of 16 random bytes that this key recognises later.
    pub(super) fn own_nonce(&self, random: [u8; 16]) -> [u8; NONCE_BYTES] {
        let mut nonce = [0; NONCE_BYTES];
        nonce[..16].copy_from_slice(&random);
        nonce[16..].copy_from_slice(&self.nonces.nonce_mark(&random));
        nonce
    }

    /// Whether a nonce was made by [`Self::own_nonce`] with this key.
    pub(super) fn is_own_nonce(&self, nonce: &[u8; NONCE_BYTES]) -> bool {
        let (random, mark) = nonce.split_at(16);
        let expected = random.try_into().map(|random| self.nonces.nonce_mark(random));
        expected.is_ok_and(|expected| expected == mark)
    }
}

impl fmt::Debug for OpeningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpeningKey({})", self.public.short())
    }
}
