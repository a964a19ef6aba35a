//! Builds every part in the order of dependence, one paragraph each.

use tokio::net::{TcpListener, UnixListener};

use super::{Error, LastExit, Options, reload, state};
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
use crate::{api, inbox, outbox, peers};

/// Everything, built and bound.
#[derive(Debug)]
pub(super) struct Parts {
    options: Options,
    token: LocalToken,
    facts: LinkFacts,
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
    http_address: String,
    clock: Clock,
}

/// What the joined mesh says about the link.
#[derive(Debug)]
struct LinkFacts {
    url: String,
    display_name: String,
}

/// What is needed while everything runs.
pub(super) struct Running {
    link: tokio::sync::watch::Receiver<LinkState>,
    databases: [Sqlite; 2],
    api: api::Handle,
    reload: api::Reload,
}

/// Builds every part.
pub(super) async fn parts(
    options: &Options,
    state: &StateDir,
    entry: MeshEntry,
    clock: &Clock,
    supervisor: &Supervisor,
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
    let http_address = tcp.as_ref().and_then(|tcp| tcp.local_addr().ok()).map(|at| at.to_string()).unwrap_or_default();
    let link_config = LinkFacts { url: entry.broker_url, display_name: entry.display_name.unwrap_or_default() };
    Ok(Parts {
        options: options.clone(),
        token,
        facts: link_config,
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
        http_address,
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
    pub(super) async fn start(self, supervisor: &Supervisor, stop: &StopRequest) -> Result<Running, Error> {
        let link = self.link.handle();
        let reload = reload::reload(&self.state, &self.config, self.log);
        let deps = api::Deps {
            mesh: self.options.mesh.clone(),
            identity: self.identity.clone(),
            token: self.token,
            outbox: self.outbox.handle(),
            inbox: self.inbox.handle(),
            peers: self.peers.handle(),
            link: link.clone(),
            metrics: self.metrics.clone(),
            supervisor: supervisor.clone(),
            clock: self.clock.clone(),
            ids: self.ids.clone(),
            stop: stop.clone(),
            reload: reload.clone(),
            ipc: self.config.ipc.clone(),
            limits: self.config.limits.clone(),
            required_features: self.config.features.require.clone(),
            schema_version: state::SCHEMA_VERSION,
            facts: api::Facts {
                started_at: self.clock.now(),
                display_name: self.options.display_name.unwrap_or(self.facts.display_name),
                state_dir: self.state.path().display().to_string(),
                socket_path: self.state.sock().display().to_string(),
                http_address: self.http_address,
                config_path: self.state.config().display().to_string(),
                log_path: self.state.log().display().to_string(),
                insecure_link: self.facts.url.starts_with("ws://"),
                broker_url: self.facts.url,
                last_exit: LastExit::read(&self.state.last_exit()).map(LastExit::into_proto),
            },
        };

        let (peers, streams) = (self.peers.handle(), self.link.spawn(supervisor));
        self.peers.spawn(streams.news, supervisor);
        let sender = outbox::SenderDeps {
            link: link.clone(),
            statuses: streams.statuses,
            peers,
            identity: self.identity,
            ids: self.ids,
            hub: self.hub,
            backoff: self.backoff,
            metrics: self.metrics,
        };
        self.outbox.spawn(supervisor, sender);
        self.inbox.spawn(streams.deliveries, supervisor);
        let api = api::spawn(deps, api::Listeners { unix: self.unix, tcp: self.tcp }).await?;
        let databases = [self.databases.outbox, self.databases.inbox];
        Ok(Running { link: link.state(), databases, api, reload })
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

    /// Reads the settings again; what is wrong with them goes to the log.
    pub(super) fn reload(&self) {
        if let Err(error) = (self.reload)() {
            tracing::warn!(error = %error, "The settings were not read again: {error}");
        }
    }

    /// Tells health checks that this daemon goes.
    pub(super) async fn not_serving(&self) {
        self.api.not_serving().await;
    }

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
