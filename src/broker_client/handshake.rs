//! Hello and feature negotiation on a fresh socket.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::connect::Socket;
use super::negotiated::Negotiated;
use super::{Config, End, Error, Stats};
use crate::domain::foreign;
use crate::domain::time::UnixMillis;
use crate::identity::{Identity, OwnKey};
use crate::runtime::clock::Clock;
use crate::runtime::ids::IdSource;
use crate::wire::close::{self, Reaction, Retry};
use crate::wire::codec::{self, DecodeErrorKind, Limits};
use crate::wire::features::{CloseReason, Feature, NegotiationRequest, NegotiationResponse};
use crate::wire::frame::{ClientFrame, ServerFrame};
use crate::wire::hello::{ErrorFrame, Hello, HelloAck, HelloCapabilities};
use crate::wire::presence::Shown;

/// How long the broker may take for each answer.
const LIMIT: Duration = Duration::from_secs(5);
/// How long the closing handshake may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// Greatest frame before anything is agreed.
const MAX_FRAME: usize = 1 << 20;

/// What the handshake gave.
#[derive(Debug)]
pub(super) struct Greeted {
    pub(super) hello: HelloAck,
    pub(super) negotiated: Negotiated,
    pub(super) round_trip: Duration,
}

/// What a handshake needs.
#[derive(Debug)]
pub(super) struct Greeter<'a> {
    pub(super) config: &'a Config,
    pub(super) identity: &'a Identity,
    /// The key that says hello.
    pub(super) key: &'a Arc<OwnKey>,
    pub(super) clock: &'a Clock,
    pub(super) ids: &'a IdSource,
    pub(super) stats: &'a Stats,
    /// Names this process.
    pub(super) boot_id: &'a str,
    /// Broker time minus own time, in milliseconds.
    pub(super) clock_offset_ms: i64,
    /// Yield to another live connection of this member.
    pub(super) yield_to_other: bool,
}

/// The broker's frames until the handshake is done.
struct Incoming<'a> {
    socket: &'a mut Socket,
    stats: &'a Stats,
    strict: bool,
    /// Why the broker is about to close.
    why: Option<CloseReason>,
    ping_answered: bool,
}

// === impl Greeter ===

impl Greeter<'_> {
    /// Says hello, then agrees on features. Nothing else is sent before both
    /// answers are there (R402), unless nothing is required of the broker.
    pub(super) async fn greet(&self, socket: &mut Socket) -> Result<Greeted, Error> {
        let strict = self.config.features.strict_frames;
        let mut incoming = Incoming { socket, stats: self.stats, strict, why: None, ping_answered: false };
        let started = self.clock.monotonic();
        incoming.send(&ClientFrame::Hello(Box::new(self.hello()))).await?;
        let hello = self.expect_hello_ack(&mut incoming).await?;
        let round_trip = self.clock.monotonic().saturating_sub(started);
        let negotiated = self.negotiate(&mut incoming).await?;
        Ok(Greeted { hello, negotiated, round_trip })
    }

    fn hello(&self) -> Hello {
        let timestamp = UnixMillis(self.clock.now().0.saturating_add(self.clock_offset_ms));
        let identity = self.identity;
        Hello {
            mesh_id: identity.mesh_id().to_string(),
            member_id: identity.member_id().to_string(),
            pubkey: self.key.public().to_hex(),
            timestamp: timestamp.0,
            signature: identity.sign_hello(self.key, timestamp),
            // Unique by construction: a process id is not, across containers.
            session_id: format!("daemon-{}", self.boot_id),
            pid: i64::from(std::process::id()),
            cwd: "/".to_owned(),
            display_name: self.config.display_name.clone(),
            hostname: hostname(),
            channel: Some("claudemesh-daemon".to_owned()),
            capabilities: Some(HelloCapabilities::Signed(identity.capability_statement(self.key, timestamp))),
            instance_id: Some(self.config.instance_id.clone()),
            boot_id: Some(self.boot_id.to_owned()),
            daemon_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            shown: self.config.profile.borrow().as_ref().map(Shown::from),
            yield_to_other: self.yield_to_other.then_some(true),
            ..Hello::default()
        }
    }

    async fn negotiate(&self, incoming: &mut Incoming<'_>) -> Result<Negotiated, Error> {
        let features = &self.config.features;
        let req_id = self.ids.ulid();
        let request = NegotiationRequest {
            require: features.require.clone(),
            optional: asked_for(&features.require, &features.optional),
            req_id: Some(req_id),
        };
        incoming.send(&ClientFrame::NegotiationRequest(request)).await?;
        if features.require.is_empty() {
            // A broker without the extension never answers. Where nothing is
            // required of it there is nothing to wait for; an answer that comes
            // is taken by the reader.
            return Ok(Negotiated::default());
        }
        let response = self.expect_response(incoming).await?;
        let (negotiated, missing) = Negotiated::from_response(response, &features.require);
        let Some(first) = missing.first() else { return Ok(negotiated) };
        let (feature, detail) = (first.feature.clone(), first.detail.clone());
        let missing: Vec<String> = missing.into_iter().map(|one| one.feature).collect();
        tracing::warn!(feature, detail, missing = ?missing, "feature_unavailable: the broker lacks a required feature");
        let reason = CloseReason {
            kind: "feature_unavailable".to_owned(),
            feature: Some(feature.clone()),
            detail: detail.clone(),
            code: close::FEATURE_UNAVAILABLE,
            retryable: false,
        };
        // Best effort (R404): this connection ends either way.
        let _ = incoming.send(&ClientFrame::CloseReason(reason)).await;
        incoming.close(close::FEATURE_UNAVAILABLE, close::reason(close::FEATURE_UNAVAILABLE)).await;
        Err(Error::FeatureMissing { feature, detail, missing })
    }

    async fn expect_hello_ack(&self, incoming: &mut Incoming<'_>) -> Result<HelloAck, Error> {
        let until = Instant::now() + LIMIT;
        loop {
            match incoming.frame(until).await? {
                ServerFrame::HelloAck(ack) => return Ok(*ack),
                ServerFrame::Error(error) => {
                    let reaction = close::reaction(close::POLICY, &error.code);
                    if let Reaction::Terminal(terminal) = reaction {
                        return Err(Error::Ended(End::Closed { terminal, detail: foreign::said(&error.message) }));
                    }
                    return Err(self.refused(error));
                }
                _ => {}
            }
        }
    }

    /// Waits for the answer to the negotiation. A ping goes along, so that a broker
    /// that does not know the question can be told from a link that is dead.
    async fn expect_response(&self, incoming: &mut Incoming<'_>) -> Result<NegotiationResponse, Error> {
        incoming.ping().await?;
        let until = Instant::now() + LIMIT;
        loop {
            match incoming.frame(until).await {
                Ok(ServerFrame::NegotiationResponse(response)) => return Ok(response),
                Ok(ServerFrame::Error(error)) => {
                    return Err(self.refused(error));
                }
                // A broker without the extension starts with its pushes at once;
                // they are not acknowledged, so they come again.
                Ok(_) => {}
                Err(Error::NoAnswer(limit)) => {
                    incoming.close(close::NORMAL, "negotiation_timeout").await;
                    return Err(Error::NotNegotiated { limit, ping_answered: incoming.ping_answered });
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn refused(&self, error: ErrorFrame) -> Error {
        if close::reaction(close::POLICY, &error.code) == Reaction::Retry(Retry::ClockSkew) {
            let now = self.clock.now().0;
            return Error::ClockSkew { offset_ms: error.broker_time.map(|time| time.saturating_sub(now)) };
        }
        let (code, message) = (foreign::said(&error.code), foreign::said(&error.message));
        Error::Refused { broker: self.config.url.to_string(), code, message }
    }
}

// === impl Incoming ===

impl Incoming<'_> {
    async fn send(&mut self, frame: &ClientFrame) -> Result<(), Error> {
        let text = codec::encode(frame).map_err(|error| Error::Broken(error.to_string()))?;
        self.write(Message::text(text)).await
    }

    async fn ping(&mut self) -> Result<(), Error> {
        self.write(Message::Ping(Bytes::new())).await
    }

    async fn write(&mut self, message: Message) -> Result<(), Error> {
        self.socket.send(message).await.map_err(|error| Error::Broken(error.to_string()))
    }

    async fn close(&mut self, code: u16, reason: &'static str) {
        let frame = CloseFrame { code: code.into(), reason: reason.into() };
        let _ = tokio::time::timeout(CLOSE_LIMIT, self.socket.close(Some(frame))).await;
    }

    /// The next frame; unreadable ones are counted and passed over.
    async fn frame(&mut self, until: Instant) -> Result<ServerFrame, Error> {
        let limits = Limits { max_bytes: MAX_FRAME, strict: self.strict };
        loop {
            let message = tokio::time::timeout_at(until, self.socket.next()).await;
            match message.map_err(|_| Error::NoAnswer(LIMIT))? {
                Some(Ok(Message::Text(text))) => match codec::decode_server(text.as_str(), &limits) {
                    Ok(decoded) => {
                        self.stats.unknown_keys.fetch_add(decoded.unknown_keys as u64, Ordering::Relaxed);
                        match decoded.frame {
                            ServerFrame::CloseReason(why) => self.why = Some(why),
                            frame => return Ok(frame),
                        }
                    }
                    Err(error) => {
                        self.stats.invalid_frames.fetch_add(1, Ordering::Relaxed);
                        if matches!(error.kind, DecodeErrorKind::UnknownKeys(_)) {
                            // Waiting for a frame that was refused would hide why.
                            return Err(Error::Broken(format!("a frame of the broker was refused: {error}")));
                        }
                    }
                },
                Some(Ok(Message::Pong(_))) => self.ping_answered = true,
                Some(Ok(Message::Close(frame))) => return Err(closed(frame, self.why.take())),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(Error::Broken(error.to_string())),
                None => return Err(closed(None, self.why.take())),
            }
        }
    }
}

/// The error of a close frame, terminal or not. `why` is the frame that the
/// broker sent before it; its code stands in when the socket ended without one.
pub(super) fn closed(frame: Option<CloseFrame>, why: Option<CloseReason>) -> Error {
    let stated = why.as_ref().map_or(0, |why| why.code);
    let (code, reason) = match frame {
        Some(frame) => (u16::from(frame.code), foreign::said(&frame.reason)),
        None if stated != 0 => (stated, close::reason(stated).to_owned()),
        None => (1006, String::new()),
    };
    let detail = foreign::said(&why.map(why_text).unwrap_or_default());
    match close::reaction(code, &reason) {
        Reaction::Terminal(terminal) => Error::Ended(End::Closed { terminal, detail }),
        Reaction::Retry(Retry::ClockSkew) => Error::ClockSkew { offset_ms: None },
        Reaction::Retry(_) => Error::Closed { code, reason, detail },
    }
}

/// A `close_reason` for people.
fn why_text(why: CloseReason) -> String {
    let CloseReason { kind, feature, detail, .. } = why;
    let feature = feature.map_or_else(String::new, |feature| format!(" {feature}"));
    let text = if detail.is_empty() { format!("{kind}{feature}") } else { format!("{kind}{feature}, {detail}") };
    text.chars().take(300).collect()
}

fn hostname() -> Option<String> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    (!name.is_empty()).then_some(name)
}

/// What is asked for beside the required bits: the operator's list, and the
/// bits that this daemon makes use of. A broker applies a bit to a connection
/// only when it was asked for.
fn asked_for(require: &[String], optional: &[String]) -> Vec<String> {
    const USED: [Feature; 9] = [
        Feature::MaxPayload,
        Feature::DeliveryAck,
        Feature::DeliveryOutcome,
        Feature::RateLimit,
        Feature::FramePieces,
        Feature::ReceiverReady,
        Feature::MemberKeypairRotatedEvent,
        Feature::KeyEpoch,
        Feature::TopicE2e,
    ];
    let mut bits = optional.to_vec();
    for name in USED.map(Feature::as_str) {
        if !require.iter().chain(optional).any(|bit| bit == name) {
            bits.push(name.to_owned());
        }
    }
    bits
}
