//! The inbox's one writer: open, store, acknowledge, tell.
//!
//! What it is for: deliveries become rows, many of them in one commit.
//! What runs here: one task. While one commit is synced the next deliveries
//! collect in the link's queue; when that is full the socket is left unread.
//! A batch of new messages goes the short way (`fast_store.rs`), any other the
//! long one below; never both at the same time.
//! What it guarantees: acknowledgement after commit and event after commit, in
//! the order of the deliveries. When the database cannot be written nothing is
//! acknowledged, and the broker pushes it again; a message that it does not take is
//! set aside, and holds up no other.
//! What it must not do: wait for a subscriber.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::entity::Model;
use super::open::{Opened, Opener, Refused, STALE_KEY};
use super::receipts::{Receipts, receipt};
use super::repo::{self, Filter, Quarantined, SeenHash};
use super::shares::holder;
use super::to_self::Kept;
use super::upkeep::{Upkeep, is_full};
use super::{Deps, Error, Shared, row};
use crate::broker_client::Delivery;
use crate::db::OwnWriter;
use crate::db::connect::Sqlite;
use crate::db::tx;
use crate::db::wal::WalKeeper;
use crate::domain::event::{MeshEvent, MessageKind, StoredMessage};
use crate::domain::ids::MemberKey;
use crate::domain::time::UnixMillis;
use crate::wire::delivery::{Priority, Push};

/// Deliveries that one commit covers at most.
const MAX_BATCH: usize = 256;
/// Longest sealed text that quarantine keeps.
const MAX_SEALED: usize = 16 * 1024;
/// Reason for a message that the database does not take.
const NOT_STORABLE: &str = "not_storable";
/// Pause after a failed write.
const PAUSE: Duration = Duration::from_secs(1);
/// Pause between two readings of the roster for a key that nobody is known by.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Pause between two looks for what is to be removed.
const KEEP_UP_EVERY: Duration = Duration::from_secs(1);

/// The task's belongings.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) db: Sqlite,
    /// For batches of which all is new. Locked by this task alone.
    pub(super) own: Mutex<OwnWriter>,
    /// Locked by this task alone.
    pub(super) wal: Mutex<WalKeeper>,
    pub(super) deps: Deps,
    pub(super) shared: Arc<Shared>,
    /// When the roster was last asked for an unknown sender.
    pub(super) asked: Mutex<Option<Duration>>,
    pub(super) retention: Duration,
    /// Messages of this member to itself.
    pub(super) own_messages: mpsc::Receiver<Kept>,
    pub(super) stop: CancellationToken,
}

/// One delivery on its way through the batch.
pub(super) struct Work {
    pub(super) push: Box<Push>,
    pub(super) result: Result<Opened, Refused>,
    /// Where it came from.
    pub(super) origin: Origin,
}

/// Where a message on its way into the inbox came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// The broker pushed it and waits for an acknowledgement.
    Broker,
    /// It waited for a key, in the row of `inbox_waiting` with this id.
    Waited(String),
    /// This member sent it to itself.
    OwnMember,
}

/// What has become of a batch; it is committed.
pub(super) struct Stored {
    /// The new ones, in the order of their deliveries.
    pub(super) rows: Vec<Model>,
    /// The greatest place that is taken now.
    pub(super) last_seq: u64,
    /// Pages that the commit changed, roughly.
    pub(super) pages: u64,
}

// === impl Pipeline ===

impl Pipeline {
    pub(super) async fn run(mut self, mut deliveries: mpsc::Receiver<Delivery>) {
        let mut roster = self.deps.peers.changes();
        let mut topics = self.deps.topics.key_changes();
        let mut link = self.deps.link.state();
        // Taken out, so that what waits for it does not hold the rest.
        let (_, nothing) = mpsc::channel(1);
        let mut own_messages = std::mem::replace(&mut self.own_messages, nothing);
        let mut receipts = Receipts::default();
        let mut batch = Vec::with_capacity(MAX_BATCH);
        let mut look = tokio::time::interval(KEEP_UP_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut upkeep = Upkeep::default();
        // What was learned while the last process stopped.
        self.try_waiting().await;
        loop {
            batch.clear();
            self.send_receipts(&mut receipts).await;
            tokio::select! {
                () = self.stop.cancelled() => break,
                answered = receipts.answered() => self.note_answered(&mut receipts, answered).await,
                changed = link.changed() => {
                    if changed.is_err() { break }
                    link.mark_unchanged();
                    receipts.look_again();
                }
                Some(messages) = own_messages.recv() => {
                    upkeep.active = self.deps.clock.monotonic();
                    self.keep(messages).await;
                }
                _ = look.tick() => {
                    self.keep_up(&mut upkeep).await;
                    if self.shared.waiting_failed.load(Ordering::Relaxed) {
                        self.try_waiting().await;
                        receipts.look_again();
                    }
                }
                changed = roster.changed() => {
                    if changed.is_err() { break }
                    roster.mark_unchanged();
                    self.try_waiting().await;
                    receipts.look_again();
                }
                changed = topics.changed() => {
                    if changed.is_err() { break }
                    self.try_waiting().await;
                    receipts.look_again();
                }
                count = deliveries.recv_many(&mut batch, MAX_BATCH) => {
                    if count == 0 { break }
                    upkeep.active = self.deps.clock.monotonic();
                    if self.receive(std::mem::take(&mut batch), &topics).await {
                        receipts.look_again();
                    }
                }
            }
        }
        self.own.into_inner().close().await;
    }

    /// True when something that waited may have been opened before.
    async fn receive(&self, batch: Vec<Delivery>, keys: &watch::Receiver<u64>) -> bool {
        let mut work = self.open(batch);
        let looked = keys.has_changed().unwrap_or(false);
        if looked {
            // What waited for the key came first.
            self.try_waiting().await;
        }
        // Someone may write to us before we have heard of them.
        if work.iter().any(|one| one.result == Err(Refused::UnknownSender)) {
            self.ask_again().await;
            let opener = self.opener();
            for one in work.iter_mut().filter(|one| one.result == Err(Refused::UnknownSender)) {
                let key = |text: &str| MemberKey::parse(text).ok();
                let member = one.push.sender_member_pubkey.as_deref().and_then(key);
                if let (Some(session), Some(member)) = (key(&one.push.sender_pubkey), member) {
                    self.deps.peers.note_session(session, member);
                }
                one.result = opener.open(&one.push);
            }
        }
        // The batch is kept until it is stored, and the link is not read meanwhile:
        // nothing of it is acknowledged, and the broker keeps what comes after it.
        while let Err(error) = self.take_in(&mut work).await {
            self.failed(&error).await;
            tokio::select! {
                () = self.stop.cancelled() => return looked,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
        self.note_success();
        looked
    }

    /// Reads the roster, unless that was a moment ago: who has many keys is not to hold
    /// up the others.
    async fn ask_again(&self) {
        let now = self.deps.clock.monotonic();
        let mut asked = self.asked.lock().await;
        if asked.is_none_or(|at| now.saturating_sub(at) >= ASK_EVERY) {
            *asked = Some(now);
            self.deps.peers.refresh().await;
        }
    }

    async fn take_in(&self, work: &mut [Work]) -> Result<(), Error> {
        self.keep_to_shares(work).await?;
        self.store(work).await
    }

    pub(super) fn note_success(&self) {
        if self.shared.disk_full.swap(false, Ordering::Relaxed) {
            tracing::info!("Messages are stored again");
        }
    }

    /// Tells what went wrong and makes ready for the next try.
    pub(super) async fn failed(&self, error: &Error) {
        self.note_failure(error);
        if is_full(error) {
            self.wal.lock().await.make_room().await;
        }
    }

    fn note_failure(&self, error: &Error) {
        let full = is_full(error);
        let known = self.shared.disk_full.swap(full, Ordering::Relaxed);
        if full && !known {
            tracing::error!("The disk is full: messages stay at the broker until there is room for the inbox");
        } else if !full {
            tracing::error!(error = %error, "Messages were not stored and stay at the broker: {error}");
        }
    }

    pub(super) fn opener(&self) -> Opener<'_> {
        Opener { identity: &self.deps.identity, peers: &self.deps.peers, topics: &self.deps.topics }
    }

    fn open(&self, batch: Vec<Delivery>) -> Vec<Work> {
        let opener = self.opener();
        let work = |Delivery { push, .. }| Work { result: opener.open(&push), push, origin: Origin::Broker };
        batch.into_iter().map(work).collect()
    }

    /// Stores a batch. One that the database refuses for what is in it is halved until
    /// the message is found, which is set aside.
    pub(super) async fn store(&self, work: &mut [Work]) -> Result<(), Error> {
        let Err(error) = self.store_at_once(work).await else { return Ok(()) };
        self.reopen().await;
        if self.catch_up().await? {
            // Its places were taken.
            return Box::pin(self.store(work)).await;
        }
        if !matches!(&error, Error::Storage(error) if tx::is_refused(error)) {
            return Err(error);
        }
        match work {
            // The outbox keeps what this member sent to itself.
            [] => Err(error),
            [one] if one.origin == Origin::OwnMember => Err(error),
            [one] => {
                tracing::error!(error = %error, "A message cannot be stored and is set aside: {error}");
                one.result = Err(Refused::Quarantine(NOT_STORABLE));
                self.store_at_once(work).await
            }
            _ => {
                let (first, second) = work.split_at_mut(work.len() / 2);
                Box::pin(self.store(first)).await?;
                Box::pin(self.store(second)).await
            }
        }
    }

    /// After a failure it is unknown what was committed: takes over what is there, and
    /// tells it. True if there was something.
    async fn catch_up(&self) -> Result<bool, Error> {
        let known = self.shared.last_seq.load(Ordering::Acquire);
        let there = repo::last_seq(self.db.readers()).await?;
        let Some(limit) = there.checked_sub(known).filter(|more| *more > 0) else { return Ok(false) };
        let filter = Filter { after_seq: Some(known), limit, ..Filter::default() };
        let rows = repo::page(self.db.readers(), &filter).await?;
        self.shared.last_seq.store(there, Ordering::Release);
        self.shared.rows.fetch_add(rows.len() as u64, Ordering::Relaxed);
        let now = self.deps.clock.now();
        self.shared.latest.fetch_max(now.0, Ordering::AcqRel);
        self.tell(rows, now);
        Ok(true)
    }

    fn tell(&self, rows: Vec<Model>, now: UnixMillis) {
        for row in rows {
            let message: StoredMessage = row::stored(row, &self.shared.generation);
            self.deps.hub.publish(now, MeshEvent::Message(Arc::new(message)));
        }
    }

    /// Writes a batch in one transaction; then acknowledges, then tells.
    async fn store_at_once(&self, work: &[Work]) -> Result<(), Error> {
        let bytes = work.iter().map(|one| one.push.ciphertext.len() as u64 + 4096).sum();
        if !self.wal.lock().await.has_room(bytes) {
            return Err(Error::NoRoom);
        }
        let now = self.deps.clock.now();
        let stored = match self.store_all_new(work, now).await? {
            Some(stored) => stored,
            None => self.store_any(work, now).await?,
        };
        self.shared.last_seq.store(stored.last_seq, Ordering::Release);
        if !stored.rows.is_empty() {
            self.shared.latest.fetch_max(now.0, Ordering::AcqRel);
        }
        self.count(work, &stored.rows);
        let tells_outcomes = self.tells_outcomes();
        for one in work.iter().filter(|one| one.origin == Origin::Broker) {
            self.deps.link.acknowledge(receipt(one, tells_outcomes)).await;
        }
        self.tell(stored.rows, now);
        self.wal.lock().await.wrote(stored.pages, 0).await;
        Ok(())
    }

    /// The long way: looks up what is new, keeps aside what cannot be opened.
    async fn store_any(&self, work: &[Work], now: UnixMillis) -> Result<Stored, Error> {
        let transaction = tx::begin(self.db.writer()).await?;
        let hashes: Vec<SeenHash> =
            work.iter().filter_map(|one| one.result.as_ref().ok()).map(|opened| hash(&opened.unique)).collect();
        let mut unseen = repo::note_seen(&transaction, &hashes, now).await?;
        let mut seq = self.shared.last_seq.load(Ordering::Acquire);
        let mut rows = Vec::new();
        for one in work {
            match &one.result {
                // The same message twice in one batch is new once.
                Ok(opened) if unseen.remove(&hash(&opened.unique)) => {
                    seq += 1;
                    rows.push(self.row(&one.push, opened, seq, now));
                }
                Ok(_) => {}
                Err(refused) if refused.waits() && one.origin != Origin::Broker => {}
                Err(refused @ (Refused::UnknownSender | Refused::NoTopicKey)) => {
                    self.wait_for_key(&transaction, &one.push, refused, now).await?;
                }
                Err(Refused::Quarantine(reason)) => {
                    self.set_aside(&transaction, &one.push, reason, now).await?;
                }
            }
            if let (Origin::Waited(id), false) = (&one.origin, one.result.as_ref().is_err_and(Refused::waits)) {
                repo::stop_waiting(&transaction, id).await?;
                self.owe_receipt(&transaction, one, now).await?;
            }
        }
        let pages = pages_of_commit(&rows);
        let new = repo::insert(&transaction, rows.clone()).await?;
        transaction.commit().await.map_err(Error::from)?;
        rows.retain(|row| new.contains(&row.id));
        Ok(Stored { rows, last_seq: seq, pages })
    }

    /// `rows` are the new ones.
    fn count(&self, work: &[Work], rows: &[Model]) {
        let metrics = &self.deps.metrics;
        // What this member sends to itself comes in batches of its own.
        let is_own = work.first().is_some_and(|one| one.origin == Origin::OwnMember);
        for row in rows {
            let kind = MessageKind::from_name(&row.kind).unwrap_or(MessageKind::Direct);
            metrics.received(kind.name(), if is_own { "self" } else { "peer" });
        }
        let opened = work.iter().filter(|one| one.result.is_ok()).count();
        (rows.len()..opened).for_each(|_| metrics.duplicate_received());
        let refused = work.iter().filter(|one| matches!(one.result, Err(Refused::Quarantine(_)))).count();
        (0..refused).for_each(|_| metrics.invalid_received());
        let archived = work.iter().filter(|one| one.result.as_ref().is_ok_and(|opened| opened.by_archived_key)).count();
        (0..archived).for_each(|_| metrics.decrypted_archived());
        let stale = work.iter().filter(|one| one.result == Err(Refused::Quarantine(STALE_KEY))).count();
        (0..stale).for_each(|_| metrics.decrypt_stale());
        self.shared.rows.fetch_add(rows.len() as u64, Ordering::Relaxed);
    }

    pub(super) fn row(&self, push: &Push, opened: &Opened, seq: u64, now: UnixMillis) -> Model {
        let horizon = now.minus(self.memory());
        Model {
            id: self.deps.ids.ulid(),
            seq: i64::try_from(seq).unwrap_or(i64::MAX),
            client_message_id: opened.client_message_id.clone(),
            // What this member sent to itself has none.
            broker_message_id: Some(push.message_id.clone()).filter(|id| !id.is_empty()),
            mesh: self.deps.mesh.clone(),
            kind: opened.kind.name().to_owned(),
            topic: opened.topic.as_ref().map(|(_, name)| name.clone()),
            topic_id: opened.topic.as_ref().map(|(id, _)| id.clone()),
            sender_member_id: opened.sender_member_id.clone(),
            sender_pubkey: opened.sender_key.to_hex(),
            sender_name: opened.sender_name.clone(),
            body: Some(opened.body.clone()),
            meta: opened.meta.clone(),
            priority: priority(push.priority).to_owned(),
            mentions: (!opened.mentions.is_empty())
                .then(|| serde_json::to_string(&opened.mentions).unwrap_or_default()),
            received_at: now.0,
            sent_at: opened.sent_at.map(|at| at.0),
            reply_to_id: opened.reply_to_id.clone(),
            history_id: push.history_id.clone(),
            auto_hops: Some(i32::try_from(opened.auto_hops).unwrap_or(i32::MAX)),
            unencrypted: opened.unencrypted,
            stale: opened.sent_at.is_some_and(|at| at < horizon),
            before_recovery: self.shared.recovered_at.is_some_and(|since| is_before(push, opened, since)),
            clock_back: now.0 < self.shared.latest.load(Ordering::Acquire),
        }
    }

    async fn set_aside(
        &self,
        db: &impl sea_orm::ConnectionTrait,
        push: &Push,
        reason: &str,
        now: UnixMillis,
    ) -> Result<(), Error> {
        tracing::warn!(reason, broker_message_id = push.message_id, "A message was set aside: {reason}");
        let sealed = push.ciphertext.as_bytes();
        let row = Quarantined {
            id: self.deps.ids.ulid(),
            holder: holder(push),
            reason: reason.to_owned(),
            sender_pubkey: push.sender_pubkey.chars().take(128).collect(),
            broker_message_id: push.message_id.chars().take(128).collect(),
            client_message_id: push.client_message_id.as_ref().map(|id| id.chars().take(128).collect()),
            sealed: (sealed.len() <= MAX_SEALED).then(|| sealed.to_vec()),
        };
        Ok(repo::quarantine(db, &row, now).await?)
    }
}

/// Pages that a commit of rows changes, roughly.
pub(super) fn pages_of_commit(rows: &[Model]) -> u64 {
    rows.iter().map(pages_of).sum::<u64>()
}

/// Pages that a row fills, roughly.
fn pages_of(row: &Model) -> u64 {
    1 + row.body.as_ref().map_or(0, String::len) as u64 / 4096
}

/// Whether a message was written before a time, by its sender's word, else by
/// the broker's. One that neither dates counts as old.
fn is_before(push: &Push, opened: &Opened, since: UnixMillis) -> bool {
    let accepted = || chrono::DateTime::parse_from_rfc3339(&push.created_at).ok().map(|at| at.timestamp_millis());
    opened.sent_at.map(|at| at.0).or_else(accepted).is_none_or(|at| at < since.0)
}

/// What stands for a message in the memory of what was seen.
pub(super) fn hash(unique: &[u8]) -> SeenHash {
    let full: [u8; 32] = Sha256::digest(unique).into();
    let mut short = [0; 16];
    short.copy_from_slice(&full[..16]);
    short
}

fn priority(priority: Priority) -> &'static str {
    match priority {
        Priority::Now => "now",
        Priority::Next => "next",
        Priority::Low => "low",
    }
}
