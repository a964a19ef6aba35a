//! The writer task: takes everything that waits, commits it, answers.
//!
//! What it is for: one sync of the disk for many messages. There is no timer:
//! while one batch is being synced the next one collects.
//! What runs here: one task, until its queue is closed and empty.
//! What it guarantees: answers and copies go out after the commit, in the order
//! of arrival. A batch that fails is run again one command at a time, so a bad
//! one harms no other.
//! What it must not do: wait for a connection.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use sea_orm::{DatabaseTransaction, DbErr};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;

use super::commit::{self, Batch, Claim, Committed, Context, Outcome, Settle, Told, Writing};
use super::queue::QueueSizes;
use super::turned_away::TurnedAway;
use super::{Accept, Refused};
use crate::broker::fanout::Outbound;
use crate::broker::session::terms::{Copy, Reply};
use crate::broker::shared::Shared;
use crate::broker::store::deliveries::{self, Ended};
use crate::broker::store::notices::Notice;
use crate::broker::{endings, nodes};
use crate::db::tx::{self, Work};
use crate::domain::time::UnixMillis;
use crate::wire::codec;
use crate::wire::delivery::Ack;
use crate::wire::features::Feature;
use crate::wire::frame::ServerFrame;
use crate::wire::refusal::Refusal;

/// Commands that may wait. Beyond it, connections stop reading their sockets.
const QUEUE: usize = 1_024;
/// Most commands of one transaction.
const MAX_BATCH: usize = 256;
/// How long the sizes of queues are taken as known where other brokers write to
/// them as well.
const SHARED_SIZES: Duration = Duration::from_secs(1);
/// Copies given up in one transaction.
const EXPIRE_ROWS: u64 = 500;

/// What the writer does.
#[derive(Debug)]
pub enum Command {
    /// Store a message.
    Accept(Box<Accept>),
    /// Note acknowledgements.
    Settle(Settle),
    /// Note pushes.
    Claim(Claim),
    /// Note what senders know.
    Told(Told),
    /// Another broker has written that less waits for these receivers.
    Drained(Vec<String>),
    /// End copies that need not be kept, without telling anybody.
    Forget(Vec<String>),
    /// End the copies of a member who is none any more, and tell their senders.
    GiveUp(String),
    /// Give up some copies that were accepted before this time; tells whether
    /// there are more.
    Expire(UnixMillis, oneshot::Sender<bool>),
}

// === impl Command ===

impl Command {
    /// Pages of the database that it changes alone, roughly.
    fn pages(&self) -> u64 {
        let count = |rows: usize| rows as u64;
        match self {
            // The message, its id among those of all senders, and its copies.
            Self::Accept(accept) => {
                2 + count(accept.message.ciphertext.len()) / 4096 + count(accept.recipients.len()) / 8
            }
            Self::Settle(settle) => 1 + count(settle.ids.len()) / 8,
            Self::Claim(claim) => 1 + count(claim.ids.len()) / 8,
            Self::Told(told) => 1 + count(told.ids.len()) / 8,
            Self::Forget(ids) => 1 + count(ids.len()) / 8,
            Self::Drained(_) => 0,
            Self::GiveUp(_) | Self::Expire(..) => 1,
        }
    }
}

/// The way to the writer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle(mpsc::Sender<Command>);

/// The writer's end, until its task is started.
#[derive(Debug)]
pub struct Queue(mpsc::Receiver<Command>);

#[derive(Debug, Default)]
struct Sorted {
    accepts: Vec<Accept>,
    settles: Vec<Settle>,
    claims: Vec<Claim>,
    told: Vec<Told>,
    drained: Vec<String>,
    forgets: Vec<String>,
    given_up: Vec<String>,
    expire: Option<(UnixMillis, oneshot::Sender<bool>)>,
}

/// A handle and the queue behind it.
pub fn channel() -> (Handle, Queue) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (Handle(sender), Queue(receiver))
}

// === impl Handle ===

impl Handle {
    /// Queues a command; waits for room. Gives it back when the writer stops.
    pub async fn submit(&self, command: Command) -> Result<(), Command> {
        self.0.send(command).await.map_err(|error| error.0)
    }
}

/// Runs until `stop` is cancelled and everything queued before is committed.
pub async fn run(shared: Arc<Shared>, Queue(mut queue): Queue, stop: CancellationToken) {
    let mut writing = Writing {
        sizes: QueueSizes::default(),
        turned_away: TurnedAway::default(),
        batches: shared.store.batch_writer(),
    };
    let mut waiting = Vec::with_capacity(MAX_BATCH);
    loop {
        let taken = tokio::select! {
            taken = queue.recv_many(&mut waiting, MAX_BATCH) => taken,
            () = stop.cancelled(), if !queue.is_closed() => {
                queue.close();
                continue;
            }
        };
        if taken == 0 {
            break;
        }
        let pages = waiting.iter().map(Command::pages).sum();
        Box::pin(shared.commit(sort(&mut waiting), &mut writing)).await;
        if let Some(batches) = &mut writing.batches {
            batches.tidy(pages).await;
        }
    }
    // Before the database is closed, whose last connection tidies up.
    if let Some(batches) = &mut writing.batches {
        batches.close().await;
    }
}

/// Gives what could not be written back to its connections: acknowledgements are written
/// again, endings told again. Pushes need no second try: they only say that a copy came before.
fn give_back(settles: &[Settle], told: &[Told]) {
    for settle in settles {
        if let Some(peer) = settle.peer.upgrade() {
            peer.keep_unsettled(settle.clone());
        }
    }
    told.iter().for_each(|told| told.peer.ending_known(&told.ids));
}

fn sort(commands: &mut Vec<Command>) -> Sorted {
    let mut sorted = Sorted::default();
    for command in commands.drain(..) {
        match command {
            Command::Accept(accept) => sorted.accepts.push(*accept),
            Command::Settle(settle) => sorted.settles.push(settle),
            Command::Claim(claim) => sorted.claims.push(claim),
            Command::Told(told) => sorted.told.push(told),
            Command::Drained(receivers) => sorted.drained.extend(receivers),
            Command::Forget(ids) => sorted.forgets.extend(ids),
            Command::GiveUp(member_id) => sorted.given_up.push(member_id),
            Command::Expire(before, more) => sorted.expire = Some((before, more)),
        }
    }
    sorted
}

// === impl Shared ===

impl Shared {
    async fn commit(&self, sorted: Sorted, writing: &mut Writing) {
        let Sorted { accepts, settles, claims, told, drained, forgets, given_up, expire } = sorted;
        writing.sizes.forget_after(self.store.is_shared().then_some(SHARED_SIZES), self.clock.monotonic());
        let context =
            Context { store: &self.store, config: &self.config, ids: &self.ids, fanout: self.fanout.as_ref() };
        let count = accepts.len() + settles.len() + claims.len() + told.len();
        if count > 0 {
            let started = self.clock.monotonic();
            let batch = Batch { accepts: &accepts, settles: &settles, claims: &claims, told: &told };
            match commit::run(context, &batch, writing).await {
                Ok(done) => {
                    self.metrics.batches.inc();
                    self.metrics.batch_size.observe(count as f64);
                    self.metrics.batch_seconds.observe(self.clock.monotonic().saturating_sub(started).as_secs_f64());
                    self.tell(&accepts, &settles, &told, done, writing).await;
                }
                Err(error) if tx::is_unreachable(&error) => {
                    // Each command alone would wait for the server as long.
                    writing.sizes.forget();
                    tracing::error!(error = %error, "The database does not answer: {error}");
                    self.metrics.refused.inc_by(accepts.len() as u64);
                    accepts.iter().for_each(|accept| accept.answer.refused(&Refused::from(Refusal::Busy)));
                    give_back(&settles, &told);
                }
                Err(error) => {
                    writing.sizes.forget();
                    tracing::error!(batch.size = count, error = %error, "A batch of {count} could not be committed: {error}");
                    self.metrics.batches_split.inc();
                    self.one_by_one(context, &batch, writing).await;
                }
            }
        }
        if !forgets.is_empty() {
            let forgotten = self.give_up(|db, now| Box::pin(deliveries::forget(db, forgets.clone(), now))).await;
            self.less_waits(&forgotten, writing).await;
        }
        if !drained.is_empty() {
            drained.iter().for_each(|receiver| writing.sizes.forget_one(receiver));
            self.tell_ready(drained, writing).await;
        }
        for member_id in given_up {
            let member_id = member_id.as_str();
            let ended = self.give_up(|db, now| Box::pin(deliveries::give_up(db, member_id.to_owned(), now))).await;
            self.expired(&ended, writing).await;
        }
        if let Some((before, more)) = expire {
            // Whoever asked may be gone at a stop.
            let _ = more.send(self.expire(before, writing).await);
        }
    }

    async fn one_by_one(&self, context: Context<'_>, batch: &Batch<'_>, writing: &mut Writing) {
        let none = Batch::default();
        let singles = (batch.accepts.chunks(1).map(|accepts| Batch { accepts, ..none }))
            .chain(batch.settles.chunks(1).map(|settles| Batch { settles, ..none }))
            .chain(batch.claims.chunks(1).map(|claims| Batch { claims, ..none }))
            .chain(batch.told.chunks(1).map(|told| Batch { told, ..none }));
        for batch in singles {
            match commit::run(context, &batch, writing).await {
                Ok(done) => self.tell(batch.accepts, batch.settles, batch.told, done, writing).await,
                Err(error) => {
                    writing.sizes.forget();
                    let later = tx::is_retryable(&error) || tx::is_full(&error) || tx::is_unreachable(&error);
                    let refusal = if later { Refusal::Busy } else { Refusal::Internal };
                    tracing::error!(error = %error, "A command could not be committed: {error}");
                    for accept in batch.accepts {
                        self.metrics.refused.inc();
                        accept.answer.refused(&Refused::from(refusal));
                    }
                    give_back(batch.settles, batch.told);
                }
            }
        }
    }

    /// Answers the senders first, then brings the copies out, then tells whose
    /// messages arrived, and whose were set aside.
    async fn tell(
        &self,
        accepts: &[Accept],
        settles: &[Settle],
        told: &[Told],
        done: Committed,
        writing: &mut Writing,
    ) {
        let mut outbound: HashMap<&str, Vec<Outbound>> = HashMap::new();
        for (accept, outcome) in accepts.iter().zip(&done.outcomes) {
            accept.answer.outcome(outcome);
            match outcome {
                Outcome::Accepted(accepted) => {
                    self.metrics.accepted.inc();
                    let copies = outbound.entry(&accept.message.mesh_id).or_default();
                    copies.extend(accepted.copies.iter().map(|(delivery_id, member_id)| Outbound {
                        member_id: member_id.clone(),
                        route: Arc::clone(&accept.route),
                        copy: Copy { delivery_id: delivery_id.clone(), message: Arc::clone(&accepted.message) },
                    }));
                }
                Outcome::Duplicate(_) => {
                    self.metrics.duplicates.inc();
                    if accept.charged {
                        self.limiter.give_back(&accept.message.sender_member_id);
                    }
                }
                Outcome::Mismatch(_) => {
                    self.metrics.fingerprint_mismatches.inc();
                }
                Outcome::Refused(refused) => {
                    if refused.refusal == Refusal::RecipientQueueFull {
                        writing.turned_away.note(accept, &writing.sizes);
                    }
                    self.metrics.refused.inc();
                    self.metrics.consumed_then_rejected.inc_by(u64::from(accept.charged));
                }
            }
        }
        for (mesh_id, copies) in outbound {
            self.fanout.copies(mesh_id, copies);
        }
        for outcome in &done.outcomes {
            if let Outcome::Accepted(accepted) = outcome {
                self.tell_expired(&accepted.expired);
            }
        }
        // Of a connection that was replaced nothing was written.
        let written = |settle: &&Settle| settle.holder.as_ref().is_none_or(|holder| !done.replaced.contains(holder));
        for (peer, req_id) in settles.iter().filter(written).filter_map(|settle| settle.answer.clone()) {
            let ack = Ack { queued: false, req_id: Some(req_id), ..Ack::default() };
            peer.reply(Reply::frame(ServerFrame::Ack(Box::new(ack))));
        }
        self.metrics.delivered.inc_by(done.ended.len() as u64);
        endings::tell_delivered(self, &done.ended);
        self.metrics.rejected.inc_by(done.rejected.len() as u64);
        endings::tell(self, &done.rejected);
        told.iter().for_each(|told| told.peer.ending_known(&told.ids));
        let ended = [&done.ended, &done.rejected, &done.parked].into_iter().flatten();
        let receivers = ended.map(|copy| copy.recipient_member_id.clone()).collect();
        self.tell_ready(receivers, writing).await;
        for holder in &done.replaced {
            for peer in self.registry.of_member(&holder.mesh_id, &holder.member_id) {
                if peer.holder.as_ref() == Some(holder) {
                    nodes::supersede(self, &peer);
                }
            }
        }
    }

    /// Tells senders that were refused that there is room.
    async fn tell_ready(&self, receivers: Vec<String>, writing: &mut Writing) {
        let Writing { sizes, turned_away, .. } = writing;
        let awaited: BTreeSet<String> = receivers.into_iter().filter(|receiver| turned_away.awaits(receiver)).collect();
        if let Err(error) = sizes.load(&self.store, awaited.iter()).await {
            // They try again after their pause.
            tracing::warn!(error = %error, "Cannot read how much waits: {error}");
            return;
        }
        for ready in awaited.iter().flat_map(|receiver| turned_away.ready(receiver, sizes)) {
            let frame = ServerFrame::ReceiverReady(ready.frame);
            let Ok(text) = codec::encode(&frame).map(Utf8Bytes::from) else { continue };
            let senders = self.registry.of_member(&ready.mesh_id, &ready.sender_id);
            for peer in senders.iter().filter(|peer| peer.has(Feature::ReceiverReady)) {
                peer.event(&text);
            }
        }
    }

    /// Counts copies that ended, and tells who waited for their room.
    async fn less_waits(&self, ended: &[Ended], writing: &mut Writing) {
        writing.sizes.ended(ended);
        self.tell_ready(ended.iter().map(|copy| copy.recipient_member_id.clone()).collect(), writing).await;
    }

    async fn expire(&self, before: UnixMillis, writing: &mut Writing) -> bool {
        let ended = self.give_up(|db, now| Box::pin(deliveries::expire(db, before.0, now, EXPIRE_ROWS))).await;
        self.expired(&ended, writing).await;
        ended.len() as u64 == EXPIRE_ROWS
    }

    async fn expired(&self, ended: &[Ended], writing: &mut Writing) {
        self.less_waits(ended, writing).await;
        self.tell_expired(ended);
    }

    /// Counts what was given up, and tells those senders who are there; the others hear
    /// of it when they come.
    fn tell_expired(&self, ended: &[Ended]) {
        self.metrics.expired.inc_by(ended.len() as u64);
        endings::tell(self, ended);
    }

    /// Ends copies in a transaction of its own. A failure is logged: whatever
    /// is not ended now is found again by the next sweep.
    async fn give_up(
        &self,
        end: impl for<'t> Fn(&'t DatabaseTransaction, i64) -> Work<'t, Vec<Ended>, DbErr>,
    ) -> Vec<Ended> {
        let ended = async {
            let transaction = self.store.begin().await?;
            let ended = end(&transaction, self.store.now().0).await?;
            transaction.commit_telling(&Notice::drained(ended.iter())).await?;
            Ok::<_, DbErr>(ended)
        };
        ended.await.unwrap_or_else(|error| {
            tracing::warn!(error = %error, "Cannot give up deliveries: {error}");
            Vec::new()
        })
    }
}
