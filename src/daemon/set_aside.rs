//! The state directory of a member that this user was before: after leaving a mesh and
//! joining it again, or another one of the same name, it is another member's.

use std::path::PathBuf;
use std::time::Duration;

use super::Error;
use crate::config::paths::Root;
use crate::identity::keystore;
use crate::membership::config_json::MeshEntry;
use crate::runtime::clock::Clock;
use crate::runtime::instance_lock::{InstanceLock, LockError};
use crate::runtime::private_file;

/// What is between the mesh's name and the time in the name of such a directory. No
/// mesh's name has a dot.
pub const LEFT: &str = ".left-";

/// How long its daemon may take to end: it hears of the leaving from the broker.
const ENDS_WITHIN: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(50);

/// Sets the mesh's state directory aside if it is another member's; where it is then.
#[expect(clippy::disallowed_methods, reason = "a command waits; nothing else runs in its process")]
pub fn set_aside(root: &Root, entry: &MeshEntry, clock: &Clock) -> Result<Option<PathBuf>, Error> {
    let state = root.state_dir(&entry.slug);
    let is_other = match keystore::load(&state.keypair()) {
        Ok(Some(stored)) => stored.member_id.as_str() != entry.member_id || stored.mesh_id.as_str() != entry.mesh_id,
        // The start says what is wrong with it.
        Ok(None) | Err(_) => false,
    };
    if !is_other {
        return Ok(None);
    }
    let deadline = clock.monotonic() + ENDS_WITHIN;
    // Held while it moves, so that no daemon starts there meanwhile.
    let _lock = loop {
        match InstanceLock::acquire(&state.lock()) {
            Ok(lock) => break lock,
            Err(LockError::Held { .. }) if clock.monotonic() < deadline => std::thread::sleep(LOOK),
            Err(LockError::Held { .. }) => {
                return Err(Error::AlreadyRunning { mesh: entry.slug.clone(), pid: None });
            }
            Err(error) => return Err(Error::Lock(error)),
        }
    };
    let name = format!("{}{LEFT}{}", entry.slug, clock.now());
    let mut kept = root.daemons_dir().join(&name);
    let mut number = 2;
    while kept.exists() {
        kept = root.daemons_dir().join(format!("{name}-{number}"));
        number += 1;
    }
    private_file::rename(state.path(), &kept)?;
    Ok(Some(kept))
}
