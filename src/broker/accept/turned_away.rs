//! Senders that were refused for want of room, until there is some.
//!
//! A hint and no promise: a sender that is not told tries again after its pause.

use std::collections::{BTreeSet, HashMap};

use super::Accept;
use super::queue::QueueSizes;
use crate::wire::delivery::ReceiverReady;

/// Pairs of receiver and sender that are remembered.
const REMEMBERED: usize = 10_000;

/// Who waits for room, by receiver and sender.
#[derive(Debug, Default)]
pub struct TurnedAway {
    by_receiver: HashMap<String, HashMap<String, Waiting>>,
    pairs: usize,
}

#[derive(Debug)]
struct Waiting {
    mesh_id: String,
    targets: BTreeSet<Target>,
}

/// What the sender addressed.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Member,
    Topic(String),
}

/// A sender that may go on.
#[derive(Debug, PartialEq, Eq)]
pub struct Ready {
    /// Its mesh.
    pub mesh_id: String,
    /// Who it is.
    pub sender_id: String,
    /// For whom there is room.
    pub frame: ReceiverReady,
}

// === impl TurnedAway ===

impl TurnedAway {
    /// Notes that a send was refused.
    pub fn note(&mut self, accept: &Accept, sizes: &QueueSizes) {
        let message = &accept.message;
        let sender = &message.sender_member_id;
        let bytes = i64::try_from(message.ciphertext.len() + message.nonce.len()).unwrap_or(i64::MAX);
        let is_full = |receiver: &&String| !sizes.has_room(receiver, sender, bytes);
        // The room may have come in the same batch, for all that is known.
        let is_known = accept.recipients.iter().any(|receiver| is_full(&receiver));
        for receiver in accept.recipients.iter().filter(|receiver| !is_known || is_full(receiver)) {
            if self.pairs >= REMEMBERED {
                return;
            }
            let target = match message.target_spec.strip_prefix('#') {
                Some(topic) => Target::Topic(topic.to_owned()),
                None => Target::Member,
            };
            let waiting = self.by_receiver.entry(receiver.clone()).or_default().entry(sender.clone());
            let waiting = waiting.or_insert_with(|| {
                self.pairs += 1;
                Waiting { mesh_id: message.mesh_id.clone(), targets: BTreeSet::new() }
            });
            waiting.targets.insert(target);
        }
    }

    /// Whether anybody waits for room at this receiver.
    pub fn awaits(&self, receiver: &str) -> bool {
        self.by_receiver.contains_key(receiver)
    }

    /// Who may go on, now that less waits for this receiver.
    pub fn ready(&mut self, receiver: &str, sizes: &QueueSizes) -> Vec<Ready> {
        let Some(senders) = self.by_receiver.get_mut(receiver) else { return Vec::new() };
        let mut ready = Vec::new();
        senders.retain(|sender, waiting| {
            if !sizes.has_much_room(receiver, sender) {
                return true;
            }
            self.pairs -= 1;
            ready.extend(std::mem::take(&mut waiting.targets).into_iter().map(|target| {
                let (member_id, topic_id) = match target {
                    Target::Member => (Some(receiver.to_owned()), None),
                    Target::Topic(topic) => (None, Some(topic)),
                };
                let frame = ReceiverReady { member_id, topic_id };
                Ready { mesh_id: waiting.mesh_id.clone(), sender_id: sender.clone(), frame }
            }));
            false
        });
        if senders.is_empty() {
            self.by_receiver.remove(receiver);
        }
        ready
    }
}
