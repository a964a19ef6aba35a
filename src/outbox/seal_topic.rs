//! From a row to the frame of a post: sealed with the topic's key of this moment.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::entity::Model;
use super::seal::{SealError, Sealed, envelope, priority, text};
use crate::crypto::direct::NONCE_BYTES;
use crate::crypto::envelope::{Destination, TopicDestination};
use crate::identity::Identity;
use crate::topics::{self, Sealing};
use crate::wire::delivery::Send;

/// Seals a row for the topic that it goes to.
pub(super) fn seal(
    row: &Model,
    topics: &topics::Handle,
    identity: &Identity,
    nonce: [u8; NONCE_BYTES],
) -> Result<Sealed, SealError> {
    let body = text(row)?;
    let own = identity.current();
    let frame = Send {
        target_spec: format!("#{}", row.target_id),
        priority: priority(&row.priority),
        nonce: BASE64_STANDARD.encode(nonce),
        id: Some(row.client_message_id.clone()),
        client_message_id: Some(row.client_message_id.clone()),
        request_fingerprint: Some(row.wire_fingerprint.clone()),
        sender_key: Some(own.public().to_hex()),
        topic_id: Some(row.target_id.clone()),
        ..Send::default()
    };
    match topics.sealing(&row.target_id) {
        Sealing::Key { epoch, key } => {
            let to = TopicDestination { topic_id: row.target_id.clone(), key_epoch: epoch };
            let mut envelope = envelope(row, body, identity, own.public(), Destination::Topic(to));
            // The key is every member's, so it proves no author.
            envelope.sign_author(own.secret());
            let failed = |error: String| SealError::ForGood(error);
            let plaintext = envelope.encode().map_err(|error| failed(error.to_string()))?;
            let ciphertext = key.seal(&nonce, &plaintext).map_err(|error| failed(error.to_string()))?;
            let frame = Send {
                ciphertext: BASE64_STANDARD.encode(ciphertext),
                body_version: Some(2),
                key_epoch: Some(epoch),
                ..frame
            };
            Ok(Sealed { frame, degraded: None })
        }
        Sealing::Plain if row.allow_unencrypted => {
            let frame = Send { ciphertext: BASE64_STANDARD.encode(body), body_version: Some(1), ..frame };
            Ok(Sealed { frame, degraded: row.degraded.clone() })
        }
        Sealing::Plain => Err(SealError::ForGood("the topic is not encrypted, and that was not allowed".to_owned())),
        Sealing::NotYet(why) => Err(SealError::NoKey(why)),
        Sealing::Gone => Err(SealError::ForGood("this member is not subscribed to the topic any more".to_owned())),
    }
}
