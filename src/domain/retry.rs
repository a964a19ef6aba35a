//! When to try again, and when to stop trying.

use std::time::Duration;

use super::time::UnixMillis;

/// A schedule of growing pauses. The defaults are 500 ms doubled up to 30 s,
/// each moved by up to a quarter so that peers do not come back in step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    /// The first pause.
    pub initial: Duration,
    /// The longest pause, before jitter.
    pub max: Duration,
    /// Factor from one pause to the next.
    pub multiplier: f64,
    /// Greatest deviation from a pause, in percent of it.
    pub jitter_pct: u32,
}

// === impl Backoff ===

impl Default for Backoff {
    fn default() -> Self {
        Self { initial: Duration::from_millis(500), max: Duration::from_secs(30), multiplier: 2.0, jitter_pct: 25 }
    }
}

impl Backoff {
    /// The pause after the `attempt`-th failure in a row (1 is the first).
    /// `random` is uniform in 0..=1000 and places the pause in its jitter range.
    pub fn pause(&self, attempt: u32, random: u64) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1).min(64)).unwrap_or(64);
        let base = (self.initial.as_secs_f64() * self.multiplier.powi(exponent)).min(self.max.as_secs_f64());
        let place = (random.min(1000) as f64) / 500.0 - 1.0;
        let factor = 1.0 + place * f64::from(self.jitter_pct.min(100)) / 100.0;
        Duration::try_from_secs_f64(base * factor).unwrap_or(self.max)
    }
}

/// Whether a row is too old to be sent: its age counts from the moment it was
/// accepted, or from the operator's last requeue.
pub fn is_too_old(
    now: UnixMillis,
    accepted_at: UnixMillis,
    requeued_at: Option<UnixMillis>,
    max_age: Duration,
) -> bool {
    now.since(requeued_at.unwrap_or(accepted_at)) > max_age
}

/// A stored time of the next attempt, read after a restart: never further away
/// than the longest pause, since the clock may have been wrong when it was
/// written.
pub fn clamp_next_attempt(stored: UnixMillis, now: UnixMillis) -> UnixMillis {
    stored.min(now.plus(Duration::from_secs(30)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_limit_within_a_quarter() {
        let backoff = Backoff::default();
        let bases = [500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000];
        for (attempt, base) in (1..).zip(bases) {
            assert_eq!(backoff.pause(attempt, 500), Duration::from_millis(base), "attempt {attempt}");
            assert_eq!(backoff.pause(attempt, 0), Duration::from_millis(base * 3 / 4), "attempt {attempt}");
            assert_eq!(backoff.pause(attempt, 1000), Duration::from_millis(base * 5 / 4), "attempt {attempt}");
        }
        assert_eq!(backoff.pause(u32::MAX, 500), Duration::from_secs(30));
    }

    #[test]
    fn age_counts_from_the_last_requeue() {
        let hour = Duration::from_secs(3600);
        let start = UnixMillis(0);
        let late = start.plus(24 * hour);
        assert!(is_too_old(late, start, None, 23 * hour));
        assert!(!is_too_old(late, start, Some(late.minus(hour)), 23 * hour));
        assert!(!is_too_old(start.plus(23 * hour), start, None, 23 * hour));
    }

    #[test]
    fn a_far_next_attempt_comes_near() {
        let now = UnixMillis(1_000);
        assert_eq!(clamp_next_attempt(UnixMillis(i64::MAX), now), UnixMillis(31_000));
        assert_eq!(clamp_next_attempt(UnixMillis(5), now), UnixMillis(5));
    }
}
