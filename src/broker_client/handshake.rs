//! Hello and feature negotiation on a fresh socket.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::Message;

use super::connect::Socket;
use super::{Config, End, Error, Negotiated};
use crate::domain::time::UnixMillis;
use crate::identity::Identity;
use crate::runtime::clock::Clock;
use crate::runtime::ids::IdSource;
use crate::wire::close::{self, Reaction, Retry};
use crate::wire::codec::{self, Limits};
use crate::wire::features::{CloseReason, Feature, NegotiationRequest, NegotiationResponse};
use crate::wire::frame::{ClientFrame, ServerFrame};
use crate::wire::hello::{ErrorFrame, Hello, HelloAck, HelloCapabilities};

/// How long the broker may take for each answer.
const LIMIT: Duration = Duration::from_secs(5);
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
    pub(super) clock: &'a Clock,
    pub(super) ids: &'a IdSource,
    /// Names this process.
    pub(super) boot_id: &'a str,
    /// Broker time minus own time, in milliseconds.
    pub(super) clock_offset_ms: i64,
    /// Yield to another live connection of this member.
    pub(super) yield_to_other: bool,
}

// === impl Greeter ===

impl Greeter<'_> {
    /// Says hello, then agrees on features. Nothing else is sent before both
    /// answers are there (R402).
    pub(super) async fn greet(&self, socket: &mut Socket) -> Result<Greeted, Error> {
        let started = self.clock.monotonic();
        send(socket, &ClientFrame::Hello(Box::new(self.hello()))).await?;
        let hello = self.expect_hello_ack(socket).await?;
        let round_trip = self.clock.monotonic().saturating_sub(started);
        let negotiated = self.negotiate(socket).await?;
        Ok(Greeted { hello, negotiated, round_trip })
    }

    fn hello(&self) -> Hello {
        let timestamp = UnixMillis(self.clock.now().0.saturating_add(self.clock_offset_ms));
        let identity = self.identity;
        Hello {
            mesh_id: identity.mesh_id().to_string(),
            member_id: identity.member_id().to_string(),
            pubkey: identity.key().to_hex(),
            timestamp: timestamp.0,
            signature: identity.sign_hello(timestamp),
            // Unique by construction: a process id is not, across containers.
            session_id: format!("daemon-{}", self.boot_id),
            pid: i64::from(std::process::id()),
            cwd: "/".to_owned(),
            display_name: self.config.display_name.clone(),
            hostname: hostname(),
            channel: Some("claudemesh-daemon".to_owned()),
            capabilities: Some(HelloCapabilities::Signed(identity.capability_statement(timestamp))),
            instance_id: Some(self.config.instance_id.clone()),
            boot_id: Some(self.boot_id.to_owned()),
            daemon_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            yield_to_other: self.yield_to_other.then_some(true),
            ..Hello::default()
        }
    }

    async fn expect_hello_ack(&self, socket: &mut Socket) -> Result<HelloAck, Error> {
        loop {
            match receive(socket).await? {
                ServerFrame::HelloAck(ack) => return Ok(*ack),
                ServerFrame::Error(error) => {
                    let reaction = close::reaction(close::POLICY, &error.code);
                    if let Reaction::Terminal(terminal) = reaction {
                        return Err(Error::Ended(End::Closed(terminal)));
                    }
                    return Err(self.refused(error));
                }
                ServerFrame::CloseReason(reason) => tracing::info!(kind = reason.kind, "The broker says why it closes"),
                _ => {}
            }
        }
    }

    async fn negotiate(&self, socket: &mut Socket) -> Result<Negotiated, Error> {
        let features = &self.config.features;
        let req_id = self.ids.ulid();
        let request = NegotiationRequest {
            require: features.require.clone(),
            optional: asked_for(&features.require, &features.optional),
            req_id: Some(req_id),
        };
        send(socket, &ClientFrame::NegotiationRequest(request)).await?;
        // A broker without the extension never answers. That is only accepted
        // when the operator requires nothing of it.
        let response = match self.expect_response(socket).await {
            Ok(response) => response,
            Err(Error::NoAnswer(_)) if features.require.is_empty() => {
                NegotiationResponse { supported: Vec::new(), params: BTreeMap::new(), ..NegotiationResponse::default() }
            }
            Err(error) => return Err(error),
        };
        let missing = response.missing_required.first().cloned();
        let (negotiated, defects) = Negotiated::from_response(response);
        for (feature, defect) in &defects {
            tracing::warn!(feature = feature.as_str(), defect, "feature_optional_param_invalid");
        }
        let unmet =
            missing.or_else(|| features.require.iter().find(|wanted| !negotiated.supported.contains(wanted)).cloned());
        let Some(feature) = unmet else { return Ok(negotiated) };
        let detail = defects
            .iter()
            .find(|(defect, _)| defect.as_str() == feature)
            .map_or_else(|| "the broker does not have it".to_owned(), |(_, defect)| defect.clone());
        self.leave_for(socket, &feature, &detail).await;
        Err(Error::Ended(End::FeatureUnavailable { feature, detail }))
    }

    async fn expect_response(&self, socket: &mut Socket) -> Result<NegotiationResponse, Error> {
        loop {
            match receive(socket).await? {
                ServerFrame::NegotiationResponse(response) => return Ok(response),
                ServerFrame::Error(error) => return Err(self.refused(error)),
                // A broker without the extension starts with its pushes at once;
                // they are not acknowledged, so they come again.
                _ => {}
            }
        }
    }

    fn refused(&self, error: ErrorFrame) -> Error {
        if close::reaction(close::POLICY, &error.code) == Reaction::Retry(Retry::ClockSkew) {
            let now = self.clock.now().0;
            return Error::ClockSkew { offset_ms: error.broker_time.map(|time| time.saturating_sub(now)) };
        }
        Error::Refused { broker: self.config.url.clone(), code: error.code, message: error.message }
    }

    /// Tells the broker why this daemon goes (R404).
    async fn leave_for(&self, socket: &mut Socket, feature: &str, detail: &str) {
        let reason = CloseReason {
            kind: "feature_unavailable".to_owned(),
            feature: Some(feature.to_owned()),
            detail: detail.to_owned(),
            code: close::FEATURE_UNAVAILABLE,
            retryable: false,
        };
        // The daemon ends either way.
        let _ = send(socket, &ClientFrame::CloseReason(reason)).await;
        let frame = tokio_tungstenite::tungstenite::protocol::CloseFrame {
            code: close::FEATURE_UNAVAILABLE.into(),
            reason: close::reason(close::FEATURE_UNAVAILABLE).into(),
        };
        let _ = tokio::time::timeout(Duration::from_secs(1), socket.close(Some(frame))).await;
    }
}

async fn send(socket: &mut Socket, frame: &ClientFrame) -> Result<(), Error> {
    let text = codec::encode(frame).map_err(|error| Error::Broken(error.to_string()))?;
    socket.send(Message::text(text)).await.map_err(|error| Error::Broken(error.to_string()))
}

/// The next frame within the time limit. Unreadable ones are passed over.
async fn receive(socket: &mut Socket) -> Result<ServerFrame, Error> {
    let limits = Limits { max_bytes: MAX_FRAME, strict: false };
    let wait = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    if let Ok(decoded) = codec::decode_server(text.as_str(), &limits) {
                        return Ok(decoded.frame);
                    }
                }
                Some(Ok(Message::Close(frame))) => return Err(closed(frame)),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(Error::Broken(error.to_string())),
                None => return Err(closed(None)),
            }
        }
    };
    tokio::time::timeout(LIMIT, wait).await.map_err(|_| Error::NoAnswer(LIMIT))?
}

/// The error of a close frame, terminal or not.
pub(super) fn closed(frame: Option<tokio_tungstenite::tungstenite::protocol::CloseFrame>) -> Error {
    let (code, reason) = frame.map_or((1006, String::new()), |frame| (u16::from(frame.code), frame.reason.to_string()));
    match close::reaction(code, &reason) {
        Reaction::Terminal(terminal) => Error::Ended(End::Closed(terminal)),
        Reaction::Retry(Retry::ClockSkew) => Error::ClockSkew { offset_ms: None },
        Reaction::Retry(_) => Error::Closed { code, reason },
    }
}

fn hostname() -> Option<String> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    (!name.is_empty()).then_some(name)
}

/// What is asked for beside the required bits: the operator's list, and the
/// bits that this daemon makes use of. A broker applies a bit to a connection
/// only when it was asked for.
fn asked_for(require: &[String], optional: &[String]) -> Vec<String> {
    const USED: [Feature; 3] = [Feature::MaxPayload, Feature::DeliveryAck, Feature::RateLimit];
    let mut bits = optional.to_vec();
    for name in USED.map(Feature::as_str) {
        if !require.iter().chain(optional).any(|bit| bit == name) {
            bits.push(name.to_owned());
        }
    }
    bits
}
