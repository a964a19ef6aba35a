//! What an accept loop does when the system refuses a connection, as when file
//! descriptors run out.
//!
//! Waiting alone would leave callers in the system's queue, where nobody answers
//! them. So one descriptor is held back; with it a caller is taken from the queue and
//! the connection closed, which is an answer.

use std::fs::File;
use std::io;
use std::time::Duration;

use super::repeated::Repeated;

/// Pause after a failure; it doubles up to the longest one.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Belongs to one accept loop.
#[derive(Debug)]
pub struct Accepting {
    spare: Option<File>,
    pause: Duration,
    repeated: Repeated,
}

// === impl Accepting ===

impl Default for Accepting {
    fn default() -> Self {
        Self { spare: spare(), pause: FIRST_PAUSE, repeated: Repeated::default() }
    }
}

impl Accepting {
    /// A connection was taken.
    pub fn taken(&mut self) {
        self.pause = FIRST_PAUSE;
        if self.spare.is_none() {
            self.spare = spare();
        }
    }

    /// None was. True when there is a descriptor now for one that is to be closed at
    /// once: then [`Self::closed`] is called after that. Else waits a little.
    pub async fn failed(&mut self, error: &io::Error) -> bool {
        let is_out = matches!(error.raw_os_error(), Some(code) if OUT_OF_DESCRIPTORS.contains(&code));
        if let Some(times) = self.repeated.tell() {
            let hint = if is_out { "; raise the limit of open files (ulimit -n)" } else { "" };
            tracing::warn!(%error, times, "Cannot accept a connection: {error} ({times} times){hint}");
        }
        if is_out && self.spare.take().is_some() {
            return true;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.spare = self.spare.take().or_else(spare);
        false
    }

    /// The connection was closed; a moment, so that callers who come again at once do not
    /// keep a processor busy.
    pub async fn closed(&mut self) {
        self.spare = spare();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

const OUT_OF_DESCRIPTORS: [i32; 2] = [rustix::io::Errno::MFILE.raw_os_error(), rustix::io::Errno::NFILE.raw_os_error()];

fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}
