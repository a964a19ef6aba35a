//! Builds every part in the order of dependence, one paragraph each.

use tokio::net::{TcpListener, UnixListener};

use super::{Error, Options, state};
use crate::broker_client::{self, End, LinkState};
use crate::config::daemon::DaemonConfig;
use crate::config::paths::StateDir;
use crate::db::connect::{CheckpointMode, Sqlite};
use crate::domain::ids::MemberKey;
use crate::domain::retry::Backoff;
use crate::events::Hub;
use crate::identity::Identity;
use crate::identity::token::LocalToken;
use crate::membership::config_json::MeshEntry;
use crate::runtime::clock::Clock;
use crate::runtime::ids::IdSource;
use crate::runtime::listen;
use crate::runtime::private_file::{self, PUBLIC};
use crate::runtime::shutdown::StopRequest;
use crate::runtime::supervisor::Supervisor;
use crate::telemetry::logging;
use crate::telemetry::metrics::Metrics;
use crate::{inbox, outbox, peers};

/// Everything, built and bound.
#[derive(Debug)]
pub(super) struct Parts {
    config: DaemonConfig,
    state: StateDir,
    databases: state::Databases,
    log: logging::Control,
    identity: Identity,
    ids: IdSource,
    metrics: Metrics,
    hub: Hub,
    backoff: Backoff,
    link: broker_client::Parts,
    peers: peers::Parts,
    outbox: outbox::Parts,
    inbox: inbox::Parts,
    unix: UnixListener,
    tcp: Option<TcpListener>,
    clock: Clock,
}

/// What is needed while everything runs.
pub(super) struct Running {
    link: tokio::sync::watch::Receiver<LinkState>,
    databases: [Sqlite; 2],
    state: StateDir,
    log: logging::Control,
}

/// Builds every part.
pub(super) async fn parts(
    options: &Options,
    state: &StateDir,
    entry: MeshEntry,
    clock: &Clock,
    supervisor: &Supervisor,
    stop: &StopRequest,
) -> Result<Parts, Error> {
    let ids = IdSource::new(clock.clone());
    let config = state::lay_out(state)?;
    let log = logging::init(&logging::Output::File(state.log()), &config.daemon.log_level)?;
    tracing::info!(mesh = options.mesh, version = env!("CARGO_PKG_VERSION"), "The daemon starts");

    state::check_schema_version(state)?;
    let identity = state::identity(state, &entry)?;
    let token = LocalToken::load_or_create(&state.local_token(), &ids)?;
    let instance_id = state::instance_id(state, &ids)?;
    state::host_fingerprint(state, &ids, clock)?;
    let databases = state::open_databases(state, &options.mesh, clock).await?;

    let metrics = Metrics::new(&options.mesh);
    let hub = Hub::default();
    let backoff = config.reconnect.backoff()?;
    let link_config = broker_client::Config {
        url: entry.broker_url.clone(),
        link: config.broker.clone(),
        features: config.features.clone(),
        backoff,
        instance_id,
        display_name: options.display_name.clone(),
    };
    let link = broker_client::prepare(link_config, identity.clone(), clock.clone(), ids.clone(), supervisor);

    let peers = peers::prepare(
        databases.outbox.clone(),
        identity.clone(),
        link.handle(),
        hub.clone(),
        clock.clone(),
        supervisor,
    )
    .await?;

    let prepare = outbox::Prepare {
        mesh: options.mesh.clone(),
        identity: identity.clone(),
        peers: peers.handle(),
        link: link.handle(),
        ids: ids.clone(),
        clock: clock.clone(),
    };
    let outbox = outbox::prepare(&config.outbox, databases.outbox.clone(), clock.clone(), prepare, supervisor).await?;

    let inbox_deps = inbox::Deps {
        mesh: options.mesh.clone(),
        identity: identity.clone(),
        peers: peers.handle(),
        link: link.handle(),
        hub: hub.clone(),
        ids: ids.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
    };
    let inbox = inbox::prepare(&config.inbox, databases.inbox.clone(), inbox_deps, supervisor).await?;

    let unix = listen::unix(&state.sock(), config.ipc.socket_mode()?)?;
    let tcp = bind_tcp(&config, state).await?;
    drop((token, stop));
    Ok(Parts {
        config,
        state: state.clone(),
        databases,
        log,
        identity,
        ids,
        metrics,
        hub,
        backoff,
        link,
        peers,
        outbox,
        inbox,
        unix,
        tcp,
        clock: clock.clone(),
    })
}

/// Binds the loopback port and writes it down. A port that is taken does not
/// stop the daemon: the socket is the primary interface.
async fn bind_tcp(config: &DaemonConfig, state: &StateDir) -> Result<Option<TcpListener>, Error> {
    if !config.ipc.tcp_enabled {
        return Ok(None);
    }
    let listener = match listen::tcp((config.ipc.http_bind, config.ipc.http_port).into()).await {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(error = %error, "No TCP interface: {error}; the Unix socket serves all the same");
            return Ok(None);
        }
    };
    let address = listener.local_addr().map_err(|source| Error::System { action: "read the bound port", source })?;
    private_file::write_atomic(&state.http_port(), address.port().to_string().as_bytes(), PUBLIC)?;
    Ok(Some(listener))
}

// === impl Parts ===

impl Parts {
    pub(super) fn key(&self) -> MemberKey {
        self.identity.key()
    }

    /// Starts every part, the lowest rank first.
    pub(super) fn start(self, supervisor: &Supervisor) -> Running {
        let link = self.link.handle();
        let (peers_handle, outbox_handle) = (self.peers.handle(), self.outbox.handle());
        let streams = self.link.spawn(supervisor);
        self.peers.spawn(streams.news, supervisor);
        let sender = outbox::SenderDeps {
            link: link.clone(),
            statuses: streams.statuses,
            peers: peers_handle,
            identity: self.identity,
            ids: self.ids,
            hub: self.hub,
            backoff: self.backoff,
            metrics: self.metrics,
        };
        self.outbox.spawn(supervisor, sender);
        self.inbox.spawn(streams.deliveries, supervisor);
        drop((outbox_handle, self.unix, self.tcp, self.config, self.clock));
        Running {
            link: link.state(),
            databases: [self.databases.outbox, self.databases.inbox],
            state: self.state,
            log: self.log,
        }
    }
}

// === impl Running ===

impl Running {
    /// Waits until the link is down for good.
    pub(super) async fn link_ended(&mut self) -> End {
        loop {
            if let LinkState::Ended(end) = &*self.link.borrow_and_update() {
                return end.clone();
            }
            if self.link.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Reads the settings again and applies what may change while running. Bad
    /// settings change nothing.
    pub(super) fn reload(&self) {
        match DaemonConfig::load(&self.state.config()) {
            Ok(config) => match self.log.set_level(&config.daemon.log_level) {
                Ok(()) => tracing::info!(log_level = config.daemon.log_level, "The settings were read again"),
                Err(error) => tracing::warn!(error = %error, "The log level was not changed: {error}"),
            },
            Err(error) => tracing::warn!(error = %error, "The settings were not read again: {error}"),
        }
    }

    /// Tells health checks that this daemon goes.
    pub(super) async fn not_serving(&self) {}

    /// Moves the logs into the databases and closes them.
    pub(super) async fn close(&self) {
        for database in &self.databases {
            if let Err(error) = database.checkpoint(CheckpointMode::Truncate).await {
                tracing::debug!(error = %error, "A database log was not emptied: {error}");
            }
            if let Err(error) = database.close().await {
                tracing::warn!(error = %error, "A database was not closed: {error}");
            }
        }
    }
}
