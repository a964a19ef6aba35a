//! A secret key as it stands in a JSON file.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::crypto::keys::{KeyError, MemberSecret};

/// 128 hex digits: seed, then public key. Wiped when dropped, never printed.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub(super) struct SecretHex(String);

// === impl SecretHex ===

impl SecretHex {
    pub(super) fn of(secret: &MemberSecret) -> Self {
        Self(secret.to_libsodium_hex().as_str().to_owned())
    }

    pub(super) fn read(&self) -> Result<MemberSecret, KeyError> {
        MemberSecret::from_libsodium_hex(&self.0)
    }
}

impl fmt::Debug for SecretHex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHex([redacted])")
    }
}
