//! Builds every part in the order of dependence, one paragraph each.

use std::sync::Arc;

use tokio::net::TcpListener;

use super::rotation::Rotation;
use super::settings::Settings;
use super::{Error, LastExit, Options, facts, state};
use crate::broker_client::{self, End, LinkState};
use crate::config::daemon::DaemonConfig;
use crate::config::paths::StateDir;
use crate::config::source::ProcessEnvironment;
use crate::db::connect::{CheckpointMode, Sqlite};
use crate::domain::error_code::ErrorCode;
use crate::domain::ids::MemberKey;
use crate::domain::negotiation::PATIENCE;
use crate::domain::retry::Backoff;
use crate::events::Hub;
use crate::identity::Identity;
use crate::identity::token::LocalToken;
use crate::membership::config_json::MeshEntry;
use crate::runtime::ballast::Ballast;
use crate::runtime::clock::Clock;
use crate::runtime::failpoints;
use crate::runtime::ids::IdSource;
use crate::runtime::listen;
use crate::runtime::private_file::{self, PUBLIC};
use crate::runtime::shutdown::StopRequest;
use crate::runtime::supervisor::Supervisor;
use crate::runtime::time_guard::TimeGuard;
use crate::telemetry::logging;
use crate::telemetry::metrics::Metrics;
use crate::{api, hooks, inbox, membership, outbox, peers, topics};

/// Everything, built and bound.
#[derive(Debug)]
pub(super) struct Parts {
    ballast: Ballast,
    databases: state::Databases,
    settings: Arc<Settings>,
    identity: Identity,
    ids: IdSource,
    metrics: Metrics,
    hub: Hub,
    backoff: Backoff,
    link: broker_client::Parts,
    peers: peers::Parts,
    topics: topics::Parts,
    outbox: outbox::Parts,
    inbox: inbox::Parts,
    hooks: hooks::Parts,
    rotation: Arc<Rotation>,
    api: api::Parts,
    listeners: api::Listeners,
}

/// What is needed while everything runs.
pub(super) struct Running {
    ballast: Ballast,
    link: tokio::sync::watch::Receiver<LinkState>,
    databases: [Sqlite; 2],
    settings: Arc<Settings>,
    hooks: hooks::Handle,
    api: api::Handle,
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
    let ballast = Ballast::at_start(&state.ballast());
    let config = state::lay_out(state)?;
    let log = logging::init(&logging::Output::File(state.log()), &config.daemon.log_level)?;
    tracing::info!(mesh = options.mesh, version = env!("CARGO_PKG_VERSION"), "The daemon starts");

    state::check_schema_version(state)?;
    let identity = state::identity(&options.root, state, &entry, clock)?;
    let exposed = state::exposed_keys(&options.root, state)?;
    let token = LocalToken::load_or_create(&state.local_token(), &ids)?;
    let instance_id = state::instance_id(state, &ids)?;
    state::host_fingerprint(state, &ids, clock)?;
    let databases = state::open_databases(state, &options.mesh, config.outbox.fsync_mode, clock).await?;
    state::continue_ids(&databases, &ids).await?;

    let guard = TimeGuard::new(clock.clone(), outbox::last_tick(&databases.outbox).await?);

    let metrics = Metrics::new(&options.mesh);
    let hub = Hub::default();
    let backoff = config.reconnect.backoff()?;
    let profile = peers::OwnProfile::load(state.profile())?;
    let (url, dialer) = membership::route(&entry.broker_url, &config.broker, &ProcessEnvironment)?;
    let link_config = broker_client::Config {
        url,
        dialer,
        features: config.features.clone(),
        backoff,
        instance_id,
        display_name: options.display_name.clone(),
        profile: profile.watch(),
        yield_to_other: was_replaced(state),
        time_guard: guard.clone(),
        granted_file: state.broker_features(),
        patience: failpoints::limit(PATIENCE),
    };
    let link = broker_client::prepare(link_config, identity.clone(), clock.clone(), ids.clone(), supervisor);

    let roster = peers::Setup {
        db: databases.outbox.clone(),
        identity: identity.clone(),
        link: link.handle(),
        hub: hub.clone(),
        clock: clock.clone(),
        grace: config.crypto.grace(),
        trust: state::trust(&options.root, &entry),
        profile,
    };
    let peers = peers::prepare(roster, supervisor).await?;

    let topics = topics::prepare(topics::Deps {
        state: state.clone(),
        identity: identity.clone(),
        peers: peers.handle(),
        link: link.handle(),
        ids: ids.clone(),
        clock: clock.clone(),
    })?;

    let prepare = outbox::Prepare {
        mesh: options.mesh.clone(),
        identity: identity.clone(),
        name: options.display_name.clone().or_else(|| entry.display_name.clone()).unwrap_or_default(),
        peers: peers.handle(),
        topics: topics.handle(),
        link: link.handle(),
        ids: ids.clone(),
        clock: clock.clone(),
    };
    let setup = outbox::Setup {
        config: config.outbox.clone(),
        disk: config.disk.clone(),
        ballast: ballast.clone(),
        db: databases.outbox.clone(),
        inbox: databases.inbox.clone(),
        guard: guard.clone(),
        prepare,
    };
    let outbox = outbox::prepare(setup, supervisor).await?;

    let inbox_deps = inbox::Deps {
        mesh: options.mesh.clone(),
        identity: identity.clone(),
        peers: peers.handle(),
        topics: topics.handle(),
        link: link.handle(),
        hub: hub.clone(),
        ids: ids.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
        guard: guard.clone(),
        disk: config.disk.clone(),
        ballast: ballast.clone(),
    };
    let inbox = inbox::prepare(&config.inbox, databases.inbox.clone(), inbox_deps, supervisor).await?;

    let hook_deps = super::hooks::deps(super::hooks::Setup {
        options,
        state,
        config: &config,
        db: databases.inbox.clone(),
        identity: identity.clone(),
        peers: peers.handle(),
        inbox: inbox.handle(),
        outbox: outbox.handle(),
        hub: hub.clone(),
        ids: ids.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
    });
    let hooks = hooks::prepare(hook_deps, supervisor).await?;

    let rotation = Arc::new(Rotation {
        root: options.root.clone(),
        mesh: options.mesh.clone(),
        state: state.clone(),
        identity: identity.clone(),
        link: link.handle(),
        clock: clock.clone(),
        guard: guard.clone(),
        ids: ids.clone(),
        metrics: metrics.clone(),
        grace: config.crypto.grace(),
        busy: tokio::sync::Mutex::default(),
        again: tokio::sync::Notify::new(),
    });

    let unix = listen::UnixSocket::bind(&state.sock(), config.ipc.socket_mode()?)?;
    let tcp = bind_tcp(&config, state).await?;
    let settings = Arc::new(Settings::new(state.config(), config.clone(), log));
    let (reload, reload_hooks) = (Arc::clone(&settings), hooks.handle());
    let rotate = Arc::clone(&rotation);
    let api_deps = api::Deps {
        mesh: options.mesh.clone(),
        identity: identity.clone(),
        token,
        outbox: outbox.handle(),
        inbox: inbox.handle(),
        peers: peers.handle(),
        topics: topics.handle(),
        hooks: hooks.handle(),
        link: link.handle(),
        metrics: metrics.clone(),
        supervisor: supervisor.clone(),
        clock: clock.clone(),
        ids: ids.clone(),
        guard,
        stop: stop.clone(),
        reload: Arc::new(move || super::hooks::reload(&reload, &reload_hooks)),
        rotate: Arc::new(move || {
            let rotate = Arc::clone(&rotate);
            Box::pin(async move { rotate.rotate().await })
        }),
        ipc: config.ipc.clone(),
        disk: config.disk.clone(),
        limits: config.limits.clone(),
        required_features: config.features.require.clone(),
        schema_version: state::schema_version(),
        facts: facts::facts(options, state, &entry, clock, tcp.as_ref(), facts::warnings(state, exposed, &databases)),
    };
    let api = api::prepare(api_deps).await?;
    Ok(Parts {
        ballast,
        databases,
        settings,
        identity,
        ids,
        metrics,
        hub,
        backoff,
        link,
        peers,
        topics,
        outbox,
        inbox,
        hooks,
        rotation,
        api,
        listeners: api::Listeners { unix, tcp },
    })
}

/// Whether the process before this one ended because another connection of the
/// member took over. Taking it back would only make the two evict each other.
fn was_replaced(state: &StateDir) -> bool {
    // Who yielded and was refused for it has been replaced still.
    let codes = [ErrorCode::ReplacedByNewerConnection, ErrorCode::MemberAlreadyConnected];
    LastExit::read(&state.last_exit()).is_some_and(|last| codes.iter().any(|code| last.code == code.name()))
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
        let peers_handle = self.peers.handle();
        let streams = self.link.spawn(supervisor);
        self.peers.spawn(streams.news, supervisor);
        let topics_handle = self.topics.handle();
        self.topics.spawn(streams.topics, supervisor);
        let inbox = self.inbox.handle();
        let keep = move |messages| -> outbox::Kept {
            let inbox = inbox.clone();
            Box::pin(async move { inbox.keep(messages).await.map_err(|error| error.to_string()) })
        };
        let sender = outbox::SenderDeps {
            link: link.clone(),
            statuses: streams.statuses,
            ready: streams.ready,
            peers: peers_handle,
            topics: topics_handle,
            identity: self.identity,
            ids: self.ids,
            hub: self.hub,
            backoff: self.backoff,
            metrics: self.metrics,
            keep: outbox::Keep(Arc::new(keep)),
        };
        self.rotation.spawn(supervisor);
        self.outbox.spawn(supervisor, sender);
        let hooks = self.hooks.handle();
        self.hooks.spawn(self.api.hook_sockets(), supervisor);
        self.inbox.spawn(streams.deliveries, supervisor);
        let api = self.api.spawn(self.listeners, supervisor);
        Running {
            ballast: self.ballast,
            link: link.state(),
            databases: [self.databases.outbox, self.databases.inbox],
            settings: self.settings,
            hooks,
            api,
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

    /// Reads the settings again, as SIGHUP asks for.
    pub(super) fn reload(&self) {
        // What is wrong is in the log by then.
        let _ = super::hooks::reload(&self.settings, &self.hooks);
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
        // For the next start.
        self.ballast.hold();
    }
}
