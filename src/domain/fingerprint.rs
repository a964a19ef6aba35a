//! The local fingerprint of a request: tells a retry from another request that
//! reuses the id.
//!
//! It is computed over what the caller wrote, before names are resolved and
//! before anything is sealed, so that an honest retry is the same request even
//! after a key rotation. It never leaves the host: a hash of a short text would
//! let a broker guess the text.

use sha2::{Digest as _, Sha256};

use super::message::SendRequest;

/// The formula that this version computes, stored beside each fingerprint.
pub const VERSION: i32 = 1;

/// SHA-256 over the request's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalFingerprint(pub [u8; 32]);

// === impl LocalFingerprint ===

impl LocalFingerprint {
    /// The fingerprint of a request to one mesh. Each field is preceded by its
    /// length, so that no two lists of fields give the same bytes.
    pub fn of(mesh: &str, kind: &str, request: &SendRequest) -> Self {
        let mut hash = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        field(&VERSION.to_be_bytes());
        field(mesh.as_bytes());
        field(kind.as_bytes());
        field(request.to.as_bytes());
        field(request.reply_to_id.as_deref().unwrap_or_default().as_bytes());
        field(request.priority.name().as_bytes());
        field(&(request.mentions.len() as u64).to_be_bytes());
        for mention in &request.mentions {
            field(mention.as_bytes());
        }
        field(request.meta.as_ref().map_or("", |meta| meta.as_str()).as_bytes());
        field(request.body.as_bytes());
        Self(hash.finalize().into())
    }

    /// The first 8 bytes as hex, which every conflict reports.
    pub fn prefix(&self) -> String {
        hex::encode(&self.0[..8])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::message::{Meta, Priority};

    fn request() -> SendRequest {
        SendRequest {
            client_message_id: None,
            to: "bob".to_owned(),
            body: "hello".to_owned(),
            priority: Priority::Next,
            meta: None,
            answered: Vec::new(),
            reply_to_id: None,
            mentions: Vec::new(),
            allow_unencrypted: false,
            auto_hops: 0,
        }
    }

    #[test]
    fn the_formula_is_pinned() {
        let fingerprint = LocalFingerprint::of("demo", "dm", &request());
        assert_eq!(fingerprint.prefix(), hex::encode(&fingerprint.0[..8]));
        assert_eq!(hex::encode(fingerprint.0), PINNED);
    }

    /// Computed by hand with another implementation of SHA-256.
    const PINNED: &str = "3e1c8e908071ca46599a352b34ec69c3651661e07cdc7fcf46c9c12f893532c4";

    #[test]
    fn every_field_counts_and_fields_do_not_run_together() {
        let base = LocalFingerprint::of("demo", "dm", &request());
        let change = |edit: fn(&mut SendRequest)| {
            let mut changed = request();
            edit(&mut changed);
            LocalFingerprint::of("demo", "dm", &changed)
        };
        let others = [
            LocalFingerprint::of("other", "dm", &request()),
            LocalFingerprint::of("demo", "topic", &request()),
            change(|r| r.to = "bo".to_owned()),
            change(|r| r.body = "hello ".to_owned()),
            change(|r| r.priority = Priority::Now),
            change(|r| r.meta = Meta::from_json(r#"{"a":1}"#).unwrap()),
            change(|r| r.reply_to_id = Some("x".to_owned())),
            change(|r| r.mentions = vec!["a".to_owned(), "b".to_owned()]),
            change(|r| r.mentions = vec!["ab".to_owned()]),
        ];
        for (index, one) in others.iter().enumerate() {
            assert_ne!(*one, base, "{index}");
            assert!(others.iter().enumerate().all(|(other, two)| other == index || one != two), "{index}");
        }
        assert_eq!(base, LocalFingerprint::of("demo", "dm", &request()));
    }
}
