//! B2 and B3: one transaction for everything that waits.
//!
//! The order inside matters. Memberships are read again first and refusals are
//! settled, so that the dedupe rows that follow belong to messages that will be
//! stored: a refusal never leaves a dedupe row. An id that is taken already is
//! looked up in the same transaction. Dedupe rows go in sorted by key, messages
//! and copies in the order of arrival.
//!
//! What acknowledgements name otherwise than by a copy is looked up before. On SQLite
//! a batch in which nothing of its sends is in question is written by `batch_sqlite`
//! instead; what is left over comes here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use sea_orm::{DatabaseTransaction, DbErr};

use super::fence::Fence;
use super::queue::QueueSizes;
use super::rows::{Rows, accepted, concerned, history_row, key, refusals};
use super::turned_away::TurnedAway;
use super::{Accept, Refused};
use crate::broker::fanout::Fanout;
use crate::broker::session::peer::Peer;
use crate::broker::session::terms::Holder;
use crate::broker::store::deliveries::{Claimed, Ended};
use crate::broker::store::entity::{delivery, message};
use crate::broker::store::notices::Notice;
use crate::broker::store::sqlite_batch::BatchWriter;
use crate::broker::store::{Store, dedupe, deliveries, endings, members, messages};
use crate::config::broker::BrokerConfig;
use crate::db::tx;
use crate::domain::dedupe::{Decision, Seen, decide};
use crate::domain::time::UnixMillis;
use crate::runtime::ids::IdSource;
use crate::wire::delivery::RejectReason;
use crate::wire::refusal::Refusal;

/// How often a transaction is tried that the engine asks to repeat.
const ATTEMPTS: u32 = 4;

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
    /// Copies of receivers without room, given up at once.
    pub expired: Vec<Ended>,
}

/// What a receiver did with copies. In the order in which those of one batch are
/// written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Receipt {
    /// Kept sealed until a key comes.
    Waiting,
    /// Opened and stored.
    #[default]
    Stored,
    /// Set aside.
    Rejected(RejectReason),
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
    /// What it did with them.
    pub receipt: Receipt,
    /// The connection it came on, with its state directory.
    pub holder: Option<Arc<Holder>>,
    /// The connection itself, while it is there.
    pub peer: Weak<Peer>,
    /// Who asked to be told when it is written, under which correlation id.
    pub answer: Option<(Arc<Peer>, String)>,
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

/// Endings that a sender knows.
#[derive(Clone, Debug)]
pub struct Told {
    /// The copies.
    pub ids: Vec<String>,
    /// The connection on which it was told.
    pub peer: Arc<Peer>,
}

/// What goes into one transaction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Batch<'a> {
    /// Sends in the order of arrival.
    pub accepts: &'a [Accept],
    /// Acknowledgements.
    pub settles: &'a [Settle],
    /// Pushes.
    pub claims: &'a [Claim],
    /// What senders know.
    pub told: &'a [Told],
}

/// The copies of acknowledgements, by what their receivers did with them. Sorted, so
/// that two brokers that write the same ones seldom wait for each other in a circle;
/// where they do, the engine ends one of the transactions, which is then tried again.
pub(super) type Receipts = BTreeMap<Receipt, BTreeSet<String>>;

/// The copies that acknowledgements name otherwise, by receiver and name.
pub(super) type Named = HashMap<(String, Claimed), Vec<String>>;

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
    /// Copies that were acknowledged as stored for the first time.
    pub ended: Vec<Ended>,
    /// Copies that were set aside by their receivers.
    pub rejected: Vec<Ended>,
    /// Copies that their receivers keep until a key comes.
    pub parked: Vec<Ended>,
    /// Connections that were replaced at another broker.
    pub replaced: Vec<Arc<Holder>>,
}

impl Committed {
    /// What other brokers have to look at.
    fn notice(&self) -> Notice {
        let ended = [&self.ended, &self.rejected, &self.parked];
        let accepted = self.outcomes.iter().filter_map(|outcome| match outcome {
            Outcome::Accepted(accepted) => Some(accepted),
            _ => None,
        });
        let copies = accepted.flat_map(|accepted| {
            let message = &accepted.message;
            accepted.copies.iter().map(|(id, receiver)| {
                (message.mesh_id.as_str(), message.sender_member_id.as_str(), receiver.as_str(), id.as_str())
            })
        });
        Notice::drained(ended.into_iter().flatten()).and_copies(copies)
    }
}

/// What the writer keeps from batch to batch.
#[derive(Debug)]
pub struct Writing {
    /// What waits for each receiver.
    pub sizes: QueueSizes,
    /// Who was refused for want of room.
    pub turned_away: TurnedAway,
    /// The short way, where the engine has one.
    pub batches: Option<BatchWriter>,
}

/// Runs a batch, again when the engine asks for it.
pub async fn run(context: Context<'_>, batch: &Batch<'_>, writing: &mut Writing) -> Result<Committed, DbErr> {
    let Writing { sizes, batches, .. } = writing;
    sizes.load(context.store, batch.accepts.iter().flat_map(|accept| &accept.recipients)).await?;
    let now = context.store.now();
    let named = context.named(batch.settles).await?;
    let rows: Vec<Rows> = batch.accepts.iter().map(|accept| context.rows(accept, now, sizes)).collect();
    let mut attempt = 1;
    let result = loop {
        match context.once(batch, &rows, &named, now, batches.as_mut()).await {
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
                .filter(|copy| copy.expired_at.is_none())
                .for_each(|copy| sizes.take_back(&copy.recipient_member_id, &copy.sender_member_id, copy.bytes));
        }
    }
    if let Ok(done) = &result {
        [&done.ended, &done.rejected, &done.parked].into_iter().for_each(|copies| sizes.ended(copies));
    }
    result
}

/// What becomes of which copies.
pub(super) fn receipts<'s>(settles: impl Iterator<Item = &'s Settle>, named: &Named) -> Receipts {
    let mut receipts = Receipts::new();
    for settle in settles {
        let ids = receipts.entry(settle.receipt).or_default();
        ids.extend(settle.ids.iter().cloned());
        for claimed in &settle.named {
            let found = named.get(&(settle.member_id.clone(), claimed.clone()));
            ids.extend(found.into_iter().flatten().cloned());
        }
    }
    receipts
}

// === impl Context ===

impl Context<'_> {
    async fn once(
        &self,
        batch: &Batch<'_>,
        rows: &[Rows],
        named: &Named,
        now: UnixMillis,
        batches: Option<&mut BatchWriter>,
    ) -> Result<Committed, DbErr> {
        if let Some(batches) = batches
            && let Some(committed) = Box::pin(self.in_two_trips(batch, rows, named, now, batches)).await?
        {
            return Ok(committed);
        }
        let transaction = self.store.begin().await?;
        match Box::pin(self.work(&transaction, batch, rows, named, now)).await {
            Ok(committed) => {
                transaction.commit_telling(&committed.notice()).await?;
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
        named: &Named,
        now: UnixMillis,
    ) -> Result<Committed, DbErr> {
        let outcomes = if rows.is_empty() { Vec::new() } else { self.accept(db, batch.accepts, rows, now).await? };
        let fence = Fence::read(db, self.store, batch).await?;
        let settles = batch.settles.iter().filter(|settle| fence.admits(settle.holder.as_ref()));
        let (mut ended, mut rejected, mut parked) = (Vec::new(), Vec::new(), Vec::new());
        for (receipt, ids) in receipts(settles, named) {
            let ids: Vec<String> = ids.into_iter().collect();
            match receipt {
                Receipt::Waiting => parked = deliveries::park(db, &ids, now.0).await?,
                Receipt::Stored => ended = deliveries::settle(db, &ids, now.0).await?,
                Receipt::Rejected(reason) => {
                    rejected.extend(deliveries::reject(db, &ids, reason.name(), now.0).await?);
                }
            }
        }
        for claim in batch.claims.iter().filter(|claim| fence.admits(claim.holder.as_ref())) {
            deliveries::claim(db, &claim.ids, &claim.presence_id, now.0, self.lease_end(now)).await?;
        }
        let told: Vec<String> = batch.told.iter().flat_map(|told| &told.ids).cloned().collect();
        endings::told(db, &told, now.0).await?;
        Ok(Committed { outcomes, ended, rejected, parked, replaced: fence.replaced() })
    }

    /// Looks up what acknowledgements name otherwise than by a copy that was pushed on
    /// their connection. Whose copy it is never changes, so this may come before the
    /// transaction.
    async fn named(&self, settles: &[Settle]) -> Result<Named, DbErr> {
        let asked: Vec<(&str, &Claimed)> = settles
            .iter()
            .flat_map(|settle| settle.named.iter().map(|claimed| (settle.member_id.as_str(), claimed)))
            .collect();
        let mut named = Named::new();
        for (id, message_id, member_id) in deliveries::own(self.store.readers(), &asked).await? {
            for claimed in [Claimed::Delivery(id.clone()), Claimed::Message(message_id)] {
                named.entry((member_id.clone(), claimed)).or_default().push(id.clone());
            }
        }
        Ok(named)
    }

    async fn accept(
        &self,
        db: &DatabaseTransaction,
        accepts: &[Accept],
        rows: &[Rows],
        now: UnixMillis,
    ) -> Result<Vec<Outcome>, DbErr> {
        let standing = members::standing(db, &concerned(rows)).await?;
        let refusals = refusals(accepts, rows, &standing);
        let admitted = accepts.iter().zip(rows).zip(&refusals).filter(|(_, refusal)| refusal.is_none());
        let taken = self.dedupe_rows(admitted.map(|(send, _)| send), now);
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
                outcomes.push(accepted(rows, mine.iter()));
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
}
