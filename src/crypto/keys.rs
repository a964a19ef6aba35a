//! A member's key pair, and its form for encryption.
//!
//! One ed25519 key signs and, converted, encrypts. The conversion is
//! libsodium's, which every other client of the mesh uses: the secret is the
//! clamped first half of SHA-512 over the seed, the public key is the ed25519
//! point in Montgomery form.

use std::fmt;

use ed25519_dalek::{SigningKey, VerifyingKey};
use zeroize::{Zeroize as _, Zeroizing};

use crate::domain::ids::MemberKey;

/// Why bytes are not a usable key. Never holds the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not 128 hexadecimal digits.
    #[error("the secret key is not 128 hexadecimal digits")]
    NotSecretHex,
    /// The second half of the secret key is not the public key of the first.
    #[error("the two halves of the secret key do not belong together")]
    HalvesDiffer,
    /// Not a point of the curve, or not in its only encoding.
    #[error("the public key is not a point of the curve")]
    NotAPoint,
    /// A point that makes signatures or shared keys predictable.
    #[error("the public key has small order or lies outside the main subgroup")]
    WeakPoint,
}

/// A member's or session's secret key.
pub struct MemberSecret {
    // Wipes itself on drop.
    signing: SigningKey,
}

/// The X25519 secret of a member.
pub struct BoxSecret(pub(super) Zeroizing<[u8; 32]>);

/// The X25519 public key of a member. Made from checked ed25519 keys only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoxPublic(pub(super) [u8; 32]);

// === impl MemberSecret ===

impl MemberSecret {
    /// The key pair of a 32-byte seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self { signing: SigningKey::from_bytes(seed) }
    }

    /// Reads libsodium's 64-byte form in hex: seed, then public key.
    pub fn from_libsodium_hex(text: &str) -> Result<Self, KeyError> {
        let mut bytes = Zeroizing::new([0_u8; 64]);
        hex::decode_to_slice(text, bytes.as_mut_slice()).map_err(|_| KeyError::NotSecretHex)?;
        let signing = SigningKey::from_keypair_bytes(&bytes).map_err(|_| KeyError::HalvesDiffer)?;
        Ok(Self { signing })
    }

    /// libsodium's 64-byte form in 128 lower-case hex digits.
    pub fn to_libsodium_hex(&self) -> Zeroizing<String> {
        let mut bytes = self.signing.to_keypair_bytes();
        let text = Zeroizing::new(hex::encode(bytes));
        bytes.zeroize();
        text
    }

    /// The seed.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.signing.to_bytes())
    }

    /// The public half.
    pub fn public(&self) -> MemberKey {
        MemberKey(self.signing.verifying_key().to_bytes())
    }

    /// The X25519 secret.
    pub fn box_secret(&self) -> BoxSecret {
        let mut bytes = Zeroizing::new(self.signing.to_scalar_bytes());
        // Clamped as libsodium stores it; the cipher clamps again, which is the same.
        bytes[0] &= 0b1111_1000;
        bytes[31] &= 0b0111_1111;
        bytes[31] |= 0b0100_0000;
        BoxSecret(bytes)
    }

    /// The X25519 public key.
    pub fn box_public(&self) -> BoxPublic {
        BoxPublic(self.signing.verifying_key().to_montgomery().to_bytes())
    }

    pub(super) fn signing(&self) -> &SigningKey {
        &self.signing
    }
}

impl fmt::Debug for MemberSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemberSecret([redacted] of {})", self.public().short())
    }
}

// === impl BoxSecret ===

impl BoxSecret {
    /// The secret of 32 bytes, as [`Self::as_bytes`] gave them.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The public half.
    pub fn public(&self) -> BoxPublic {
        BoxPublic(crypto_box::SecretKey::from_bytes(*self.0).public_key().to_bytes())
    }

    /// The 32 bytes, clamped.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for BoxSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxSecret([redacted])")
    }
}

// === impl BoxPublic ===

impl BoxPublic {
    /// Converts a member key. Refuses what libsodium refuses: encodings that are
    /// not the only one of a point, small order, points outside the main
    /// subgroup. Costs about as much as a signature; keep the result.
    pub fn of(key: MemberKey) -> Result<Self, KeyError> {
        let point = checked_point(key)?;
        if !point.to_edwards().is_torsion_free() {
            return Err(KeyError::WeakPoint);
        }
        Ok(Self(point.to_montgomery().to_bytes()))
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Whether a key from outside can be a member's: what `BoxPublic::of` checks.
pub fn check_member_key(key: MemberKey) -> Result<(), KeyError> {
    BoxPublic::of(key).map(drop)
}

pub(super) fn checked_point(key: MemberKey) -> Result<VerifyingKey, KeyError> {
    let point = VerifyingKey::from_bytes(&key.0).map_err(|_| KeyError::NotAPoint)?;
    if point.to_edwards().compress().to_bytes() != key.0 {
        return Err(KeyError::NotAPoint);
    }
    if point.is_weak() {
        return Err(KeyError::WeakPoint);
    }
    Ok(point)
}
