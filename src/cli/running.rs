//! Which daemons run, told by the locks that they hold: pid files and sockets
//! outlive their process, locks do not.

use std::fs;
use std::io;

use super::failure::Failure;
use crate::config::paths::{Root, StateDir};
use crate::daemon::LEFT;
use crate::runtime::instance_lock::InstanceLock;
use crate::runtime::private_file::{self, FileError};

/// The meshes that have a state directory, by name.
pub fn state_dirs(root: &Root) -> Result<Vec<String>, Failure> {
    let dir = root.daemons_dir();
    let list_failed = |source| Failure::from(FileError { action: "list", path: dir.clone(), source });
    let listing = match fs::read_dir(&dir) {
        Ok(listing) => listing,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(list_failed(source)),
    };
    let mut meshes = Vec::new();
    for entry in listing {
        let entry = entry.map_err(list_failed)?;
        if entry.path().is_dir()
            && let Ok(name) = entry.file_name().into_string()
            && !name.contains(LEFT)
        {
            meshes.push(name);
        }
    }
    meshes.sort();
    Ok(meshes)
}

/// The meshes whose daemon runs, by name.
pub fn running(root: &Root) -> Result<Vec<String>, Failure> {
    let mut running = Vec::new();
    for mesh in state_dirs(root)? {
        if is_running(&root.state_dir(&mesh))? {
            running.push(mesh);
        }
    }
    Ok(running)
}

/// Whether a daemon lives in the directory.
pub fn is_running(state: &StateDir) -> Result<bool, Failure> {
    Ok(InstanceLock::is_held(&state.lock())?)
}

/// The process id that the daemon wrote down. Only worth something while the
/// lock is held.
pub fn recorded_pid(state: &StateDir) -> Option<i32> {
    private_file::read_optional(&state.pid()).ok()??.trim().parse().ok().filter(|pid| *pid > 1)
}
