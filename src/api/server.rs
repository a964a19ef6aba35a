//! Serves one handler on the Unix socket and on loopback TCP.
//!
//! What it is for: gRPC (HTTP/2), REST and event streams (HTTP/1.1 or 2) on the
//! same sockets.
//! What runs here: one task for each listener, one for each connection, and one
//! for each HTTP/2 request, all under the supervisor.
//! What it guarantees: a connection costs nothing for ever: it must speak within
//! [`FIRST_BYTES`], finish a request's head within [`HEAD`] and answer pings.
//! When the streams stop, connections finish what they have begun and close.
//! What it must not do: decide anything about a request; see `gate.rs`.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::response::Response;
use http::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::DropGuard;

use super::call::Via;
use super::first_bytes;
use super::lenient::LenientAuthority;
use super::strangers::{Admitted, PATIENCE, Strangers};
use crate::runtime::accepting::Accepting;
use crate::runtime::listen::UnixSocket;
use crate::runtime::repeated::Repeated;
use crate::runtime::supervisor::Supervisor;
use crate::runtime::task_kind::{Phase, TaskKind};

/// Time in which a new connection must have said what it speaks.
pub const FIRST_BYTES: Duration = Duration::from_secs(10);
/// Time in which the head of an HTTP/1 request must be complete.
pub const HEAD: Duration = Duration::from_secs(30);
/// How long a caller is waited for who is closed at once; there was one a moment ago.
const CLOSING: Duration = Duration::from_millis(20);
/// HTTP/2 pings: how often, and how long an answer may take.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// HTTP/2 requests that one connection may have open.
const STREAMS_PER_CONNECTION: u32 = 256;
/// The HTTP/2 library ends a connection on which more small frames wait than
/// half of this allows; the default would end fast streams of short messages.
const CONNECTION_WINDOW: u32 = 64 << 20;
const STREAM_WINDOW: u32 = 1 << 20;
/// Calls that a client has cancelled and that are not cleared away yet; with more the
/// connection ends. The library's 20 are for the open internet, and a program that
/// gives up a screen full of calls at once is none of its enemies.
const MAX_RESETS: usize = 10_000;
/// Greatest size of a request's headers in bytes.
const HEADERS: u32 = 32 * 1024;

/// The bound sockets of a daemon.
#[derive(Debug)]
pub struct Listeners {
    /// The Unix socket.
    pub unix: UnixSocket,
    /// Loopback TCP, where it is on.
    pub tcp: Option<TcpListener>,
}

/// What each listener needs.
#[derive(Clone)]
struct Server<H> {
    handler: H,
    supervisor: Supervisor,
    connections: Arc<Semaphore>,
    strangers: Strangers,
    too_many: Arc<Mutex<Repeated>>,
}

/// Hands the requests of a connection to the supervisor.
#[derive(Clone)]
pub(super) struct Tasks(Supervisor);

/// Hands every request to `handler`, until the supervisor stops the phase
/// `Ingress`; open connections end in the phase `Streams`. `connections` bounds
/// those of each listener.
pub fn serve<H, F>(handler: H, listeners: Listeners, connections: u32, supervisor: &Supervisor)
where
    H: Fn(Request<Incoming>, Via) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let places = usize::try_from(connections).unwrap_or(usize::MAX >> 3);
    let server = |_| Server {
        handler: handler.clone(),
        supervisor: supervisor.clone(),
        connections: Arc::new(Semaphore::new(places)),
        strangers: Strangers::default(),
        too_many: Arc::default(),
    };
    supervisor.spawn(TaskKind::Server, "unix listener", server(()).accept_unix(listeners.unix));
    if let Some(tcp) = listeners.tcp {
        supervisor.spawn(TaskKind::Server, "tcp listener", server(()).accept_tcp(tcp));
    }
}

// === impl Server ===

impl<H, F> Server<H>
where
    H: Fn(Request<Incoming>, Via) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    async fn accept_unix(self, mut listener: UnixSocket) {
        let stop = self.supervisor.token(Phase::Ingress);
        let mut accepting = Accepting::default();
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok(stream) => {
                    accepting.taken();
                    let peer = stream.peer_cred().ok();
                    let via = Via::Unix {
                        // No one is this user, so nothing is granted by mistake.
                        uid: peer.map_or(u32::MAX, |peer| peer.uid()),
                        pid: peer.and_then(|peer| peer.pid()),
                    };
                    self.take(LenientAuthority::new(stream), via);
                }
                Err(error) => {
                    if accepting.failed(&error).await {
                        drop(tokio::time::timeout(CLOSING, listener.accept()).await);
                        accepting.closed().await;
                    }
                }
            }
        }
    }

    async fn accept_tcp(self, listener: TcpListener) {
        let stop = self.supervisor.token(Phase::Ingress);
        let mut accepting = Accepting::default();
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            match accepted {
                Ok((stream, peer)) => {
                    accepting.taken();
                    // Answers are small; waiting to fill a segment only delays them.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "Cannot switch Nagle's algorithm off: {error}");
                    }
                    self.take(stream, Via::Tcp { peer_port: peer.port() });
                }
                Err(error) => {
                    if accepting.failed(&error).await {
                        drop(tokio::time::timeout(CLOSING, listener.accept()).await);
                        accepting.closed().await;
                    }
                }
            }
        }
    }

    /// Serves a connection, or closes it when there are too many. Over TCP it is a
    /// stranger's until its caller has shown a token.
    fn take<I>(&self, io: I, via: Via)
    where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let place = match via {
            Via::Tcp { .. } => None,
            Via::Unix { .. } | Via::Hook => {
                let Some(place) = self.place(&via) else { return };
                Some(place)
            }
        };
        let stranger = place.is_none().then(|| self.strangers.enter().drop_guard());
        let server = self.clone();
        self.supervisor.spawn(TaskKind::Connection, "connection", async move {
            let stop = server.supervisor.token(Phase::Streams);
            let first = stop.run_until_cancelled(first_bytes::wait(io, FIRST_BYTES)).await;
            if let Some(Some(io)) = first {
                server.connection(io, via, place, stranger).await;
            }
        });
    }

    /// A place for a caller who may call; says when there is none.
    fn place(&self, via: &Via) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.connections).try_acquire_owned().ok();
        if place.is_none()
            && let Some(times) = self.too_many.lock().unwrap_or_else(PoisonError::into_inner).tell()
        {
            let transport = via.name();
            tracing::warn!(transport, times, "Closed {times} new connections over {transport}: too many are open");
        }
        place
    }

    async fn connection<I>(
        self,
        io: I,
        via: Via,
        mut place: Option<OwnedSemaphorePermit>,
        mut stranger: Option<DropGuard>,
    ) where
        I: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let stop = self.supervisor.token(Phase::Streams);
        let admitted = Arc::new(Notify::new());
        let (handler, source, told) = (self.handler.clone(), via.clone(), Arc::clone(&admitted));
        let service = service_fn(move |request: Request<Incoming>| {
            let (response, told) = (handler(request, source.clone()), Arc::clone(&told));
            async move {
                let response = response.await;
                if response.extensions().get::<Admitted>().is_some() {
                    told.notify_one();
                }
                Ok::<_, Infallible>(response)
            }
        });
        let builder = builder(Tasks(self.supervisor.clone()));
        let mut connection = std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(io), service));
        let patience = tokio::time::sleep(PATIENCE);
        let mut patience = std::pin::pin!(patience);
        let result = loop {
            let sent_away = async {
                match &stranger {
                    Some(stranger) => stranger.token().cancelled().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // What has come is answered first.
                biased;
                result = connection.as_mut() => break result,
                () = admitted.notified(), if place.is_none() => {
                    place = self.place(&via);
                    if place.is_none() {
                        return;
                    }
                    stranger = None;
                }
                () = sent_away => return,
                () = patience.as_mut(), if place.is_none() => return,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    break connection.await;
                }
            }
        };
        // Clients that leave are no news.
        if let Err(error) = result {
            tracing::debug!(transport = via.name(), %error, "A connection over {} ended: {error}", via.name());
        }
    }
}

fn builder(tasks: Tasks) -> Builder<Tasks> {
    let mut builder = Builder::new(tasks);
    // Without a timer the limits below do nothing.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(PING.0))
        .keep_alive_timeout(PING.1)
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .max_header_list_size(HEADERS)
        .max_pending_accept_reset_streams(Some(MAX_RESETS))
        .max_local_error_reset_streams(Some(MAX_RESETS))
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW);
    builder
}

// === impl Tasks ===

impl Tasks {
    pub(super) fn new(supervisor: Supervisor) -> Self {
        Self(supervisor)
    }
}

impl<F> Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, request: F) {
        self.0.spawn(TaskKind::Stream, "http request", request);
    }
}

#[cfg(test)]
mod tests;
