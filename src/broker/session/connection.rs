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

use futures_util::stream::SplitStream;
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
use super::terms::{Copy, End, Queues, Reply};
use crate::broker::accept::commit::Told;
use crate::broker::accept::writer::Command;
use crate::broker::endings;
use crate::broker::shared::{MAX_INLINE_BYTES, Shared};
use crate::runtime::progress::{Moved, Watched, WriteError, Writer};
use crate::runtime::task_kind::Phase;
use crate::wire::close;
use crate::wire::codec::{self, BASE_FRAME_BYTES, DecodeErrorKind, Decoded, Limits};
use crate::wire::delivery::Push;
use crate::wire::features::Feature;
use crate::wire::frame::{ClientFrame, ServerFrame};
use crate::wire::hello::ErrorFrame;
use crate::wire::pieces::{Assembled, Assembly, PIECE_BYTES, Pieces};

/// How long nothing of what is written may move before the socket counts as dead.
const STALL: Duration = Duration::from_secs(20);
/// How long the closing handshake may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);
/// Frames that are written before they are flushed together.
const WRITE_BATCH: usize = 64;
/// Their bytes, about.
const WRITE_BYTES: usize = 32 * 1024;
/// Bytes of large answers that may wait for their turn in pieces before no more answers
/// are taken: a client may ask for more than its line carries.
const LARGE_BYTES: usize = 1024 * 1024;

/// The bytes below the WebSocket.
pub type Stream = Watched<TokioIo<Upgraded>>;
/// The upgraded socket.
pub type Socket = WebSocketStream<Stream>;

/// What ends a connection from outside.
type Ended = Result<(), End>;

/// Serves a socket until it ends.
pub async fn serve(shared: Arc<Shared>, mut socket: Socket, place: Arc<OwnedSemaphorePermit>) {
    let stop = shared.supervisor.token(Phase::Streams);
    let hello = tokio::select! {
        hello = tokio::time::timeout(shared.config.timers.hello, Box::pin(hello(&shared, &mut socket))) => {
            hello.unwrap_or_else(|_| Err(End::close(close::POLICY, "hello_timeout")))
        }
        () = stop.cancelled() => Err(shutting_down()),
    };
    // Not cut off: it notes in the database, and then among the connections, who is there.
    let opened = match hello {
        Ok(hello) => Box::pin(open(&shared, &mut socket, hello)).await,
        Err(end) => Err(end),
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
    let moved = socket.get_ref().moved();
    let (sink, stream) = socket.split();
    let mut link = Link {
        shared: &shared,
        peer: &peer,
        stream,
        writer: Writer::new(sink, moved.clone(), STALL),
        moved,
        assembly: Assembly::default(),
        large: VecDeque::new(),
        may_page: false,
        queues,
        pusher: Pusher::new(held, shared.config.timers.lease),
        pings: Pings::default(),
        late: None,
    };
    let end = match Box::pin(link.run(stop)).await {
        Ok(()) => End::cut("the client closed"),
        Err(end) => end,
    };
    let (stream, sink) = (link.stream, link.writer.into_inner());
    shared.metrics.connections.dec();
    // Whoever waits for a sign of life need not wait any longer.
    peer.finish(end.clone());
    let began = shared.registry.lost(&peer, shared.clock.monotonic(), shared.config.timers.grace);
    tracing::debug!(member_id = peer.member_id, code = end.code, "Connection ended: {}", end.reason);
    if let Ok(mut socket) = stream.reunite(sink) {
        finish(&mut socket, &end, peer.negotiates()).await;
    }
    // A stopping broker has other things to write; the next hello says it all.
    if began && end.code != Some(close::GOING_AWAY) {
        admission::note_lost(&shared, &peer).await;
    }
}

/// Reads until a hello comes. Anything else is answered by `no_hello`.
async fn hello(shared: &Arc<Shared>, socket: &mut Socket) -> Result<ClientFrame, End> {
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
                        say(socket, &frame).await?;
                        return Err(End::close(close::POLICY, "malformed"));
                    }
                    _ => (ClientFrame::Unknown(Default::default()), error.correlation.req_id),
                }
            }
        };
        let req_id = match frame {
            ClientFrame::Hello(_) | ClientFrame::SessionHello(_) => return Ok(frame),
            ClientFrame::Unknown(unknown) => unknown.req_id.or(req_id),
            _ => None,
        };
        let frame = error_frame("no_hello", "say hello first", req_id);
        say(socket, &frame).await?;
    }
}

/// Admits who said this hello, and answers it.
async fn open(shared: &Arc<Shared>, socket: &mut Socket, hello: ClientFrame) -> Result<(Arc<Peer>, Queues), End> {
    let opened = match hello {
        ClientFrame::Hello(hello) => admission::member(shared, *hello).await,
        ClientFrame::SessionHello(hello) => admission::session(shared, *hello).await,
        _ => return Err(End::close(close::POLICY, "malformed")),
    };
    match opened {
        Ok((peer, queues, ack)) => {
            if let Err(end) = say(socket, &ServerFrame::HelloAck(Box::new(ack))).await {
                // It counts as connected since a moment ago.
                peer.finish(end.clone());
                shared.registry.lost(&peer, shared.clock.monotonic(), shared.config.timers.grace);
                return Err(end);
            }
            Ok((peer, queues))
        }
        Err(refused) => {
            shared.metrics.hellos_refused.inc();
            if let Some(error) = refused.error {
                say(socket, &ServerFrame::Error(error)).await?;
            }
            if let Some(why) = refused.end.why.clone() {
                say(socket, &ServerFrame::CloseReason(why)).await?;
            }
            Err(End { why: None, ..refused.end })
        }
    }
}

/// An open connection.
struct Link<'a> {
    shared: &'a Arc<Shared>,
    peer: &'a Arc<Peer>,
    stream: SplitStream<Socket>,
    writer: Writer<Stream>,
    moved: Moved,
    /// The large frame that comes in pieces.
    assembly: Assembly,
    /// Frames that go in pieces, the first one now.
    large: VecDeque<Large>,
    /// What waits in the database may go beside the next piece.
    may_page: bool,
    queues: Queues,
    pusher: Pusher,
    pings: Pings,
    /// Acknowledgements are late as of this moment, if the client has read what was written
    /// until then: it has when it answers this ping.
    late: Option<(u64, Duration)>,
}

/// A frame in pieces.
struct Large {
    pieces: Pieces<Utf8Bytes>,
    is_copy: bool,
}

/// Pings by number. A client that answers one has read what was written before.
#[derive(Debug, Default)]
struct Pings {
    sent: u64,
    /// Whether the last one is unanswered. A connection that may be dead is
    /// given no message.
    unanswered: bool,
    /// When the last one was sent.
    at: Option<Duration>,
    /// Ends of own messages that were written since the last of these pings, by the ids
    /// of the copies.
    endings: Vec<String>,
    /// By the number of the ping that followed.
    asked: VecDeque<(u64, Vec<String>)>,
}

// === impl Link ===

impl Link<'_> {
    async fn run(&mut self, stop: CancellationToken) -> Ended {
        self.pings.at = Some(self.shared.clock.monotonic());
        let opened_at = self.shared.clock.monotonic();
        if !self.pusher.is_held() {
            // What waited for this member is pushed now, not at the next scan.
            self.peer.look.notify_one();
        }
        loop {
            if self.writer.is_idle() && !self.large.is_empty() {
                self.batch(None, None)?;
            }
            let idle = self.writer.is_idle();
            let wait = self.next_timer(opened_at);
            let reads = self.peer.in_flight.load(Ordering::Acquire) < MAX_IN_FLIGHT;
            tokio::select! {
                end = self.peer.finished() => return Err(end),
                () = stop.cancelled() => return Err(shutting_down()),
                frame = self.stream.next(), if reads => self.received(frame).await?,
                written = self.writer.written() => self.written(written).await?,
                Some(reply) = self.queues.replies.recv(), if idle => self.batch(Some(reply), None)?,
                Some(copy) = self.queues.copies.recv(), if idle => self.batch(None, Some(copy))?,
                () = self.peer.look.notified(), if idle || self.may_page => self.page().await?,
                () = self.peer.probed() => { self.send_ping(); }
                () = tokio::time::sleep(wait) => self.timers(opened_at).await?,
            }
        }
    }

    async fn received(&mut self, frame: Option<Result<Message, tungstenite::Error>>) -> Ended {
        let pong = match &frame {
            Some(Ok(Message::Pong(number))) => Some(self.pings.answered(number)),
            _ => None,
        };
        let text = next_text(frame)?;
        self.peer.note_heard(self.shared.clock.monotonic());
        if std::mem::take(&mut self.pings.unanswered) && self.peer.is_behind_any() {
            self.peer.look.notify_one();
        }
        if let Some((number, endings)) = pong {
            if !endings.is_empty() {
                let told = Told { ids: endings, peer: Arc::clone(self.peer) };
                // Refused only while the broker stops; the next connection is told again.
                let _ = self.shared.writer.submit(Command::Told(told)).await;
            }
            if let Some((_, read_at)) = self.late.take_if(|(asked, _)| *asked <= number) {
                let overdue = Box::pin(self.pusher.overdue(self.shared, self.peer, read_at)).await;
                self.push(overdue).await?;
            }
        }
        match text {
            Some(text) => self.frame(&text, true).await,
            None => Ok(()),
        }
    }

    async fn frame(&mut self, text: &str, may_be_piece: bool) -> Ended {
        let max_bytes = if self.peer.has(Feature::MaxPayload) { MAX_INLINE_BYTES } else { BASE_FRAME_BYTES };
        match codec::decode_client(text, &Limits { max_bytes, strict: false }) {
            Ok(Decoded { frame: ClientFrame::Piece(piece), .. }) if self.peer.has(Feature::FramePieces) => {
                match self.assembly.add(&piece, max_bytes) {
                    Assembled::Whole(text) if may_be_piece => Box::pin(self.frame(&text, false)).await?,
                    Assembled::Whole(_) => return Err(End::close(close::POLICY, "malformed")),
                    Assembled::TooLarge => return Err(too_large()),
                    Assembled::Part => {}
                }
            }
            Ok(decoded) => {
                self.shared.metrics.unknown_keys.inc_by(decoded.unknown_keys as u64);
                frames::handle(self.shared, self.peer, &mut self.pusher, decoded.frame).await;
            }
            Err(error) if matches!(error.kind, DecodeErrorKind::TooLarge { .. }) => return Err(too_large()),
            Err(error) => frames::undecodable(self.shared, self.peer, error),
        }
        Ok(())
    }

    /// Begins to write what waits, with one flush: answers first, a client waits for the
    /// one to its negotiation and not for a push; then the next piece of a large frame;
    /// then live copies.
    fn batch(&mut self, reply: Option<Reply>, copy: Option<Copy>) -> Ended {
        let (mut messages, mut bytes) = self.replies(reply)?;
        bytes += self.piece(&mut messages)?;
        let mut next = copy.or_else(|| self.queues.copies.try_recv().ok());
        let now = self.shared.clock.monotonic();
        while let Some(copy) = next {
            if self.pings.unanswered {
                self.peer.fall_behind(&copy.message.sender_member_id, &copy.delivery_id);
            } else if let Some(push) = self.pusher.live(&self.shared.topic_names, self.peer, copy, now) {
                bytes += self.copy(push, &mut messages)?;
            }
            let more = messages.len() < WRITE_BATCH && bytes < WRITE_BYTES;
            next = if more { self.queues.copies.try_recv().ok() } else { None };
        }
        self.writer.begin(messages);
        Ok(())
    }

    /// The answers and events that wait, and their bytes.
    fn replies(&mut self, first: Option<Reply>) -> Result<(Vec<Message>, usize), End> {
        let (mut messages, mut bytes) = (Vec::new(), 0);
        let mut next = first.or_else(|| self.next_reply());
        while let Some(reply) = next {
            let text = self.reply_text(reply)?;
            if self.peer.has(Feature::FramePieces) && text.len() > PIECE_BYTES {
                self.large.push_back(Large { pieces: Pieces::of(text), is_copy: false });
            } else {
                bytes += text.len();
                messages.push(Message::Text(text));
            }
            let more = messages.len() < WRITE_BATCH && bytes < WRITE_BYTES;
            next = if more { self.next_reply() } else { None };
        }
        messages.extend(self.pings.after_endings());
        Ok((messages, bytes))
    }

    fn next_reply(&mut self) -> Option<Reply> {
        if self.waits() < LARGE_BYTES { self.queues.replies.try_recv().ok() } else { None }
    }

    /// Bytes of large answers that are not written yet.
    fn waits(&self) -> usize {
        self.large.iter().filter(|large| !large.is_copy).map(|large| large.pieces.left()).sum()
    }

    fn reply_text(&mut self, reply: Reply) -> Result<Utf8Bytes, End> {
        match reply {
            Reply::Frame(frame) => text_of(&frame),
            Reply::Ack(frame) => {
                self.peer.in_flight.fetch_sub(1, Ordering::AcqRel);
                text_of(&frame)
            }
            Reply::Shared(text) => Ok(text),
            Reply::Ending(delivery_id, text) => {
                self.pings.endings.push(delivery_id);
                Ok(text)
            }
        }
    }

    /// Takes the next piece; tells its bytes.
    fn piece(&mut self, messages: &mut Vec<Message>) -> Result<usize, End> {
        let Some(large) = self.large.front_mut() else { return Ok(0) };
        let piece = large.pieces.next();
        if piece.as_ref().is_none_or(|piece| piece.last) {
            if large.is_copy {
                self.pusher.end_large(self.peer, self.shared.clock.monotonic());
            }
            self.large.pop_front();
        }
        let Some(piece) = piece else { return Ok(0) };
        let text = text_of(&ServerFrame::Piece(piece))?;
        let bytes = text.len();
        messages.push(Message::Text(text));
        Ok(bytes)
    }

    /// Takes a copy to be written; tells the bytes that are written of it at once.
    fn copy(&mut self, push: Push, messages: &mut Vec<Message>) -> Result<usize, End> {
        self.shared.metrics.pushes.inc();
        let is_large = self.pusher.is_large(&push);
        let text = text_of(&ServerFrame::Push(Box::new(push)))?;
        if is_large {
            self.large.push_back(Large { pieces: Pieces::of(text), is_copy: true });
            return Ok(0);
        }
        let bytes = text.len();
        messages.push(Message::Text(text));
        Ok(bytes)
    }

    async fn written(&mut self, written: Result<(), WriteError>) -> Ended {
        match written {
            Ok(()) => {}
            Err(WriteError::Stalled(_)) => return Err(End::cut("it does not read")),
            Err(WriteError::Broken(error)) => return Err(End::cut(error.to_string())),
        }
        self.may_page = true;
        if let Some(forget) = self.pusher.spent(self.shared, self.peer) {
            // Refused only while the broker stops.
            let _ = self.shared.writer.submit(forget).await;
        }
        Ok(())
    }

    async fn page(&mut self) -> Ended {
        self.may_page = false;
        self.pusher.settle_again(self.shared, self.peer).await;
        if self.peer.takes_more_endings() {
            endings::tell_returned(self.shared, self.peer).await;
        }
        if self.pings.unanswered || !self.peer.is_behind_any() {
            return Ok(());
        }
        let page = Box::pin(self.pusher.page(self.shared, self.peer)).await;
        self.push(page).await
    }

    async fn push(&mut self, copies: Result<Vec<Push>, sea_orm::DbErr>) -> Ended {
        match copies {
            Ok(copies) => {
                let (mut messages, _) = self.replies(None)?;
                for push in copies {
                    self.copy(push, &mut messages)?;
                }
                self.writer.begin(messages);
            }
            Err(error) => {
                tracing::error!(error = %error, "Cannot read the queue of a member: {error}");
                // The pause keeps a broken database from being asked in a loop.
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        Ok(())
    }

    async fn timers(&mut self, opened_at: Duration) -> Ended {
        let timers = &self.shared.config.timers;
        let now = self.shared.clock.monotonic();
        // A part of a frame is a sign of life as well.
        if self.peer.silent_for(now) >= timers.silence && self.moved.read_at().elapsed() >= timers.silence {
            return Err(End::cut("it was silent for too long"));
        }
        if self.pusher.is_held() && now.saturating_sub(opened_at) >= timers.negotiation {
            self.pusher.give_up_waiting(self.peer)?;
        }
        self.pusher.settle_again(self.shared, self.peer).await;
        let is_late = !self.pings.unanswered && self.next_check().is_some_and(|at| at <= now);
        if is_late || self.pings.at.is_none_or(|at| now.saturating_sub(at) >= timers.ping) {
            let number = self.send_ping();
            if is_late {
                self.late = Some((number, now));
            }
        }
        Ok(())
    }

    fn send_ping(&mut self) -> u64 {
        self.pings.unanswered = true;
        self.pings.at = Some(self.shared.clock.monotonic());
        let ping = self.pings.next();
        self.writer.begin([ping]);
        self.pings.sent
    }

    /// When acknowledgements are late, unless the client was asked already.
    fn next_check(&self) -> Option<Duration> {
        self.pusher.next_check(self.peer).filter(|_| self.late.is_none())
    }

    /// Until the next thing that happens by time.
    fn next_timer(&self, opened_at: Duration) -> Duration {
        let timers = &self.shared.config.timers;
        let now = self.shared.clock.monotonic();
        let ping = self.pings.at.map_or(Duration::ZERO, |at| (at + timers.ping).saturating_sub(now));
        let silent = self.peer.silent_for(now).min(self.moved.read_at().elapsed());
        let silence = timers.silence.saturating_sub(silent);
        let held = self.pusher.is_held().then(|| (opened_at + timers.negotiation).saturating_sub(now));
        let check = self.next_check().filter(|_| !self.pings.unanswered);
        let check = check.map(|at| at.saturating_sub(now));
        let settle = self.pusher.next_settle().map(|at| at.saturating_sub(now));
        [held, check, settle].into_iter().flatten().fold(ping.min(silence), Duration::min).max(Duration::from_millis(1))
    }
}

// === impl Pings ===

impl Pings {
    fn next(&mut self) -> Message {
        self.sent += 1;
        if !self.endings.is_empty() {
            self.asked.push_back((self.sent, std::mem::take(&mut self.endings)));
        }
        Message::Ping(Bytes::copy_from_slice(&self.sent.to_be_bytes()))
    }

    /// The ping that asks whether the endings that were written have arrived.
    fn after_endings(&mut self) -> Option<Message> {
        (!self.endings.is_empty()).then(|| self.next())
    }

    /// Which ping this pong answers, and the endings that the client knows with it. Frames
    /// come in the order in which they were written, so an answer stands for every ping
    /// before it.
    fn answered(&mut self, pong: &[u8]) -> (u64, Vec<String>) {
        let number = pong.try_into().map_or(0, u64::from_be_bytes).min(self.sent);
        let mut known = Vec::new();
        while let Some((_, ids)) = self.asked.pop_front_if(|(asked, _)| *asked <= number) {
            known.extend(ids);
        }
        (number, known)
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

/// Writes one frame of the handshake.
async fn say(socket: &mut Socket, frame: &ServerFrame) -> Ended {
    match tokio::time::timeout(STALL, socket.send(Message::Text(text_of(frame)?))).await {
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
            if let Ok(text) = text_of(&frame) {
                socket.feed(Message::Text(text)).await?;
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

fn text_of(frame: &ServerFrame) -> Result<Utf8Bytes, End> {
    codec::encode(frame).map(Utf8Bytes::from).map_err(|error| {
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
