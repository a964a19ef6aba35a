//! What every task of the broker holds.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::accept::limiter::Limiter;
use super::accept::writer;
use super::admin::Seen;
use super::fanout::Fanout;
use super::metrics::Metrics;
use super::nodes::Nodes;
use super::roster::Roster;
use super::session::Registry;
use super::session::shown::Changes;
use super::store::Store;
use super::topics::Names;
use crate::config::broker::BrokerConfig;
use crate::runtime::clock::Clock;
use crate::runtime::ids::IdSource;
use crate::runtime::supervisor::Supervisor;

/// Largest text frame of a connection that negotiated `max_payload`, in bytes.
pub const MAX_INLINE_BYTES: usize = 1_572_864;

/// The parts of a running broker.
#[derive(Debug)]
pub struct Shared {
    /// The settings.
    pub config: BrokerConfig,
    /// The clock.
    pub clock: Clock,
    /// Ids and random bytes.
    pub ids: IdSource,
    /// Names this process among those that share the database.
    pub node_id: String,
    /// The tables.
    pub store: Arc<Store>,
    /// Members in memory.
    pub roster: Roster,
    /// Connections.
    pub registry: Arc<Registry>,
    /// Tells other brokers and this one's connections.
    pub fanout: Arc<dyn Fanout>,
    /// The writer task.
    pub writer: writer::Handle,
    /// Sends per member.
    pub limiter: Limiter,
    /// How often a member may show and hide itself, each of which is written down.
    pub shown_limiter: Limiter,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Starts tasks.
    pub supervisor: Supervisor,
    /// Set once the listener accepts.
    pub ready: AtomicBool,
    /// The other brokers of this database.
    pub nodes: Nodes,
    /// What members show of themselves and was not told yet.
    pub changes: Changes,
    /// What topics are called.
    pub topic_names: Names,
    /// Signatures of requests that were done.
    pub admin_seen: Seen,
    /// Creates meshes.
    pub admin_token: super::files::AdminToken,
}
