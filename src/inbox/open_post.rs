//! From a pushed post to a message that may be stored.
//!
//! The topic's key shows that some reader of the topic sealed it, and the author's
//! signature inside who that was. The topic's name is the one that this daemon
//! knows for its id, whatever the push says.

use super::open::{Opened, Opener, Refused, legacy_id, non_empty, shown_name, unique};
use crate::crypto::direct::NONCE_BYTES;
use crate::crypto::envelope::{Expected, Opening as Opens, Plaintext, open_plaintext};
use crate::domain::event::MessageKind;
use crate::domain::ids::{MemberKey, TopicId};
use crate::domain::time::UnixMillis;
use crate::topics::Opening;
use crate::wire::delivery::Push;

// === impl Opener ===

impl Opener<'_> {
    /// Opens a post.
    pub(super) fn post(
        &self,
        push: &Push,
        topic_id: &str,
        sender_key: MemberKey,
        nonce: &[u8; NONCE_BYTES],
        ciphertext: Vec<u8>,
    ) -> Result<Opened, Refused> {
        match self.topics.opening(topic_id, push.key_epoch) {
            Opening::NotSubscribed => Err(Refused::Quarantine("not_subscribed")),
            Opening::ClearText => Err(Refused::Quarantine("topic_is_encrypted")),
            Opening::NotYet => Err(Refused::NoTopicKey),
            Opening::Plain { name } => self.plain_post(push, (topic_id.to_owned(), name), sender_key, ciphertext),
            Opening::Key { name, key } => {
                let id = TopicId::parse(topic_id).map_err(|_| Refused::Quarantine("topic_malformed"))?;
                let sender = self.sender(sender_key)?;
                let plaintext = key.open(nonce, &ciphertext).map_err(|_| Refused::Quarantine("not_opened"))?;
                let Ok(Plaintext::Envelope(envelope)) = open_plaintext(plaintext) else {
                    // Nothing but an envelope says who wrote it.
                    return Err(Refused::Quarantine("envelope_malformed"));
                };
                let key_epoch = push.key_epoch.unwrap_or_default();
                let expected = Expected {
                    opening: Opens::Topic { sender: sender_key, topic_id: &id, key_epoch },
                    own_keys: &[],
                    mesh: self.identity.mesh_id(),
                    outer_client_message_id: push.client_message_id.as_deref(),
                };
                envelope.check(&expected).map_err(|_| Refused::Quarantine("envelope_refused"))?;
                Ok(Opened {
                    unique: unique(&sender.member_id, &envelope.client_message_id),
                    client_message_id: envelope.client_message_id,
                    sender_member_id: sender.member_id,
                    sender_key,
                    sender_name: sender.name,
                    kind: MessageKind::Topic,
                    topic: Some((topic_id.to_owned(), name)),
                    body: envelope.body,
                    meta: non_empty(envelope.meta),
                    reply_to_id: non_empty(envelope.reply_to),
                    mentions: envelope.mentions,
                    sent_at: Some(UnixMillis(envelope.sent_at_ms)),
                    auto_hops: envelope.auto_hops,
                    unencrypted: false,
                    by_archived_key: false,
                })
            }
        }
    }

    /// A post to a topic of the first version: base64 of the text.
    fn plain_post(
        &self,
        push: &Push,
        topic: (String, String),
        sender_key: MemberKey,
        text: Vec<u8>,
    ) -> Result<Opened, Refused> {
        let body = String::from_utf8(text).map_err(|_| Refused::Quarantine("text_malformed"))?;
        // Nobody has proven to be the sender, as with every clear text.
        let sender_member_id = format!("clear:{sender_key}");
        let id = legacy_id(push);
        Ok(Opened {
            unique: unique(&sender_member_id, &id),
            client_message_id: id,
            sender_member_id,
            sender_key,
            sender_name: self.sender(sender_key).map_or_else(|_| shown_name(push, sender_key), |sender| sender.name),
            kind: MessageKind::Topic,
            topic: Some(topic),
            body,
            meta: None,
            reply_to_id: push.reply_to_id.clone(),
            mentions: Vec::new(),
            sent_at: None,
            auto_hops: 0,
            unencrypted: true,
            by_archived_key: false,
        })
    }
}
