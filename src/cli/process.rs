//! Starting this program again, and stopping a process.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::process::{Pid, Signal, getpid, getppid, kill_process, setsid};

use super::failure::Failure;
use crate::config::paths::Root;
use crate::config::source::{ProcessEnvironment, Source as _};
use crate::domain::error_code::ErrorCode;
use crate::runtime::private_file::{FileError, PRIVATE};

/// Where certificate authorities are read, as a path or several.
const AUTHORITIES: [&str; 2] = ["SSL_CERT_FILE", "SSL_CERT_DIR"];
/// Greatest part of a child's error output that is shown, in bytes.
const MAX_SHOWN: usize = 4096;

/// Starts this program again with other arguments and the same root directory,
/// without a terminal: its output goes to a file, which is emptied first.
pub(super) fn spawn_self(args: &[String], root: &Root, output: &Path) -> Result<Child, Failure> {
    to_file(output)?
        .args(args)
        // A relative one would mean another place from there.
        .env("CLAUDEMESH_HOME", root.path())
        .spawn()
        .map_err(|error| Failure::new(ErrorCode::InternalError, format!("cannot start a process: {error}")))
}

/// The command of this program, without a terminal: its output goes to a file,
/// which is emptied first.
pub(super) fn to_file(output: &Path) -> Result<Command, Failure> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(PRIVATE)
        .open(output)
        .map_err(|source| FileError { action: "open", path: output.to_owned(), source })?;
    let second = file.try_clone().map_err(|source| FileError { action: "open", path: output.to_owned(), source })?;
    let mut command = this_program()?;
    // What is relative would mean another place from there.
    for name in AUTHORITIES {
        if let Some(paths) = ProcessEnvironment.var(name) {
            let absolute = std::env::split_paths(&paths).map(|path| std::path::absolute(&path).unwrap_or(path));
            if let Ok(paths) = std::env::join_paths(absolute) {
                command.env(name, paths);
            }
        }
    }
    // A directory that stays: the caller's may be removed or unmounted.
    command.current_dir("/").stdin(Stdio::null()).stdout(file).stderr(second);
    Ok(command)
}

/// The command of this program.
pub(super) fn this_program() -> Result<Command, Failure> {
    let path = std::env::current_exe().map_err(|error| {
        Failure::new(ErrorCode::InternalError, format!("the path of this program cannot be found: {error}"))
    })?;
    // An update may have taken its place.
    Ok(Command::new(if path.exists() { &path } else { Path::new("/proc/self/exe") }))
}

/// Whether [`end_with`] has the system's help. Without it standard input is a pipe
/// from the parent, whose end is watched.
pub(super) const TOLD_OF_THE_PARENT: bool = cfg!(target_os = "linux");

/// Ends this process when `parent`, which started it, does: by SIGKILL, so that one
/// that is paused ends, too.
pub(super) fn end_with(parent: u32) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        Failure::new(ErrorCode::InternalError, format!("the end of the parent cannot be watched: {error}"))
    };
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(|error| failed(error.into()))?;
    if !TOLD_OF_THE_PARENT {
        thread::Builder::new().name("parent".to_owned()).spawn(end_with_input).map_err(failed)?;
    }
    // It may have ended before that.
    let is_there = getppid().is_some_and(|pid| u32::try_from(pid.as_raw_nonzero().get()) == Ok(parent));
    if is_there {
        return Ok(());
    }
    Err(Failure::new(ErrorCode::InternalError, format!("process {parent}, which started this one, has ended")))
}

fn end_with_input() {
    let mut nothing = [0; 64];
    while !matches!(io::stdin().read(&mut nothing), Ok(0) | Err(_)) {}
    // It cannot be handled, so it cannot fail.
    let _ = kill_process(getpid(), Signal::KILL);
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
