//! Room on the disk that is held back by a file, and given up when the disk is full.
//!
//! Without it a full disk never heals: what would free room, such as moving a
//! database's log into its file, needs some first.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::private_file::{self, FileError, PRIVATE};

/// What it holds. Enough to write what became of the largest message.
pub const BYTES: u64 = 2 << 20;
/// What is kept back of it for the last: moving a log that has taken all other room.
const LAST: u64 = BYTES / 4;
/// What is left over when it is made; else it would fill the disk itself.
const LEFT_OVER: u64 = BYTES / 2;
/// Room that a start needs.
const START: u64 = 256 << 10;

/// The file of one directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ballast(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    given_up: AtomicBool,
}

// === impl Ballast ===

impl Ballast {
    /// The one at `path`, whose directory must be there. Made if it is not whole and
    /// there is room; given up at once when a start would find none.
    pub fn at_start(path: &Path) -> Self {
        let ballast = Self(Arc::new(Inner { path: path.to_owned(), given_up: AtomicBool::new(false) }));
        if !ballast.hold() {
            // Used up before the last end, and the disk is as full as it was then.
            ballast.0.given_up.store(true, Ordering::Relaxed);
        }
        ballast.free_for_writes(START);
        ballast
    }

    /// Gives up so much of it that there are `bytes`, if that is possible.
    pub fn free_for_writes(&self, bytes: u64) {
        if self.free_bytes() < bytes {
            self.give_up();
        }
        if self.free_bytes() < START {
            self.give_up_all();
        }
    }

    /// Makes it where it is missing and there is room. True when it is there.
    pub fn hold(&self) -> bool {
        let there = fs::metadata(&self.0.path).is_ok_and(|file| file.len() == BYTES);
        let held = there || (self.free_bytes() >= BYTES + LEFT_OVER && self.make(BYTES).is_ok());
        if held {
            self.0.given_up.store(false, Ordering::Relaxed);
        }
        held
    }

    /// Gives up most of it: the disk is full, and its room is needed.
    fn give_up(&self) {
        if !self.0.given_up.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                path = %self.0.path.display(),
                "The disk is full: the room that was held back is used to write what was accepted"
            );
        }
        if fs::metadata(&self.0.path).is_ok_and(|file| file.len() > LAST)
            && let Err(error) =
                fs::OpenOptions::new().write(true).open(&self.0.path).and_then(|file| file.set_len(LAST))
        {
            tracing::warn!(error = %error, "The room that was held back cannot be given up: {error}");
        }
    }

    /// Gives up the rest as well.
    pub fn give_up_all(&self) {
        self.give_up();
        if let Err(error) = private_file::remove_if_there(&self.0.path) {
            tracing::warn!(error = %error, "The room that was held back cannot be given up: {error}");
        }
    }

    /// Makes the part for the last again, if it is missing and there is room.
    pub fn hold_last(&self) {
        if self.is_given_up() && !self.0.path.exists() && self.free_bytes() >= 2 * LAST {
            // Tried again at the next move.
            let _ = self.make(LAST);
        }
    }

    /// What it holds now.
    pub fn held_bytes(&self) -> u64 {
        fs::metadata(&self.0.path).map_or(0, |file| file.len())
    }

    /// Whether it was given up, and could not be made again since.
    pub fn is_given_up(&self) -> bool {
        self.0.given_up.load(Ordering::Relaxed)
    }

    /// What this user may still write to its file system. As much as can be where the
    /// system does not tell.
    pub fn free_bytes(&self) -> u64 {
        let directory = self.0.path.parent().unwrap_or_else(|| Path::new("."));
        rustix::fs::statvfs(directory).map_or(u64::MAX, |system| system.f_bavail.saturating_mul(system.f_frsize))
    }

    fn make(&self, bytes: u64) -> Result<(), FileError> {
        let failed = |source: io::Error| FileError { action: "write", path: self.0.path.clone(), source };
        private_file::remove_if_there(&self.0.path)?;
        let mut file = private_file::open(&self.0.path, PRIVATE)?;
        // A file system that compresses would hold back nothing for zeros.
        let mut piece = vec![0; 64 << 10];
        getrandom::fill(&mut piece).map_err(|error| failed(error.into()))?;
        let written = (0..bytes / piece.len() as u64).try_for_each(|_| file.write_all(&piece));
        written.map_err(|source| {
            // What is there of it holds room that somebody needs.
            let _ = fs::remove_file(&self.0.path);
            failed(source)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn it_takes_its_room_and_gives_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ballast");
        let ballast = Ballast::at_start(&path);
        assert!(!ballast.is_given_up() && ballast.hold());
        let file = fs::metadata(&path).unwrap();
        assert_eq!((file.len(), file.permissions().mode() & 0o777), (BYTES, 0o600));
        ballast.give_up();
        assert!(fs::metadata(&path).unwrap().len() == LAST && ballast.is_given_up());
        ballast.give_up_all();
        assert!(!path.exists());
        ballast.hold_last();
        assert!(fs::metadata(&path).unwrap().len() == LAST && ballast.is_given_up());
        assert!(ballast.hold() && path.exists() && !ballast.is_given_up());
    }
}
