//! The socket of one hook run.
//!
//! What it is for: a run sends with its capability token, over gRPC or REST, what
//! its scopes allow.
//! What runs here: one task for the socket and one for each connection, until the
//! run ends.
//! What it guarantees: nothing is answered without that run's own token; nothing is
//! read; only `Send` and `PostTopic` are handed on, each after its scope was checked.
//! What it must not do: decide what a scope allows, or know another run.

mod grpc;
mod rest;

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::Service as _;

use super::auth;
use super::call::Via;
use super::gate::Gate;
use super::lenient::LenientAuthority;
use super::limits::Limits;
use super::server::{HEAD, Tasks};
use super::service::Services;
use super::status::Failure;
use crate::config::ipc;
use crate::domain::capability::Wish;
use crate::domain::error_code::ErrorCode;
use crate::hooks::{Allowed, OpenSocket, RunAccess};
use crate::runtime::listen;
use crate::runtime::supervisor::Supervisor;
use crate::runtime::task_kind::TaskKind;

/// Connections of one run.
const CONNECTIONS: usize = 8;
/// Requests of one run at once.
const IN_FLIGHT: u32 = 8;
/// Mode of the socket; its directory is private too.
const MODE: u32 = 0o600;

/// What a run may do here. Cheap to clone.
#[derive(Clone, Debug)]
struct OfRun {
    services: Services,
    access: RunAccess,
}

#[derive(Clone)]
struct Server {
    gate: Arc<Gate>,
    router: Router,
    access: RunAccess,
    supervisor: Supervisor,
    open: CancellationToken,
}

/// Opens sockets of runs.
pub fn opener(services: Services, gate: Arc<Gate>, supervisor: Supervisor) -> OpenSocket {
    Arc::new(move |access, path: PathBuf, open| {
        let listener = listen::unix(&path, MODE).map_err(|error| error.to_string())?;
        let of_run = OfRun { services: services.clone(), access: access.clone() };
        let router = rest::router(of_run.clone()).merge(grpc::router(of_run.clone())).fallback(move || {
            let of_run = of_run.clone();
            async move { of_run.refuse().into_response() }
        });
        // Places of its own: a run must not use up those of everybody else.
        let limits = Limits::new(&ipc::Limits { in_flight_requests: IN_FLIGHT, ..ipc::Limits::default() });
        let gate = Arc::new(Gate { limits, ..Gate::clone(&gate) });
        let server = Server { gate, router, access, supervisor: supervisor.clone(), open };
        supervisor.spawn(TaskKind::HookRun, "hook socket", server.accept(listener));
        Ok(())
    })
}

// === impl OfRun ===

impl OfRun {
    /// Whether a scope of the run allows it.
    fn admit(&self, wish: Wish<'_>) -> Result<Allowed, Failure> {
        Ok(self.access.admit(wish)?)
    }

    /// A call that no scope can allow, such as every one that reads (R242).
    fn refuse(&self) -> Failure {
        self.access.refused();
        Failure::new(
            ErrorCode::HookCallDenied,
            "a capability token sends what its scopes allow and reads nothing; use the hook's input, or user_cli for a \
             hook that you trust with everything",
        )
    }

    /// The scope that a send needs; a destination with `#` is a post.
    fn admit_send(&self, to: &str, reply_to: &str) -> Result<Allowed, Failure> {
        match to.strip_prefix('#') {
            Some(topic) => self.admit(Wish::Topic { topic, reply_to }),
            None => self.admit(Wish::Direct { to, reply_to }),
        }
    }

    fn admit_post(&self, topic: &str, reply_to: &str) -> Result<Allowed, Failure> {
        self.admit(Wish::Topic { topic: topic.strip_prefix('#').unwrap_or(topic), reply_to })
    }
}

// === impl Server ===

impl Server {
    async fn accept(self, listener: UnixListener) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        while let Some(accepted) = self.open.run_until_cancelled(listener.accept()).await {
            let Ok((stream, _)) = accepted else { break };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let server = self.clone();
            self.supervisor.spawn(TaskKind::HookRun, "hook connection", async move {
                let open = server.open.clone();
                // With the run its calls end, answered or not.
                open.run_until_cancelled(server.connection(stream)).await;
                drop(place);
            });
        }
    }

    async fn connection(self, stream: UnixStream) {
        let mut builder = Builder::new(Tasks::new(self.supervisor.clone()));
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD);
        builder.http2().timer(TokioTimer::new()).max_concurrent_streams(16);
        let service = service_fn(move |request: Request<Incoming>| {
            let server = self.clone();
            async move { Ok::<_, Infallible>(server.answer(request.map(Body::new)).await) }
        });
        let io = TokioIo::new(LenientAuthority::new(stream));
        if let Err(error) = builder.serve_connection(io, service).await {
            tracing::debug!(%error, "A connection of a hook ended: {error}");
        }
    }

    async fn answer(self, request: Request<Body>) -> Response {
        let Self { gate, router, access, .. } = self;
        gate.pass(request, Via::Hook, |request| async move {
            if !auth::bearer(request.headers()).is_some_and(|token| access.verify(token)) {
                return Failure::new(
                    ErrorCode::Unauthenticated,
                    "this socket takes `Authorization: Bearer` with the content of CLAUDEMESH_CAPABILITY_TOKEN, as long as \
                     the hook runs and for five minutes at most",
                )
                .into_response();
            }
            // A router is always ready.
            router.clone().call(request).await.unwrap_or_else(|never| match never {})
        })
        .await
    }
}
