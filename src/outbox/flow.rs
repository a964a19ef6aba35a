//! How much may leave, and for whom: the broker's rate, receivers without room, bytes
//! under way to one destination, and one at a time after a frame that was too large.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::entity::Model;
use crate::domain::holds::Holds;
use crate::domain::pace::Pace;

/// How long one-at-a-time lasts at most.
const CAUTION: Duration = Duration::from_secs(600);

/// Bytes of text under way to one destination before the rows of others go first: on a
/// slow line they are not to fill the window.
const HEAVY: usize = 1 << 20;

/// What the sender has learned of the broker.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) pace: Pace,
    pub(super) holds: Holds,
    /// Who had the last turn, of those whose rows wait.
    pub(super) turn: String,
    /// Topics whose key is not here, and why: nothing of them leaves until it is.
    pub(super) keyless: BTreeMap<String, String>,
    /// Held by whoever writes down that a row of such a topic waits.
    deferring: BTreeMap<String, Arc<()>>,
    /// Bytes of text that await their answer, by destination.
    under_way: HashMap<String, usize>,
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
        Self {
            pace: Pace::unlimited(),
            holds: Holds::default(),
            turn: String::new(),
            keyless: BTreeMap::new(),
            deferring: BTreeMap::new(),
            under_way: HashMap::new(),
            caution: None,
        }
    }

    /// Whether nothing of what was learned stands against new rows.
    pub(super) fn is_free(&self) -> bool {
        self.holds.is_empty() && self.keyless.is_empty() && self.caution.is_none() && !self.is_heavy()
    }

    /// A row leaves.
    pub(super) fn begins(&mut self, row: &Model) {
        *self.under_way.entry(row.target_id.clone()).or_default() += row.payload.len();
    }

    /// It awaits nothing any more.
    pub(super) fn ends(&mut self, row: &Model) {
        if let Some(bytes) = self.under_way.get_mut(&row.target_id) {
            *bytes = bytes.saturating_sub(row.payload.len());
            if *bytes == 0 {
                self.under_way.remove(&row.target_id);
            }
        }
    }

    /// Whether so much is under way to a destination that others go first.
    pub(super) fn is_heavy(&self) -> bool {
        self.under_way.values().any(|bytes| *bytes >= HEAVY)
    }

    /// The key of a topic is not here. What is given back is held until the row that
    /// was to be sealed waits again.
    pub(super) fn wait_for_key(&mut self, topic: &str, why: &str) -> Arc<()> {
        // Its rows wait for the key and for nothing else.
        self.holds.release(topic);
        self.keyless.entry(topic.to_owned()).or_insert_with(|| why.to_owned());
        Arc::clone(self.deferring.entry(topic.to_owned()).or_default())
    }

    /// Lets topics go that do not wait any more. True if there are any. A topic whose
    /// row is being put back stays: the next one must not overtake it.
    pub(super) fn release_topics(&mut self, waits: impl Fn(&str, &str) -> bool) -> bool {
        let before = self.keyless.len();
        let deferring = &self.deferring;
        let is_put_back = |topic: &str| deferring.get(topic).is_none_or(|held| Arc::strong_count(held) == 1);
        self.keyless.retain(|topic, why| !is_put_back(topic) || waits(topic, why));
        let keyless = &self.keyless;
        self.deferring.retain(|topic, _| keyless.contains_key(topic));
        self.keyless.len() < before
    }

    /// Whose rows do not leave with the others.
    pub(super) fn held(&self) -> Vec<String> {
        let heavy = self.under_way.iter().filter(|(_, bytes)| **bytes >= HEAVY).map(|(target, _)| target.clone());
        self.holds.targets().into_iter().chain(self.keyless.keys().cloned()).chain(heavy).collect()
    }

    /// Notes whose rows were taken: turns go up to the last receiver and on from the first.
    pub(super) fn took_turns(&mut self, rows: &[Model]) {
        let targets = rows.iter().map(|row| &row.target_id);
        if let Some(last) = targets.max_by_key(|target| (**target <= self.turn, *target)) {
            self.turn.clone_from(last);
        }
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
    use crate::outbox::repo::row;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_topic_is_released_when_its_rows_are_back_in_their_places() {
        let mut flow = Flow::new();
        flow.holds.refused("T", S, S);
        let (one, other) = (flow.wait_for_key("T", "no key"), flow.wait_for_key("T", "no key"));
        assert!(!flow.is_free() && flow.holds.is_empty(), "a keyless topic is not probed");
        assert!(!flow.release_topics(|_, _| false), "its rows are being put back");
        drop(one);
        assert!(!flow.release_topics(|_, _| false));
        drop(other);
        assert!(!flow.release_topics(|_, _| true), "its key is not here");
        assert!(flow.release_topics(|_, _| false) && flow.is_free());
    }

    #[test]
    fn turns_go_on_where_they_ended() {
        let rows = |targets: &[&str]| -> Vec<Model> {
            targets.iter().map(|&id| Model { target_id: id.to_owned(), ..row(0) }).collect()
        };
        let mut flow = Flow::new();
        for (taken, last) in [(&["b", "a", "a"][..], "b"), (&[], "b"), (&["d", "a"], "a"), (&["a"], "a"), (&["b"], "b")]
        {
            flow.took_turns(&rows(taken));
            assert_eq!(flow.turn, last, "{taken:?}");
        }
    }

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
