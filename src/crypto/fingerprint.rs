//! The fingerprint of a request as the broker sees it.
//!
//! The broker compares fingerprints to tell an honest retry from an id used
//! twice. A plain hash of the request would let it guess short messages, so the
//! local fingerprint never leaves the host: what does is an HMAC of it, under a
//! key that only the member has. An honest retry, even from a restored
//! directory or sealed anew, has the same one.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::keys::{BoxSecret, MemberSecret};
use crate::domain::ids::{ClientMessageId, MeshId};

const INFO: &[u8] = b"claudemesh/fp/v1";
const NONCE_INFO: &[u8] = b"claudemesh/nonce/v1";

/// The key that marks a member's own nonces.
pub struct NonceKey(Zeroizing<[u8; 32]>);

/// The key of a member's fingerprints. Survives restarts, not key rotation;
/// the fingerprint is stored with the message's row and sent as stored.
pub struct FingerprintKey(Zeroizing<[u8; 32]>);

// === impl FingerprintKey ===

impl FingerprintKey {
    /// Derives it from the member's seed.
    pub fn derive(secret: &MemberSecret) -> Self {
        let mut key = Zeroizing::new([0_u8; 32]);
        Hkdf::<Sha256>::new(None, secret.seed().as_slice())
            .expand(INFO, key.as_mut_slice())
            .expect("32 bytes are far below HKDF-SHA256's limit of 8160");
        Self(key)
    }

    /// The value of `request_fingerprint`, before hex. `local` is the SHA-256
    /// over the caller's request.
    pub fn wire_fingerprint(&self, mesh: &MeshId, id: &ClientMessageId, local: &[u8; 32]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.as_slice()).expect("HMAC takes a key of any length");
        for part in [mesh.as_str().as_bytes(), id.as_str().as_bytes(), local] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

// === impl NonceKey ===

impl NonceKey {
    /// Derives it from the secret that seals, which outlives a rotation for the
    /// grace: so long a broker could send back what was sealed with it.
    pub fn derive(secret: &BoxSecret) -> Self {
        let mut key = Zeroizing::new([0_u8; 32]);
        Hkdf::<Sha256>::new(None, secret.as_bytes())
            .expand(NONCE_INFO, key.as_mut_slice())
            .expect("32 bytes are far below HKDF-SHA256's limit of 8160");
        Self(key)
    }

    /// Eight bytes that mark the random part of a nonce as made by this member.
    pub fn nonce_mark(&self, random: &[u8; 16]) -> [u8; 8] {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.as_slice()).expect("HMAC takes a key of any length");
        mac.update(random);
        let bytes: [u8; 32] = mac.finalize().into_bytes().into();
        let mut mark = [0; 8];
        mark.copy_from_slice(&bytes[..8]);
        mark
    }
}

impl std::fmt::Debug for NonceKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NonceKey([redacted])")
    }
}

impl std::fmt::Debug for FingerprintKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FingerprintKey([redacted])")
    }
}
