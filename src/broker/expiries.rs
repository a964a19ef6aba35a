//! Tells senders that a message was given up, or set aside by its receiver.
//!
//! Whoever is connected hears of it at once. The others hear of it when they
//! connect again and negotiate `delivery_ack`; until then the row remembers that
//! nobody was told.

use std::collections::HashMap;
use std::sync::Arc;

use sea_orm::DbErr;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::session::peer::Peer;
use super::shared::Shared;
use super::store::deliveries::Ended;
use super::store::expiries::{self, Untold};
use crate::wire::codec;
use crate::wire::delivery::{DeliveryState, DeliveryStatus};
use crate::wire::features::Feature;
use crate::wire::frame::ServerFrame;

/// Endings told to one sender at once; fewer than a connection has room for.
const PAGE: u64 = 200;
/// Senders looked after in one sweep.
const MAX_SENDERS: u64 = 1_000;

/// Tells those senders of copies that have just ended who are connected here.
pub async fn tell(shared: &Shared, ended: &[Ended]) {
    let mut by_sender: HashMap<(&str, &str), Vec<Untold>> = HashMap::new();
    let at = shared.store.now().0;
    for copy in ended {
        if let Some(client_message_id) = copy.client_message_id.clone() {
            let untold = Untold {
                id: copy.id.clone(),
                client_message_id,
                recipient_member_id: copy.recipient_member_id.clone(),
                expired_at: at,
                reject_reason: copy.reject_reason.clone(),
            };
            by_sender.entry((&copy.mesh_id, &copy.sender_member_id)).or_default().push(untold);
        }
    }
    for ((mesh_id, member_id), untold) in by_sender {
        if let Some(peer) = listener(shared, mesh_id, member_id) {
            deliver(shared, &peer, untold).await;
        }
    }
}

/// The connection of a member that understands most of it.
fn listener(shared: &Shared, mesh_id: &str, member_id: &str) -> Option<Arc<Peer>> {
    let listeners = shared.registry.of_member(mesh_id, member_id).into_iter();
    let mut listeners: Vec<Arc<Peer>> =
        listeners.filter(|peer| peer.is_online() && peer.has(Feature::DeliveryAck)).collect();
    let best = listeners.iter().position(|peer| peer.has(Feature::DeliveryOutcome)).unwrap_or(0);
    (best < listeners.len()).then(|| listeners.swap_remove(best))
}

/// Tells a sender what ended while it was away.
pub async fn tell_returned(shared: &Shared, peer: &Arc<Peer>) {
    let knows_outcomes = peer.has(Feature::DeliveryOutcome);
    match expiries::untold(shared.store.readers(), &peer.member_id, knows_outcomes, PAGE).await {
        Ok(untold) => deliver(shared, peer, untold).await,
        Err(error) => tracing::warn!(error = %error, "Cannot read which deliveries ended: {error}"),
    }
}

/// Tells those who had more endings than one page holds, or no room.
pub async fn tell_rest(shared: &Shared) -> Result<(), DbErr> {
    for (mesh_id, member_id) in expiries::untold_senders(shared.store.readers(), MAX_SENDERS).await? {
        if let Some(peer) = listener(shared, &mesh_id, &member_id) {
            tell_returned(shared, &peer).await;
        }
    }
    Ok(())
}

async fn deliver(shared: &Shared, peer: &Arc<Peer>, untold: Vec<Untold>) {
    let knows_outcomes = peer.has(Feature::DeliveryOutcome);
    let mut told = Vec::with_capacity(untold.len());
    // Who does not know the word hears nothing: both others would be false.
    for ending in untold.into_iter().filter(|ending| knows_outcomes || ending.reject_reason.is_none()) {
        let is_rejected = ending.reject_reason.is_some();
        let status = DeliveryStatus {
            client_message_id: ending.client_message_id,
            state: if is_rejected { DeliveryState::Rejected } else { DeliveryState::Expired },
            at: ending.expired_at,
            reason: ending.reject_reason,
            recipient_member_id: Some(ending.recipient_member_id).filter(|_| knows_outcomes),
        };
        match codec::encode(&ServerFrame::DeliveryStatus(status)) {
            Ok(text) => {
                if !peer.event(&Utf8Bytes::from(text)) {
                    break;
                }
                told.push(ending.id);
            }
            Err(error) => tracing::warn!(error = %error, "Cannot write a delivery_status: {error}"),
        }
    }
    if told.is_empty() {
        return;
    }
    let noted = async {
        let transaction = shared.store.begin().await?;
        expiries::told(&transaction, &told, shared.store.now().0).await?;
        transaction.commit().await
    };
    if let Err(error) = noted.await {
        // Told again at the next hello, which does no harm.
        tracing::warn!(error = %error, "Cannot note who was told of a delivery: {error}");
    }
}
