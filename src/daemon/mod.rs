//! Puts the daemon together, runs it and takes it apart.
//!
//! What it is for: the one place that knows every part of the daemon and the
//! order in which they are made, started and stopped.
//! What runs here: the wait for the end; all tasks belong to the parts.
//! What it guarantees: nothing runs before everything is prepared; a failed
//! start leaves no socket, pid or port file behind; a stop writes what was
//! accepted and then removes them.
//! What it must not do: decide anything about a message.

mod assemble;
mod error;
mod exit;
mod facts;
mod hooks;
pub mod recover;
mod rotation;
mod set_aside;
mod settings;
mod state;

use crate::config::paths::{Root, StateDir};
use crate::domain::ids::MemberKey;
use crate::runtime::clock::Clock;
use crate::runtime::instance_lock::InstanceLock;
use crate::runtime::listen;
use crate::runtime::private_file;
use crate::runtime::shutdown::{self, StopRequest};
use crate::runtime::signals::{self, StopSignals};
use crate::runtime::supervisor::Supervisor;

pub use self::error::Error;
pub use self::exit::{ExitReason, LastExit};
pub use self::set_aside::{LEFT, set_aside};
pub use self::state::schema_version;

/// How a daemon is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// The user's root directory.
    pub root: Root,
    /// The mesh's slug.
    pub mesh: String,
    /// Display name; counts at the first start only (R73).
    pub display_name: Option<String>,
}

/// A daemon that is ready to run: everything is open and bound, nothing runs.
#[derive(Debug)]
pub struct Prepared {
    parts: assemble::Parts,
    files: Files,
    supervisor: Supervisor,
    stop: StopRequest,
    clock: Clock,
}

/// The files that stand for a live daemon; removed when this is dropped, while
/// the lock is still held.
#[derive(Debug)]
struct Files {
    state: StateDir,
    _lock: InstanceLock,
}

/// Runs a daemon until it ends. `ready` is called when the sockets answer.
pub async fn run(options: Options, ready: impl FnOnce(&Prepared)) -> Result<ExitReason, Error> {
    // Before anything else, so that a signal during the start is not lost.
    let system = |action| move |source| Error::System { action, source };
    let mut signals = StopSignals::listen().map_err(system("listen for signals"))?;
    let mut reload = signals::reload_signal().map_err(system("listen for signals"))?;
    let prepared = Prepared::prepare(options).await?;
    let supervisor = prepared.supervisor.clone();
    let stop = prepared.stop.clone();
    ready(&prepared);
    let Prepared { parts, files, clock, .. } = prepared;
    let mut running = parts.start(&supervisor);
    tracing::info!(pid = std::process::id(), version = env!("CARGO_PKG_VERSION"), "The daemon is ready");

    let reason = loop {
        tokio::select! {
            name = signals.next() => break ExitReason::Asked(name),
            () = stop.requested() => break ExitReason::Asked("a call"),
            end = running.link_ended() => break ExitReason::LinkEnded(end),
            failure = supervisor.failure() => break ExitReason::TaskFailed(failure),
            _ = reload.recv() => running.reload(),
        }
    };
    tracing::info!(reason = reason.detail(), "The daemon stops");
    running.not_serving().await;
    let stopped = async {
        let late = shutdown::stop_in_order(&supervisor).await;
        running.close().await;
        late
    };
    let reason = tokio::select! {
        late = stopped => {
            if !late.is_empty() {
                tracing::warn!(phases = ?late, "Some parts did not stop in time");
            }
            reason
        }
        _ = signals.next() => ExitReason::Forced,
    };
    reason.note(&files.state.last_exit(), clock.now());
    tracing::info!("The daemon has stopped");
    drop(files);
    Ok(reason)
}

// === impl Prepared ===

impl Prepared {
    /// Opens and binds everything. A failure leaves nothing behind.
    pub async fn prepare(options: Options) -> Result<Self, Error> {
        private_file::restrict_umask();
        let clock = Clock::system();
        let state = options.root.state_dir(&options.mesh);
        let supervisor = Supervisor::new();
        let stop = StopRequest::default();
        // Whatever fails before the lock is held must not touch the files of a
        // daemon that runs.
        listen::check_path(&state.sock())?;
        let entry = state::joined(&options.root, &options.mesh)?;
        let lock = state::lock(&state, &options.mesh)?;
        let files = Files { state: state.clone(), _lock: lock };
        let parts = assemble::parts(&options, &state, entry, &clock, &supervisor, &stop).await?;
        Ok(Self { parts, files, supervisor, stop, clock })
    }

    /// The Unix socket.
    pub fn socket(&self) -> std::path::PathBuf {
        self.files.state.sock()
    }

    /// The member that this daemon is.
    pub fn key(&self) -> MemberKey {
        self.parts.key()
    }
}

// === impl Files ===

impl Drop for Files {
    fn drop(&mut self) {
        // Best effort at the very end; the next start removes what is left.
        let _ = listen::remove_socket(&self.state.sock());
        for path in [self.state.http_port(), self.state.pid()] {
            let _ = private_file::remove_if_there(&path);
        }
    }
}
