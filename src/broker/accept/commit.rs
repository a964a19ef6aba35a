//! B2 and B3: one transaction for everything that waits.
//!
//! The order inside matters. Memberships are read again first and refusals are
//! settled, so that the dedupe rows that follow belong to messages that will be
//! stored: a refusal never leaves a dedupe row. An id that is taken already is
//! looked up in the same transaction. Dedupe rows go in sorted by key, messages
//! and copies in the order of arrival.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sea_orm::{DatabaseTransaction, DbErr};

use super::fence::Fence;
use super::queue::QueueSizes;
use super::{Accept, Refused};
use crate::broker::fanout::Fanout;
use crate::broker::session::terms::Holder;
use crate::broker::store::deliveries::{Claimed, Ended};
use crate::broker::store::entity::{dedupe as dedupe_row, delivery, history, message};
use crate::broker::store::{Store, dedupe, deliveries, members, messages};
use crate::config::broker::BrokerConfig;
use crate::db::tx;
use crate::domain::dedupe::{Decision, Seen, decide};
use crate::domain::time::UnixMillis;
use crate::runtime::ids::IdSource;
use crate::wire::refusal::Refusal;

/// How often a transaction is tried that the engine asks to repeat.
const ATTEMPTS: u32 = 4;
const DAY_MS: i64 = 24 * 3_600_000;

/// What becomes of one send.
#[derive(Debug)]
pub enum Outcome {
    /// Stored.
    Accepted(Accepted),
    /// Stored before.
    Duplicate(Seen),
    /// The id stands for another request.
    Mismatch(Seen),
    /// Not stored.
    Refused(Refused),
}

/// A stored message with the copies of its receivers.
#[derive(Debug)]
pub struct Accepted {
    /// The message.
    pub message: Arc<message::Model>,
    /// Copy id and receiver.
    pub copies: Vec<(String, String)>,
}

/// Copies that a receiver acknowledged.
#[derive(Clone, Debug, Default)]
pub struct Settle {
    /// The receiver.
    pub member_id: String,
    /// Copies that were pushed on the connection that acknowledged them.
    pub ids: Vec<String>,
    /// What else the acknowledgement names.
    pub named: Vec<Claimed>,
    /// The connection it came on.
    pub holder: Option<Arc<Holder>>,
}

/// Copies that were pushed from the database.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The copies.
    pub ids: Vec<String>,
    /// The connection.
    pub presence_id: String,
    /// The same with its state directory.
    pub holder: Option<Arc<Holder>>,
}

/// What goes into one transaction.
#[derive(Debug)]
pub struct Batch<'a> {
    /// Sends in the order of arrival.
    pub accepts: &'a [Accept],
    /// Acknowledgements.
    pub settles: &'a [Settle],
    /// Pushes.
    pub claims: &'a [Claim],
}

/// What a transaction needs beside its batch.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The database.
    pub store: &'a Store,
    /// The settings.
    pub config: &'a BrokerConfig,
    /// Ids.
    pub ids: &'a IdSource,
    /// Says who would take a copy at once.
    pub fanout: &'a dyn Fanout,
}

/// A batch's results.
#[derive(Debug, Default)]
pub struct Committed {
    /// One for each send.
    pub outcomes: Vec<Outcome>,
    /// Copies that were acknowledged for the first time.
    pub ended: Vec<Ended>,
    /// Connections that were replaced at another broker.
    pub replaced: Vec<Arc<Holder>>,
}

/// The rows of one send, made before the transaction so that a repeated
/// transaction writes the same ids.
struct Rows {
    message: Arc<message::Model>,
    copies: Vec<delivery::Model>,
    refusal: Option<Refusal>,
}

/// Runs a batch, again when the engine asks for it.
pub async fn run(context: Context<'_>, batch: &Batch<'_>, sizes: &mut QueueSizes) -> Result<Committed, DbErr> {
    sizes.load(context.store, batch.accepts.iter().flat_map(|accept| &accept.recipients)).await?;
    let now = context.store.now();
    let rows: Vec<Rows> = batch.accepts.iter().map(|accept| context.rows(accept, now, sizes)).collect();
    let mut attempt = 1;
    let result = loop {
        match context.once(batch, &rows, now).await {
            Err(error) if (tx::is_retryable(&error) || dedupe::has_vanished(&error)) && attempt < ATTEMPTS => {
                tokio::time::sleep(std::time::Duration::from_millis(10 << attempt)).await;
                attempt += 1;
            }
            result => break result,
        }
    };
    let stored =
        |index: usize| result.as_ref().is_ok_and(|done| matches!(done.outcomes.get(index), Some(Outcome::Accepted(_))));
    for (index, rows) in rows.iter().enumerate() {
        if !stored(index) {
            rows.copies
                .iter()
                .for_each(|copy| sizes.take_back(&copy.recipient_member_id, &copy.sender_member_id, copy.bytes));
        }
    }
    if let Ok(done) = &result {
        sizes.ended(&done.ended);
    }
    result
}

// === impl Context ===

impl Context<'_> {
    /// Gives the message its id and makes the receivers' copies, as far as they
    /// have room. The room is taken at once, so that two sends of one batch
    /// cannot share it.
    fn rows(&self, accept: &Accept, now: UnixMillis, sizes: &mut QueueSizes) -> Rows {
        let message = message::Model { id: self.ids.ulid(), created_at: now.0, ..accept.message.clone() };
        let bytes = i64::try_from(message.ciphertext.len() + message.nonce.len()).unwrap_or(i64::MAX);
        let lease = i64::try_from(self.config.timers.lease.as_millis()).unwrap_or(i64::MAX);
        let session_key = match &*accept.route {
            super::Route::Session(key) => Some(key.clone()),
            _ => None,
        };
        let mut copies = Vec::with_capacity(accept.recipients.len());
        let mut refusal = None;
        for receiver in &accept.recipients {
            if !sizes.has_room(receiver, &message.sender_member_id, bytes) {
                // One full queue among many receivers does not fail the others.
                refusal = (accept.recipients.len() == 1).then_some(Refusal::RecipientQueueFull);
                continue;
            }
            sizes.add(receiver, &message.sender_member_id, bytes);
            let taker = self.fanout.taker(&message.mesh_id, receiver, &accept.route);
            copies.push(delivery::Model {
                id: self.ids.ulid(),
                broker_message_id: message.id.clone(),
                mesh_id: message.mesh_id.clone(),
                sender_member_id: message.sender_member_id.clone(),
                recipient_member_id: receiver.clone(),
                target_session_key: session_key.clone(),
                client_message_id: message.client_message_id.clone(),
                bytes,
                created_at: now.0,
                claimed_at: taker.is_some().then_some(now.0),
                claim_expires_at: taker.is_some().then_some(now.0.saturating_add(lease)),
                claim_id: taker,
                delivered_at: None,
                expired_at: None,
                expiry_told_at: None,
            });
        }
        Rows { message: Arc::new(message), copies, refusal }
    }

    async fn once(&self, batch: &Batch<'_>, rows: &[Rows], now: UnixMillis) -> Result<Committed, DbErr> {
        let transaction = tx::begin(self.store.writer()).await?;
        match Box::pin(self.work(&transaction, batch, rows, now)).await {
            Ok(committed) => {
                transaction.commit().await?;
                Ok(committed)
            }
            Err(error) => {
                // The first error is the one that counts; the engine drops a
                // transaction that cannot be rolled back.
                let _ = transaction.rollback().await;
                Err(error)
            }
        }
    }

    async fn work(
        &self,
        db: &DatabaseTransaction,
        batch: &Batch<'_>,
        rows: &[Rows],
        now: UnixMillis,
    ) -> Result<Committed, DbErr> {
        let outcomes = if rows.is_empty() { Vec::new() } else { self.accept(db, batch.accepts, rows, now).await? };
        let fence = Fence::read(db, self.store, batch).await?;
        let mut settled = Vec::new();
        for settle in batch.settles.iter().filter(|settle| fence.admits(settle.holder.as_ref())) {
            settled.extend_from_slice(&settle.ids);
            if !settle.named.is_empty() {
                settled.extend(deliveries::own(db, &settle.member_id, &settle.named).await?);
            }
        }
        // Two brokers that lock the same rows in the same order do not wait for
        // each other in a circle.
        settled.sort_unstable();
        settled.dedup();
        let ended = deliveries::settle(db, &settled, now.0).await?;
        let lease = i64::try_from(self.config.timers.lease.as_millis()).unwrap_or(i64::MAX);
        for claim in batch.claims.iter().filter(|claim| fence.admits(claim.holder.as_ref())) {
            deliveries::claim(db, &claim.ids, &claim.presence_id, now.0, now.0.saturating_add(lease)).await?;
        }
        Ok(Committed { outcomes, ended, replaced: fence.replaced() })
    }

    async fn accept(
        &self,
        db: &DatabaseTransaction,
        accepts: &[Accept],
        rows: &[Rows],
        now: UnixMillis,
    ) -> Result<Vec<Outcome>, DbErr> {
        let mut concerned: HashSet<&str> = HashSet::new();
        for rows in rows {
            concerned.insert(&rows.message.sender_member_id);
            concerned.extend(rows.copies.iter().map(|copy| copy.recipient_member_id.as_str()));
        }
        let standing = members::standing(db, &concerned).await?;
        let refusals: Vec<Option<Refusal>> = accepts
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
            .collect();

        let mut taken: Vec<dedupe_row::Model> = Vec::new();
        for ((accept, rows), refusal) in accepts.iter().zip(rows).zip(&refusals) {
            if refusal.is_none() {
                taken.extend(self.dedupe_row(accept, rows, now));
            }
        }
        taken.sort_unstable_by(|a, b| {
            (&a.mesh_id, &a.sender_member_id, &a.client_message_id, &a.broker_message_id).cmp(&(
                &b.mesh_id,
                &b.sender_member_id,
                &b.client_message_id,
                &b.broker_message_id,
            ))
        });
        let won = dedupe::take(db, taken).await?;
        let is_new = |rows: &Rows| rows.message.client_message_id.is_none() || won.contains(&rows.message.id);

        let asked: Vec<dedupe::Key> = rows
            .iter()
            .zip(&refusals)
            .filter(|(rows, refusal)| refusal.is_some() || !is_new(rows))
            .filter_map(|(rows, _)| key(&rows.message))
            .collect();
        let known = if asked.is_empty() { HashMap::new() } else { dedupe::find(db, &asked).await? };
        // Lost to a row that is not there to be read: it was forgotten between
        // the two statements. The whole transaction is tried again.
        let vanished = |(rows, refusal): (&Rows, &Option<Refusal>)| {
            refusal.is_none() && !is_new(rows) && key(&rows.message).is_some_and(|key| !known.contains_key(&key))
        };
        if rows.iter().zip(&refusals).any(vanished) {
            return Err(DbErr::RecordNotFound(dedupe::VANISHED.to_owned()));
        }

        let mut outcomes = Vec::with_capacity(rows.len());
        let (mut stored, mut histories, mut copies) = (Vec::new(), Vec::new(), Vec::new());
        for ((accept, rows), refusal) in accepts.iter().zip(rows).zip(refusals) {
            if refusal.is_none() && is_new(rows) {
                stored.push((*rows.message).clone());
                histories.push(history_row(accept, rows));
                let mine = rows.copies.iter().filter(|copy| standing.contains(&copy.recipient_member_id));
                let mine: Vec<delivery::Model> = mine.cloned().collect();
                let named = mine.iter().map(|copy| (copy.id.clone(), copy.recipient_member_id.clone())).collect();
                outcomes.push(Outcome::Accepted(Accepted { message: Arc::clone(&rows.message), copies: named }));
                copies.extend(mine);
                continue;
            }
            let seen = key(&rows.message).and_then(|key| known.get(&key).cloned());
            outcomes.push(match decide(seen, &accept.fingerprint) {
                Decision::Duplicate(seen) => Outcome::Duplicate(seen),
                Decision::Mismatch(seen) => Outcome::Mismatch(seen),
                Decision::First => Outcome::Refused(refusal.unwrap_or(Refusal::Busy).into()),
            });
        }
        messages::insert(db, stored, histories).await?;
        deliveries::insert(db, copies).await?;
        Ok(outcomes)
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
}

fn key(message: &message::Model) -> Option<dedupe::Key> {
    let id = message.client_message_id.clone()?;
    Some((message.mesh_id.clone(), message.sender_member_id.clone(), id))
}

fn history_row(accept: &Accept, rows: &Rows) -> history::Model {
    history::Model {
        id: rows.message.id.clone(),
        mesh_id: rows.message.mesh_id.clone(),
        sender_member_id: rows.message.sender_member_id.clone(),
        destination_kind: accept.kind.to_owned(),
        destination_ref: rows.message.target_spec.clone(),
        created_at: rows.message.created_at,
    }
}
