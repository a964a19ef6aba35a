//! How often one sender may cause hook runs.

use std::collections::{HashMap, VecDeque};

use super::time::UnixMillis;

/// The span over which runs are counted, in milliseconds.
const WINDOW_MS: i64 = 60_000;
/// Senders that are remembered at most.
const MAX_SENDERS: usize = 10_000;

/// Counts the messages of each sender that ran hooks within the last minute.
#[derive(Clone, Debug)]
pub struct SenderRate {
    per_minute: usize,
    seen: HashMap<String, VecDeque<i64>>,
}

// === impl SenderRate ===

impl SenderRate {
    /// So many messages of a sender run hooks in a minute; 0 is no limit.
    pub fn new(per_minute: u32) -> Self {
        Self { per_minute: usize::try_from(per_minute).unwrap_or(usize::MAX), seen: HashMap::new() }
    }

    /// Whether a message of this sender may run hooks now. Counts it if so.
    pub fn admit(&mut self, sender: &str, now: UnixMillis) -> bool {
        if self.per_minute == 0 {
            return true;
        }
        let is_old = |at: i64| at <= now.0 - WINDOW_MS || at > now.0;
        if self.seen.len() >= MAX_SENDERS && !self.seen.contains_key(sender) {
            self.seen.retain(|_, times| times.back().is_some_and(|at| !is_old(*at)));
            if self.seen.len() >= MAX_SENDERS {
                return false;
            }
        }
        let times = self.seen.entry(sender.to_owned()).or_default();
        // A clock that was set back must not silence a sender for long.
        times.retain(|at| !is_old(*at));
        if times.len() >= self.per_minute {
            return false;
        }
        times.push_back(now.0);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sender_has_its_own_minute() {
        let mut rate = SenderRate::new(2);
        let mut at = |sender: &str, second: i64| rate.admit(sender, UnixMillis(second * 1000));
        assert!(at("a", 100) && at("a", 101) && !at("a", 102) && at("b", 102));
        assert!(!at("a", 159));
        assert!(at("a", 160), "the first is a minute ago");
        assert!(!at("a", 160));
        assert!(at("a", 50), "the clock was set back");
    }

    #[test]
    fn zero_is_no_limit() {
        let mut rate = SenderRate::new(0);
        assert!((0..1000).all(|_| rate.admit("a", UnixMillis(0))));
    }
}
