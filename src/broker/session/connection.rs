//! One task for each socket.
//!
//! What it is for: reads frames one after the other, writes answers, events and
//! copies, keeps the connection alive, and ends it.
//! What runs here: [`serve`], from the upgrade to the close.
//! What it guarantees: frames of one socket are handled in order; a socket that
//! is silent, or does not read, is cut; memory per connection is bounded by its
//! queues.
//! What it must not do: hold up another connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt as _;
use tokio::sync::OwnedSemaphorePermit;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Bytes, Message, Utf8Bytes};
use tokio_util::sync::CancellationToken;

use super::admission;
use super::frames;
use super::peer::{MAX_IN_FLIGHT, Peer};
use super::push::Pusher;
use super::terms::{End, Queues, Reply};
use crate::broker::accept::commit::Told;
use crate::broker::accept::writer::Command;
use crate::broker::shared::{MAX_INLINE_BYTES, Shared};
use crate::runtime::task_kind::Phase;
use crate::wire::close;
use crate::wire::codec::{self, BASE_FRAME_BYTES, DecodeErrorKind, Limits};
use crate::wire::features::Feature;
use crate::wire::frame::{ClientFrame, ServerFrame};
use crate::wire::hello::ErrorFrame;

/// How long one write may take before the socket counts as dead.
const WRITE_LIMIT: Duration = Duration::from_secs(20);
/// How long the closing handshake may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// Frames that are written before they are flushed together.
const WRITE_BATCH: usize = 64;

/// The upgraded socket.
pub type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// What ends a connection from outside.
type Ended = Result<(), End>;

/// Serves a socket until it ends.
pub async fn serve(shared: Arc<Shared>, mut socket: Socket, place: Arc<OwnedSemaphorePermit>) {
    let stop = shared.supervisor.token(Phase::Streams);
    let opened = tokio::select! {
        opened = tokio::time::timeout(shared.config.timers.hello, Box::pin(open(&shared, &mut socket))) => {
            opened.unwrap_or_else(|_| Err(End::close(close::POLICY, "hello_timeout")))
        }
        () = stop.cancelled() => Err(shutting_down()),
    };
    let (peer, queues) = match opened {
        Ok(opened) => opened,
        Err(end) => return finish(&mut socket, &end, false).await,
    };
    // A member's socket no longer counts as a stranger's.
    drop(place);
    shared.metrics.connections.inc();
    // Our daemons negotiate at once. Until then it is not known whether this
    // connection may stay, so it gets no message that another should have.
    let held = peer.facts.instance_id.is_some();
    let pusher = Pusher::new(held, shared.config.timers.lease, shared.store.is_shared());
    let (ping, endings) = (Ping::default(), Endings::default());
    let mut link = Link { shared: &shared, peer: &peer, socket: &mut socket, queues, pusher, ping, endings };
    let end = match Box::pin(link.run(stop)).await {
        Ok(()) => End::cut("the client closed"),
        Err(end) => end,
    };
    shared.metrics.connections.dec();
    // Whoever waits for a sign of life need not wait any longer.
    peer.finish(end.clone());
    let began = shared.registry.lost(&peer, shared.clock.monotonic(), shared.config.timers.grace);
    tracing::debug!(member_id = peer.member_id, code = end.code, "Connection ended: {}", end.reason);
    finish(&mut socket, &end, peer.negotiates()).await;
    // A stopping broker has other things to write; the next hello says it all.
    if began && end.code != Some(close::GOING_AWAY) {
        admission::note_lost(&shared, &peer).await;
    }
}

/// Reads until a hello holds. Anything else is answered by `no_hello`.
async fn open(shared: &Arc<Shared>, socket: &mut Socket) -> Result<(Arc<Peer>, Queues), End> {
    let limits = Limits { max_bytes: BASE_FRAME_BYTES, strict: false };
    loop {
        let Some(text) = next_text(socket.next().await)? else { continue };
        let (frame, req_id) = match codec::decode_client(&text, &limits) {
            Ok(decoded) => (decoded.frame, None),
            Err(error) => {
                let kind = error.correlation.kind.as_deref();
                match error.kind {
                    DecodeErrorKind::TooLarge { .. } => return Err(too_large()),
                    DecodeErrorKind::Malformed(_) => continue,
                    detail if matches!(kind, Some("hello" | "session_hello")) => {
                        shared.metrics.hellos_refused.inc();
                        let frame = error_frame("malformed", &detail.to_string(), None);
                        write(socket, [text_of(&frame)?]).await?;
                        return Err(End::close(close::POLICY, "malformed"));
                    }
                    _ => (ClientFrame::Unknown(Default::default()), error.correlation.req_id),
                }
            }
        };
        let opened = match frame {
            ClientFrame::Hello(hello) => admission::member(shared, *hello).await,
            ClientFrame::SessionHello(hello) => admission::session(shared, *hello).await,
            other => {
                let req_id = match other {
                    ClientFrame::Unknown(unknown) => unknown.req_id.or(req_id),
                    _ => None,
                };
                let frame = error_frame("no_hello", "say hello first", req_id);
                write(socket, [text_of(&frame)?]).await?;
                continue;
            }
        };
        match opened {
            Ok((peer, queues, ack)) => {
                write(socket, [text_of(&ServerFrame::HelloAck(Box::new(ack)))?]).await?;
                return Ok((peer, queues));
            }
            Err(refused) => {
                shared.metrics.hellos_refused.inc();
                if let Some(error) = refused.error {
                    write(socket, [text_of(&ServerFrame::Error(error))?]).await?;
                }
                if let Some(why) = refused.end.why.clone() {
                    write(socket, [text_of(&ServerFrame::CloseReason(why))?]).await?;
                }
                return Err(End { why: None, ..refused.end });
            }
        }
    }
}

/// An open connection.
struct Link<'a> {
    shared: &'a Arc<Shared>,
    peer: &'a Arc<Peer>,
    socket: &'a mut Socket,
    queues: Queues,
    pusher: Pusher,
    ping: Ping,
    endings: Endings,
}

/// What the client was told of the ends of its messages. It knows that once it has
/// answered a ping that was sent after it.
#[derive(Debug, Default)]
struct Endings {
    /// Written since the last of these pings, by the ids of the copies.
    written: Vec<String>,
    /// By the number of the ping that followed.
    asked: VecDeque<(u64, Vec<String>)>,
    pings: u64,
}

#[derive(Debug, Default)]
struct Ping {
    /// Whether the last ping is unanswered. A connection that may be dead is
    /// given no message.
    unanswered: bool,
    /// When the last one was sent.
    at: Option<Duration>,
}

// === impl Link ===

impl Link<'_> {
    async fn run(&mut self, stop: CancellationToken) -> Ended {
        self.ping.at = Some(self.shared.clock.monotonic());
        let opened_at = self.shared.clock.monotonic();
        if !self.pusher.is_held() {
            // What waited for this member is pushed now, not at the next scan.
            self.peer.look.notify_one();
        }
        loop {
            let wait = self.next_timer(opened_at);
            let reads = self.peer.in_flight.load(Ordering::Acquire) < MAX_IN_FLIGHT;
            tokio::select! {
                end = self.peer.finished() => return Err(end),
                () = stop.cancelled() => return Err(shutting_down()),
                frame = self.socket.next(), if reads => self.received(frame).await?,
                Some(reply) = self.queues.replies.recv() => self.replies(reply).await?,
                Some(copy) = self.queues.copies.recv() => self.copies(copy).await?,
                () = self.peer.look.notified() => self.page().await?,
                () = self.peer.probed() => self.send_ping().await?,
                () = tokio::time::sleep(wait) => self.timers(opened_at).await?,
            }
        }
    }

    async fn received(&mut self, frame: Option<Result<Message, tungstenite::Error>>) -> Ended {
        let answered = match &frame {
            Some(Ok(Message::Pong(number))) => self.endings.answered(number),
            _ => Vec::new(),
        };
        let text = next_text(frame)?;
        self.peer.note_heard(self.shared.clock.monotonic());
        if std::mem::take(&mut self.ping.unanswered) && self.peer.is_behind() {
            self.peer.look.notify_one();
        }
        if !answered.is_empty() {
            let told = Told { ids: answered, peer: Arc::clone(self.peer) };
            // Refused only while the broker stops; the next connection is told again.
            let _ = self.shared.writer.submit(Command::Told(told)).await;
        }
        let Some(text) = text else { return Ok(()) };
        let max_bytes = if self.peer.has(Feature::MaxPayload) { MAX_INLINE_BYTES } else { BASE_FRAME_BYTES };
        match codec::decode_client(&text, &Limits { max_bytes, strict: false }) {
            Ok(decoded) => {
                self.shared.metrics.unknown_keys.inc_by(decoded.unknown_keys as u64);
                frames::handle(self.shared, self.peer, &mut self.pusher, decoded.frame).await;
            }
            Err(error) if matches!(error.kind, DecodeErrorKind::TooLarge { .. }) => return Err(too_large()),
            Err(error) => frames::undecodable(self.shared, self.peer, error),
        }
        Ok(())
    }

    /// Writes what waits, with one flush.
    async fn replies(&mut self, first: Reply) -> Ended {
        let mut messages = vec![self.reply_text(first)?];
        while messages.len() < WRITE_BATCH
            && let Ok(reply) = self.queues.replies.try_recv()
        {
            messages.push(self.reply_text(reply)?);
        }
        messages.extend(self.endings.ping());
        write(self.socket, messages).await
    }

    fn reply_text(&mut self, reply: Reply) -> Result<Message, End> {
        match reply {
            Reply::Frame(frame) => text_of(&frame),
            Reply::Ack(frame) => {
                self.peer.in_flight.fetch_sub(1, Ordering::AcqRel);
                text_of(&frame)
            }
            Reply::Shared(text) => Ok(Message::Text(text)),
            Reply::Ending(delivery_id, text) => {
                self.endings.written.push(delivery_id);
                Ok(Message::Text(text))
            }
        }
    }

    /// Writes copies after the answers that were queued before them: a client
    /// waits for the answer to its negotiation, not for a push.
    async fn write_copies(&mut self, frames: &[ServerFrame]) -> Ended {
        let mut messages = Vec::with_capacity(frames.len());
        while let Ok(reply) = self.queues.replies.try_recv() {
            messages.push(self.reply_text(reply)?);
        }
        messages.extend(self.endings.ping());
        for frame in frames {
            messages.push(text_of(frame)?);
        }
        self.shared.metrics.pushes.inc_by(frames.len() as u64);
        write(self.socket, messages).await?;
        if let Some(forget) = self.pusher.spent(self.shared, self.peer) {
            // Refused only while the broker stops.
            let _ = self.shared.writer.submit(forget).await;
        }
        Ok(())
    }

    async fn copies(&mut self, first: super::terms::Copy) -> Ended {
        let now = self.shared.clock.monotonic();
        let mut frames = Vec::with_capacity(1);
        let mut next = Some(first);
        while let Some(copy) = next {
            if self.ping.unanswered {
                self.peer.fall_behind();
            } else {
                frames.extend(self.pusher.live(&self.shared.topic_names, self.peer, copy, now));
            }
            next = if frames.len() < WRITE_BATCH { self.queues.copies.try_recv().ok() } else { None };
        }
        self.write_copies(&frames).await
    }

    async fn page(&mut self) -> Ended {
        if self.ping.unanswered || !self.peer.is_behind() {
            return Ok(());
        }
        let page = Box::pin(self.pusher.page(self.shared, self.peer)).await;
        self.push(page).await
    }

    async fn push(&mut self, frames: Result<Vec<ServerFrame>, sea_orm::DbErr>) -> Ended {
        match frames {
            Ok(frames) => self.write_copies(&frames).await,
            Err(error) => {
                tracing::error!(error = %error, "Cannot read the queue of a member: {error}");
                // The pause keeps a broken database from being asked in a loop.
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(())
            }
        }
    }

    async fn timers(&mut self, opened_at: Duration) -> Ended {
        let timers = &self.shared.config.timers;
        let now = self.shared.clock.monotonic();
        if self.peer.silent_for(now) >= timers.silence {
            return Err(End::cut("it was silent for too long"));
        }
        if self.pusher.is_held() && now.saturating_sub(opened_at) >= timers.negotiation {
            self.pusher.give_up_waiting(self.peer)?;
        }
        if self.ping.at.is_none_or(|at| now.saturating_sub(at) >= timers.ping) {
            self.send_ping().await?;
        }
        let due = self.pusher.next_check(self.peer).is_some_and(|at| at <= now);
        if due && !self.ping.unanswered {
            let overdue = Box::pin(self.pusher.overdue(self.shared, self.peer)).await;
            self.push(overdue).await?;
        }
        Ok(())
    }

    async fn send_ping(&mut self) -> Ended {
        self.ping = Ping { unanswered: true, at: Some(self.shared.clock.monotonic()) };
        write(self.socket, [Message::Ping(Bytes::new())]).await
    }

    /// Until the next thing that happens by time.
    fn next_timer(&self, opened_at: Duration) -> Duration {
        let timers = &self.shared.config.timers;
        let now = self.shared.clock.monotonic();
        let ping = self.ping.at.map_or(Duration::ZERO, |at| (at + timers.ping).saturating_sub(now));
        let silence = timers.silence.saturating_sub(self.peer.silent_for(now));
        let held = self.pusher.is_held().then(|| (opened_at + timers.negotiation).saturating_sub(now));
        let check = self.pusher.next_check(self.peer).filter(|_| !self.ping.unanswered);
        let check = check.map(|at| at.saturating_sub(now));
        [held, check].into_iter().flatten().fold(ping.min(silence), Duration::min).max(Duration::from_millis(1))
    }
}

// === impl Endings ===

impl Endings {
    /// The ping that asks whether what was written has arrived.
    fn ping(&mut self) -> Option<Message> {
        if self.written.is_empty() {
            return None;
        }
        self.pings += 1;
        self.asked.push_back((self.pings, std::mem::take(&mut self.written)));
        Some(Message::Ping(Bytes::copy_from_slice(&self.pings.to_be_bytes())))
    }

    /// What the client knows with this pong. Frames come in the order in which they
    /// were written, so an answer stands for every ping before it.
    fn answered(&mut self, pong: &[u8]) -> Vec<String> {
        let number = pong.try_into().map_or(0, u64::from_be_bytes).min(self.pings);
        let mut known = Vec::new();
        while let Some((_, ids)) = self.asked.pop_front_if(|(asked, _)| *asked <= number) {
            known.extend(ids);
        }
        known
    }
}

/// The text of a frame that was read; `None` for frames that carry none.
fn next_text(frame: Option<Result<Message, tungstenite::Error>>) -> Result<Option<Utf8Bytes>, End> {
    match frame {
        Some(Ok(Message::Text(text))) => Ok(Some(text)),
        Some(Ok(Message::Close(_))) | None => Err(End::cut("the client closed")),
        Some(Ok(_)) => Ok(None),
        Some(Err(tungstenite::Error::Capacity(_))) => Err(too_large()),
        Some(Err(error)) => Err(End::cut(error.to_string())),
    }
}

async fn write(socket: &mut Socket, messages: impl IntoIterator<Item = Message>) -> Ended {
    let all = async {
        let mut any = false;
        for message in messages {
            socket.feed(message).await?;
            any = true;
        }
        if any { socket.flush().await } else { Ok(()) }
    };
    match tokio::time::timeout(WRITE_LIMIT, all).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(End::cut(error.to_string())),
        Err(_) => Err(End::cut("it does not read")),
    }
}

/// Says why, closes, and waits a moment for the other side's close.
async fn finish(socket: &mut Socket, end: &End, explain: bool) {
    let Some(code) = end.code else { return };
    let goodbye = async {
        for frame in end.last_words().into_iter().filter(|_| explain) {
            if let Ok(message) = text_of(&frame) {
                socket.feed(message).await?;
            }
        }
        let reason = Utf8Bytes::from(close::fit_reason(&end.reason));
        socket.close(Some(CloseFrame { code: code.into(), reason })).await?;
        while let Some(Ok(_)) = socket.next().await {}
        if code == close::TOO_LARGE {
            // The rest of the frame is still on its way. A socket that is closed
            // over unread bytes is reset, and the client would never see why.
            let mut rest = vec![0; 16 * 1024];
            while socket.get_mut().read(&mut rest).await? > 0 {}
        }
        Ok::<_, tungstenite::Error>(())
    };
    // Whoever does not shake hands in time is gone anyway.
    let _ = tokio::time::timeout(CLOSE_LIMIT, goodbye).await;
}

fn text_of(frame: &ServerFrame) -> Result<Message, End> {
    codec::encode(frame).map(Message::text).map_err(|error| {
        tracing::error!(error = %error, "Cannot write a frame: {error}");
        End::cut("a frame could not be written")
    })
}

fn error_frame(code: &str, message: &str, req_id: Option<String>) -> ServerFrame {
    ServerFrame::Error(ErrorFrame {
        code: code.to_owned(),
        message: message.to_owned(),
        req_id,
        ..ErrorFrame::default()
    })
}

fn too_large() -> End {
    End::close(close::TOO_LARGE, "")
}

fn shutting_down() -> End {
    End::close(close::GOING_AWAY, close::reason(close::GOING_AWAY))
}
