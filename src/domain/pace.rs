//! How fast sends may leave, by the limit that the broker advertises.
//!
//! A bucket of the broker's size and rate on this side, so that a backlog goes
//! out as fast as it is taken and no faster. Times are those of a clock that
//! only runs.

use std::time::Duration;

/// The bucket. Without a limit it is never empty, but a refusal still pauses it.
#[derive(Clone, Debug, PartialEq)]
pub struct Pace {
    /// Sends per second, and at once.
    limit: Option<(u32, u32)>,
    tokens: f64,
    at: Duration,
    not_before: Duration,
}

// === impl Pace ===

impl Pace {
    /// No limit is known.
    pub fn unlimited() -> Self {
        Self { limit: None, tokens: 0.0, at: Duration::ZERO, not_before: Duration::ZERO }
    }

    /// Takes over what the broker says. The bucket is full at first sight of a
    /// limit, and stays as it is while the limit does.
    pub fn set_limit(&mut self, limit: Option<(u32, u32)>, now: Duration) {
        if self.limit != limit {
            self.tokens = limit.map_or(0.0, |(_, burst)| f64::from(burst));
            self.at = now;
            self.limit = limit;
        }
    }

    /// How many sends may leave now.
    pub fn available(&mut self, now: Duration) -> u32 {
        if now < self.not_before {
            return 0;
        }
        let Some((per_s, burst)) = self.limit else { return u32::MAX };
        let grown = now.saturating_sub(self.at).as_secs_f64() * f64::from(per_s);
        self.tokens = (self.tokens + grown).min(f64::from(burst));
        self.at = now;
        // Between 0 and a u32 by construction.
        self.tokens as u32
    }

    /// So many left.
    pub fn spend(&mut self, count: u32) {
        if self.limit.is_some() {
            self.tokens = (self.tokens - f64::from(count)).max(0.0);
        }
    }

    /// The broker refused one because too many came: nothing leaves before the
    /// pause is over, and then one by one.
    pub fn refused(&mut self, now: Duration, pause: Duration) {
        self.not_before = self.not_before.max(now + pause);
        self.tokens = self.tokens.min(1.0);
        self.at = now;
    }

    /// How long until the next one may leave.
    pub fn wait(&self, now: Duration) -> Duration {
        let pause = self.not_before.saturating_sub(now);
        let refill = match self.limit {
            Some((per_s, _)) if self.tokens < 1.0 => {
                let missing = (1.0 - self.tokens) / f64::from(per_s.max(1));
                Duration::from_secs_f64(missing).saturating_sub(now.saturating_sub(self.at))
            }
            _ => Duration::ZERO,
        };
        pause.max(refill)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_then_the_rate() {
        let mut pace = Pace::unlimited();
        assert_eq!(pace.available(S), u32::MAX);
        pace.set_limit(Some((10, 50)), S);
        assert_eq!(pace.available(S), 50);
        pace.spend(50);
        assert_eq!(pace.available(S), 0);
        assert_eq!(pace.wait(S), Duration::from_millis(100));
        assert_eq!(pace.available(2 * S), 10);
        assert_eq!(pace.wait(2 * S), Duration::ZERO);
        // Never more than the burst; the same limit again fills nothing.
        assert_eq!(pace.available(100 * S), 50);
        pace.spend(50);
        pace.set_limit(Some((10, 50)), 100 * S);
        assert_eq!(pace.available(100 * S), 0);
    }

    #[test]
    fn a_refusal_pauses_with_and_without_a_limit() {
        for limit in [None, Some((10, 50))] {
            let mut pace = Pace::unlimited();
            pace.set_limit(limit, S);
            pace.refused(S, 2 * S);
            assert_eq!(pace.available(2 * S), 0);
            assert!(pace.wait(2 * S) >= S);
            assert!(pace.available(3 * S) > 0);
        }
    }
}
