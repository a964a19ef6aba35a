//! B1: everything that can be known about a send without a transaction.
//!
//! Nothing is written here. Each refusal says whether a retry can help; what is
//! permanent today (a malformed field) and what is not (a rate) never share a
//! code.

use std::collections::HashSet;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::{Accept, Answer, Refused};
use crate::broker::fanout::Route;
use crate::broker::session::peer::Peer;
use crate::broker::session::terms::Kind;
use crate::broker::shared::{MAX_INLINE_BYTES, Shared};
use crate::broker::store::entity::message;
use crate::broker::topics;
use crate::domain::ids::ClientMessageId;
use crate::wire::delivery::{Priority, Send};
use crate::wire::features::{DedupeMode, Feature};
use crate::wire::refusal::Refusal;
use crate::wire::text;

/// Longest fingerprint and reply id, in bytes.
const MAX_TEXT_BYTES: usize = 128;

/// A send that passed.
#[derive(Debug)]
pub struct Checked {
    message: message::Model,
    kind: &'static str,
    route: Route,
    recipients: Vec<String>,
    keyless: Vec<String>,
    fingerprint: String,
    forgets_id: bool,
    charged: bool,
}

/// Where a send goes.
struct Destination {
    kind: &'static str,
    route: Route,
    recipients: Vec<String>,
    target: String,
}

/// Checks a send of this connection. `topic` is where a post goes.
pub fn check(shared: &Shared, peer: &Peer, send: &Send, topic: Option<topics::Target>) -> Result<Checked, Refused> {
    let member = peer.mesh.member(&peer.member_id).filter(|member| member.revoked_at.is_none());
    let Some(member) = member else { return Err(Refusal::Forbidden.into()) };
    if let Some(id) = &send.client_message_id {
        ClientMessageId::parse(id.as_str()).map_err(|_| Refusal::Invalid)?;
    }
    check_text(send.request_fingerprint.as_deref())?;
    check_text(send.reply_to_id.as_deref())?;
    if send.ciphertext.len() > MAX_INLINE_BYTES {
        return Err(Refusal::PayloadTooLarge.into());
    }
    let nonce = text::nonce_from_base64(&send.nonce).ok_or(Refusal::Invalid)?;
    let ciphertext = text::from_base64(&send.ciphertext).ok_or(Refusal::Invalid)?;
    let sender_pubkey = sender_key(peer, send)?;
    let (destination, key_epoch, keyless) = match topic {
        Some(topic) => (
            Destination { kind: "topic", route: Route::Member, recipients: topic.recipients, target: topic.spec },
            topic.key_epoch,
            topic.keyless,
        ),
        None => (destination(shared, peer, &send.target_spec)?, None, Vec::new()),
    };
    let now = shared.clock.monotonic();
    let charged =
        shared.limiter.take(&peer.member_id, send.client_message_id.as_deref(), now).map_err(|after| Refused {
            refusal: Refusal::RateLimit,
            retry_after_ms: Some(u64::try_from(after.as_millis()).unwrap_or(u64::MAX).max(1)),
        })?;
    let message = message::Model {
        id: String::new(),
        mesh_id: peer.mesh.id.clone(),
        sender_member_id: peer.member_id.clone(),
        sender_pubkey,
        sender_member_pubkey: member.pubkey.clone(),
        sender_name: peer.name(),
        target_spec: destination.target,
        priority: priority_name(send.priority).to_owned(),
        nonce: nonce.to_vec(),
        ciphertext,
        client_message_id: send.client_message_id.clone(),
        request_fingerprint: send.request_fingerprint.clone(),
        reply_to_id: send.reply_to_id.clone(),
        created_at: 0,
        key_epoch,
    };
    Ok(Checked {
        message,
        kind: destination.kind,
        route: destination.route,
        recipients: destination.recipients,
        keyless,
        fingerprint: fingerprint(send),
        forgets_id: peer.mesh.settings().dedupe_mode == DedupeMode::RetentionScoped,
        charged,
    })
}

/// What a retry of this send is compared with: the sender's fingerprint, or a
/// hash of what the broker sees. Each field goes in with its length, so that no
/// two sends share the hashed bytes.
pub fn fingerprint(send: &Send) -> String {
    if let Some(fingerprint) = &send.request_fingerprint {
        return fingerprint.clone();
    }
    let mut hash = Sha256::new();
    let reply_to = send.reply_to_id.as_deref().unwrap_or_default();
    for field in [&send.target_spec, priority_name(send.priority), reply_to, &send.nonce, &send.ciphertext] {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field.as_bytes());
    }
    format!("envelope:{}", hex::encode(hash.finalize()))
}

/// The word for it in frames and rows.
pub fn priority_name(priority: Priority) -> &'static str {
    match priority {
        Priority::Now => "now",
        Priority::Next => "next",
        Priority::Low => "low",
    }
}

fn check_text(text: Option<&str>) -> Result<(), Refused> {
    match text {
        Some(text) if text.len() > MAX_TEXT_BYTES || !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err(Refusal::Invalid.into())
        }
        _ => Ok(()),
    }
}

/// The key that receivers open the message with. A session seals with its own
/// key; a member may name any key it has or had, because a row may have been
/// sealed just before a rotation.
fn sender_key(peer: &Peer, send: &Send) -> Result<String, Refused> {
    let Some(named) = &send.sender_key else { return Ok(peer.routing_key().to_owned()) };
    let own = match peer.kind {
        Kind::Session => *named == peer.routing_key(),
        Kind::Member => {
            *named == peer.routing_key() || peer.mesh.key(named).is_some_and(|key| key.member_id == peer.member_id)
        }
    };
    if own { Ok(named.clone()) } else { Err(Refusal::SenderKeyUnknown.into()) }
}

fn destination(shared: &Shared, peer: &Peer, target: &str) -> Result<Destination, Refused> {
    let is_key = target.len() == 64 && target.bytes().all(|byte| byte.is_ascii_hexdigit());
    match target {
        "*" | "@all" => Ok(multicast(shared, peer, "broadcast", Route::Everyone, target)),
        _ if is_key => direct(shared, peer, target.to_ascii_lowercase()),
        _ if target.starts_with('#') => Err(Refusal::TopicNotFound.into()),
        _ => match target.strip_prefix('@') {
            Some(group) if !group.is_empty() && group.len() <= MAX_TEXT_BYTES => {
                Ok(multicast(shared, peer, "group", Route::Group(group.to_owned()), target))
            }
            _ => Err(Refusal::Invalid.into()),
        },
    }
}

/// A member is known whether it is connected or not. A session is known only
/// while it is connected, or was a moment ago.
fn direct(shared: &Shared, peer: &Peer, target: String) -> Result<Destination, Refused> {
    if let Some(key) = peer.mesh.key(&target) {
        let member = peer.mesh.member(&key.member_id).ok_or(Refusal::RecipientNotFound)?;
        if member.revoked_at.is_some() {
            return Err(Refusal::RecipientRevoked.into());
        }
        // Old clients know no other key, and a receiver opens with its old one for a
        // while. A daemon that was away may come back long after that, and sends
        // before it has heard of the new key.
        if key.rotated_out_at.is_some() && peer.has(Feature::MemberKeypairRotatedEvent) {
            return Err(Refusal::RecipientKeyStale.into());
        }
        return Ok(Destination { kind: "dm", route: Route::Member, recipients: vec![key.member_id], target });
    }
    match shared.registry.by_session_key(&peer.mesh.id, &target) {
        Some(session) => Ok(Destination {
            kind: "dm",
            route: Route::Session(target.clone()),
            recipients: vec![session.member_id.clone()],
            target,
        }),
        None => Err(Refusal::RecipientNotFound.into()),
    }
}

/// Everybody of another member who is there, or was a moment ago, and shows
/// itself. Who is not there never gets it: that is what these targets mean to
/// the clients that use them.
fn multicast(shared: &Shared, peer: &Peer, kind: &'static str, route: Route, target: &str) -> Destination {
    let mut recipients = HashSet::new();
    for other in shared.registry.of_mesh(&peer.mesh.id) {
        if other.member_id == peer.member_id || recipients.contains(&other.member_id) {
            continue;
        }
        let wanted = match &route {
            Route::Group(name) => other.profile().groups.iter().any(|group| group.name == *name),
            _ => true,
        };
        if wanted && other.is_visible() {
            recipients.insert(other.member_id.clone());
        }
    }
    let mut recipients: Vec<String> = recipients.into_iter().collect();
    recipients.sort_unstable();
    Destination { kind, route, recipients, target: target.to_owned() }
}

// === impl Checked ===

impl Checked {
    /// The command for the writer.
    pub fn into_accept(self, answer: Answer) -> Accept {
        Accept {
            message: self.message,
            kind: self.kind,
            route: Arc::new(self.route),
            recipients: self.recipients,
            keyless: self.keyless,
            fingerprint: self.fingerprint,
            forgets_id: self.forgets_id,
            charged: self.charged,
            answer,
        }
    }
}
