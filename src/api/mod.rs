//! The local interface: gRPC, REST and event streams on one Unix socket and one
//! loopback port.
//!
//! What it is for: whoever runs on this host sends, reads and follows through
//! it, in the protocol that suits it.
//! What runs here: one task for each listener, connection and request
//! (`server.rs`), one that remembers what was seen of the link (`link.rs`).
//! What it guarantees: both protocols and both sockets answer alike; every
//! request passes the gate (`gate.rs`), every failure leaves it with a stable
//! code; nothing is served without a token over TCP.
//! What it must not do: decide what is sent or stored; it hands calls on.

pub mod auth;
pub mod call;
pub mod convert;
pub mod deadline;
pub mod first_bytes;
pub mod gate;
pub mod grpc;
pub mod guard;
pub mod hook_socket;
pub mod lenient;
pub mod limits;
pub mod link;
pub mod page;
pub mod rest;
pub mod server;
pub mod service;
pub mod status;
mod strangers;
pub mod stream;
pub mod trace;

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use futures_util::future::BoxFuture;
use http::Request;
use hyper::body::Incoming;
use tower::Service as _;

use self::call::Via;
use self::gate::Gate;
use self::guard::Guard;
use self::limits::Limits;
pub use self::limits::MAX_GRPC_MESSAGE;
pub use self::server::Listeners;
use self::service::Services;
pub use self::service::lifecycle::warning;
use self::status::Failure;
use crate::config::ConfigError;
use crate::config::disk::Disk;
use crate::config::ipc;
use crate::domain::time::UnixMillis;
use crate::identity::Identity;
use crate::identity::token::LocalToken;
use crate::proto::admin;
use crate::runtime::clock::Clock;
use crate::runtime::ids::IdSource;
use crate::runtime::shutdown::StopRequest;
use crate::runtime::supervisor::Supervisor;
use crate::runtime::task_kind::Phase;
use crate::runtime::time_guard::TimeGuard;
use crate::telemetry::metrics::Metrics;
use crate::{broker_client, hooks, inbox, outbox, peers, topics};

/// Reads the settings again and says which keys changed.
pub type Reload = Arc<dyn Fn() -> Result<admin::ReloadResponse, ConfigError> + Send + Sync>;

/// Rotates the member's key.
pub type Rotate = Arc<dyn Fn() -> BoxFuture<'static, Result<admin::RotateKeypairResponse, Failure>> + Send + Sync>;

/// What the local interface works with.
#[derive(Clone)]
pub struct Deps {
    /// The mesh's slug.
    pub mesh: String,
    /// Who this daemon is.
    pub identity: Identity,
    /// The bearer token of TCP.
    pub token: LocalToken,
    /// Takes sends.
    pub outbox: outbox::Handle,
    /// Has what came.
    pub inbox: inbox::Handle,
    /// Who is in the mesh.
    pub peers: peers::Handle,
    /// Which topics there are.
    pub topics: topics::Handle,
    /// Hooks and their runs.
    pub hooks: hooks::Handle,
    /// The link to the broker; only its state is read.
    pub link: broker_client::Handle,
    /// What is counted.
    pub metrics: Metrics,
    /// Runs the tasks.
    pub supervisor: Supervisor,
    /// Now.
    pub clock: Clock,
    /// Request ids.
    pub ids: IdSource,
    /// Whether the clock is believed.
    pub guard: TimeGuard,
    /// Ends the daemon.
    pub stop: StopRequest,
    /// Reads the settings again.
    pub reload: Reload,
    /// Rotates the member's key.
    pub rotate: Rotate,
    /// `[ipc]`.
    pub ipc: ipc::Ipc,
    /// `[disk]`.
    pub disk: Disk,
    /// `[limits]`.
    pub limits: ipc::Limits,
    /// `[features] require`.
    pub required_features: Vec<String>,
    /// Version of both databases' schema.
    pub schema_version: u32,
    /// What does not change while the daemon runs.
    pub facts: Facts,
}

/// What `daemon status` shows and does not change while the daemon runs.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// When the process started.
    pub started_at: UnixMillis,
    /// The member's name when it was started.
    pub display_name: String,
    /// The state directory.
    pub state_dir: String,
    /// The Unix socket.
    pub socket_path: String,
    /// Address of the TCP listener; empty without one.
    pub http_address: String,
    /// The settings file.
    pub config_path: String,
    /// The log file; empty when it logs to the terminal.
    pub log_path: String,
    /// URL of the broker.
    pub broker_url: String,
    /// The link is not encrypted.
    pub insecure_link: bool,
    /// Where the daemon runs.
    pub environment: admin::EnvironmentStatus,
    /// How the process before this one ended.
    pub last_exit: Option<admin::LastExit>,
    /// What the start found that the operator should know.
    pub warnings: Vec<admin::StatusWarning>,
}

/// The running interface. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    health: grpc::HealthReporter,
}

/// What answers requests, from both sockets and in both protocols.
struct Interface {
    gate: Arc<Gate>,
    /// The methods of this API.
    methods: grpc::Methods,
    /// Everything else.
    router: Router,
}

/// The interface, built but not started.
pub struct Parts {
    interface: Arc<Interface>,
    handle: Handle,
    follower: link::Follower,
    connections: u32,
    opener: hooks::OpenSocket,
}

/// Puts the interface together.
pub async fn prepare(deps: Deps) -> Result<Parts, Error> {
    let limits = Limits::new(&deps.limits);
    let connections = deps.limits.connections;
    let (link, follower) = link::prepare(deps.link.clone(), deps.clock.clone());
    let gate = Arc::new(Gate {
        guard: Guard { origins: deps.ipc.allowed_origins.clone(), bound_host: deps.ipc.http_bind.to_string() },
        token: deps.token.clone(),
        public_health: deps.ipc.public_health_check,
        limits: limits.clone(),
        stopping: deps.supervisor.token(Phase::Ingress),
        metrics: deps.metrics.clone(),
        clock: deps.clock.clone(),
        ids: deps.ids.clone(),
        hooks: deps.hooks.family(),
    });
    let supervisor = deps.supervisor.clone();
    let services = Services::new(deps, limits, link);
    let opener = hook_socket::opener(services.clone(), Arc::clone(&gate), supervisor);
    let (standard, health) = grpc::standard().await?;
    // The REST routes have no fallback: two routers with one refuse to merge.
    let routes = rest::router(services.clone()).merge(standard).fallback(grpc::unknown::<Body>);
    let router = routes.layer(from_fn_with_state(Arc::clone(&gate), gate::layer));
    let interface = Arc::new(Interface { gate, methods: grpc::Methods::new(services), router });
    Ok(Parts { interface, handle: Handle { health }, follower, connections, opener })
}

// === impl Interface ===

impl Interface {
    async fn answer(self: Arc<Self>, request: Request<Incoming>, via: Via) -> Response {
        if self.methods.takes(request.uri().path()) {
            return self.gate.pass(request, via, |request| self.methods.call(request)).await;
        }
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(via);
        // A router is always ready.
        self.router.clone().call(request).await.unwrap_or_else(|never| match never {})
    }
}

// === impl Parts ===

impl Parts {
    /// Serves the sockets of hook runs.
    pub fn hook_sockets(&self) -> hooks::OpenSocket {
        Arc::clone(&self.opener)
    }

    /// Serves on the listeners until the supervisor stops its phases: no new
    /// connection from `Ingress` on, no open one after `Streams`.
    pub fn spawn(self, listeners: Listeners, supervisor: &Supervisor) -> Handle {
        self.follower.spawn(supervisor);
        let interface = self.interface;
        let handler = move |request, via| Arc::clone(&interface).answer(request, via);
        server::serve(handler, listeners, self.connections, supervisor);
        self.handle
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Parts")
    }
}

/// The interface could not be put together: a defect of the build.
#[derive(Debug, thiserror::Error)]
#[error("the descriptors of the API cannot be served: {0}")]
pub struct Error(#[from] tonic_reflection::server::Error);

// === impl Handle ===

impl Handle {
    /// Tells health checks that this daemon goes. Comes first in a shutdown, so
    /// that callers turn away before calls are refused.
    pub async fn not_serving(&self) {
        grpc::set_not_serving(&self.health).await;
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle")
    }
}

impl fmt::Debug for Deps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Deps({})", self.mesh)
    }
}
