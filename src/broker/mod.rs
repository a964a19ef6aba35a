//! The broker: members connect to it, it stores and forwards their sealed
//! messages.
//!
//! What it is for: a message that was acknowledged reaches its receivers, now
//! or when they come back, and is stored once for each id of its sender.
//! What runs here: one listener, one task for each socket, one writer, and
//! timers for leases, lost wake-ups, old rows and the database's own files.
//! What it guarantees: an acknowledgement follows a commit that was synced; a
//! copy is delivered when its receiver has said so, not before.
//! What it must not do: open a message, or hold a member's secret key.
//!
//! ```text
//!   socket -> session -> accept -> writer -> database
//!                ^                    |
//!                +------ fanout <-----+        scan -> session (lost wake-ups)
//! ```

pub mod accept;
pub mod admin;
pub mod api_keys;
pub mod certificates;
pub mod delivery;
pub mod departures;
pub mod endings;
pub mod error;
pub mod fanout;
pub mod files;
pub mod history;
pub mod holdings;
pub mod http;
pub mod join;
pub mod meshes;
pub mod metrics;
pub mod nodes;
pub mod retention;
pub mod roster;
pub mod session;
pub mod shared;
pub mod store;
pub mod topics;
pub mod upgrade;
pub mod wakeups;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::accept::limiter::Limiter;
use self::accept::writer;
use self::admin::Seen;
use self::error::Error;
use self::fanout::local::LocalFanout;
use self::files::AdminToken;
use self::holdings::MEMBER_SHOWN_PER_S;
use self::metrics::Metrics;
use self::nodes::Nodes;
use self::roster::Roster;
use self::session::shown::Changes;
use self::session::{Registry, presence};
use self::shared::Shared;
use self::store::{Store, checks};
use self::topics::Names;
use crate::config::broker::{BrokerConfig, Database};
use crate::runtime::clock::Clock;
use crate::runtime::ids::IdSource;
use crate::runtime::instance_lock::InstanceLock;
use crate::runtime::supervisor::Supervisor;
use crate::runtime::task_kind::{Phase, TaskKind};
use crate::runtime::{listen, private_file, shutdown};

/// The broker role.
#[derive(Debug)]
pub struct Broker;

/// A broker that has everything it needs and serves nobody yet.
#[derive(Debug)]
pub struct Prepared {
    shared: Arc<Shared>,
    queue: writer::Queue,
    listener: TcpListener,
    addr: SocketAddr,
    /// Held until the database is closed.
    _lock: InstanceLock,
}

// === impl Broker ===

impl Broker {
    /// Brings the database to this release's schema. Returns its name and the
    /// schema's version.
    pub async fn migrate(config: &BrokerConfig, clock: Clock) -> Result<(String, usize), Error> {
        private_file::create_dir(&config.dir)?;
        // A file has one process at a time; a server may have brokers meanwhile.
        let _lock = match &config.database {
            Database::Sqlite(_) => Some(InstanceLock::acquire(&config.dir.join("lock"))?),
            Database::Postgres(_) => None,
        };
        let store = Store::open(&config.database, clock).await?;
        let migrated = (store.name(), Store::schema_version());
        store.close().await?;
        Ok(migrated)
    }

    /// Takes the directory, opens the database and binds the address. Nothing
    /// runs yet; every failure leaves the directory as it was found, except for
    /// files that a start creates anyway.
    pub async fn prepare(config: BrokerConfig, clock: Clock) -> Result<Prepared, Error> {
        private_file::create_dir(&config.dir)?;
        let lock = InstanceLock::acquire(&config.dir.join("lock"))?;
        let ids = IdSource::new(clock.clone());
        let admin_token = AdminToken::load_or_create(&config.dir, &ids)?;
        let store = Arc::new(Store::open(&config.database, clock.clone()).await?);
        // Copies are given out in the order of their ids, whatever the clock showed in an earlier run.
        let greatest = checks::greatest_id(store.readers()).await;
        if let Some(id) = greatest.map_err(|source| store.error("read the newest id", source))? {
            ids.continue_after(&id);
        }
        let listener = listen::tcp(config.listen).await?;
        let addr = listener
            .local_addr()
            .map_err(|source| listen::ListenError::Bind { address: config.listen.to_string(), source })?;
        let registry = Arc::new(Registry::default());
        let (writer, queue) = writer::channel();
        let shared = Arc::new(Shared {
            node_id: ids.ulid(),
            roster: Roster::new(Arc::clone(&store)),
            fanout: Arc::new(LocalFanout::new(Arc::clone(&registry))),
            limiter: Limiter::new(config.member_rate_per_s),
            shown_limiter: Limiter::new(MEMBER_SHOWN_PER_S),
            metrics: Arc::new(Metrics::default()),
            supervisor: Supervisor::new(),
            ready: AtomicBool::new(false),
            nodes: Nodes::default(),
            changes: Changes::default(),
            topic_names: Names::default(),
            admin_seen: Seen::default(),
            config,
            clock,
            ids,
            store,
            registry,
            writer,
            admin_token,
        });
        Ok(Prepared { shared, queue, listener, addr, _lock: lock })
    }
}

// === impl Prepared ===

impl Prepared {
    /// The bound address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The database: a file, or a server without credentials.
    pub fn database(&self) -> String {
        self.shared.store.name()
    }

    /// Serves until `stop` is cancelled, then ends in order: no new sockets,
    /// sockets closed with 1001, everything queued committed, database closed.
    /// `on_ready` is called once the listener accepts.
    pub async fn run(self, stop: CancellationToken, on_ready: impl FnOnce(SocketAddr)) -> Result<(), Error> {
        let Self { shared, queue, listener, addr, _lock } = self;
        let supervisor = &shared.supervisor;
        let storage = supervisor.token(Phase::Storage);
        supervisor.spawn(TaskKind::BrokerStore, "broker writer", writer::run(Arc::clone(&shared), queue, storage));
        let workers = || supervisor.token(Phase::Workers);
        supervisor.spawn(TaskKind::Delivery, "broker scan", delivery::scan(Arc::clone(&shared), workers()));
        supervisor.spawn(TaskKind::Maintenance, "broker leases", presence::end_leases(Arc::clone(&shared), workers()));
        supervisor.spawn(TaskKind::Maintenance, "broker sweep", retention::sweep(Arc::clone(&shared), workers()));
        supervisor.spawn(TaskKind::Maintenance, "broker database", retention::maintain(Arc::clone(&shared), workers()));
        if shared.store.is_shared() {
            // Known before the first connection asks what all of them can do.
            nodes::round(&shared).await.map_err(|source| shared.store.error("list the brokers", source))?;
            supervisor.spawn(TaskKind::Maintenance, "broker nodes", nodes::follow(Arc::clone(&shared), workers()));
            supervisor.spawn(TaskKind::Maintenance, "broker wakeups", wakeups::listen(Arc::clone(&shared), workers()));
        }
        let ingress = supervisor.token(Phase::Ingress);
        supervisor.spawn(TaskKind::Server, "broker listener", http::accept(Arc::clone(&shared), listener, ingress));
        files::write_addr(&shared.config.dir, addr)?;
        shared.ready.store(true, Ordering::Release);
        on_ready(addr);

        let ended = tokio::select! {
            () = stop.cancelled() => Ok(()),
            failure = supervisor.failure() => Err(Error::Task(failure)),
        };
        shared.ready.store(false, Ordering::Release);
        shutdown::stop_in_order(supervisor).await;
        let closed = shared.store.close().await;
        private_file::remove_if_there(&files::addr_path(&shared.config.dir))?;
        ended?;
        Ok(closed?)
    }
}
