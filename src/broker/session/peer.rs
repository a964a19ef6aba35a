//! One connection as the rest of the broker sees it: who it is, how to reach
//! it, how to end it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_util::sync::CancellationToken;

use super::terms::{Copy, End, Facts, Holder, Identity, Kind, Profile, Queues, Reply};
use crate::broker::accept::commit::Settle;
use crate::broker::roster::Mesh;
use crate::domain::time::UnixMillis;
use crate::wire::features::Feature;

/// Frames that wait to be written: answers and events.
pub const REPLY_QUEUE: usize = 512;
/// Live messages that wait to be written. When they are more, the connection
/// reads its queue from the database instead.
pub const COPY_QUEUE: usize = 256;
/// Sends of one connection whose answer is still to come. Below
/// [`REPLY_QUEUE`], so that an answer always finds room.
pub const MAX_IN_FLIGHT: usize = 256;
/// Acknowledgements whose write failed that are kept to be written later. The copies of
/// any more come again on the next connection.
const MAX_UNSETTLED: usize = 1_024;
/// Endings that were told and not answered for. More are told when these are.
const MAX_ENDINGS: usize = 1_000;
/// Endings that are remembered after they were answered for.
const KNOWN_ENDINGS: usize = 256;

/// A connection, or its lease after it was lost.
#[derive(Debug)]
pub struct Peer {
    /// Names the connection; a silent reattach keeps it.
    pub presence_id: String,
    /// The mesh.
    pub mesh: Arc<Mesh>,
    /// The member.
    pub member_id: String,
    /// The member's key.
    pub member_pubkey: String,
    /// Which hello.
    pub kind: Kind,
    /// What the hello said.
    pub facts: Facts,
    /// When it first connected.
    pub connected_at: UnixMillis,
    /// Counts the hellos of the instance; 0 without one.
    pub generation: i64,
    /// The same with its state directory; `None` for clients without one.
    pub holder: Option<Arc<Holder>>,
    profile: Mutex<Profile>,
    replies: mpsc::Sender<Reply>,
    copies: mpsc::Sender<Copy>,
    /// Wakes the connection: messages wait in the database.
    pub look: Notify,
    behind: Mutex<Behind>,
    end: OnceLock<End>,
    ended: CancellationToken,
    features: AtomicU16,
    acknowledges: AtomicBool,
    /// Sends whose answer is still to come.
    pub in_flight: AtomicUsize,
    heard_ms: AtomicU64,
    heard: Notify,
    probe: Notify,
    /// Monotonic ms of the loss plus one; 0 while it is there.
    lost_ms: AtomicU64,
    /// Grows with each admission: of two connections, which came first.
    serial: AtomicU64,
    negotiates: AtomicBool,
    /// Copies of whose end it was told, and may not know yet.
    endings: Mutex<Endings>,
    /// There are more endings to tell it, in the database.
    more_endings: AtomicBool,
    /// Acknowledgements that could not be written.
    unsettled: Mutex<Vec<Settle>>,
}

/// Ends of own messages that were told on this connection.
#[derive(Debug, Default)]
struct Endings {
    /// By the id of the copy: why it was set aside, if it was.
    under_way: HashMap<String, Option<String>>,
    /// The last ones that the client answered for: whoever has just read the database may
    /// have found them untold.
    known: VecDeque<(String, Option<String>)>,
}

/// Whose messages wait for a connection in the database. They are read from there, in
/// order, before live ones of the same sender are taken.
#[derive(Debug, Default)]
struct Behind {
    /// Anybody's may.
    unknown: bool,
    /// By sender: the first copy that may wait.
    senders: BTreeMap<String, String>,
}

// === impl Peer ===

impl Peer {
    /// A connection and the ends of its queues.
    pub fn new(identity: Identity, now: Duration) -> (Arc<Self>, Queues) {
        let (replies, reply_queue) = mpsc::channel(REPLY_QUEUE);
        let (copies, copy_queue) = mpsc::channel(COPY_QUEUE);
        let holder = identity.facts.instance_id.clone().map(|instance_id| {
            Arc::new(Holder {
                mesh_id: identity.mesh.id.clone(),
                member_id: identity.member_id.clone(),
                instance_id,
                generation: identity.generation,
            })
        });
        let peer = Self {
            presence_id: identity.presence_id,
            mesh: identity.mesh,
            member_id: identity.member_id,
            member_pubkey: identity.member_pubkey,
            kind: identity.kind,
            facts: identity.facts,
            connected_at: identity.connected_at,
            generation: identity.generation,
            holder,
            profile: Mutex::new(identity.profile),
            replies,
            copies,
            look: Notify::new(),
            behind: Mutex::new(Behind { unknown: true, senders: BTreeMap::new() }),
            end: OnceLock::new(),
            ended: CancellationToken::new(),
            features: AtomicU16::new(0),
            acknowledges: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            heard_ms: AtomicU64::new(ms(now)),
            heard: Notify::new(),
            probe: Notify::new(),
            lost_ms: AtomicU64::new(0),
            serial: AtomicU64::new(0),
            negotiates: AtomicBool::new(false),
            endings: Mutex::default(),
            more_endings: AtomicBool::new(false),
            unsettled: Mutex::default(),
        };
        (Arc::new(peer), Queues { replies: reply_queue, copies: copy_queue })
    }

    /// The key that others address it by.
    pub fn routing_key(&self) -> &str {
        self.facts.session_pubkey.as_deref().unwrap_or(&self.member_pubkey)
    }

    /// What it says about itself, to read or change. Held shortly.
    pub fn profile(&self) -> MutexGuard<'_, Profile> {
        self.profile.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether others see it: neither it nor its member hides itself.
    pub fn is_visible(&self) -> bool {
        self.profile().visible && self.mesh.member(&self.member_id).is_none_or(|member| member.shown.visible)
    }

    /// Its name: its own, else the member's.
    pub fn name(&self) -> String {
        if let Some(name) = self.profile().display_name.clone() {
            return name;
        }
        self.mesh.member(&self.member_id).map(|member| member.display_name.clone()).unwrap_or_default()
    }

    /// Whether the member may administer the mesh.
    pub fn is_admin(&self) -> bool {
        self.mesh.member(&self.member_id).is_some_and(|member| member.role == "admin")
    }

    /// Queues an answer. An answer that finds no room ends the connection:
    /// whoever does not read cannot be told anything else.
    pub fn reply(&self, reply: Reply) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.replies.try_send(reply) {
            self.finish(End::cut("it does not read"));
        }
    }

    /// Queues an event, if there is room beside the answers. False if it was
    /// dropped.
    pub fn event(&self, text: &Utf8Bytes) -> bool {
        self.replies.capacity() > MAX_IN_FLIGHT && self.replies.try_send(Reply::Shared(text.clone())).is_ok()
    }

    /// Queues how a message ended, unless that is under way on this connection
    /// already. False if there is no room.
    pub fn ending(&self, delivery_id: String, reason: Option<String>, text: Utf8Bytes) -> bool {
        let mut endings = self.endings.lock().unwrap_or_else(PoisonError::into_inner);
        // Not by the text: the time in it is that of the word the first time, then the row's.
        let is_known = |(id, said): &(String, Option<String>)| *id == delivery_id && *said == reason;
        if endings.under_way.contains_key(&delivery_id) || endings.known.iter().any(is_known) {
            return true;
        }
        let queued = endings.under_way.len() < MAX_ENDINGS
            && self.replies.capacity() > MAX_IN_FLIGHT
            && self.replies.try_send(Reply::Ending(delivery_id.clone(), text)).is_ok();
        if queued {
            endings.under_way.insert(delivery_id, reason);
        }
        queued
    }

    /// These endings are no longer under way. What else there is is told once none is.
    pub fn ending_known(&self, delivery_ids: &[String]) {
        let mut endings = self.endings.lock().unwrap_or_else(PoisonError::into_inner);
        for id in delivery_ids {
            let known = endings.under_way.remove_entry(id);
            endings.known.extend(known);
        }
        let surplus = endings.known.len().saturating_sub(KNOWN_ENDINGS);
        endings.known.drain(..surplus);
        if endings.under_way.is_empty() && self.more_endings.load(Ordering::Acquire) {
            self.look.notify_one();
        }
    }

    /// Notes that there are more endings to tell than it was told.
    pub fn note_more_endings(&self) {
        self.more_endings.store(true, Ordering::Release);
    }

    /// Whether more endings are to be told now; asked once.
    pub fn takes_more_endings(&self) -> bool {
        let endings = self.endings.lock().unwrap_or_else(PoisonError::into_inner);
        endings.under_way.is_empty() && self.more_endings.swap(false, Ordering::AcqRel)
    }

    /// Keeps an acknowledgement that could not be written, so that the connection can
    /// try again: its client has said it, and does not say it twice.
    pub fn keep_unsettled(&self, settle: Settle) {
        let mut unsettled = self.unsettled.lock().unwrap_or_else(PoisonError::into_inner);
        if unsettled.len() < MAX_UNSETTLED {
            // Who asks to be told asks again.
            unsettled.push(Settle { answer: None, ..settle });
        }
        drop(unsettled);
        self.look.notify_one();
    }

    /// Takes what [`Self::keep_unsettled`] has kept.
    pub fn take_unsettled(&self) -> Vec<Settle> {
        std::mem::take(&mut *self.unsettled.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many acknowledgements are to be written again.
    pub fn unsettled(&self) -> usize {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Hands over a live message. Without room, the connection is told to read
    /// it from the database later.
    pub fn offer(&self, copy: Copy) {
        let sender = &copy.message.sender_member_id;
        if self.is_behind(sender) {
            self.fall_behind(sender, &copy.delivery_id);
        } else if let Err(mpsc::error::TrySendError::Full(copy)) = self.copies.try_send(copy) {
            self.fall_behind(&copy.message.sender_member_id, &copy.delivery_id);
        }
    }

    /// What this member sends is read from the database from now on, from this copy, until
    /// the connection has caught up with it.
    pub fn fall_behind(&self, sender: &str, delivery_id: &str) {
        let mut behind = self.behind();
        match behind.senders.get_mut(sender) {
            Some(from) if from.as_str() <= delivery_id => {}
            Some(from) => delivery_id.clone_into(from),
            None => _ = behind.senders.insert(sender.to_owned(), delivery_id.to_owned()),
        }
        drop(behind);
        self.look.notify_one();
    }

    /// Everything that waits is looked for in the database.
    pub fn fall_behind_all(&self) {
        self.behind().unknown = true;
        self.look.notify_one();
    }

    /// Whether messages of this member wait in the database.
    pub fn is_behind(&self, sender: &str) -> bool {
        let behind = self.behind();
        behind.unknown || behind.senders.contains_key(sender)
    }

    /// Whether any messages of this connection wait in the database.
    pub fn is_behind_any(&self) -> bool {
        let behind = self.behind();
        behind.unknown || !behind.senders.is_empty()
    }

    /// True once after [`Self::fall_behind_all`]: the caller finds out whose messages wait.
    pub fn take_unknown(&self) -> bool {
        std::mem::take(&mut self.behind().unknown)
    }

    /// Takes live messages of one sender again, the next in turn after `last`, and tells
    /// the copy from which the caller has to read. Called before that read, so that what
    /// is committed during it is offered. `but` waits for its next turn.
    pub fn catch_up(&self, last: &str, but: Option<&str>) -> Option<(String, String)> {
        let mut behind = self.behind();
        let is_free = |sender: &&String| Some(sender.as_str()) != but;
        let after = (Bound::Excluded(last), Bound::Unbounded);
        let next = behind.senders.range::<str, _>(after).map(|(sender, _)| sender).find(is_free);
        let next = next.or_else(|| behind.senders.keys().find(is_free))?.clone();
        behind.senders.remove_entry(&next)
    }

    fn behind(&self) -> MutexGuard<'_, Behind> {
        self.behind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the connection. The first reason stands.
    pub fn finish(&self, end: End) {
        let _ = self.end.set(end);
        self.ended.cancel();
    }

    /// Waits for [`Self::finish`].
    pub async fn finished(&self) -> End {
        self.ended.cancelled().await;
        self.end.get().cloned().unwrap_or_else(|| End::cut(""))
    }

    /// Whether it was told to end.
    pub fn is_finished(&self) -> bool {
        self.ended.is_cancelled()
    }

    /// Its place in the order of admission.
    pub fn serial(&self) -> u64 {
        self.serial.load(Ordering::Acquire)
    }

    /// Gives it its place in the order of admission.
    pub fn set_serial(&self, serial: u64) {
        self.serial.store(serial, Ordering::Release);
    }

    /// Notes that this client negotiates, so that it knows the frames that came
    /// with negotiation.
    pub fn set_negotiates(&self) {
        self.negotiates.store(true, Ordering::Release);
    }

    /// Whether this client knows the frames that came with negotiation.
    pub fn negotiates(&self) -> bool {
        self.facts.instance_id.is_some() || self.negotiates.load(Ordering::Acquire)
    }

    /// Notes a negotiated bit.
    pub fn grant(&self, feature: Feature) {
        self.features.fetch_or(bit(feature), Ordering::AcqRel);
    }

    /// Whether the bit was negotiated.
    pub fn has(&self, feature: Feature) -> bool {
        let bit = bit(feature);
        bit != 0 && self.features.load(Ordering::Acquire) & bit != 0
    }

    /// Notes that this client acknowledges what it has stored.
    pub fn set_acknowledges(&self) {
        self.acknowledges.store(true, Ordering::Release);
    }

    /// Whether a push that is not acknowledged in time is pushed again.
    pub fn acknowledges(&self) -> bool {
        self.has(Feature::DeliveryAck) || self.acknowledges.load(Ordering::Acquire)
    }

    /// Notes a sign of life.
    pub fn note_heard(&self, now: Duration) {
        self.heard_ms.store(ms(now), Ordering::Release);
        self.heard.notify_waiters();
    }

    /// How long it has been silent.
    pub fn silent_for(&self, now: Duration) -> Duration {
        now.saturating_sub(Duration::from_millis(self.heard_ms.load(Ordering::Acquire)))
    }

    /// Asks the connection for a sign of life and waits for one.
    pub async fn answers_within(&self, limit: Duration) -> bool {
        let heard = self.heard.notified();
        self.probe.notify_one();
        tokio::select! {
            () = heard => true,
            () = self.ended.cancelled() => false,
            () = tokio::time::sleep(limit) => false,
        }
    }

    /// Waits until somebody asks for a sign of life.
    pub async fn probed(&self) {
        self.probe.notified().await;
    }

    /// Begins the lease. False if it has begun already.
    pub fn lose(&self, now: Duration) -> bool {
        self.lost_ms.compare_exchange(0, ms(now) + 1, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Whether there is a socket behind it.
    pub fn is_online(&self) -> bool {
        self.lost_ms.load(Ordering::Acquire) == 0
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX - 1)
}

/// The bits that change how a connection is served.
fn bit(feature: Feature) -> u16 {
    match feature {
        Feature::ConcurrentConnectionPolicy => 1,
        Feature::MaxPayload => 2,
        Feature::DeliveryAck => 4,
        Feature::ClientMessageIdDedupe => 8,
        Feature::MemberKeypairRotatedEvent => 16,
        Feature::TopicE2e => 32,
        Feature::DeliveryOutcome => 64,
        Feature::FramePieces => 128,
        Feature::ReceiverReady => 256,
        _ => 0,
    }
}
