//! One process per directory, proven by a lock that dies with the process.
//!
//! A pid file or a probe of the socket proves nothing: a pid is reused and a
//! busy process is slow to answer. The operating system drops this lock when
//! the process ends, however it ends.

use std::fs::{File, TryLockError};
use std::path::Path;

use super::private_file::{self, FileError};

/// Whoever asks [`InstanceLock::is_held`] has the lock for some microseconds. A
/// process that starts at that moment tries again so often.
const ATTEMPTS: u32 = 100;

/// Held for the life of the process. Dropping it releases the directory.
#[derive(Debug)]
pub struct InstanceLock {
    _file: File,
}

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another live process holds it.
    #[error("another process holds {path}")]
    Held {
        /// The lock file.
        path: String,
    },
    /// The lock file cannot be opened or locked.
    #[error(transparent)]
    File(#[from] FileError),
}

// === impl InstanceLock ===

impl InstanceLock {
    /// Takes the lock at `path`, or says that another process has it.
    pub fn acquire(path: &Path) -> Result<Self, LockError> {
        let file = private_file::open(path, private_file::PRIVATE)?;
        let mut attempts = ATTEMPTS;
        loop {
            attempts -= 1;
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if attempts > 0 => std::thread::yield_now(),
                Err(TryLockError::WouldBlock) => return Err(LockError::Held { path: path.display().to_string() }),
                Err(TryLockError::Error(source)) => {
                    return Err(FileError { action: "lock", path: path.to_owned(), source }.into());
                }
            }
        }
    }

    /// Whether some live process holds the lock at `path`. A missing file means
    /// that none does.
    pub fn is_held(path: &Path) -> Result<bool, FileError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(source) => return Err(FileError { action: "open", path: path.to_owned(), source }),
        };
        // Shared: two that ask at the same time must not take each other for the
        // owner.
        match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(source)) => Err(FileError { action: "lock", path: path.to_owned(), source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_refused_until_the_first_lets_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(!InstanceLock::is_held(&path).unwrap());
        let first = InstanceLock::acquire(&path).unwrap();
        assert!(matches!(InstanceLock::acquire(&path), Err(LockError::Held { .. })));
        assert!(InstanceLock::is_held(&path).unwrap());
        drop(first);
        assert!(!InstanceLock::is_held(&path).unwrap());
        InstanceLock::acquire(&path).unwrap();
    }

    #[test]
    fn those_who_ask_are_not_taken_for_the_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let asking = File::create(&path).unwrap();
        asking.lock_shared().unwrap();
        assert!(!InstanceLock::is_held(&path).unwrap());
    }
}
