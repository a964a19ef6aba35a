//! Scripts of this host that run for events.
//!
//! What it is for: a message, the loss of the link or a send runs a script, under
//! the policy of its section in hooks.toml.
//! What runs here: the dispatcher (`dispatcher.rs`), which looks through new messages
//! and starts what is due, and a task for each run (`run.rs`).
//! What it guarantees: a message runs each of its hooks at least once and, without a
//! crash or a stop in between, once; nothing but files of the hooks directory runs;
//! a run sees nothing of the daemon but its event, and may do what its token allows
//! (`token.rs`); when its time is up it is ended.
//! What it must not do: hold up the link, serve a socket, or read for a hook.

mod catalog;
mod confine;
mod dispatcher;
mod ended;
mod error;
mod family;
mod files;
mod input;
mod pre_send;
mod process;
mod reply;
mod repo;
mod report;
mod run;
mod token;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

pub use self::catalog::{Catalog, Hook, State};
use self::confine::Tools;
use self::dispatcher::Dispatcher;
pub use self::error::Error;
pub use self::family::Family;
pub use self::pre_send::Flight;
pub use self::repo::Filter;
pub use self::token::{Allowed, Denied, RunAccess};
use crate::config::ConfigError;
use crate::config::hooks::Hooks as HooksConfig;
use crate::db::connect::Sqlite;
use crate::domain::event::HookRun;
use crate::domain::hook_policy::Own;
use crate::domain::hook_rate::SenderRate;
use crate::domain::ids::MemberId;
use crate::domain::provenance::Judge;
use crate::domain::time::UnixMillis;
use crate::events::Hub;
use crate::runtime::clock::Clock;
use crate::runtime::ids::IdSource;
use crate::runtime::private_file;
use crate::runtime::supervisor::Supervisor;
use crate::runtime::task_kind::{Phase, TaskKind};
use crate::telemetry::metrics::Metrics;
use crate::{inbox, outbox};

/// Opens the socket of a run and serves it until the signal. It honours that run's
/// token alone.
pub type OpenSocket = Arc<dyn Fn(RunAccess, PathBuf, CancellationToken) -> Result<(), String> + Send + Sync>;

/// Where things lie.
#[derive(Clone, Debug)]
pub struct Places {
    /// The hooks directory.
    pub hooks: PathBuf,
    /// The directory of the runs' sockets.
    pub run: PathBuf,
    /// The main socket.
    pub socket: PathBuf,
    /// Directories that a sandbox hides: keys, databases, tokens.
    pub hidden: Vec<PathBuf>,
}

/// What hooks work with.
pub struct Deps {
    /// The mesh's slug.
    pub mesh: String,
    /// `[hooks]`.
    pub config: HooksConfig,
    /// Hooks run at all.
    pub enabled: bool,
    /// Where things lie.
    pub places: Places,
    /// The user's home directory.
    pub home: Option<String>,
    /// Where programs are looked for.
    pub path: Option<String>,
    /// The inbox database.
    pub db: Sqlite,
    /// Which messages there are.
    pub inbox: inbox::Handle,
    /// Takes replies.
    pub outbox: outbox::Handle,
    /// What happens; where ended runs are told.
    pub hub: Hub,
    /// Ids and tokens.
    pub ids: IdSource,
    /// Now.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Metrics,
    /// Who this daemon is now.
    pub own: Arc<dyn Fn() -> Own + Send + Sync>,
    /// Who stands behind a message, as of now.
    pub judge: Arc<dyn Fn() -> Arc<Judge> + Send + Sync>,
    /// Whose messages count together towards a limit.
    pub accountable: Arc<dyn Fn(&MemberId) -> String + Send + Sync>,
}

/// Hooks for the rest of the daemon. Cheap to clone.
#[derive(Clone)]
pub struct Handle(Arc<Inner>);

struct Inner {
    deps: Deps,
    catalog: RwLock<Arc<Catalog>>,
    has_pre_send: AtomicBool,
    flights: pre_send::Flights,
    opener: OnceLock<OpenSocket>,
    tools: tokio::sync::Mutex<Option<Arc<Tools>>>,
    family: Family,
    places: Arc<Semaphore>,
    pre_send_places: Arc<Semaphore>,
    /// Runs that wait or are under way, for messages.
    waiting: AtomicU32,
    reported: AtomicU64,
    counts: Mutex<HashMap<String, Counts>>,
    reloaded: Notify,
    stop: CancellationToken,
}

/// Runs of one hook since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All.
    pub runs: u32,
    /// Those that did not end with exit code 0.
    pub failures: u32,
    /// When the last one ended.
    pub last_at: Option<UnixMillis>,
}

/// Hooks in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Hooks run at all.
    pub enabled: bool,
    /// Hooks that run.
    pub active: u32,
    /// Runs since the start.
    pub runs: u32,
    /// Those that did not end with exit code 0.
    pub failures: u32,
    /// Runs that wait for a place.
    pub queued: u32,
}

/// Hooks, read but not running.
pub struct Parts {
    handle: Handle,
    cursor: Option<u64>,
}

/// Reads the hooks and finds out which messages are still to run them.
pub async fn prepare(deps: Deps, supervisor: &Supervisor) -> Result<Parts, Error> {
    let catalog = Catalog::load(&deps.places.hooks, deps.enabled, deps.config.default_timeout_s)?;
    // Sockets of runs that a crash left behind.
    let _ = std::fs::remove_dir_all(&deps.places.run);
    let waiting = repo::queued_count(deps.db.writer()).await?;
    let places = usize::try_from(deps.config.concurrency).unwrap_or(1);
    let inner = Inner {
        has_pre_send: AtomicBool::new(catalog.pre_send().is_some()),
        catalog: RwLock::new(Arc::new(catalog)),
        flights: pre_send::Flights::default(),
        opener: OnceLock::new(),
        tools: tokio::sync::Mutex::default(),
        family: Family::default(),
        places: Arc::new(Semaphore::new(places)),
        pre_send_places: Arc::new(Semaphore::new(places)),
        waiting: AtomicU32::new(u32::try_from(waiting).unwrap_or(u32::MAX)),
        reported: AtomicU64::new(0),
        counts: Mutex::default(),
        reloaded: Notify::new(),
        stop: supervisor.token(Phase::Workers),
        deps,
    };
    let cursor = dispatcher::resume(&inner, &inner.catalog()).await?;
    Ok(Parts { handle: Handle(Arc::new(inner)), cursor })
}

// === impl Parts ===

impl Parts {
    /// The handle, also before the task runs.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Starts the dispatcher. `opener` serves the sockets of runs.
    pub fn spawn(self, opener: OpenSocket, supervisor: &Supervisor) {
        let inner = self.handle.0;
        let _ = inner.opener.set(opener);
        // Its directory is made once, with its final mode.
        if let Err(error) = private_file::create_dir(&inner.deps.places.run) {
            tracing::error!(error = %error, "Hooks cannot run: {error}");
        }
        let dispatcher = Dispatcher {
            events: inner.catalog().has_event_hooks().then(|| inner.deps.hub.subscribe()),
            supervisor: supervisor.clone(),
            cursor: self.cursor,
            noted: self.cursor,
            pages: 0,
            rate: SenderRate::new(inner.deps.config.sender_rate_per_min),
            started: HashSet::new(),
            own: VecDeque::new(),
            ended: Arc::default(),
            unwritten: Vec::new(),
            fresh: true,
            said: None,
            inner,
        };
        supervisor.spawn(TaskKind::HookDispatcher, "hook dispatcher", dispatcher.run());
    }
}

// === impl Handle ===

impl Handle {
    /// The hooks that there are.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.0.catalog()
    }

    /// The hooks directory.
    pub fn directory(&self) -> &std::path::Path {
        &self.0.deps.places.hooks
    }

    /// Which processes belong to hooks.
    pub fn family(&self) -> Family {
        self.0.family.clone()
    }

    /// Reads the directory again, without using what it holds.
    pub fn load(&self) -> Result<Catalog, ConfigError> {
        let deps = &self.0.deps;
        Catalog::load(&deps.places.hooks, deps.enabled, deps.config.default_timeout_s)
    }

    /// Uses these hooks from now on.
    pub fn apply(&self, catalog: Catalog) {
        let inner = &self.0;
        inner.has_pre_send.store(catalog.pre_send().is_some(), Ordering::Release);
        *inner.catalog.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(catalog);
        // Tools may have been installed since.
        if let Ok(mut tools) = inner.tools.try_lock() {
            *tools = None;
        }
        tracing::info!("The hooks were read again");
        inner.reloaded.notify_one();
    }

    /// Ended runs with their ids, the newest first. One more than asked for tells
    /// that there are more.
    pub async fn runs(&self, filter: &Filter) -> Result<Vec<(String, HookRun)>, Error> {
        if !filter.before.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Error::PageToken);
        }
        Ok(repo::ended(self.0.deps.db.readers(), filter).await?)
    }

    /// Runs of a hook since the start.
    pub fn counts(&self, hook: &str) -> Counts {
        self.0.counts.lock().unwrap_or_else(PoisonError::into_inner).get(hook).copied().unwrap_or_default()
    }

    /// Hooks in numbers.
    pub fn summary(&self) -> Summary {
        let inner = &self.0;
        let counts = inner.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let sum = |of: fn(&Counts) -> u32| counts.values().map(of).fold(0, u32::saturating_add);
        let running =
            inner.deps.config.concurrency.saturating_sub(u32::try_from(inner.places.available_permits()).unwrap_or(0));
        Summary {
            enabled: inner.deps.enabled,
            active: u32::try_from(inner.catalog().all_active().count()).unwrap_or(u32::MAX),
            runs: sum(|counts| counts.runs),
            failures: sum(|counts| counts.failures),
            queued: inner.waiting.load(Ordering::Relaxed).saturating_sub(running),
        }
    }
}

// === impl Inner ===

impl Inner {
    fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What this host has to confine hooks with; looked for at the first run.
    async fn tools(&self) -> Arc<Tools> {
        let mut tools = self.tools.lock().await;
        if let Some(tools) = &*tools {
            return Arc::clone(tools);
        }
        let found = Arc::new(Tools::find(self.deps.path.as_deref()).await);
        tools.insert(found).clone()
    }

    fn count(&self, run: &HookRun) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let of_hook = counts.entry(run.hook.clone()).or_default();
        of_hook.runs = of_hook.runs.saturating_add(1);
        of_hook.failures = of_hook.failures.saturating_add(u32::from(!run.is_success()));
        of_hook.last_at = Some(self.deps.clock.now());
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({})", self.0.deps.mesh)
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Parts({})", self.handle.0.deps.mesh)
    }
}
