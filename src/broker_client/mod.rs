//! The one persistent link to the broker.
//!
//! What it is for: frames go out in the order in which they are handed over,
//! and what the broker sends comes in as deliveries, news and answers.
//! What runs here: one task (`session.rs`) for the life of the daemon. The link
//! is a state inside it, so a broker that is away at the start changes nothing.
//! What it guarantees: each transmit gets one answer, the broker's or
//! [`Transmit::LinkLost`]; the socket is not read while deliveries wait
//! unconsumed.
//! What it must not do: store or open a message, or retry one.

mod clock_offset;
mod connect;
mod diagnosis;
mod error;
mod granted;
mod handshake;
mod negotiated;
mod pending;
mod queue;
mod reader;
mod session;
mod writer;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

pub use self::error::{End, Error, offset_text};
pub use self::negotiated::Negotiated;
use self::pending::Pending;
use crate::config::broker_client::Features;
use crate::config::broker_url::BrokerUrl;
use crate::domain::error_code::ErrorCode;
use crate::domain::ids::MemberKey;
use crate::domain::negotiation::Patience;
use crate::domain::profile::Profile;
use crate::domain::retry::Backoff;
use crate::identity::Identity;
use crate::runtime::clock::Clock;
use crate::runtime::dial::Dialer;
use crate::runtime::ids::IdSource;
use crate::runtime::progress::Moved;
use crate::runtime::supervisor::Supervisor;
use crate::runtime::task_kind::{Phase, TaskKind};
use crate::runtime::time_guard::TimeGuard;
use crate::wire::delivery::{Ack, ClientAck, DeliveryStatus, Push, Send};
use crate::wire::event::SystemEvent;
use crate::wire::frame::{ClientFrame, ServerFrame};

/// Frames that may wait to be written.
const OUTGOING: usize = 1024;
/// Deliveries that may wait for the inbox before the socket is left unread.
const DELIVERIES: usize = 512;
/// Delivery reports that may wait for the outbox.
const STATUSES: usize = 1024;
/// Topics that may wait to be looked at.
const TOPICS: usize = 256;
/// Receivers with room that may wait for the outbox.
const READY: usize = 1024;
/// News that may wait.
const NEWS: usize = 256;

/// What the link needs.
#[derive(Debug)]
pub struct Config {
    /// Where the broker is.
    pub url: BrokerUrl,
    /// The way there.
    pub dialer: Dialer,
    /// `[features]`.
    pub features: Features,
    /// `[reconnect]`.
    pub backoff: Backoff,
    /// Persistent id of the state directory.
    pub instance_id: String,
    /// Announced display name; `None` leaves the member's.
    pub display_name: Option<String>,
    /// What the member shows of itself.
    pub profile: watch::Receiver<Option<Profile>>,
    /// The process before this one was replaced by another connection: the
    /// first hello leaves that one in place.
    pub yield_to_other: bool,
    /// Learns the broker's time.
    pub time_guard: TimeGuard,
    /// Where the features that the broker granted last are noted.
    pub granted_file: PathBuf,
    /// How long a broker that had the required features may lack them.
    pub patience: Duration,
}

/// The state of the link, for whoever waits for it.
#[derive(Clone, Debug)]
pub enum LinkState {
    /// Being made.
    Connecting,
    /// Up, with what was agreed.
    Ready(Arc<Session>),
    /// Down; the next try comes by itself.
    Waiting {
        /// The stable code of the failure.
        code: ErrorCode,
        /// Why it is down, for people.
        reason: String,
        /// Failures in a row.
        attempt: u32,
        /// Pause until the next try.
        pause: Duration,
    },
    /// Down for good; the daemon ends.
    Ended(End),
}

/// One connection that passed the handshake.
#[derive(Clone, Debug)]
pub struct Session {
    /// Counts connections since the start, from 1.
    pub number: u64,
    /// The key that said hello.
    pub key: MemberKey,
    /// What was agreed.
    pub negotiated: Negotiated,
    /// The broker's version; empty for brokers that do not say.
    pub broker_version: String,
    /// Broker time minus own time, in milliseconds.
    pub clock_offset_ms: i64,
    /// How long the handshake's answer took.
    pub round_trip: Duration,
    /// When bytes last moved.
    pub moved: Moved,
}

/// After this much silence it is not known whether a link is alive: the broker's ping, or
/// the answer to the own one, is late.
const DOUBT: Duration = Duration::from_secs(45);

// === impl Session ===

impl Session {
    /// Whether so little has come that nobody knows if the link is alive.
    pub fn is_doubtful(&self) -> bool {
        self.moved.read_at().elapsed() >= DOUBT
    }
}

/// What became of a transmitted frame.
#[derive(Debug)]
pub enum Transmit {
    /// The broker answered.
    Answered(Box<Ack>),
    /// The link was lost first. The broker may or may not have it.
    LinkLost {
        /// The broker closed it because a frame was too large (1009).
        too_large: bool,
    },
}

/// A message that the broker pushed.
#[derive(Debug)]
pub struct Delivery {
    /// The frame.
    pub push: Box<Push>,
    /// The connection that it came over.
    pub session: u64,
}

/// News that are not messages.
#[derive(Debug)]
pub enum News {
    /// The handshake is done.
    Up(Arc<Session>),
    /// The link is down.
    Down {
        /// Why, for people.
        reason: String,
        /// The code of the WebSocket's close; 0 when there was none.
        close_code: u16,
    },
    /// A system event.
    System(SystemEvent),
    /// The broker lacks something required.
    NegotiationFailed {
        /// Which feature.
        feature: String,
        /// What is wrong.
        detail: String,
        /// Every required feature that is missing.
        missing: Vec<String>,
    },
    /// The link is down for good. Dropping this tells that all news before it
    /// were passed on; the daemon ends then.
    Ending(oneshot::Sender<()>),
}

/// The streams of the link; each has one consumer.
#[derive(Debug)]
pub struct Streams {
    /// Messages.
    pub deliveries: mpsc::Receiver<Delivery>,
    /// News.
    pub news: mpsc::Receiver<News>,
    /// What became of own sends at their receivers.
    pub statuses: mpsc::Receiver<DeliveryStatus>,
    /// Topics that have changed, by id. Only a hint: some may be left out.
    pub topics: mpsc::Receiver<String>,
    /// Members and topics, by id, for whom there is room again at the broker. Only a hint.
    pub ready: mpsc::Receiver<String>,
}

/// A frame on its way out.
#[derive(Debug)]
enum Outgoing {
    Send {
        frame: Box<Send>,
        reply: oneshot::Sender<Transmit>,
    },
    Request {
        frame: ClientFrame,
        req_id: String,
        reply: oneshot::Sender<ServerFrame>,
    },
    Ack(ClientAck),
    Tell(Box<ClientFrame>),
    /// End this connection in order and make a new one at once.
    Renew,
}

/// The link for the rest of the daemon. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    outgoing: mpsc::Sender<Outgoing>,
    state: watch::Receiver<LinkState>,
    ids: IdSource,
    stats: Arc<Stats>,
}

/// Counters of the link, for the metrics.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections that passed the handshake after the first, by how the one before ended.
    reconnects: std::sync::Mutex<std::collections::BTreeMap<&'static str, u64>>,
    /// Unknown top-level keys of frames that were dropped.
    pub unknown_keys: std::sync::atomic::AtomicU64,
    /// Frames that could not be read.
    pub invalid_frames: std::sync::atomic::AtomicU64,
    /// The last round trip to the broker in microseconds.
    pub round_trip_us: std::sync::atomic::AtomicU64,
}

// === impl Stats ===

impl Stats {
    fn note_reconnect(&self, reason: &'static str) {
        let mut reconnects = self.reconnects.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *reconnects.entry(reason).or_default() += 1;
    }

    /// How often the link came back, by how it had ended.
    pub fn reconnects(&self) -> std::collections::BTreeMap<&'static str, u64> {
        self.reconnects.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}

/// The link, built but not started.
#[derive(Debug)]
pub struct Parts {
    task: session::Task,
    handle: Handle,
    streams: Streams,
}

/// Puts the link together.
pub fn prepare(config: Config, identity: Identity, clock: Clock, ids: IdSource, supervisor: &Supervisor) -> Parts {
    let (outgoing, outgoing_rx) = mpsc::channel(OUTGOING);
    let (deliveries_tx, deliveries) = mpsc::channel(DELIVERIES);
    let (news_tx, news) = mpsc::channel(NEWS);
    let (statuses_tx, statuses) = mpsc::channel(STATUSES);
    let (topics_tx, topics) = mpsc::channel(TOPICS);
    let (ready_tx, ready) = mpsc::channel(READY);
    let (state_tx, state) = watch::channel(LinkState::Connecting);
    let stats = Arc::new(Stats::default());
    let task = session::Task {
        granted: granted::Granted::load(config.granted_file.clone(), config.url.as_str()),
        patience: Patience::new(config.patience),
        told_up: false,
        lost_by: "broken",
        config,
        identity,
        clock,
        ids: ids.clone(),
        outgoing: outgoing_rx,
        deliveries: deliveries_tx,
        news: news_tx,
        statuses: statuses_tx,
        topics: topics_tx,
        ready: ready_tx,
        state: state_tx,
        told_offset_ms: None,
        back_at: std::time::Duration::ZERO,
        pending: Pending::default(),
        stats: Arc::clone(&stats),
        stop: supervisor.token(Phase::Link),
    };
    Parts {
        task,
        handle: Handle { outgoing, state, ids, stats },
        streams: Streams { deliveries, news, statuses, topics, ready },
    }
}

// === impl Parts ===

impl Parts {
    /// The handle, also before the task runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Starts the link and gives its streams away.
    pub fn spawn(self, supervisor: &Supervisor) -> Streams {
        supervisor.spawn(TaskKind::BrokerSession, "broker link", self.task.run());
        self.streams
    }
}

// === impl Handle ===

impl Handle {
    /// The link's state, now and as it changes.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.state.clone()
    }

    /// The connection, when it is up.
    pub fn session(&self) -> Option<Arc<Session>> {
        match &*self.state.borrow() {
            LinkState::Ready(session) => Some(Arc::clone(session)),
            _ => None,
        }
    }

    /// Hands a message over, in order. The receiver tells what became of it.
    pub async fn transmit(&self, frame: Send) -> oneshot::Receiver<Transmit> {
        let (reply, outcome) = oneshot::channel();
        // A closed queue drops `reply`, which reads as a lost link.
        let _ = self.outgoing.send(Outgoing::Send { frame: Box::new(frame), reply }).await;
        outcome
    }

    /// Acknowledges a delivery. Lost with the link; the broker pushes again.
    pub async fn acknowledge(&self, ack: ClientAck) {
        let _ = self.outgoing.send(Outgoing::Ack(ack)).await;
    }

    /// Says something that has no answer. Lost with the link.
    pub async fn tell(&self, frame: ClientFrame) {
        let _ = self.outgoing.send(Outgoing::Tell(Box::new(frame))).await;
    }

    /// Says hello anew, with the key of this moment. Peers do not notice.
    pub async fn renew(&self) {
        let _ = self.outgoing.send(Outgoing::Renew).await;
    }

    /// Asks for something that has one answer. `make` puts the correlation id
    /// into the frame.
    pub async fn request(
        &self,
        make: impl FnOnce(String) -> ClientFrame,
        limit: Duration,
    ) -> Result<ServerFrame, Error> {
        let req_id = self.ids.ulid();
        let frame = make(req_id.clone());
        let (reply, answer) = oneshot::channel();
        let exchange = async {
            self.outgoing.send(Outgoing::Request { frame, req_id, reply }).await.map_err(|_| Error::LinkDown)?;
            answer.await.map_err(|_| Error::LinkDown)
        };
        tokio::time::timeout(limit, exchange).await.map_err(|_| Error::NoAnswer(limit))?
    }

    /// Counters since the start.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }
}
