//! Whether the clock may be trusted with removing things.
//!
//! | what was seen | verdict |
//! |---|---|
//! | wall time went on as the monotonic time did, after the last known sweep | remove |
//! | wall time jumped by more than 5 minutes, either way | wait |
//! | now is before the last known sweep | wait |
//! | the last known sweep is more than a week ago | wait, until a day went on evenly |
//!
//! A host that boots with a clock of 1970 or 2038 must not destroy what is kept
//! by age; a host that was off for a month may go on after a day.

use std::time::Duration;

use super::time::UnixMillis;

/// How far wall time and monotonic time may drift apart between two looks.
const MAX_JUMP_MS: u64 = 300_000;
/// How long ago the last sweep may be without a second thought.
const MAX_GAP_MS: u64 = 7 * 24 * 3_600_000;
/// How long an unexpected time has to go on evenly until it is believed.
const PROBATION: Duration = Duration::from_secs(24 * 3600);

/// What is known of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SweepGuard {
    wall: UnixMillis,
    monotonic: Duration,
    /// Monotonic time since which the clock has gone on evenly.
    even_since: Duration,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Remove what is old.
    Remove,
    /// The clock jumped by this much.
    Jumped(u64),
    /// Now is before the last known sweep.
    Backwards,
    /// The last known sweep is long ago.
    LongGap,
}

// === impl SweepGuard ===

impl SweepGuard {
    /// At the start.
    pub fn new(wall: UnixMillis, monotonic: Duration) -> Self {
        Self { wall, monotonic, even_since: monotonic }
    }

    /// Looks at the clock. `last_sweep` is the time of the last sweep as it was
    /// written down, by this process or one before.
    pub fn look(&mut self, wall: UnixMillis, monotonic: Duration, last_sweep: Option<UnixMillis>) -> Verdict {
        let expected = self.wall.plus(monotonic.saturating_sub(self.monotonic));
        let jump_ms = wall.distance_ms(expected);
        (self.wall, self.monotonic) = (wall, monotonic);
        if jump_ms > MAX_JUMP_MS {
            self.even_since = monotonic;
            return Verdict::Jumped(jump_ms);
        }
        match last_sweep {
            Some(last) if wall < last => Verdict::Backwards,
            Some(last)
                if wall.distance_ms(last) > MAX_GAP_MS && monotonic.saturating_sub(self.even_since) < PROBATION =>
            {
                Verdict::LongGap
            }
            _ => Verdict::Remove,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;

    fn at(hours: i64) -> UnixMillis {
        UnixMillis(1_000 * 24 * HOUR + hours * HOUR)
    }

    fn up(hours: u64) -> Duration {
        Duration::from_secs(hours * 3600)
    }

    #[test]
    fn the_whole_table() {
        let mut guard = SweepGuard::new(at(0), up(0));
        assert_eq!(guard.look(at(1), up(1), None), Verdict::Remove);
        assert_eq!(guard.look(at(2), up(2), Some(at(1))), Verdict::Remove);
        assert_eq!(guard.look(at(30), up(3), Some(at(2))), Verdict::Jumped(27 * 3_600_000));
        assert_eq!(guard.look(at(31), up(4), Some(at(2))), Verdict::Remove, "the new time goes on evenly");
        assert_eq!(guard.look(at(3), up(5), Some(at(31))), Verdict::Jumped(29 * 3_600_000));
        assert_eq!(guard.look(at(4), up(6), Some(at(31))), Verdict::Backwards);
    }

    #[test]
    fn a_strange_time_at_boot_is_believed_after_a_day() {
        let mut guard = SweepGuard::new(at(10_000), up(0));
        assert_eq!(guard.look(at(10_001), up(1), Some(at(0))), Verdict::LongGap);
        assert_eq!(guard.look(at(10_023), up(23), Some(at(0))), Verdict::LongGap);
        assert_eq!(guard.look(at(10_025), up(25), Some(at(0))), Verdict::Remove);
    }
}
