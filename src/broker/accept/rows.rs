//! The rows of a send, made before the transaction that writes them.
//!
//! Both ways to commit a batch use them: [`super::commit`] for every engine, and
//! [`super::batch_sqlite`].

use std::collections::HashSet;
use std::sync::Arc;

use super::Accept;
use super::commit::{Accepted, Context, Outcome};
use super::queue::QueueSizes;
use crate::broker::fanout::Route;
use crate::broker::store::dedupe;
use crate::broker::store::deliveries::Ended;
use crate::broker::store::entity::{dedupe as dedupe_row, delivery, history, message};
use crate::domain::time::UnixMillis;
use crate::wire::refusal::Refusal;

const DAY_MS: i64 = 24 * 3_600_000;

/// The rows of one send, made before the transaction so that a repeated
/// transaction writes the same ids.
pub(super) struct Rows {
    /// The message.
    pub(super) message: Arc<message::Model>,
    /// A copy for each receiver that has room.
    pub(super) copies: Vec<delivery::Model>,
    /// Why it cannot be accepted, as far as that is known before.
    pub(super) refusal: Option<Refusal>,
}

// === impl Context ===

impl Context<'_> {
    /// Gives the message its id and makes the receivers' copies, as far as they
    /// have room. The room is taken at once, so that two sends of one batch
    /// cannot share it.
    pub(super) fn rows(&self, accept: &Accept, now: UnixMillis, sizes: &mut QueueSizes) -> Rows {
        let message = message::Model { id: self.ids.ulid_at(now), created_at: now.0, ..accept.message.clone() };
        let bytes = i64::try_from(message.ciphertext.len() + message.nonce.len()).unwrap_or(i64::MAX);
        let session_key = match &*accept.route {
            Route::Session(key) => Some(key.clone()),
            _ => None,
        };
        let mut copies = Vec::with_capacity(accept.recipients.len());
        let mut refusal = None;
        for receiver in &accept.recipients {
            let mut expired_at = None;
            let mut taker = None;
            if sizes.has_room(receiver, &message.sender_member_id, bytes) {
                sizes.add(receiver, &message.sender_member_id, bytes);
                taker = self.fanout.taker(&message.mesh_id, &message.sender_member_id, receiver, &accept.route);
            } else if accept.kind != "topic" {
                // One full queue among many receivers does not fail the others.
                refusal = (accept.recipients.len() == 1).then_some(Refusal::RecipientQueueFull);
                continue;
            } else if self.fanout.is_online(&message.mesh_id, receiver) && !accept.keyless.contains(receiver) {
                // It reads the topic and is slower than its sender, who waits: nothing of
                // a topic is left out for who is there.
                refusal = Some(Refusal::RecipientQueueFull);
                continue;
            } else {
                // Who is away for long, or has no key, does not hold up the topic. Nor who is
                // connected to another broker of these. The sender is told, as
                // of everything that a receiver did not take in time.
                expired_at = Some(now.0);
            }
            copies.push(delivery::Model {
                id: self.ids.ulid_at(now),
                broker_message_id: message.id.clone(),
                mesh_id: message.mesh_id.clone(),
                sender_member_id: message.sender_member_id.clone(),
                recipient_member_id: receiver.clone(),
                target_session_key: session_key.clone(),
                client_message_id: message.client_message_id.clone(),
                bytes,
                created_at: now.0,
                claimed_at: taker.is_some().then_some(now.0),
                claim_expires_at: taker.is_some().then_some(self.lease_end(now)),
                claim_id: taker,
                delivered_at: None,
                expired_at,
                expiry_told_at: None,
                waiting_at: None,
                reject_reason: None,
            });
        }
        Rows { message: Arc::new(message), copies, refusal }
    }

    /// The dedupe rows of these sends, sorted by their key.
    pub(super) fn dedupe_rows<'r>(
        &self,
        sends: impl Iterator<Item = (&'r Accept, &'r Rows)>,
        now: UnixMillis,
    ) -> Vec<dedupe_row::Model> {
        let mut taken: Vec<dedupe_row::Model> =
            sends.filter_map(|(accept, rows)| self.dedupe_row(accept, rows, now)).collect();
        taken.sort_unstable_by(|a, b| {
            (&a.mesh_id, &a.sender_member_id, &a.client_message_id, &a.broker_message_id).cmp(&(
                &b.mesh_id,
                &b.sender_member_id,
                &b.client_message_id,
                &b.broker_message_id,
            ))
        });
        taken
    }

    fn dedupe_row(&self, accept: &Accept, rows: &Rows, now: UnixMillis) -> Option<dedupe_row::Model> {
        let (mesh_id, sender_member_id, client_message_id) = key(&rows.message)?;
        let retention = i64::from(self.config.dedupe_retention_days).saturating_mul(DAY_MS);
        Some(dedupe_row::Model {
            mesh_id,
            sender_member_id,
            client_message_id,
            broker_message_id: rows.message.id.clone(),
            history_id: rows.message.id.clone(),
            request_fingerprint: accept.fingerprint.clone(),
            destination_kind: accept.kind.to_owned(),
            destination_ref: rows.message.target_spec.clone(),
            first_seen_at: now.0,
            expires_at: accept.forgets_id.then_some(now.0.saturating_add(retention)),
            history_available: true,
        })
    }

    /// Until when a push from now on counts.
    pub(super) fn lease_end(&self, now: UnixMillis) -> i64 {
        now.0.saturating_add(i64::try_from(self.config.timers.lease.as_millis()).unwrap_or(i64::MAX))
    }
}

/// The members without whom the rows cannot be written as they are.
pub(super) fn concerned(rows: &[Rows]) -> HashSet<&str> {
    let mut concerned: HashSet<&str> = HashSet::new();
    for rows in rows {
        concerned.insert(&rows.message.sender_member_id);
        concerned.extend(rows.copies.iter().map(|copy| copy.recipient_member_id.as_str()));
    }
    concerned
}

/// Why each send is refused, if it is.
pub(super) fn refusals(accepts: &[Accept], rows: &[Rows], standing: &HashSet<String>) -> Vec<Option<Refusal>> {
    accepts
        .iter()
        .zip(rows)
        .map(|(accept, rows)| {
            let gone = |id: &String| !standing.contains(id);
            if gone(&rows.message.sender_member_id) {
                Some(Refusal::Forbidden)
            } else if rows.refusal.is_none() && accept.kind == "dm" && accept.recipients.iter().any(gone) {
                Some(Refusal::RecipientRevoked)
            } else {
                rows.refusal
            }
        })
        .collect()
}

/// What becomes of a send whose message is stored with these copies.
pub(super) fn accepted<'r>(rows: &Rows, copies: impl Iterator<Item = &'r delivery::Model>) -> Outcome {
    let (open, expired): (Vec<_>, Vec<_>) = copies.partition(|copy| copy.expired_at.is_none());
    let copies = open.into_iter().map(|copy| (copy.id.clone(), copy.recipient_member_id.clone())).collect();
    let expired = expired.into_iter().map(Ended::at_once).collect();
    Outcome::Accepted(Accepted { message: Arc::clone(&rows.message), copies, expired })
}

/// The key of a message's dedupe row; `None` for one without an id of its sender.
pub(super) fn key(message: &message::Model) -> Option<dedupe::Key> {
    let id = message.client_message_id.clone()?;
    Some((message.mesh_id.clone(), message.sender_member_id.clone(), id))
}

/// The message's place in the history.
pub(super) fn history_row(accept: &Accept, rows: &Rows) -> history::Model {
    history::Model {
        id: rows.message.id.clone(),
        mesh_id: rows.message.mesh_id.clone(),
        sender_member_id: rows.message.sender_member_id.clone(),
        destination_kind: accept.kind.to_owned(),
        destination_ref: rows.message.target_spec.clone(),
        created_at: rows.message.created_at,
    }
}
