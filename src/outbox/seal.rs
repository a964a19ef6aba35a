//! From a row to a frame: sealed with the keys of this moment.
//!
//! A row stores plain text and a member, so that a rotation, a revocation or a
//! new key while it waits needs no special case.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::entity::Model;
use super::prepare::reads_envelopes;
use crate::crypto::direct::NONCE_BYTES;
use crate::crypto::envelope::{Destination, Envelope};
use crate::domain::ids::MemberKey;
use crate::domain::roster::PinnedMember;
use crate::identity::Identity;
use crate::wire::delivery::{Priority, Send};

/// Why a row cannot be sealed now.
#[derive(Debug, thiserror::Error)]
pub(super) enum SealError {
    /// No retry mends it.
    #[error("{0}")]
    ForGood(String),
    /// The operator has to decide first.
    #[error("{0}")]
    ForNow(String),
    /// The topic's key has to come first.
    #[error("{0}")]
    NoKey(String),
}

/// A frame and what its receiver is not told.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) frame: Send,
    /// JSON array.
    pub(super) degraded: Option<String>,
}

/// Seals a row for the member that it goes to.
pub(super) fn seal(
    row: &Model,
    members: &[PinnedMember],
    identity: &Identity,
    nonce: [u8; NONCE_BYTES],
) -> Result<Sealed, SealError> {
    let member = members
        .iter()
        .find(|member| member.member_id.as_str() == row.target_id)
        .ok_or_else(|| SealError::ForNow("the receiver is not in the list of members".to_owned()))?;
    if member.revoked {
        return Err(SealError::ForGood("the receiver was removed from the mesh".to_owned()));
    }
    if member.changed_key.is_some() {
        return Err(SealError::ForNow("the broker shows another key for the receiver (member_key_changed)".to_owned()));
    }
    // One key for the whole frame: a rotation may come in between.
    let own = identity.current();
    let body = text(row)?;
    let (plaintext, degraded) = if reads_envelopes(&member.capabilities) {
        let to = Destination::Member(member.key.0.to_vec());
        let envelope = envelope(row, body, identity, own.public(), to);
        (envelope.encode().map_err(|error| SealError::ForGood(error.to_string()))?, None)
    } else {
        (body.as_bytes().to_vec(), row.degraded.clone())
    };
    let shared =
        own.shared_with(member.key).map_err(|error| SealError::ForGood(format!("the receiver's key: {error}")))?;
    let ciphertext = shared.seal(&nonce, &plaintext).map_err(|error| SealError::ForGood(error.to_string()))?;
    let key = member.key.to_hex();
    let frame = Send {
        target_spec: key.clone(),
        priority: priority(&row.priority),
        nonce: BASE64_STANDARD.encode(nonce),
        ciphertext: BASE64_STANDARD.encode(ciphertext),
        id: Some(row.client_message_id.clone()),
        client_message_id: Some(row.client_message_id.clone()),
        request_fingerprint: Some(row.wire_fingerprint.clone()),
        sender_key: Some(own.public().to_hex()),
        recipient_key: Some(key),
        ..Send::default()
    };
    Ok(Sealed { frame, degraded })
}

/// The text of a row.
pub(super) fn text(row: &Model) -> Result<&str, SealError> {
    std::str::from_utf8(&row.payload).map_err(|_| SealError::ForGood("the stored text is not UTF-8".to_owned()))
}

/// What goes into the box of a row.
pub(super) fn envelope(row: &Model, body: &str, identity: &Identity, own: MemberKey, to: Destination) -> Envelope {
    let mentions = row.mentions.as_deref().and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    Envelope {
        mesh_id: identity.mesh_id().to_string(),
        client_message_id: row.client_message_id.clone(),
        sender_key: own.0.to_vec(),
        destination: Some(to),
        sent_at_ms: row.enqueued_at,
        reply_to: row.reply_to_id.clone().unwrap_or_default(),
        mentions,
        meta: row.meta.clone().unwrap_or_default(),
        auto_hops: u32::try_from(row.auto_hops).unwrap_or(0),
        body: body.to_owned(),
        author_signature: Vec::new(),
    }
}

pub(super) fn priority(name: &str) -> Priority {
    match name {
        "now" => Priority::Now,
        "low" => Priority::Low,
        _ => Priority::Next,
    }
}
