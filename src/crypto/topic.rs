//! Topic keys: the body of a topic's message, the key's sealed copies, and what
//! stands for a key in public.
//!
//! A topic key proves membership of the topic, not authorship: every member can
//! seal with it. The author's signature is in the envelope. Who sealed a copy of
//! the key is not proven either: the copy must hold the key that the epoch's
//! signed statement commits to.

use std::fmt;

use crypto_box::{PublicKey, SalsaBox, SecretKey};
use crypto_secretbox::XSalsa20Poly1305;
use crypto_secretbox::aead::{Aead as _, KeyInit as _};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::direct::{BoxError, NONCE_BYTES};
use super::keys::{BoxPublic, BoxSecret, MemberSecret};

/// Length of a sealed copy: the sealer's X25519 key, a MAC, the topic key.
pub const SEALED_COPY_BYTES: usize = 80;

/// The key of one topic and epoch.
#[derive(Clone)]
pub struct TopicKey(Zeroizing<[u8; 32]>);

// === impl TopicKey ===

impl TopicKey {
    /// A key from 32 random bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What stands for the key in public: a hash of its 32 random bytes with the
    /// place that it belongs to, so that no copy passes for another one's.
    pub fn commitment(&self, topic_id: &str, epoch: u32) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"claudemesh-topic-key|v1|");
        hash.update(topic_id.as_bytes());
        hash.update(b"|");
        hash.update(epoch.to_be_bytes());
        hash.update(self.0.as_slice());
        hash.finalize().into()
    }

    /// Seals a body. The nonce must be random and new for every call.
    pub fn seal(&self, nonce: &[u8; NONCE_BYTES], plaintext: &[u8]) -> Result<Vec<u8>, BoxError> {
        self.cipher().encrypt(nonce.into(), plaintext).map_err(|_| BoxError::NotSealed)
    }

    /// Opens a body.
    pub fn open(&self, nonce: &[u8; NONCE_BYTES], ciphertext: &[u8]) -> Result<Vec<u8>, BoxError> {
        self.cipher().decrypt(nonce.into(), ciphertext).map_err(|_| BoxError::NotOpened)
    }

    /// A copy for a member, from `own`. 80 bytes.
    pub fn seal_copy(
        &self,
        own: &MemberSecret,
        member: &BoxPublic,
        nonce: &[u8; NONCE_BYTES],
    ) -> Result<Vec<u8>, BoxError> {
        let secret = SecretKey::from_bytes(*own.box_secret().as_bytes());
        let sealed = SalsaBox::new(&PublicKey::from_bytes(*member.as_bytes()), &secret)
            .encrypt(nonce.into(), self.0.as_slice())
            .map_err(|_| BoxError::NotSealed)?;
        Ok([own.box_public().as_bytes().as_slice(), &sealed].concat())
    }

    /// Opens a copy that was sealed for `own`. The sealer is named by the copy's
    /// first 32 bytes and is not proven to be anybody: a statement of the topic
    /// commits to the key.
    pub fn open_copy(own: &BoxSecret, copy: &[u8], nonce: &[u8; NONCE_BYTES]) -> Result<Self, BoxError> {
        let (sealer, sealed) = copy.split_first_chunk::<32>().ok_or(BoxError::NotOpened)?;
        if copy.len() != SEALED_COPY_BYTES {
            return Err(BoxError::NotOpened);
        }
        let secret = SecretKey::from_bytes(*own.as_bytes());
        let opened = SalsaBox::new(&PublicKey::from_bytes(*sealer), &secret)
            .decrypt(nonce.into(), sealed)
            .map_err(|_| BoxError::NotOpened)?;
        let opened = Zeroizing::new(opened);
        let bytes = opened.as_slice().try_into().map_err(|_| BoxError::NotOpened)?;
        Ok(Self(Zeroizing::new(bytes)))
    }

    fn cipher(&self) -> XSalsa20Poly1305 {
        XSalsa20Poly1305::new(self.0.as_slice().into())
    }
}

impl fmt::Debug for TopicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TopicKey([redacted])")
    }
}
