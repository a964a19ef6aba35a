//! How much may leave, and for whom: the broker's rate, receivers without room,
//! and one at a time after a frame that was too large.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use crate::domain::holds::Holds;
use crate::domain::pace::Pace;

/// How long one-at-a-time lasts at most.
const CAUTION: Duration = Duration::from_secs(600);

/// What the sender has learned of the broker.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) pace: Pace,
    pub(super) holds: Holds,
    /// Topics whose key is not here, and why: nothing of them leaves until it is.
    pub(super) keyless: BTreeMap<String, String>,
    caution: Option<Caution>,
}

/// A frame of several in flight was too large, and nobody said which.
#[derive(Debug)]
struct Caution {
    /// Rows that it may be.
    suspects: HashSet<String>,
    until: Duration,
}

// === impl Flow ===

impl Flow {
    pub(super) fn new() -> Self {
        Self { pace: Pace::unlimited(), holds: Holds::default(), keyless: BTreeMap::new(), caution: None }
    }

    /// Whether nothing of what was learned stands against new rows.
    pub(super) fn is_free(&self) -> bool {
        self.holds.is_empty() && self.caution.is_none()
    }

    /// Whose rows do not leave with the others.
    pub(super) fn held(&self) -> Vec<String> {
        self.holds.targets().into_iter().chain(self.keyless.keys().cloned()).collect()
    }

    /// Sends that may await their answer at once.
    pub(super) fn window(&mut self, configured: u32, now: Duration) -> u32 {
        if self.caution.as_ref().is_some_and(|caution| caution.until < now) {
            self.caution = None;
        }
        if self.caution.is_some() { 1 } else { configured }
    }

    /// The link was closed because something was too large. True when this row
    /// was alone in flight, so that it is the one.
    pub(super) fn too_large(&mut self, row_id: &str, alone: bool, now: Duration) -> bool {
        match &mut self.caution {
            Some(_) if alone => {
                self.settled(row_id);
                true
            }
            Some(caution) => {
                caution.suspects.insert(row_id.to_owned());
                false
            }
            None => {
                let suspects = HashSet::from([row_id.to_owned()]);
                self.caution = Some(Caution { suspects, until: now + CAUTION });
                false
            }
        }
    }

    /// A row has been answered: it is not the one, or it is dead.
    pub(super) fn settled(&mut self, row_id: &str) {
        if let Some(caution) = &mut self.caution {
            caution.suspects.remove(row_id);
            if caution.suspects.is_empty() {
                self.caution = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    // Covers: D-B15
    #[test]
    fn the_one_that_is_alone_at_the_second_close_is_the_one() {
        let mut flow = Flow::new();
        assert_eq!(flow.window(256, S), 256);
        // Three were in flight at the first close.
        for row in ["a", "b", "c"] {
            assert!(!flow.too_large(row, false, S));
        }
        assert_eq!(flow.window(256, S), 1);
        flow.settled("a");
        assert!(flow.too_large("b", true, S));
        assert_eq!(flow.window(256, S), 1, "c may be another one");
        flow.settled("c");
        assert_eq!(flow.window(256, S), 256);
    }

    #[test]
    fn even_a_row_alone_is_given_a_second_chance() {
        let mut flow = Flow::new();
        assert!(!flow.too_large("a", true, S));
        assert!(flow.too_large("a", true, S));
        assert_eq!(flow.window(256, S), 256);
        assert!(!flow.too_large("b", true, S));
        assert_eq!(flow.window(256, 700 * S), 256, "caution does not last for ever");
    }
}
