//! Tells senders how their messages ended at a receiver: delivered, set aside, given up.
//!
//! Whoever is connected hears of it at once. What was set aside or given up is told
//! also to who was away, with the next negotiation of `delivery_ack`: the row
//! remembers that its sender does not know. It knows once its connection has
//! answered a ping that was sent after the word; a connection that ends before that
//! may have taken the word with it, so the next one is told again.

use std::collections::HashMap;
use std::sync::Arc;

use sea_orm::DbErr;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::session::peer::Peer;
use super::shared::Shared;
use super::store::deliveries::Ended;
use super::store::endings::{self, Untold};
use crate::wire::codec;
use crate::wire::delivery::{DeliveryState, DeliveryStatus};
use crate::wire::features::Feature;
use crate::wire::frame::ServerFrame;

/// Endings told to one sender at once; fewer than a connection has room for.
const PAGE: u64 = 200;
/// Senders looked after in one sweep.
const MAX_SENDERS: u64 = 1_000;

/// Tells every connection of a sender here that its message is stored.
pub fn tell_delivered(shared: &Shared, ended: &[Ended]) {
    let at = shared.store.now().0;
    for copy in ended {
        let Some(client_message_id) = &copy.client_message_id else { continue };
        let listeners = listeners(shared, &copy.mesh_id, &copy.sender_member_id);
        for names_receiver in [true, false] {
            let mut those =
                listeners.iter().filter(|peer| peer.has(Feature::DeliveryOutcome) == names_receiver).peekable();
            if those.peek().is_none() {
                continue;
            }
            let status = DeliveryStatus {
                client_message_id: client_message_id.clone(),
                state: DeliveryState::Delivered,
                at,
                reason: None,
                recipient_member_id: names_receiver.then(|| copy.recipient_member_id.clone()),
            };
            let Some(text) = text_of(status) else { continue };
            let dropped = those.filter(|peer| !peer.event(&text)).count();
            shared.metrics.events_dropped.inc_by(dropped as u64);
        }
    }
}

/// Tells those senders of copies that were set aside or given up just now who are
/// connected here.
pub fn tell(shared: &Shared, ended: &[Ended]) {
    let mut by_sender: HashMap<(&str, &str), Vec<Untold>> = HashMap::new();
    let at = shared.store.now().0;
    for copy in ended {
        if let Some(client_message_id) = copy.client_message_id.clone() {
            let untold = Untold {
                id: copy.id.clone(),
                client_message_id,
                recipient_member_id: copy.recipient_member_id.clone(),
                ended_at: at,
                reject_reason: copy.reject_reason.clone(),
            };
            by_sender.entry((&copy.mesh_id, &copy.sender_member_id)).or_default().push(untold);
        }
    }
    for ((mesh_id, member_id), untold) in by_sender {
        if let Some(peer) = listener(shared, mesh_id, member_id) {
            deliver(&peer, untold);
        }
    }
}

/// The connections of a member that hear of endings.
fn listeners(shared: &Shared, mesh_id: &str, member_id: &str) -> Vec<Arc<Peer>> {
    let mut peers = shared.registry.of_member(mesh_id, member_id);
    peers.retain(|peer| peer.is_online() && peer.has(Feature::DeliveryAck));
    peers
}

/// The one of them that understands most of it.
fn listener(shared: &Shared, mesh_id: &str, member_id: &str) -> Option<Arc<Peer>> {
    let mut listeners = listeners(shared, mesh_id, member_id);
    let best = listeners.iter().position(|peer| peer.has(Feature::DeliveryOutcome)).unwrap_or(0);
    (best < listeners.len()).then(|| listeners.swap_remove(best))
}

/// Tells a sender what ended while it was away.
pub async fn tell_returned(shared: &Shared, peer: &Arc<Peer>) {
    let knows_outcomes = peer.has(Feature::DeliveryOutcome);
    match endings::untold(shared.store.readers(), &peer.member_id, knows_outcomes, PAGE).await {
        Ok(untold) => {
            if untold.len() as u64 == PAGE {
                peer.note_more_endings();
            }
            deliver(peer, untold);
        }
        Err(error) => tracing::warn!(error = %error, "Cannot read which deliveries ended: {error}"),
    }
}

/// Tells those who are connected and were not told, for whatever reason.
pub async fn tell_rest(shared: &Shared) -> Result<(), DbErr> {
    for (mesh_id, member_id) in endings::untold_senders(shared.store.readers(), MAX_SENDERS).await? {
        if let Some(peer) = listener(shared, &mesh_id, &member_id) {
            tell_returned(shared, &peer).await;
        }
    }
    Ok(())
}

fn deliver(peer: &Peer, untold: Vec<Untold>) {
    let knows_outcomes = peer.has(Feature::DeliveryOutcome);
    // Who does not know the word hears nothing: both others would be false.
    for ending in untold.into_iter().filter(|ending| knows_outcomes || ending.reject_reason.is_none()) {
        let is_rejected = ending.reject_reason.is_some();
        let status = DeliveryStatus {
            client_message_id: ending.client_message_id,
            state: if is_rejected { DeliveryState::Rejected } else { DeliveryState::Expired },
            at: ending.ended_at,
            reason: ending.reject_reason.clone(),
            recipient_member_id: Some(ending.recipient_member_id).filter(|_| knows_outcomes),
        };
        let Some(text) = text_of(status) else { continue };
        if !peer.ending(ending.id, ending.reject_reason, text) {
            peer.note_more_endings();
            break;
        }
    }
}

fn text_of(status: DeliveryStatus) -> Option<Utf8Bytes> {
    match codec::encode(&ServerFrame::DeliveryStatus(status)) {
        Ok(text) => Some(Utf8Bytes::from(text)),
        Err(error) => {
            tracing::warn!(error = %error, "Cannot write a delivery_status: {error}");
            None
        }
    }
}
