//! The listener: WebSocket upgrades and the few HTTP calls of a broker.
//!
//! What it is for: one port for `/ws`, joining, mesh creation and health.
//! What runs here: one accept loop, one task for each connection, and one for
//! each request.
//! What it guarantees: slow or endless requests end; bodies and sockets are
//! bounded; a request that was read is done to its end, also when its caller has
//! gone; a request target other than `/ws` that asks for an upgrade gets its
//! socket closed without an answer, as clients of this protocol expect.
//! What it must not do: terminate TLS; that is a proxy's work.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use super::{admin, api_keys, departures, join, meshes, upgrade};
use crate::runtime::accepting::Accepting;
use crate::runtime::progress;
use crate::runtime::task_kind::{Phase, TaskKind};

/// Largest body of a request, in bytes.
const MAX_BODY_BYTES: usize = 65_536;
/// How long a request's headers may take.
const HEADER_LIMIT: Duration = Duration::from_secs(10);
/// How long a request may take from its headers to its answer.
const REQUEST_LIMIT: Duration = Duration::from_secs(15);
/// Sockets that have not said a valid hello.
const MAX_STRANGERS: usize = 4_096;

/// How long a caller is waited for who is closed at once; there was one a moment ago.
const CLOSING: Duration = Duration::from_millis(20);

/// An answer.
pub type Answer = Response<Full<Bytes>>;

/// Why a connection ends without an answer.
#[derive(Debug)]
pub struct Dropped;

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request is not answered")
    }
}

impl std::error::Error for Dropped {}

/// Accepts until `stop`.
pub async fn accept(shared: Arc<Shared>, listener: TcpListener, stop: CancellationToken) {
    let strangers = Arc::new(Semaphore::new(MAX_STRANGERS));
    let mut accepting = Accepting::default();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((socket, _)) => {
                accepting.taken();
                // Without a place the socket is closed at once: waiting would
                // let strangers fill the queue of the members behind them.
                if let Ok(place) = Arc::clone(&strangers).try_acquire_owned() {
                    let task = serve(Arc::clone(&shared), socket, place);
                    shared.supervisor.spawn(TaskKind::Connection, "broker http", task);
                }
            }
            Err(error) => {
                // Mostly a lack of file descriptors, which others give back.
                if accepting.failed(&error).await {
                    drop(tokio::time::timeout(CLOSING, listener.accept()).await);
                    accepting.closed().await;
                }
            }
        }
    }
}

async fn serve(shared: Arc<Shared>, socket: TcpStream, place: OwnedSemaphorePermit) {
    let _ = progress::prepare(&socket);
    let stop = shared.supervisor.token(Phase::Streams);
    let place = Arc::new(place);
    let service = service_fn(|request| route(Arc::clone(&shared), request, Arc::clone(&place)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    tokio::pin!(connection);
    tokio::select! {
        result = &mut connection => {
            if let Err(error) = result {
                tracing::debug!(error = %error, "HTTP connection ended: {error}");
            }
        }
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(Duration::from_secs(1), connection).await;
        }
    }
}

async fn route(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    place: Arc<OwnedSemaphorePermit>,
) -> Result<Answer, Dropped> {
    if upgrade::is_asked(request.headers()) {
        return upgrade::answer(shared, request, place);
    }
    // A task of its own: what has begun to change the database goes on until memory has followed,
    // whether or not anybody waits for the answer.
    let (answered, answer) = oneshot::channel();
    let task = {
        let shared = Arc::clone(&shared);
        async move {
            // Nobody hears the answer of a caller who has gone.
            let _ = answered.send(call(&shared, request).await);
        }
    };
    shared.supervisor.spawn(TaskKind::Connection, "broker request", task);
    match tokio::time::timeout(REQUEST_LIMIT, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => {
            Ok(problem(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "the broker failed; its log has more"))
        }
        Err(_) => Ok(problem(StatusCode::REQUEST_TIMEOUT, "request_timeout", "the request took too long")),
    }
}

async fn call(shared: &Arc<Shared>, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    // The answer to HEAD is that to GET; its body is left out when it is written.
    let method = if request.method() == Method::HEAD { Method::GET } else { request.method().clone() };
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match (&method, segments.as_slice()) {
        (&Method::GET, ["healthz"]) => text(StatusCode::OK, "ok\n"),
        (&Method::GET, ["readyz"] | ["health", "ready"]) => ready(shared).await,
        (&Method::GET, ["health"]) => health(shared).await,
        (&Method::GET, ["metrics"]) => {
            let mut answer = text(StatusCode::OK, &shared.metrics.text());
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            answer.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
            answer
        }
        (&Method::POST, ["join"]) => join::answer(shared, request).await,
        (&Method::POST, ["v1", "meshes"]) => meshes::create(shared, request).await,
        (&Method::POST, ["v1", "meshes", mesh_id, "invites"]) => {
            let mesh_id = (*mesh_id).to_owned();
            meshes::register_invite(shared, &mesh_id, request).await
        }
        (&Method::POST, ["v1", "meshes", mesh_id, "admin"]) => {
            let mesh_id = (*mesh_id).to_owned();
            admin::over_http(shared, &mesh_id, request).await
        }
        (&Method::POST, ["v1", "me", "members", pubkey, "leave"]) => {
            let pubkey = (*pubkey).to_owned();
            departures::leave(shared, &pubkey, request).await
        }
        (&Method::POST, ["v1", "messages"]) => api_keys::send(shared, request).await,
        (&Method::GET, ["ws"]) => text(StatusCode::UPGRADE_REQUIRED, "this path speaks WebSocket only\n"),
        (_, ["healthz"] | ["readyz"] | ["health", ..] | ["metrics"] | ["join"])
        | (_, ["v1", "meshes" | "me" | "messages", ..]) => text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n"),
        _ => text(StatusCode::NOT_FOUND, "not found\n"),
    }
}

async fn ready(shared: &Shared) -> Answer {
    if shared.ready.load(Ordering::Acquire) && shared.store.is_up().await {
        return text(StatusCode::OK, "ready\n");
    }
    let mut answer = text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n");
    answer.headers_mut().insert(RETRY_AFTER, http::HeaderValue::from_static("1"));
    answer
}

/// The shape that old clients and dashboards read.
async fn health(shared: &Shared) -> Answer {
    let up = shared.store.is_up().await;
    let status = if up { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({
        "status": if up { "ok" } else { "degraded" },
        "db": if up { "up" } else { "down" },
        "version": env!("CARGO_PKG_VERSION"),
        "gitSha": "",
        "uptime": shared.clock.monotonic().as_secs(),
    });
    json(status, &body)
}

/// Reads a JSON body; the answer to give when it is none, or too large.
pub async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, (StatusCode, String)> {
    body_within(request, MAX_BODY_BYTES).await
}

/// [`body`] with a limit of its own, in bytes.
pub async fn body_within<T: DeserializeOwned>(
    request: Request<Incoming>,
    limit: usize,
) -> Result<T, (StatusCode, String)> {
    let read = Limited::new(request.into_body(), limit).collect();
    let bytes = match tokio::time::timeout(REQUEST_LIMIT, read).await {
        Err(_) => return Err((StatusCode::REQUEST_TIMEOUT, "the body took too long".to_owned())),
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return Err((StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {limit} bytes")));
        }
        Ok(Err(error)) => return Err((StatusCode::BAD_REQUEST, format!("the body could not be read: {error}"))),
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("the body is not the JSON of this call: {error}")))
}

/// A plain answer.
pub fn text(status: StatusCode, body: &str) -> Answer {
    build(status, "text/plain; charset=utf-8", Bytes::copy_from_slice(body.as_bytes()))
}

/// A JSON answer.
pub fn json(status: StatusCode, body: &impl Serialize) -> Answer {
    match serde_json::to_vec(body) {
        Ok(bytes) => build(status, "application/json", Bytes::from(bytes)),
        Err(error) => {
            tracing::error!(error = %error, "Cannot write an answer: {error}");
            text(StatusCode::INTERNAL_SERVER_ERROR, "internal error\n")
        }
    }
}

/// A refusal with a stable code.
pub fn problem(status: StatusCode, code: &str, message: &str) -> Answer {
    json(status, &json!({ "code": code, "message": message }))
}

fn build(status: StatusCode, kind: &'static str, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    answer
}
