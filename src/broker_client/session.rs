//! Keeps the link up for the life of the daemon.
//!
//! What it is for: connect, greet, run both directions, and after a loss pause
//! and come back; until the daemon stops or the broker says not to.
//! What runs here: one task. The two directions of a connection run inside it.
//! What it guarantees: a lost connection fails every answer that is awaited
//! before the next try; the pauses follow `[reconnect]` and start over after a
//! connection that has lasted. A broker that restarts is not asked before it said
//! that it will be back.
//! What it must not do: come back after a terminal close.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_util::sync::CancellationToken;

use super::connect::{self, Connected, Socket};
use super::granted::Granted;
use super::handshake::{Greeted, Greeter};
use super::pending::Pending;
use super::queue::Queue;
use super::reader::Reader;
use super::writer::Writer;
use super::{Config, Delivery, End, Error, LinkState, News, Outgoing, Session, Stats, clock_offset};
use crate::domain::ids::MemberKey;
use crate::domain::negotiation::{Agreement, Patience, Verdict};
use crate::domain::retry::Backoff;
use crate::domain::time::UnixMillis;
use crate::identity::{Identity, OwnKey};
use crate::runtime::clock::Clock;
use crate::runtime::ids::IdSource;
use crate::runtime::progress;
use crate::wire::close::{self, Terminal};
use crate::wire::codec::Limits;
use crate::wire::delivery::DeliveryStatus;
use crate::wire::features::Feature;

/// A connection that lasted this long resets the pauses.
const STABLE: Duration = Duration::from_secs(10);
/// A link on which nothing of what is written moves for so long is dead.
const STALL: Duration = Duration::from_secs(75);
/// How long the news of the end may take to reach everybody.
const TELL_LIMIT: Duration = Duration::from_secs(1);
/// Greatest frame that is read. The broker's limit binds what is sent; pushes
/// carry some fields more.
const MAX_FRAME: usize = 4 << 20;

/// The task's belongings.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) config: Config,
    pub(super) granted: Granted,
    pub(super) patience: Patience,
    /// Everybody was told that the link is up, and not yet that it is down.
    pub(super) told_up: bool,
    pub(super) identity: Identity,
    pub(super) clock: Clock,
    pub(super) ids: IdSource,
    pub(super) outgoing: mpsc::Receiver<Outgoing>,
    pub(super) deliveries: mpsc::Sender<Delivery>,
    pub(super) news: mpsc::Sender<News>,
    pub(super) statuses: mpsc::Sender<DeliveryStatus>,
    pub(super) topics: mpsc::Sender<String>,
    pub(super) ready: mpsc::Sender<String>,
    pub(super) state: watch::Sender<LinkState>,
    /// Broker time minus own time, as the broker said it when it refused a
    /// hello; counts more than what the upgrade's answer says.
    pub(super) told_offset_ms: Option<i64>,
    /// When the broker said that it would be back, by the monotonic clock; in the
    /// past if it said nothing.
    pub(super) back_at: Duration,
    /// How the last connection that passed the handshake ended.
    pub(super) lost_by: &'static str,
    pub(super) pending: Pending,
    pub(super) stats: Arc<Stats>,
    pub(super) stop: CancellationToken,
}

// === impl Task ===

impl Task {
    pub(super) async fn run(mut self) {
        let boot_id = self.ids.ulid();
        let (mut attempt, mut number) = (0_u32, 0_u64);
        loop {
            let started = self.clock.monotonic();
            let before = number;
            let error = self.once(&boot_id, &mut number).await;
            if number > before {
                self.lost_by = error.kind_of_loss();
            }
            self.pending.fail_all(matches!(error, Error::Closed { code: close::TOO_LARGE, .. }));
            let error = self.judge(error);
            if let Error::Ended(end) = error {
                self.end(end).await;
                return;
            }
            if matches!(error, Error::Stopping) {
                // Everybody who used the link may be gone before its phase.
                self.stop.cancelled().await;
                return;
            }
            if matches!(error, Error::Renewed) {
                continue;
            }
            let lasted = self.clock.monotonic().saturating_sub(started);
            attempt = if lasted > STABLE { 1 } else { attempt.saturating_add(1) };
            if let Error::ClockSkew { offset_ms: Some(offset_ms) } = error {
                self.told_offset_ms = Some(offset_ms);
            }
            if self.pause(&error, attempt).await.is_err() {
                self.stop.cancelled().await;
                return;
            }
        }
    }

    /// Whether a connect without the required features ends the daemon (D-B29).
    fn judge(&mut self, error: Error) -> Error {
        let required = self.config.features.require.first().cloned().unwrap_or_default();
        let silent = "it answers pings, and not the question for its features".to_owned();
        let (agreement, feature, detail, missing) = match &error {
            Error::FeatureMissing { feature, detail, missing } => {
                (Agreement::Refused, feature.clone(), detail.clone(), missing.clone())
            }
            Error::Ended(End::Closed { terminal: Terminal::FeatureUnavailable, detail }) if !required.is_empty() => {
                let said = if detail.is_empty() { "it closed the link with code 4010" } else { detail.as_str() };
                (Agreement::Refused, required.clone(), said.to_owned(), vec![required])
            }
            Error::NotNegotiated { ping_answered: true, .. } => {
                (Agreement::Silent, required, silent, self.config.features.require.clone())
            }
            // A connection that passed has noted so itself, and its end is no
            // word on features.
            Error::Ended(_) | Error::Stopping | Error::Renewed => return error,
            _ => {
                self.patience.note(Agreement::Unknown, false, Duration::ZERO);
                return error;
            }
        };
        let before = missing.iter().all(|name| self.granted.had(name));
        match self.patience.note(agreement, before, self.clock.monotonic()) {
            Verdict::GiveUp => Error::Ended(End::FeatureUnavailable { feature, detail, missing }),
            Verdict::TryAgain => match error {
                Error::Ended(_) => Error::FeatureMissing { feature, detail, missing },
                other => other,
            },
        }
    }

    /// One connection from dial to loss.
    async fn once(&mut self, boot_id: &str, number: &mut u64) -> Error {
        if !matches!(&*self.state.borrow(), LinkState::Waiting { .. }) {
            self.state.send_replace(LinkState::Connecting);
        }
        let stop = self.stop.clone();
        let yields = self.config.yield_to_other && *number == 0;
        let greeted = tokio::select! {
            () = stop.cancelled() => return Error::Stopping,
            greeted = self.connect_and_greet(boot_id, yields) => greeted,
        };
        let (connected, greeted, greeted_key, clock_offset_ms) = match greeted {
            Ok(greeted) => greeted,
            Err(error) => return error,
        };
        if let Some(time) = greeted.hello.broker_time {
            self.config.time_guard.note_broker_time(UnixMillis(time));
        }
        *number += 1;
        if *number > 1 {
            self.stats.note_reconnect(self.lost_by);
        }
        self.stats
            .round_trip_us
            .store(u64::try_from(greeted.round_trip.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.patience.note(Agreement::Granted, true, Duration::ZERO);
        if !self.config.features.require.is_empty() {
            self.granted.note(&greeted.negotiated.supported).await;
        }
        let clock_offset_ms =
            greeted.hello.broker_time.map_or(clock_offset_ms, |time| time.saturating_sub(self.clock.now().0));
        // Kept only while it is needed: a clock that was set needs no help.
        self.told_offset_ms = self.told_offset_ms.and_then(|_| clock_offset::if_needed(clock_offset_ms));
        let session = Arc::new(Session {
            number: *number,
            key: greeted_key,
            broker_version: greeted.hello.broker_version.clone().unwrap_or_default(),
            clock_offset_ms,
            round_trip: greeted.round_trip,
            negotiated: greeted.negotiated,
            moved: connected.moved,
        });
        tracing::info!(
            broker = %self.config.url,
            broker_version = session.broker_version,
            features = ?session.negotiated.supported,
            "The link to the broker is up"
        );
        self.drive(connected.socket, session).await
    }

    /// Connects and says hello. While a rotation is under way the new key is
    /// tried first: the broker may have it already, and then it refuses the old.
    async fn connect_and_greet(
        &self,
        boot_id: &str,
        yields: bool,
    ) -> Result<(Connected, Greeted, MemberKey, i64), Error> {
        if let Some(next) = self.identity.next() {
            match self.greet_with(&next, boot_id, yields).await {
                Err(Error::Refused { code, .. }) if code == "unauthorized" => {
                    tracing::info!("The broker does not know the new key yet");
                }
                result => return result,
            }
        }
        self.greet_with(&self.identity.current(), boot_id, yields).await
    }

    async fn greet_with(
        &self,
        key: &Arc<OwnKey>,
        boot_id: &str,
        yields: bool,
    ) -> Result<(Connected, Greeted, MemberKey, i64), Error> {
        let mut connected = connect::connect(&self.config.url, &self.config.dialer).await?;
        let clock_offset_ms = self
            .told_offset_ms
            .unwrap_or_else(|| clock_offset::from_date_header(connected.date.as_deref(), self.clock.now()));
        if clock_offset_ms != 0 {
            tracing::warn!(clock_offset_ms, "This host's clock is off; the broker's time is used for the handshake");
        }
        let greeter = Greeter {
            config: &self.config,
            identity: &self.identity,
            key,
            clock: &self.clock,
            ids: &self.ids,
            stats: &self.stats,
            boot_id,
            clock_offset_ms,
            yield_to_other: yields,
        };
        let greeted = greeter.greet(&mut connected.socket).await?;
        Ok((connected, greeted, key.public(), clock_offset_ms))
    }

    /// Runs both directions until one of them ends.
    async fn drive(&mut self, socket: Socket, session: Arc<Session>) -> Error {
        let (sink, mut stream) = socket.split();
        let moved = session.moved.clone();
        let mut writer = Writer {
            socket: progress::Writer::new(sink, moved.clone(), STALL),
            queue: Queue::new(session.negotiated.has(Feature::FramePieces)),
            moved: moved.clone(),
            pending: &self.pending,
            clock: &self.clock,
            renews: false,
        };
        // What was handed over for the last connection is not sent on this one:
        // its callers are told, and they decide.
        while let Ok(stale) = self.outgoing.try_recv() {
            drop(stale);
        }
        let back_at = Mutex::default();
        let reader = Reader {
            session: Arc::clone(&session),
            moved,
            assembly: Mutex::default(),
            state: &self.state,
            why: Mutex::default(),
            back_at: &back_at,
            identity: &self.identity,
            limits: Limits { max_bytes: MAX_FRAME, strict: self.config.features.strict_frames },
            pending: &self.pending,
            deliveries: &self.deliveries,
            news: &self.news,
            statuses: &self.statuses,
            topics: &self.topics,
            ready: &self.ready,
            clock: &self.clock,
            stats: &self.stats,
        };
        if self.news.send(News::Up(Arc::clone(&session))).await.is_err() {
            return Error::Stopping;
        }
        self.told_up = true;
        self.state.send_replace(LinkState::Ready(session));
        let error = tokio::select! {
            error = reader.run(&mut stream) => error,
            error = writer.run(&mut self.outgoing, &self.stop) => error,
        };
        self.back_at = *back_at.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(error, Error::Stopping | Error::Renewed) {
            let reason = if matches!(error, Error::Stopping) { "daemon stops" } else { "renewed" };
            let frame = CloseFrame { code: close::NORMAL.into(), reason: reason.into() };
            // Best effort: the broker notices the closed socket as well.
            let mut sink = writer.socket.into_inner();
            let _ = tokio::time::timeout(Duration::from_millis(500), sink.send(Message::Close(Some(frame)))).await;
        }
        error
    }

    /// Waits before the next try; an error means that the daemon stops. A broker
    /// that has said when it will be back is not asked before, nor by all at once.
    async fn pause(&mut self, error: &Error, attempt: u32) -> Result<(), ()> {
        let (code, reason) = (error.code(), error.to_string());
        let backoff = self.config.backoff;
        let away = self.back_at.saturating_sub(self.clock.monotonic()).min(backoff.max);
        let spread = Backoff { initial: away, ..backoff };
        // Only the upper half of the jitter: later, never earlier.
        let away = spread.pause(1, 500 + self.ids.jitter(500));
        let pause = backoff.pause(attempt, self.ids.jitter(1000)).max(away);
        let was_up = std::mem::take(&mut self.told_up);
        let pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(code = code.name(), attempt, pause_ms, "No link to the broker: {reason}");
        self.state.send_replace(LinkState::Waiting { code, reason: reason.clone(), attempt, pause });
        if was_up {
            let close_code = error.close_code();
            self.news.send(News::Down { reason, close_code }).await.map_err(|_| ())?;
        }
        let until = tokio::time::sleep(pause);
        tokio::pin!(until);
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return Err(()),
                () = &mut until => return Ok(()),
                // Dropping an item tells its sender that there is no link.
                item = self.outgoing.recv() => if item.is_none() { return Err(()) },
            }
        }
    }

    async fn end(&mut self, end: End) {
        tracing::error!(code = end.code().name(), "The link to the broker is given up: {end}");
        if let End::FeatureUnavailable { feature, detail, missing } = &end {
            let (feature, detail, missing) = (feature.clone(), detail.clone(), missing.clone());
            let _ = self.news.send(News::NegotiationFailed { feature, detail, missing }).await;
        }
        // The state below ends the daemon, and with it who passes news on.
        let (told, heard) = oneshot::channel();
        let passed_on = async {
            let _ = self.news.send(News::Ending(told)).await;
            let _ = heard.await;
        };
        let _ = tokio::time::timeout(TELL_LIMIT, passed_on).await;
        self.state.send_replace(LinkState::Ended(end));
        // The daemon stops because of the state; until then nothing is sent.
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                item = self.outgoing.recv() => if item.is_none() { return },
            }
        }
    }
}
