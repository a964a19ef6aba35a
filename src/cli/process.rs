//! Starting a process that outlives this command, and stopping one.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process, setsid};

use super::failure::Failure;
use crate::config::paths::Root;
use crate::domain::error_code::ErrorCode;
use crate::runtime::private_file::{FileError, PRIVATE};

/// Greatest part of a child's error output that is shown, in bytes.
const MAX_SHOWN: usize = 4096;

/// Starts this program again with other arguments and the same root directory,
/// without a terminal: its output goes to a file, which is emptied first.
pub(super) fn spawn_self(args: &[String], root: &Root, output: &Path) -> Result<Child, Failure> {
    let exe = own_path()?;
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(PRIVATE)
        .open(output)
        .map_err(|source| FileError { action: "open", path: output.to_owned(), source })?;
    let second = file.try_clone().map_err(|source| FileError { action: "open", path: output.to_owned(), source })?;
    Command::new(&exe)
        .args(args)
        // A directory that stays: the caller's may be removed or unmounted.
        .current_dir("/")
        // A relative one would mean another place from there.
        .env("CLAUDEMESH_HOME", root.path())
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(second)
        .spawn()
        .map_err(|error| Failure::new(ErrorCode::InternalError, format!("cannot start {}: {error}", exe.display())))
}

/// Leaves the session of the terminal, so that its end does not end this process.
/// The process must have been started by [`spawn_self`].
pub(super) fn leave_session() -> Result<(), Failure> {
    setsid().map(drop).map_err(|error| {
        Failure::new(ErrorCode::InternalError, format!("cannot leave the terminal's session: {error}"))
    })
}

/// Asks a process to stop. That it is gone already is fine.
pub(super) fn terminate(pid: i32) -> Result<(), Failure> {
    let Some(target) = Pid::from_raw(pid) else { return Ok(()) };
    match kill_process(target, Signal::TERM) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(Failure::new(ErrorCode::InternalError, format!("cannot stop process {pid}: {error}"))),
    }
}

/// What a child wrote, without the part that would fill the screen.
pub(super) fn written(output: &Path) -> String {
    let bytes = std::fs::read(output).unwrap_or_default();
    String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_SHOWN)]).trim().to_owned()
}

fn own_path() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| {
        Failure::new(ErrorCode::InternalError, format!("the path of this program cannot be found: {error}"))
    })
}
