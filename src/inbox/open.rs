//! From a pushed frame to a message that may be stored, or a reason why not.
//!
//! Nothing outside the box decides what a message is or who sent it: the key
//! that opens it must be pinned, and the envelope inside must name that key,
//! one of this daemon's keys, this mesh and the id outside.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::crypto::direct::NONCE_BYTES;
use crate::crypto::envelope::{Envelope, Expected, Opening, Plaintext, open_plaintext};
use crate::domain::event::MessageKind;
use crate::domain::ids::{ClientMessageId, MemberKey};
use crate::domain::names;
use crate::domain::roster::PinnedMember;
use crate::domain::time::UnixMillis;
use crate::identity::{Identity, OpeningKey};
use crate::peers::{self, Known};
use crate::topics;
use crate::wire::delivery::{Push, RejectReason};

/// Greatest ciphertext that is opened, in bytes after base64: the largest
/// envelope and its box.
const MAX_CIPHERTEXT: usize = (1 << 20) + (128 << 10);

/// An opened and checked message, not stored yet.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Opened {
    pub(super) client_message_id: String,
    pub(super) sender_member_id: String,
    pub(super) sender_key: MemberKey,
    pub(super) sender_name: String,
    pub(super) kind: MessageKind,
    /// The topic's id and name.
    pub(super) topic: Option<(String, String)>,
    pub(super) body: String,
    pub(super) meta: Option<String>,
    pub(super) reply_to_id: Option<String>,
    pub(super) mentions: Vec<String>,
    pub(super) sent_at: Option<UnixMillis>,
    pub(super) auto_hops: u32,
    pub(super) unencrypted: bool,
    /// It was sealed for a key of ours that was rotated out.
    pub(super) by_archived_key: bool,
    /// What identifies the message for ever, hashed for the memory of what was
    /// seen.
    pub(super) unique: Vec<u8>,
}

/// Why a message is not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The sender's key is not known yet. The sealed bytes wait for it.
    UnknownSender,
    /// The topic's key is not here yet. The sealed bytes wait for it.
    NoTopicKey,
    /// It can never be stored; kept aside with this reason.
    Quarantine(&'static str),
}

/// The reason of a message for a key that is erased.
pub(super) const STALE_KEY: &str = "sealed_for_erased_key";

/// What a sender may know of the reason why its message was set aside.
pub(super) fn told_reason(reason: &str) -> RejectReason {
    match reason {
        "not_subscribed" => RejectReason::NotSubscribed,
        STALE_KEY
        | "not_opened"
        | "sender_key_rotated_out"
        | "sender_key_unusable"
        | "sender_never_known"
        | "topic_key_never_came" => RejectReason::Unreadable,
        _ => RejectReason::Invalid,
    }
}

/// What opening needs.
#[derive(Debug)]
pub(super) struct Opener<'a> {
    pub(super) identity: &'a Identity,
    pub(super) peers: &'a peers::Handle,
    pub(super) topics: &'a topics::Handle,
}

/// Who holds a key.
pub(super) struct Sender {
    pub(super) member_id: String,
    pub(super) name: String,
}

// === impl Refused ===

impl Refused {
    /// Whether the sealed bytes wait for a key.
    pub(super) fn waits(&self) -> bool {
        matches!(self, Self::UnknownSender | Self::NoTopicKey)
    }
}

// === impl Opener ===

impl Opener<'_> {
    /// Opens a push.
    pub(super) fn open(&self, push: &Push) -> Result<Opened, Refused> {
        if push.mesh_id != self.identity.mesh_id().as_str() {
            return Err(Refused::Quarantine("wrong_mesh"));
        }
        let sender_key =
            MemberKey::parse(&push.sender_pubkey).map_err(|_| Refused::Quarantine("sender_key_malformed"))?;
        let ciphertext = decode(&push.ciphertext).ok_or(Refused::Quarantine("ciphertext_malformed"))?;
        if let Some(target) = push.target_spec.as_deref().filter(|target| is_multicast(target)) {
            return self.clear_text(push, target, sender_key, ciphertext);
        }
        let nonce: [u8; NONCE_BYTES] = decode(&push.nonce)
            .and_then(|nonce| nonce.try_into().ok())
            .ok_or(Refused::Quarantine("nonce_malformed"))?;
        if let Some(topic_id) = &push.topic_id {
            return self.post(push, topic_id, sender_key, &nonce, ciphertext);
        }
        let own = self.identity.opening_keys();
        if own.iter().any(|key| key.public() == sender_key) {
            return Err(Refused::Quarantine("reflected"));
        }
        let sender = self.sender(sender_key)?;
        let (plaintext, key) = self.unseal(&own, sender_key, &nonce, &ciphertext, push)?;
        let by_archived_key =
            key != self.identity.key() && self.identity.next().is_none_or(|next| next.public() != key);
        let opened = match open_plaintext(plaintext) {
            Ok(Plaintext::Envelope(envelope)) => self.checked(push, sender_key, sender, *envelope, &own),
            // A box opens in both directions: our own raw message, sent back
            // under the receiver's name, would open here.
            Ok(Plaintext::LegacyText(_)) if self.identity.is_own_nonce(&nonce) => Err(Refused::Quarantine("reflected")),
            Ok(Plaintext::LegacyText(text)) => Ok(legacy(push, sender_key, sender, text, &nonce)),
            Err(_) => Err(Refused::Quarantine("envelope_malformed")),
        };
        opened.map(|opened| Opened { by_archived_key, ..opened })
    }

    /// Tries the current key, then each one that was rotated out (R376). Gives
    /// the text and the key that opened it.
    fn unseal(
        &self,
        own: &[Arc<OpeningKey>],
        sender: MemberKey,
        nonce: &[u8; NONCE_BYTES],
        ciphertext: &[u8],
        push: &Push,
    ) -> Result<(Vec<u8>, MemberKey), Refused> {
        for key in own {
            let shared = key.shared_with(sender).map_err(|_| Refused::Quarantine("sender_key_unusable"))?;
            if let Ok(plaintext) = shared.open(nonce, ciphertext) {
                return Ok((plaintext, key.public()));
            }
        }
        // The broker's word, which only names the reason.
        let target = push.recipient_key.as_deref().and_then(|key| MemberKey::parse(key).ok());
        let stale = target.is_some_and(|key| self.peers.was_own(self.identity.member_id(), key));
        Err(Refused::Quarantine(if stale { STALE_KEY } else { "not_opened" }))
    }

    fn checked(
        &self,
        push: &Push,
        sender_key: MemberKey,
        sender: Sender,
        envelope: Envelope,
        own: &[Arc<OpeningKey>],
    ) -> Result<Opened, Refused> {
        let own_keys: Vec<MemberKey> = own.iter().map(|key| key.public()).collect();
        let expected = Expected {
            opening: Opening::Direct { sender: sender_key },
            own_keys: &own_keys,
            mesh: self.identity.mesh_id(),
            outer_client_message_id: push.client_message_id.as_deref(),
        };
        envelope.check(&expected).map_err(|_| Refused::Quarantine("envelope_refused"))?;
        ClientMessageId::parse(envelope.client_message_id.as_str())
            .map_err(|_| Refused::Quarantine("client_message_id_malformed"))?;
        Ok(Opened {
            unique: unique(&sender.member_id, &envelope.client_message_id),
            client_message_id: envelope.client_message_id,
            sender_member_id: sender.member_id,
            sender_key,
            sender_name: sender.name,
            kind: MessageKind::Direct,
            topic: None,
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

    /// What legacy clients send to everybody or to a group: base64 of the text.
    /// Only a push that the broker marks as such gets here, and never one to
    /// this member alone.
    fn clear_text(&self, push: &Push, target: &str, sender_key: MemberKey, text: Vec<u8>) -> Result<Opened, Refused> {
        let body = String::from_utf8(text).map_err(|_| Refused::Quarantine("text_malformed"))?;
        // Nobody has proven to be the sender, so this must not take a place
        // that a proven message of that member could claim.
        let sender_member_id = format!("clear:{sender_key}");
        let id = legacy_id(push);
        Ok(Opened {
            unique: unique(&sender_member_id, &id),
            client_message_id: id,
            sender_member_id,
            sender_key,
            sender_name: self.sender(sender_key).map_or_else(|_| shown_name(push, sender_key), |sender| sender.name),
            kind: if target.starts_with('@') && target != "@all" { MessageKind::Group } else { MessageKind::Broadcast },
            topic: None,
            body,
            meta: None,
            reply_to_id: None,
            mentions: Vec::new(),
            sent_at: None,
            auto_hops: 0,
            unencrypted: true,
            by_archived_key: false,
        })
    }

    /// Who holds a key: a pinned member, now or within the grace after a
    /// rotation, or a session that the broker shows or has named. A session is its own
    /// sender: nothing but the broker's word ties it to a member.
    pub(super) fn sender(&self, key: MemberKey) -> Result<Sender, Refused> {
        match self.peers.known(key) {
            Known::Member(member) => {
                let PinnedMember { member_id, display_name, .. } = *member;
                return Ok(Sender { member_id: member_id.into_string(), name: display_name });
            }
            Known::Retired => return Err(Refused::Quarantine("sender_key_rotated_out")),
            Known::Nobody => {}
        }
        let (member, name) = self.peers.session(key).ok_or(Refused::UnknownSender)?;
        let name = name.or_else(|| match self.peers.known(member) {
            Known::Member(member) => Some(member.display_name),
            _ => None,
        });
        Ok(Sender { member_id: format!("key:{key}"), name: names::session(&name.unwrap_or_default()) })
    }
}

fn legacy(push: &Push, sender_key: MemberKey, sender: Sender, body: String, nonce: &[u8]) -> Opened {
    // Nothing inside names the message: key and nonce stand for it.
    let mut unique = b"raw\0".to_vec();
    unique.extend_from_slice(&sender_key.0);
    unique.extend_from_slice(nonce);
    Opened {
        unique,
        client_message_id: legacy_id(push),
        sender_member_id: sender.member_id,
        sender_key,
        sender_name: sender.name,
        kind: MessageKind::Direct,
        topic: None,
        body,
        meta: None,
        reply_to_id: None,
        mentions: Vec::new(),
        sent_at: None,
        auto_hops: 0,
        unencrypted: false,
        by_archived_key: false,
    }
}

/// The id of a message whose sender signs none: the one outside the box when it
/// is well formed, else the broker's.
pub(super) fn legacy_id(push: &Push) -> String {
    push.client_message_id
        .as_deref()
        .and_then(|id| ClientMessageId::parse(id).ok())
        .map_or_else(|| format!("b:{}", push.message_id), ClientMessageId::into_string)
}

pub(super) fn shown_name(push: &Push, key: MemberKey) -> String {
    let name = push.sender_name.as_deref().unwrap_or_default().trim();
    if name.is_empty() { key.short() } else { names::session(name) }
}

pub(super) fn unique(sender_member_id: &str, client_message_id: &str) -> Vec<u8> {
    format!("id\0{sender_member_id}\0{client_message_id}").into_bytes()
}

fn is_multicast(target: &str) -> bool {
    target == "*" || target.starts_with('@')
}

fn decode(text: &str) -> Option<Vec<u8>> {
    if text.len() / 4 * 3 > MAX_CIPHERTEXT {
        return None;
    }
    BASE64_STANDARD.decode(text).ok()
}

pub(super) fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}
