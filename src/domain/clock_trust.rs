//! Whether the wall clock may decide that something is old enough to be
//! destroyed.
//!
//! Giving up, pruning and forgetting compare stored times with now. A clock that
//! jumped, or that shows less than it did before, would destroy what is young.
//! So it is doubted until the broker's clock confirms it.

use std::time::Duration;

use super::time::UnixMillis;

/// A greater difference is no drift.
pub const TOLERANCE: Duration = Duration::from_secs(300);
/// 2026-01-01: no clock that shows less is right.
pub const EARLIEST: UnixMillis = UnixMillis(1_767_225_600_000);

/// Both clocks of this host at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The clock that can be set.
    pub wall: UnixMillis,
    /// The clock that only runs.
    pub monotonic: Duration,
}

/// The broker's clock, and when it was told by the clock that only runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerTime {
    /// What it showed.
    pub time: UnixMillis,
    /// When.
    pub monotonic: Duration,
}

/// Why the clock is doubted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// It shows less than when this daemon last ran, or a time before there was
    /// such a daemon.
    RunsBehind,
    /// It moved against the clock that only runs.
    Jumped,
    /// The broker's clock shows something else.
    Disagrees,
}

// === impl Doubt ===

impl Doubt {
    /// For people.
    pub fn text(self) -> &'static str {
        match self {
            Self::RunsBehind => "it shows an earlier time than when this daemon last ran",
            Self::Jumped => "it jumped",
            Self::Disagrees => "it differs from the broker's by more than five minutes",
        }
    }
}

/// What is thought of the clock at a start, from the last time that was stored.
pub fn at_start(wall: UnixMillis, last_tick: Option<UnixMillis>) -> Option<Doubt> {
    (wall < EARLIEST || last_tick.is_some_and(|tick| wall < tick)).then_some(Doubt::RunsBehind)
}

/// What is thought of the clock now, from what was thought at the last reading.
pub fn judge(doubt: Option<Doubt>, last: Reading, now: Reading, broker: Option<BrokerTime>) -> Option<Doubt> {
    let expected = last.wall.plus(now.monotonic.saturating_sub(last.monotonic));
    let jumped = is_apart(expected, now.wall);
    let agrees = broker.map(|broker| {
        let theirs = broker.time.plus(now.monotonic.saturating_sub(broker.monotonic));
        !is_apart(theirs, now.wall)
    });
    match (agrees, jumped) {
        (Some(true), _) => None,
        (_, true) => Some(Doubt::Jumped),
        (Some(false), false) => doubt.or(Some(Doubt::Disagrees)),
        (None, false) => doubt,
    }
}

fn is_apart(one: UnixMillis, other: UnixMillis) -> bool {
    Duration::from_millis(one.distance_ms(other)) > TOLERANCE
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;
    const START: UnixMillis = UnixMillis(1_800_000_000_000);

    fn reading(wall_ms: i64, monotonic_s: u64) -> Reading {
        Reading { wall: UnixMillis(START.0 + wall_ms), monotonic: Duration::from_secs(monotonic_s) }
    }

    #[test]
    fn a_start_in_the_past_is_doubted() {
        for (wall, tick, doubt) in [
            (START, None, None),
            (START, Some(START), None),
            (START, Some(UnixMillis(START.0 + 1)), Some(Doubt::RunsBehind)),
            (START, Some(UnixMillis(START.0 - 31 * DAY)), None),
            (UnixMillis(0), None, Some(Doubt::RunsBehind)),
            (UnixMillis(EARLIEST.0 - 1), None, Some(Doubt::RunsBehind)),
        ] {
            assert_eq!(at_start(wall, tick), doubt, "{wall} {tick:?}");
        }
    }

    #[test]
    fn the_whole_table_of_readings() {
        let broker = |wall_ms: i64| Some(BrokerTime { time: UnixMillis(START.0 + wall_ms), monotonic: Duration::ZERO });
        let all = [None, Some(Doubt::RunsBehind), Some(Doubt::Jumped), Some(Doubt::Disagrees)];
        let (five_s, an_hour) = (5_000, 3_600_000);
        for doubt in all {
            let judge = |wall, broker| judge(doubt, reading(0, 0), reading(wall, 5), broker);
            // Steady, without a broker: what was thought stays.
            assert_eq!(judge(five_s, None), doubt);
            // A jump in either direction is doubted.
            assert_eq!(judge(an_hour, None), Some(Doubt::Jumped));
            assert_eq!(judge(-an_hour, None), Some(Doubt::Jumped));
            // Up to the tolerance it is no jump.
            assert_eq!(judge(five_s + 300_000, None), doubt);
            assert_eq!(judge(five_s + 300_001, None), Some(Doubt::Jumped));
            // The broker confirms, also a jump.
            assert_eq!(judge(five_s, broker(0)), None);
            assert_eq!(judge(an_hour, broker(an_hour)), None);
            // Or not.
            assert_eq!(judge(five_s, broker(31 * DAY)), doubt.or(Some(Doubt::Disagrees)));
            assert_eq!(judge(31 * DAY, broker(0)), Some(Doubt::Jumped));
        }
    }
}
