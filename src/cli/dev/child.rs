//! The mesh's processes: this program again, with nothing of the caller's
//! environment.

use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use super::faketime::FakeTime;
use crate::cli::daemon::up;
use crate::cli::failure::Failure;
use crate::cli::process;
use crate::config::paths::Root;
use crate::domain::error_code::ErrorCode;
use crate::runtime::clock::Clock;
use crate::runtime::private_file;

/// How long a new process has to serve.
pub(super) const READY_LIMIT: Duration = Duration::from_secs(20);
/// How long an orderly stop may take.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(15);
/// Between two looks at a process.
pub(super) const LOOK: Duration = Duration::from_millis(5);

/// What the mesh's processes have in common.
pub(super) struct Common {
    /// The time of this process, which nothing moves.
    pub(super) clock: Clock,
    /// `PATH` of the caller, for hooks.
    pub(super) path: Option<String>,
    pub(super) faketime: Option<FakeTime>,
}

// === impl Common ===

impl Common {
    /// Starts this program; what it prints goes to a file. It ends when this
    /// process does. Must be called on the main thread: that one's end is watched.
    pub(super) fn spawn(&self, arguments: &[&str], home: &Path, printed: &Path) -> Result<Child, Failure> {
        let mut command = process::to_file(printed)?;
        command.args(arguments).arg("--parent-pid").arg(std::process::id().to_string());
        command.env_clear().env("HOME", home).env("CLAUDEMESH_HOME", home);
        if let Some(path) = &self.path {
            command.env("PATH", path);
        }
        if let Some(faketime) = &self.faketime {
            faketime.apply(&mut command);
        }
        if !process::TOLD_OF_THE_PARENT {
            command.stdin(Stdio::piped());
        }
        // Ctrl-C is for this process, which then ends the others.
        command.process_group(0);
        command
            .spawn()
            .map_err(|error| Failure::new(ErrorCode::InternalError, format!("cannot start a process: {error}")))
    }

    /// Starts a member's daemon.
    pub(super) fn daemon(&self, root: &Root) -> Result<Child, Failure> {
        let state = root.state_dir(super::MESH);
        private_file::create_dir(state.path())?;
        let arguments = ["daemon", "up", "--foreground", "--color=never", "--mesh", super::MESH];
        self.spawn(&arguments, root.path(), &state.path().join("stderr.log"))
    }

    /// Starts the broker at an address, whose port may be 0, and waits until it
    /// listens: its address.
    pub(super) async fn broker(&self, dir: &Path, listen: SocketAddr) -> Result<(Child, SocketAddr), Failure> {
        private_file::create_dir(dir)?;
        // One that was killed left it.
        let told = dir.join("addr");
        private_file::remove_if_there(&told)?;
        let printed = dir.join("broker.log");
        let (shown, listen) = (dir.display().to_string(), listen.to_string());
        let arguments = ["broker", "serve", "--color=never", "--dir", &shown, "--listen", &listen];
        let mut child = self.spawn(&arguments, dir, &printed)?;
        let deadline = self.clock.monotonic() + READY_LIMIT;
        loop {
            if let Some(failure) = up::ended(&mut child, "the broker", &printed.display().to_string(), &printed)? {
                return Err(failure);
            }
            if let Some(address) = private_file::read_optional(&told)?.and_then(|text| text.trim().parse().ok()) {
                return Ok((child, address));
            }
            if self.clock.monotonic() > deadline {
                kill(&mut child)?;
                return Err(late("the broker does not listen", READY_LIMIT));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends a process in order; kills it when that takes too long, which is a
    /// failure.
    pub(super) async fn stop(&self, child: &mut Child, limit: Duration) -> Result<ExitStatus, Failure> {
        signal(child, Signal::TERM)?;
        // One that is paused would not notice.
        signal(child, Signal::CONT)?;
        let deadline = self.clock.monotonic() + limit;
        loop {
            if let Some(status) = child.try_wait().map_err(unwatched)? {
                return Ok(status);
            }
            if self.clock.monotonic() > deadline {
                kill(child)?;
                return Err(late("the process did not end in order and was killed", limit));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// SIGKILL, and the end of the process.
pub(super) fn kill(child: &mut Child) -> Result<(), Failure> {
    child.kill().and_then(|()| child.wait()).map(drop).map_err(unwatched)
}

/// Sends a signal to a process that was not waited for yet.
pub(super) fn signal(child: &Child, signal: Signal) -> Result<(), Failure> {
    match kill_process(Pid::from_child(child), signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(Failure::new(ErrorCode::InternalError, format!("cannot signal a process: {error}"))),
    }
}

/// Waits, for a moment, until a process that got SIGSTOP stands still, or has ended.
pub(super) fn wait_until_stopped(child: &Child) -> Result<(), Failure> {
    // How it ended is left for whoever asks next.
    let wanted = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    waitid(WaitId::Pid(Pid::from_child(child)), wanted).map(drop).map_err(|error| unwatched(error.into()))
}

/// What did not happen in time.
pub(super) fn late(what: &str, limit: Duration) -> Failure {
    Failure::new(ErrorCode::DeadlineExceeded, format!("{what} within {} s", limit.as_secs()))
}

fn unwatched(error: std::io::Error) -> Failure {
    Failure::new(ErrorCode::InternalError, format!("cannot watch a process: {error}"))
}
