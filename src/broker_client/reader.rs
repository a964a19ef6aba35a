//! The incoming direction of one connection.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::SplitStream;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::connect::Socket;
use super::handshake::closed;
use super::pending::Pending;
use super::{Delivery, End, Error, LinkState, Negotiated, News, Session, Stats};
use crate::identity::Identity;
use crate::runtime::clock::Clock;
use crate::runtime::progress::Moved;
use crate::wire::close::Terminal;
use crate::wire::codec::{self, Limits};
use crate::wire::delivery::DeliveryStatus;
use crate::wire::event::SystemEvent;
use crate::wire::features::CloseReason;
use crate::wire::frame::ServerFrame;
use crate::wire::pieces::{Assembled, Assembly};

/// Any byte counts as life; after this much silence the link is dead (a network may
/// drop a flow without a word).
const SILENCE: Duration = Duration::from_secs(75);

/// What one connection reads into.
pub(super) struct Reader<'a> {
    pub(super) session: Arc<Session>,
    pub(super) moved: Moved,
    /// The large frame that comes in pieces.
    pub(super) assembly: Mutex<Assembly>,
    pub(super) state: &'a watch::Sender<LinkState>,
    pub(super) identity: &'a Identity,
    /// What the broker said of the close that follows.
    pub(super) why: Mutex<Option<CloseReason>>,
    /// When it will be back, by its word and this host's monotonic clock.
    pub(super) back_at: &'a Mutex<Duration>,
    pub(super) limits: Limits,
    pub(super) pending: &'a Pending,
    pub(super) deliveries: &'a mpsc::Sender<Delivery>,
    pub(super) news: &'a mpsc::Sender<News>,
    pub(super) statuses: &'a mpsc::Sender<DeliveryStatus>,
    pub(super) topics: &'a mpsc::Sender<String>,
    pub(super) ready: &'a mpsc::Sender<String>,
    pub(super) clock: &'a Clock,
    pub(super) stats: &'a Stats,
}

// === impl Reader ===

impl Reader<'_> {
    /// Reads until the connection ends. Only the wait for the socket is timed:
    /// while a consumer is slow the socket is left unread on purpose.
    pub(super) async fn run(&self, stream: &mut SplitStream<Socket>) -> Error {
        loop {
            let began = Instant::now();
            let message = loop {
                let until = began.max(self.moved.read_at()) + SILENCE;
                match tokio::time::timeout_at(until, stream.next()).await {
                    // A part of a frame came.
                    Err(_) if self.moved.read_at() + SILENCE > until => {}
                    Err(_) => return Error::Silent(SILENCE),
                    Ok(None) => return closed(None, self.why()),
                    Ok(Some(Err(error))) => return Error::Broken(error.to_string()),
                    Ok(Some(Ok(message))) => break message,
                }
            };
            match message {
                Message::Pong(payload) => self.pending.pong(&payload, self.clock.monotonic()),
                Message::Text(text) => {
                    if let Err(error) = self.frame(text.as_str()).await {
                        return error;
                    }
                }
                Message::Close(frame) => return closed(frame, self.why()),
                _ => {}
            }
        }
    }

    async fn frame(&self, text: &str) -> Result<(), Error> {
        let Some(decoded) = self.decode(text) else { return Ok(()) };
        let ServerFrame::Piece(piece) = decoded else { return self.take(decoded).await };
        let assembled = self.assembly.lock().unwrap_or_else(PoisonError::into_inner).add(&piece, self.limits.max_bytes);
        match assembled {
            Assembled::Part => Ok(()),
            Assembled::TooLarge => Err(Error::Broken("a frame of the broker was too large".to_owned())),
            Assembled::Whole(text) => match self.decode(&text) {
                Some(frame) => self.take(frame).await,
                None => Ok(()),
            },
        }
    }

    /// Counts what cannot be read; the link goes on.
    fn decode(&self, text: &str) -> Option<ServerFrame> {
        let decoded = match codec::decode_server(text, &self.limits) {
            Ok(decoded) => decoded,
            Err(error) => {
                // Hostile or newer: counted, and the link goes on.
                self.stats.invalid_frames.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(error = %error, "A frame of the broker could not be read: {error}");
                return None;
            }
        };
        if decoded.unknown_keys > 0 {
            self.stats.unknown_keys.fetch_add(decoded.unknown_keys as u64, Ordering::Relaxed);
        }
        Some(decoded.frame)
    }

    async fn take(&self, frame: ServerFrame) -> Result<(), Error> {
        match frame {
            ServerFrame::Ack(ack) if self.pending.awaits(ack.req_id.as_deref()) => {
                let req_id = ack.req_id.clone().unwrap_or_default();
                self.pending.answer_request(&req_id, ServerFrame::Ack(ack));
            }
            ServerFrame::Ack(ack) => {
                if let Some(took) = self.pending.answer_send(ack, self.clock.monotonic()) {
                    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
                    self.stats.round_trip_us.store(micros, Ordering::Relaxed);
                }
            }
            ServerFrame::Push(push) => match SystemEvent::of(&push) {
                Some(event) => return self.system(event).await,
                None => {
                    let delivery = Delivery { push, session: self.session.number };
                    self.deliveries.send(delivery).await.map_err(|_| Error::Stopping)?;
                }
            },
            ServerFrame::DeliveryStatus(status) => {
                self.statuses.send(status).await.map_err(|_| Error::Stopping)?;
            }
            ServerFrame::ReceiverReady(ready) => {
                // Without room the receiver is tried again after its pause.
                ready.member_id.into_iter().chain(ready.topic_id).for_each(|id| _ = self.ready.try_send(id));
            }
            ServerFrame::CloseReason(reason) => {
                tracing::info!(kind = reason.kind, detail = reason.detail, "The broker says why it closes");
                *self.why.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
            }
            ServerFrame::NegotiationResponse(response) => {
                // The answer to a question that the handshake did not wait for.
                let (negotiated, _) = Negotiated::from_response(response, &[]);
                let session = Arc::new(Session { negotiated, ..(*self.session).clone() });
                self.state.send_replace(LinkState::Ready(Arc::clone(&session)));
                self.tell(News::Up(session)).await?;
            }
            ServerFrame::Drain(drain) => {
                tracing::info!(after_ms = drain.reconnect_after_ms, "The broker restarts soon");
                let after = Duration::from_millis(drain.reconnect_after_ms);
                let at = self.clock.monotonic().saturating_add(after);
                *self.back_at.lock().unwrap_or_else(PoisonError::into_inner) = at;
            }
            ServerFrame::Error(error) => {
                tracing::warn!(code = error.code, message = error.message, "The broker reports an error");
            }
            frame => {
                if let Some(req_id) = answered(&frame).map(str::to_owned) {
                    self.pending.answer_request(&req_id, frame);
                }
            }
        }
        Ok(())
    }

    async fn system(&self, event: SystemEvent) -> Result<(), Error> {
        if let SystemEvent::TopicEpoch(change)
        | SystemEvent::TopicKeyAvailable(change)
        | SystemEvent::TopicMembersChanged(change) = event
        {
            // All topics are looked at now and then, whatever was heard.
            let _ = self.topics.try_send(change.topic_id);
            return Ok(());
        }
        let own = self.identity.member_id().as_str();
        let revoked = matches!(&event, SystemEvent::MemberRevoked(revoked) if revoked.member_id == own);
        self.tell(News::System(event)).await?;
        if revoked {
            let detail = "it was removed from the mesh".to_owned();
            return Err(Error::Ended(End::Closed { terminal: Terminal::Revoked, detail }));
        }
        Ok(())
    }

    fn why(&self) -> Option<CloseReason> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn tell(&self, news: News) -> Result<(), Error> {
        self.news.send(news).await.map_err(|_| Error::Stopping)
    }
}

/// The correlation id of an answer.
fn answered(frame: &ServerFrame) -> Option<&str> {
    match frame {
        ServerFrame::PeersList(list) => list.req_id.as_deref(),
        ServerFrame::MembersList(list) => list.req_id.as_deref(),
        ServerFrame::MemberRotated(rotated) => rotated.req_id.as_deref(),
        ServerFrame::MessageStatusResult(result) => result.req_id.as_deref(),
        ServerFrame::TopicCreated(answer) => answer.req_id.as_deref(),
        ServerFrame::TopicList(answer) => answer.req_id.as_deref(),
        ServerFrame::TopicEpoch(answer) => answer.req_id.as_deref(),
        ServerFrame::TopicKeys(answer) => answer.req_id.as_deref(),
        ServerFrame::TopicPending(answer) => answer.req_id.as_deref(),
        _ => None,
    }
}
