//! What the sender tells: subscribers and metrics.

use std::collections::BTreeMap;

use super::entity::Model;
use super::sender::Sender;
use crate::domain::event::{DeliveryStatus, MeshEvent, SendState};
use crate::domain::time::UnixMillis;
use crate::wire::delivery::{DeliveryState, DeliveryStatus as StatusFrame};

// === impl Sender ===

impl Sender {
    /// Notes and tells what the broker reports of receivers.
    pub(super) async fn note_statuses(&self, statuses: Vec<StatusFrame>) {
        let mut delivered: BTreeMap<UnixMillis, Vec<String>> = BTreeMap::new();
        for status in statuses.iter().filter(|status| status.state == DeliveryState::Delivered) {
            delivered.entry(UnixMillis(status.at)).or_default().push(status.client_message_id.clone());
        }
        for (at, ids) in delivered {
            self.handle.note_delivered(ids, at).await;
        }
        for status in statuses {
            let at = UnixMillis(status.at);
            let state = match status.state {
                DeliveryState::Delivered => SendState::Delivered,
                DeliveryState::Expired => SendState::Expired,
            };
            let event = DeliveryStatus {
                client_message_id: status.client_message_id,
                state,
                broker_message_id: None,
                at,
                detail: None,
            };
            self.deps.hub.publish(self.clock.now(), MeshEvent::DeliveryStatus(event));
        }
    }

    /// Tells how far a row has come.
    pub(super) fn tell(
        &self,
        row: &Model,
        state: SendState,
        broker_message_id: Option<String>,
        detail: Option<String>,
    ) {
        self.deps.metrics.sent(kind(&row.destination_kind), state.name());
        let at = self.clock.now();
        let client_message_id = row.client_message_id.clone();
        let event = DeliveryStatus { client_message_id, state, broker_message_id, at, detail };
        self.deps.hub.publish(at, MeshEvent::DeliveryStatus(event));
    }
}

/// The kind of a row as a metric's label.
fn kind(stored: &str) -> &'static str {
    match stored {
        "topic" => "topic",
        "broadcast" => "broadcast",
        "group" => "group",
        _ => "dm",
    }
}
