//! The table of tasks: in which phase each kind stops, and what it means when
//! one ends by itself.

/// A step of the shutdown. Earlier phases stop first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// New work is refused and listeners stop accepting.
    Ingress,
    /// Open streams end, so that servers can drain.
    Streams,
    /// What moves messages stops; what it has in hand is finished.
    Workers,
    /// Links to other processes are closed.
    Link,
    /// Writers empty their queues; databases are closed.
    Storage,
}

/// What a task is, as the supervisor has to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TaskKind {
    /// One per listener: accepts connections.
    Server,
    /// One per accepted connection.
    Connection,
    /// One per open event or message stream.
    Stream,
    /// Takes due rows and hands them to the link.
    OutboxSender,
    /// Opens deliveries, stores and acknowledges them.
    InboxPipeline,
    /// Follows the roster.
    Peers,
    /// Prunes, sweeps, measures; whatever runs on a timer.
    Maintenance,
    /// Looks for messages that run hooks, and starts the runs.
    HookDispatcher,
    /// One per hook run, and one per socket of a run.
    HookRun,
    /// The link to the broker with its reconnects.
    BrokerSession,
    /// The writer of the outbox database.
    OutboxWriter,
    /// The broker's writer: accepts and delivery outcomes.
    BrokerStore,
    /// The broker's push loop.
    Delivery,
}

/// What a panic or an unexpected return of a task means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnEnd {
    /// The process ends: receivers that the task owned are gone with it, and
    /// start-up recovery is a path that is tested anyway.
    EndProcess,
    /// Logged; only this connection, stream or run is affected.
    Log,
}

// === impl Phase ===

impl Phase {
    /// All phases, first to last.
    pub const ALL: [Self; 5] = [Self::Ingress, Self::Streams, Self::Workers, Self::Link, Self::Storage];

    pub(super) fn index(self) -> usize {
        self as usize
    }
}

// === impl TaskKind ===

impl TaskKind {
    /// The phase in which the supervisor asks such a task to stop.
    pub fn phase(self) -> Phase {
        match self {
            Self::Server => Phase::Ingress,
            Self::Connection | Self::Stream => Phase::Streams,
            Self::OutboxSender | Self::InboxPipeline | Self::Peers | Self::Maintenance | Self::Delivery => {
                Phase::Workers
            }
            Self::HookDispatcher | Self::HookRun => Phase::Workers,
            Self::BrokerSession => Phase::Link,
            Self::OutboxWriter | Self::BrokerStore => Phase::Storage,
        }
    }

    /// What it means when such a task ends before it was asked to.
    pub fn on_end(self) -> OnEnd {
        match self {
            Self::Connection | Self::Stream | Self::HookRun => OnEnd::Log,
            Self::Server
            | Self::OutboxSender
            | Self::InboxPipeline
            | Self::Peers
            | Self::Maintenance
            | Self::HookDispatcher
            | Self::BrokerSession
            | Self::OutboxWriter
            | Self::BrokerStore
            | Self::Delivery => OnEnd::EndProcess,
        }
    }
}
