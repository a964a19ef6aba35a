//! Keys and signatures as any client of the link makes them, independent of
//! the code under test.

use ed25519_dalek::{Signer as _, SigningKey};

/// An ed25519 key pair.
#[derive(Clone)]
pub(crate) struct Key(SigningKey);

impl Key {
    /// A fresh one.
    pub(crate) fn random() -> Self {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).expect("the system gives random bytes");
        Self(SigningKey::from_bytes(&seed))
    }

    /// The one with this seed.
    pub(crate) fn from_seed(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    /// 64 lower-case hex digits.
    pub(crate) fn public(&self) -> String {
        hex::encode(self.0.verifying_key().as_bytes())
    }

    /// 128 lower-case hex digits: seed, then public key.
    pub(crate) fn secret(&self) -> String {
        hex::encode(self.0.to_keypair_bytes())
    }

    /// A detached signature, 128 hex digits.
    pub(crate) fn sign(&self, text: &str) -> String {
        hex::encode(self.sign_bytes(text.as_bytes()))
    }

    /// A detached signature, 64 bytes.
    pub(crate) fn sign_bytes(&self, bytes: &[u8]) -> [u8; 64] {
        self.0.sign(bytes).to_bytes()
    }

    /// The X25519 key that boxes of this key are sealed with.
    pub(crate) fn box_public(&self) -> [u8; 32] {
        self.0.verifying_key().to_montgomery().to_bytes()
    }
}

/// Seals a text for a member as legacy clients do: `crypto_box` over converted
/// keys. The nonce and the ciphertext.
pub(crate) fn seal(from: &Key, to: &str, text: &[u8]) -> (Vec<u8>, Vec<u8>) {
    use crypto_box::aead::Aead as _;
    let nonce = random_bytes(24);
    let nonce_array: [u8; 24] = nonce.clone().try_into().expect("24 bytes");
    let sealed = boxed(from, to).encrypt(&nonce_array.into(), text).expect("a text of any length can be sealed");
    (nonce, sealed)
}

/// Opens what [`seal`] or a daemon sealed; `None` for a wrong key.
pub(crate) fn open(to: &Key, from: &str, nonce: &[u8], ciphertext: &[u8]) -> Option<Vec<u8>> {
    use crypto_box::aead::Aead as _;
    let nonce: [u8; 24] = nonce.try_into().expect("24 bytes");
    boxed(to, from).decrypt(&nonce.into(), ciphertext).ok()
}

fn boxed(own: &Key, other: &str) -> crypto_box::SalsaBox {
    let bytes: [u8; 32] = hex::decode(other).expect("hex").try_into().expect("32 bytes");
    let other = ed25519_dalek::VerifyingKey::from_bytes(&bytes).expect("a key");
    let public = crypto_box::PublicKey::from(other.to_montgomery().to_bytes());
    crypto_box::SalsaBox::new(&public, &crypto_box::SecretKey::from(own.0.to_scalar_bytes()))
}

/// Checks a detached signature.
pub(crate) fn verifies(public: &str, text: &str, signature: &str) -> bool {
    let key: [u8; 32] = hex::decode(public).expect("hex").try_into().expect("32 bytes");
    let signature: [u8; 64] = hex::decode(signature).expect("hex").try_into().expect("64 bytes");
    let key = ed25519_dalek::VerifyingKey::from_bytes(&key).expect("a key");
    key.verify_strict(text.as_bytes(), &ed25519_dalek::Signature::from_bytes(&signature)).is_ok()
}

/// `count` random bytes.
pub(crate) fn random_bytes(count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

/// Unix milliseconds.
pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("the clock is after 1970");
    i64::try_from(since.as_millis()).expect("the clock is before the year 292 million")
}

/// Base64, standard alphabet, padded: how the link writes bytes.
pub(crate) fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// Base64url without padding: how tokens are written.
pub(crate) fn base64url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

/// Undoes [`base64`].
pub(crate) fn from_base64(text: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).expect("standard base64")
}
