//! One connection's side of delivery: what was pushed, what comes next, what
//! has to be pushed again.
//!
//! Copies of one sender come in the order of their ids, the order of accept. Live ones are
//! taken only while nothing of their sender waits in the database; otherwise they are
//! dropped here and read from there, and the senders take turns. A copy that was given
//! already is never pushed anew on the same connection, except when its acknowledgement
//! is late. What wakes a sender's turn once too often costs a read and nothing else.
//!
//! On a connection that takes pieces one large copy is written at a time. Copies of its
//! sender wait until it is.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use sea_orm::DbErr;

use super::peer::Peer;
use super::terms::{Copy, End, Kind};
use crate::broker::accept::commit::{Claim, Receipt, Settle};
use crate::broker::accept::writer::Command;
use crate::broker::shared::Shared;
use crate::broker::store::deliveries::{self, Claimed, Mine};
use crate::broker::store::entity::{delivery, message};
use crate::broker::store::messages;
use crate::broker::topics::Names;
use crate::domain::time::UnixMillis;
use crate::wire::delivery::{ClientAck, Priority, Push, ReceiptState, RejectReason};
use crate::wire::features::Feature;
use crate::wire::pieces::PIECE_BYTES;
use crate::wire::text;

/// Copies that may be unacknowledged on one connection.
const WINDOW: usize = 512;
/// Copies that are remembered of a client that never acknowledges, and of those
/// that one has acknowledged: a moment ago their rows may still look open.
const REMEMBERED: usize = 4_096;
/// How long to wait before an acknowledgement is written again.
const SETTLE_PAUSE: Duration = Duration::from_secs(2);
/// Copies of one read.
const PAGE: usize = 64;
/// Bytes of one read. What is read is written before anything else has its turn.
const PAGE_BYTES: i64 = 64 << 10;
/// Bytes of a copy whose text is longer than a piece, if it may go in pieces.
const LARGE_BYTES: i64 = PIECE_BYTES as i64 / 4 * 3;

/// What one connection was given.
#[derive(Debug)]
pub struct Pusher {
    /// The sender whose copies were read last.
    last: String,
    pushed: HashMap<String, Pushed>,
    order: VecDeque<String>,
    /// Acknowledged a moment ago; the rows may still look open.
    settled: HashSet<String>,
    settled_order: VecDeque<String>,
    /// When the oldest acknowledgement may be late.
    check_at: Option<Duration>,
    /// When acknowledgements that could not be written are written again.
    settle_at: Option<Duration>,
    /// How long an acknowledgement may take.
    lease: Duration,
    /// Nothing is pushed until it is known whether this connection may stay.
    held: bool,
    /// A feature that the client needs and this broker does not have.
    lacking: Option<String>,
    /// Multicasts given to a client that may never acknowledge anything.
    spent: Vec<String>,
    /// The large copy that is being written, and its sender.
    large: Option<(String, String)>,
}

#[derive(Debug)]
struct Pushed {
    message_id: String,
    client_message_id: Option<String>,
    at: Duration,
}

// === impl Pusher ===

impl Pusher {
    /// For a new connection. `held` until [`Self::release`].
    pub fn new(held: bool, lease: Duration) -> Self {
        Self {
            last: String::new(),
            large: None,
            settled: HashSet::new(),
            settled_order: VecDeque::new(),
            pushed: HashMap::new(),
            order: VecDeque::new(),
            check_at: None,
            settle_at: None,
            lease,
            held,
            lacking: None,
            spent: Vec::new(),
        }
    }

    /// Whether nothing is pushed yet.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Begins to push.
    pub fn release(&mut self, peer: &Peer) {
        self.held = false;
        peer.fall_behind_all();
    }

    /// Notes that the client cannot go on without a feature. It closes by itself,
    /// or is closed when the time for the negotiation is over.
    pub fn lacks(&mut self, feature: String) {
        self.held = true;
        self.lacking = Some(feature);
    }

    /// Ends the waiting for a negotiation.
    pub fn give_up_waiting(&mut self, peer: &Peer) -> Result<(), End> {
        match &self.lacking {
            Some(feature) => Err(End::lacking(feature)),
            None => {
                self.release(peer);
                Ok(())
            }
        }
    }

    /// Takes a live copy. `None` when it was given already, or comes from the
    /// database later.
    pub fn live(&mut self, names: &Names, peer: &Peer, copy: Copy, now: Duration) -> Option<Push> {
        if self.was_given(&copy.delivery_id) {
            return None;
        }
        let sender = &copy.message.sender_member_id;
        let bytes = i64::try_from(copy.message.ciphertext.len()).unwrap_or(i64::MAX);
        let is_large = peer.has(Feature::FramePieces) && bytes > LARGE_BYTES;
        let waits = self.large.as_ref().is_some_and(|(_, large)| is_large || large == sender);
        if self.held || waits || peer.is_behind(sender) || self.is_full(peer) {
            peer.fall_behind(sender, &copy.delivery_id);
            return None;
        }
        if is_large {
            self.large = Some((copy.delivery_id.clone(), sender.clone()));
        }
        let frame = frame(&copy.message, names, copy.delivery_id.clone(), false);
        self.note(peer, &copy.message, copy.delivery_id, now);
        Some(frame)
    }

    /// Whether this is the large copy, which is written in pieces.
    pub fn is_large(&self, push: &Push) -> bool {
        self.large.as_ref().is_some_and(|(id, _)| Some(id) == push.delivery_id.as_ref())
    }

    /// The last piece of the large copy is written.
    pub fn end_large(&mut self, peer: &Peer, now: Duration) {
        if let Some((id, _)) = self.large.take()
            && let Some(pushed) = self.pushed.get_mut(&id)
        {
            pushed.at = now;
        }
        if peer.is_behind_any() {
            peer.look.notify_one();
        }
    }

    /// Reads the next copies of the sender whose turn it is, as far as the window allows.
    pub async fn page(&mut self, shared: &Shared, peer: &Arc<Peer>) -> Result<Vec<Push>, DbErr> {
        let room = if peer.acknowledges() { WINDOW.saturating_sub(self.taken(peer)) } else { PAGE };
        if self.held || room == 0 {
            return Ok(Vec::new());
        }
        let mine =
            Mine { member: self.takes_member_copies(shared, peer), session_key: peer.facts.session_pubkey.as_deref() };
        let db = shared.store.readers();
        if peer.take_unknown() {
            match deliveries::senders(db, &peer.member_id, mine).await {
                Ok(senders) => senders.iter().for_each(|(sender, first)| peer.fall_behind(sender, first)),
                Err(error) => {
                    peer.fall_behind_all();
                    return Err(error);
                }
            }
        }
        let large = self.large.as_ref().map(|(_, sender)| sender.as_str());
        let Some((sender, from)) = peer.catch_up(&self.last, large) else { return Ok(Vec::new()) };
        // The first one was given already when this goes on where the last read ended.
        let limit = room.min(PAGE) + 1;
        let read = deliveries::page(db, &peer.member_id, &sender, mine, &from, limit as u64).await;
        let rows = match read {
            Ok(rows) => rows,
            Err(error) => {
                peer.fall_behind(&sender, &from);
                return Err(error);
            }
        };
        let end = (rows.len() == limit).then(|| rows.last().map(|row| row.id.clone())).flatten();
        let rows = rows.into_iter().filter(|row| !self.was_given(&row.id)).collect();
        let (taken, left) = self.fitting(peer, rows, room.min(PAGE));
        let rest = left.into_iter().next().map(|row| row.id).or(end);
        if let Some(rest) = &rest {
            peer.fall_behind(&sender, rest);
        } else if peer.is_behind_any() {
            peer.look.notify_one();
        }
        self.last.clone_from(&sender);
        // A claim by this connection was made for a live copy that it dropped.
        let again = |row: &delivery::Model| row.claim_id.as_ref().is_some_and(|claimant| *claimant != peer.presence_id);
        let frames = self.frames(shared, peer, taken, again).await;
        if frames.is_err() {
            peer.fall_behind(&sender, &from);
        }
        frames
    }

    /// Reads again what was not acknowledged in time. `read_at`: when everything that was
    /// pushed before had certainly been read. What a sibling has acknowledged meanwhile
    /// is forgotten.
    pub async fn overdue(&mut self, shared: &Shared, peer: &Arc<Peer>, read_at: Duration) -> Result<Vec<Push>, DbErr> {
        let now = shared.clock.monotonic();
        let lease = self.lease;
        let is_late = |(id, pushed): &(&String, &Pushed)| {
            pushed.at + lease <= read_at && self.large.as_ref().is_none_or(|(large, _)| large != *id)
        };
        let mut due: Vec<String> = self.pushed.iter().filter(is_late).map(|(id, _)| id.clone()).collect();
        due.sort_unstable();
        due.truncate(PAGE);
        let mut late = HashMap::new();
        let mut frames = Ok(Vec::new());
        if !due.is_empty() {
            let rows = deliveries::still_open(shared.store.readers(), &due).await?;
            let (again, left) = self.fitting(peer, rows, PAGE);
            due.retain(|id| left.iter().all(|row| row.id != *id));
            late.extend(due.iter().filter_map(|id| self.pushed.remove_entry(id)));
            frames = self.frames(shared, peer, again, |_| true).await;
        }
        if frames.is_err() {
            // Not pushed: they stay due.
            self.pushed.extend(late);
        }
        let oldest = self.pushed.values().map(|pushed| pushed.at).min();
        self.check_at = oldest.map(|at| (at + lease).max(now + lease / 4));
        frames
    }

    /// Parts rows of one read into those that are written now and the rest: at most
    /// `count` and [`PAGE_BYTES`], or one that is larger; no second large one.
    fn fitting(
        &self,
        peer: &Peer,
        mut rows: Vec<delivery::Model>,
        count: usize,
    ) -> (Vec<delivery::Model>, Vec<delivery::Model>) {
        let in_pieces = peer.has(Feature::FramePieces);
        let (mut bytes, mut fits) = (0, 0);
        for row in rows.iter().take(count) {
            let is_large = in_pieces && row.bytes > LARGE_BYTES;
            bytes += row.bytes;
            if if is_large { fits > 0 || self.large.is_some() } else { fits > 0 && bytes > PAGE_BYTES } {
                break;
            }
            fits += 1;
            if is_large {
                break;
            }
        }
        let left = rows.split_off(fits);
        (rows, left)
    }

    /// When [`Self::overdue`] has something to do; `None` while no
    /// acknowledgement is awaited.
    pub fn next_check(&self, peer: &Peer) -> Option<Duration> {
        self.check_at.filter(|_| peer.acknowledges())
    }

    /// Writes again what could not be written, after a pause.
    pub async fn settle_again(&mut self, shared: &Shared, peer: &Peer) {
        let now = shared.clock.monotonic();
        if peer.unsettled() == 0 {
            self.settle_at = None;
        } else if *self.settle_at.get_or_insert(now + SETTLE_PAUSE) <= now {
            self.settle_at = None;
            for settle in peer.take_unsettled() {
                // Refused only while the broker stops; the copies come again.
                let _ = shared.writer.submit(Command::Settle(settle)).await;
            }
        }
    }

    /// When [`Self::settle_again`] has something to do.
    pub fn next_settle(&self) -> Option<Duration> {
        self.settle_at
    }

    /// What an acknowledgement settles. A copy pushed on this connection is
    /// known to be the member's own; anything else is looked up with its owner.
    pub fn acknowledged(&mut self, peer: &Arc<Peer>, ack: ClientAck) -> Option<Settle> {
        peer.set_acknowledges();
        let mut settle = Settle {
            member_id: peer.member_id.clone(),
            receipt: receipt(peer, &ack),
            holder: peer.holder.clone(),
            peer: Arc::downgrade(peer),
            ..Settle::default()
        };
        if let Some(id) = ack.delivery_id {
            if self.pushed.contains_key(&id) {
                settle.ids.push(id);
            } else {
                settle.named.push(Claimed::Delivery(id));
            }
        } else if let Some(message_id) = ack.broker_message_id {
            settle.ids.extend(self.matching(|pushed| pushed.message_id == message_id));
            if settle.ids.is_empty() {
                settle.named.push(Claimed::Message(message_id));
            }
        } else if let Some(client_id) = ack.client_message_id {
            // An id that its sender chose names nothing by itself: it counts
            // only if exactly one copy pushed here carries it.
            let mut ids = self.matching(|pushed| pushed.client_message_id.as_deref() == Some(&client_id));
            if ids.len() == 1 {
                settle.ids.append(&mut ids);
            }
        }
        for id in &settle.ids {
            self.pushed.remove(id);
            self.settled.insert(id.clone());
            self.settled_order.push_back(id.clone());
        }
        while self.settled_order.len() > REMEMBERED
            && let Some(oldest) = self.settled_order.pop_front()
        {
            self.settled.remove(&oldest);
        }
        if peer.is_behind_any() && self.pushed.len() <= WINDOW / 2 {
            peer.look.notify_one();
        }
        (!settle.ids.is_empty() || !settle.named.is_empty()).then_some(settle)
    }

    /// Multicasts that need not be kept after they were written: a client that
    /// does not acknowledge would get them again on every connection. Kept all
    /// the same while another connection of the member acknowledges.
    pub fn spent(&mut self, shared: &Shared, peer: &Arc<Peer>) -> Option<Command> {
        if self.spent.is_empty() {
            return None;
        }
        let ids = std::mem::take(&mut self.spent);
        let siblings = shared.registry.of_member(&peer.mesh.id, &peer.member_id);
        (!siblings.iter().any(|sibling| sibling.acknowledges())).then_some(Command::Forget(ids))
    }

    /// Whether this connection was given the copy already.
    fn was_given(&self, delivery_id: &str) -> bool {
        self.pushed.contains_key(delivery_id) || self.settled.contains(delivery_id)
    }

    fn matching(&self, wanted: impl Fn(&Pushed) -> bool) -> Vec<String> {
        self.pushed.iter().filter(|(_, pushed)| wanted(pushed)).map(|(id, _)| id.clone()).collect()
    }

    fn is_full(&self, peer: &Peer) -> bool {
        peer.acknowledges() && self.taken(peer) >= WINDOW
    }

    /// Places of the window that are taken: an acknowledgement gives its place back
    /// when it is written.
    fn taken(&self, peer: &Peer) -> usize {
        self.pushed.len() + peer.unsettled()
    }

    /// A session leaves its member's own copies to the member's connection
    /// while there is one.
    fn takes_member_copies(&self, shared: &Shared, peer: &Peer) -> bool {
        let other = |other: &Arc<Peer>| other.kind == Kind::Member && other.is_online();
        peer.kind == Kind::Member || !shared.registry.of_member(&peer.mesh.id, &peer.member_id).iter().any(other)
    }

    async fn frames(
        &mut self,
        shared: &Shared,
        peer: &Arc<Peer>,
        rows: Vec<delivery::Model>,
        is_again: impl Fn(&delivery::Model) -> bool,
    ) -> Result<Vec<Push>, DbErr> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let found =
            messages::load(shared.store.readers(), rows.iter().map(|row| row.broker_message_id.as_str())).await?;
        shared.topic_names.learn(shared, found.values().map(|message| message.target_spec.as_str())).await?;
        let now = shared.clock.monotonic();
        let mut frames = Vec::with_capacity(rows.len());
        let mut ids = Vec::with_capacity(rows.len());
        for row in rows {
            if self.pushed.contains_key(&row.id) {
                continue;
            }
            let Some(message) = found.get(&row.broker_message_id) else { continue };
            let again = is_again(&row);
            if again {
                shared.metrics.pushes_again.inc();
            }
            if peer.has(Feature::FramePieces) && row.bytes > LARGE_BYTES {
                self.large = Some((row.id.clone(), row.sender_member_id.clone()));
            }
            ids.push(row.id.clone());
            frames.push(frame(message, &shared.topic_names, row.id.clone(), again));
            self.note(peer, message, row.id, now);
        }
        if !ids.is_empty() {
            let claim = Claim { ids, presence_id: peer.presence_id.clone(), holder: peer.holder.clone() };
            // Refused only while the broker stops.
            let _ = shared.writer.submit(Command::Claim(claim)).await;
        }
        Ok(frames)
    }

    /// Notes what is pushed now.
    fn note(&mut self, peer: &Peer, message: &message::Model, delivery_id: String, now: Duration) {
        let pushed =
            Pushed { message_id: message.id.clone(), client_message_id: message.client_message_id.clone(), at: now };
        if !peer.acknowledges() {
            if message.target_spec.starts_with(['*', '@']) {
                self.spent.push(delivery_id.clone());
            }
            self.order.push_back(delivery_id.clone());
            if self.order.len() > REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                self.pushed.remove(&oldest);
            }
        }
        self.pushed.insert(delivery_id, pushed);
        self.check_at.get_or_insert(now + self.lease);
    }
}

/// What an acknowledgement says that the receiver did. A client that did not negotiate
/// `delivery_outcome` says nothing further later: whatever it acknowledges is at its end.
fn receipt(peer: &Peer, ack: &ClientAck) -> Receipt {
    match ack.state.filter(|_| peer.has(Feature::DeliveryOutcome)) {
        None | Some(ReceiptState::Stored) => Receipt::Stored,
        Some(ReceiptState::Waiting) => Receipt::Waiting,
        Some(ReceiptState::Quarantined) => Receipt::Rejected(RejectReason::from_name(ack.reason.as_deref())),
    }
}

/// The push of a stored message.
pub fn frame(message: &message::Model, names: &Names, delivery_id: String, again: bool) -> Push {
    let topic_id = message.target_spec.strip_prefix('#');
    Push {
        message_id: message.id.clone(),
        mesh_id: message.mesh_id.clone(),
        sender_pubkey: message.sender_pubkey.clone(),
        priority: match message.priority.as_str() {
            "now" => Priority::Now,
            "low" => Priority::Low,
            _ => Priority::Next,
        },
        nonce: text::to_base64(&message.nonce),
        ciphertext: text::to_base64(&message.ciphertext),
        created_at: text::to_iso(UnixMillis(message.created_at)),
        sender_member_id: Some(message.sender_member_id.clone()),
        sender_member_pubkey: Some(message.sender_member_pubkey.clone()),
        sender_name: Some(message.sender_name.clone()),
        client_message_id: message.client_message_id.clone(),
        request_fingerprint: message.request_fingerprint.clone(),
        target_spec: message.target_spec.starts_with(['*', '@']).then(|| message.target_spec.clone()),
        topic: topic_id.and_then(|id| names.of(id)),
        topic_id: topic_id.map(str::to_owned),
        body_version: message.is_post().then_some(if message.key_epoch.is_some() { 2 } else { 1 }),
        key_epoch: message.key_epoch.and_then(|epoch| u32::try_from(epoch).ok()),
        recipient_key: (!message.target_spec.starts_with(['*', '@', '#'])).then(|| message.target_spec.clone()),
        reply_to_id: message.reply_to_id.clone(),
        delivery_id: Some(delivery_id),
        history_id: Some(message.id.clone()),
        redelivery: Some(again),
        ..Push::default()
    }
}
