//! Direct messages: `crypto_box` between two members.
//!
//! The key agreement depends only on the two keys, so it is done once per pair
//! and kept as a [`SharedKey`]; a message then costs the stream cipher alone.
//! The shared key is the same in both directions. What was sealed by A for B
//! therefore also opens at A with B's key: the envelope inside names its
//! sender, and the receiver compares.

use std::fmt;

use crypto_box::aead::Aead as _;
use crypto_box::{PublicKey, SalsaBox, SecretKey};

use super::keys::{BoxPublic, BoxSecret, KeyError, MemberSecret};
use crate::domain::ids::MemberKey;

/// Bytes that sealing adds.
pub const OVERHEAD: usize = 16;

/// Length of a nonce in bytes.
pub const NONCE_BYTES: usize = 24;

/// Why a box does not open or close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BoxError {
    /// Sealed with other keys or another nonce, or changed on the way.
    #[error("the ciphertext does not open with this key")]
    NotOpened,
    /// The cipher refused the plaintext; it never does below 2^38 bytes.
    #[error("the plaintext could not be sealed")]
    NotSealed,
}

/// The key of one pair of members. Wiped from memory when dropped.
pub struct SharedKey(SalsaBox);

// === impl SharedKey ===

impl SharedKey {
    /// Agrees on the key of a pair.
    pub fn new(own: &BoxSecret, peer: &BoxPublic) -> Self {
        let secret = SecretKey::from_bytes(*own.as_bytes());
        Self(SalsaBox::new(&PublicKey::from_bytes(*peer.as_bytes()), &secret))
    }

    /// The same, from the keys as members have them.
    pub fn between(own: &MemberSecret, peer: MemberKey) -> Result<Self, KeyError> {
        Ok(Self::new(&own.box_secret(), &BoxPublic::of(peer)?))
    }

    /// Seals: 16 bytes of MAC, then the encrypted bytes. The nonce must be
    /// random and new for every call.
    pub fn seal(&self, nonce: &[u8; NONCE_BYTES], plaintext: &[u8]) -> Result<Vec<u8>, BoxError> {
        self.0.encrypt(nonce.into(), plaintext).map_err(|_| BoxError::NotSealed)
    }

    /// Opens what either of the two sealed.
    pub fn open(&self, nonce: &[u8; NONCE_BYTES], ciphertext: &[u8]) -> Result<Vec<u8>, BoxError> {
        self.0.decrypt(nonce.into(), ciphertext).map_err(|_| BoxError::NotOpened)
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedKey([redacted])")
    }
}
