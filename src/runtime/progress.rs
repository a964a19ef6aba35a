//! A WebSocket that is judged by the bytes that move, not by the size of what is written.
//!
//! [`Watched`] notes when bytes last moved in each direction, below any TLS. [`Writer`]
//! writes a batch while its owner does other things, and fails when nothing of it has
//! moved for a while: a slow line is no dead one.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::SinkExt as _;
use futures_util::stream::SplitSink;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

/// What the system may keep of what was written and not sent, in bytes. What lies there
/// holds up everything after it; what is on its way to the other side does not count.
const UNSENT_BYTES: u32 = 16 * 1024;

/// When bytes last moved. Shared by the two halves of a socket and whoever judges it.
#[derive(Clone, Debug)]
pub struct Moved(Arc<Times>);

/// Milliseconds since `start`.
#[derive(Debug)]
struct Times {
    start: Instant,
    read: AtomicU64,
    written: AtomicU64,
}

/// A stream whose bytes are noted.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    moved: Moved,
}

/// The writing half of a WebSocket. One batch at a time.
#[derive(Debug)]
pub struct Writer<S> {
    sink: SplitSink<WebSocketStream<S>, Message>,
    batch: VecDeque<Message>,
    /// When the present batch was begun.
    since: Option<Instant>,
    moved: Moved,
    limit: Duration,
}

/// Why a batch was not written.
#[derive(Debug)]
pub enum WriteError {
    /// No byte of it has moved for so long.
    Stalled(Duration),
    /// The socket is broken.
    Broken(Error),
}

/// Prepares a socket for frames that should not wait: none is held back to fill a
/// packet, and little waits in the system where nothing can overtake it.
pub fn prepare(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    socket2::SockRef::from(socket).set_tcp_notsent_lowat(UNSENT_BYTES)?;
    Ok(())
}

// === impl Moved ===

impl Moved {
    fn new() -> Self {
        Self(Arc::new(Times { start: Instant::now(), read: AtomicU64::new(0), written: AtomicU64::new(0) }))
    }

    /// When bytes last came in.
    pub fn read_at(&self) -> Instant {
        self.at(&self.0.read)
    }

    /// When bytes last went out.
    pub fn written_at(&self) -> Instant {
        self.at(&self.0.written)
    }

    fn at(&self, ms: &AtomicU64) -> Instant {
        self.0.start + Duration::from_millis(ms.load(Ordering::Acquire))
    }

    fn note(&self, ms: &AtomicU64) {
        ms.store(u64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Release);
    }
}

// === impl Watched ===

impl<S> Watched<S> {
    /// Notes what moves over `stream` from now on.
    pub fn new(stream: S) -> Self {
        Self { stream, moved: Moved::new() }
    }

    /// When bytes moved.
    pub fn moved(&self) -> Moved {
        self.moved.clone()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.moved.note(&self.moved.0.read);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        if written > 0 {
            self.moved.note(&self.moved.0.written);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

// === impl Writer ===

impl<S: AsyncRead + AsyncWrite + Unpin> Writer<S> {
    /// Fails when nothing of a batch has moved for `limit`.
    pub fn new(sink: SplitSink<WebSocketStream<S>, Message>, moved: Moved, limit: Duration) -> Self {
        Self { sink, batch: VecDeque::new(), since: None, moved, limit }
    }

    /// Whether the next batch may begin.
    pub fn is_idle(&self) -> bool {
        self.since.is_none()
    }

    /// Begins to write, after what is being written already.
    pub fn begin(&mut self, messages: impl IntoIterator<Item = Message>) {
        self.batch.extend(messages);
        if !self.batch.is_empty() {
            self.since.get_or_insert_with(Instant::now);
        }
    }

    /// Writes and flushes what was begun; waits for ever when nothing was. May be
    /// dropped and called again.
    pub async fn written(&mut self) -> Result<(), WriteError> {
        loop {
            let Some(since) = self.since else { return std::future::pending().await };
            let until = since.max(self.moved.written_at()) + self.limit;
            let step = std::future::poll_fn(|cx| self.poll_written(cx));
            match tokio::time::timeout_at(until, step).await {
                Ok(Ok(())) => {
                    self.since = None;
                    return Ok(());
                }
                Ok(Err(error)) => return Err(WriteError::Broken(error)),
                Err(_) if self.moved.written_at() + self.limit > until => {}
                Err(_) => return Err(WriteError::Stalled(self.limit)),
            }
        }
    }

    /// Gives the half back, for a closing handshake.
    pub fn into_inner(self) -> SplitSink<WebSocketStream<S>, Message> {
        self.sink
    }

    fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while !self.batch.is_empty() {
            ready!(self.sink.poll_ready_unpin(cx))?;
            if let Some(message) = self.batch.pop_front() {
                self.sink.start_send_unpin(message)?;
            }
        }
        self.sink.poll_flush_unpin(cx)
    }
}
