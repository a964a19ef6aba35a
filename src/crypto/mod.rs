//! Ciphers and signatures, as pure functions over bytes.
//!
//! What it is for: everything that a key does. Callers hand in bytes and get
//! bytes; no other folder names a cipher.
//! What runs here: nothing.
//! What it guarantees: the encodings of libsodium; secrets are wiped from
//! memory when dropped and never printed; no input panics.
//! What it must not do: draw random numbers (nonces and seeds are arguments),
//! read a clock, touch a file.
//!
//! | For | Primitive |
//! |---|---|
//! | hello, statements, authorship | ed25519, verified strictly |
//! | direct messages | `crypto_box`: X25519, XSalsa20-Poly1305, keys converted from ed25519 |
//! | topics | `crypto_secretbox`: XSalsa20-Poly1305 under the topic's key |
//! | idempotency towards the broker | HMAC-SHA256 under a key from HKDF-SHA256 |
//! | comparing keys by voice | SHA-256, six groups of five digits |

pub mod certificate;
pub mod direct;
pub mod envelope;
pub mod fingerprint;
pub mod keys;
pub mod safety_number;
pub mod sign;
pub mod topic;

#[cfg(test)]
mod tests;
