//! Receivers for whom the broker takes no more, each held back alone.
//!
//! While a receiver is held nothing leaves for it, so its messages keep their
//! order, and nobody else waits. When the pause is over one message goes ahead;
//! the rest follows when it was taken. Times are those of a clock that only runs.

use std::collections::BTreeMap;
use std::time::Duration;

/// Held receivers by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holds(BTreeMap<String, Hold>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Hold {
    until: Duration,
    /// Refusals in a row.
    failures: u32,
    /// A message has gone ahead.
    probing: bool,
}

// === impl Holds ===

impl Holds {
    /// Nobody is held.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Who is held.
    pub fn targets(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// How often in a row a receiver has been refused, this time included.
    pub fn failures(&self, target: &str) -> u32 {
        self.0.get(target).map_or(1, |hold| hold.failures.saturating_add(1))
    }

    /// The broker takes no more for this receiver. Refusals of messages that
    /// were on their way already change nothing.
    pub fn refused(&mut self, target: &str, now: Duration, pause: Duration) {
        match self.0.get_mut(target) {
            Some(hold) if !hold.probing => {}
            Some(hold) => {
                *hold = Hold { until: now + pause, failures: hold.failures.saturating_add(1), probing: false };
            }
            None => {
                self.0.insert(target.to_owned(), Hold { until: now + pause, failures: 1, probing: false });
            }
        }
    }

    /// Whose pause is over.
    pub fn due(&self, now: Duration) -> Vec<String> {
        let due = self.0.iter().filter(|(_, hold)| !hold.probing && hold.until <= now);
        due.map(|(target, _)| target.clone()).collect()
    }

    /// A message has gone ahead.
    pub fn probe(&mut self, target: &str) {
        if let Some(hold) = self.0.get_mut(target) {
            hold.probing = true;
        }
    }

    /// The message that went ahead ended without a word about the receiver: the
    /// next one goes.
    pub fn probe_again(&mut self, target: &str, now: Duration) {
        if let Some(hold) = self.0.get_mut(target).filter(|hold| hold.probing) {
            hold.probing = false;
            hold.until = now;
        }
    }

    /// The pauses of all are over.
    pub fn try_all(&mut self, now: Duration) {
        self.0.values_mut().for_each(|hold| hold.until = hold.until.min(now));
    }

    /// The broker took one, or there is none.
    pub fn release(&mut self, target: &str) {
        self.0.remove(target);
    }

    /// How long until the next pause is over.
    pub fn wait(&self, now: Duration) -> Option<Duration> {
        self.0.values().filter(|hold| !hold.probing).map(|hold| hold.until.saturating_sub(now)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn one_goes_ahead_and_the_rest_follows() {
        let mut holds = Holds::default();
        assert_eq!(holds.failures("bob"), 1);
        holds.refused("bob", S, S);
        // More of the same burst.
        holds.refused("bob", S, 10 * S);
        assert_eq!((holds.targets(), holds.due(S), holds.wait(S)), (vec!["bob".to_owned()], vec![], Some(S)));
        assert_eq!(holds.due(2 * S), ["bob"]);
        holds.probe("bob");
        assert_eq!((holds.due(9 * S), holds.wait(9 * S)), (vec![], None));
        assert_eq!(holds.failures("bob"), 2);
        holds.refused("bob", 3 * S, 2 * S);
        assert_eq!(holds.failures("bob"), 3);
        assert_eq!(holds.due(5 * S), ["bob"]);
        holds.probe("bob");
        holds.release("bob");
        assert!(holds.is_empty());
    }

    #[test]
    fn a_lost_probe_is_repeated() {
        let mut holds = Holds::default();
        holds.refused("bob", S, S);
        holds.probe_again("bob", S);
        assert_eq!(holds.due(S), Vec::<String>::new(), "nothing had gone ahead");
        holds.probe("bob");
        holds.probe_again("bob", 3 * S);
        assert_eq!(holds.due(3 * S), ["bob"]);
    }
}
