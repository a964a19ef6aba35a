//! How full the outbox is, and what follows from it.
//!
//! Three measures are taken; the fullest one decides. From 95 % on new sends are
//! refused while there is still room for what was accepted to end in order.

/// How full, in steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Below 80 %.
    #[default]
    Normal,
    /// From 80 % on: told, and sends are taken (R194).
    High,
    /// From 95 % on: new sends are refused, queued ones go out (R195).
    Critical,
    /// From 100 % on: new event streams are refused too (R196).
    Full,
}

/// What is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Measure {
    /// Rows that wait or are on their way, against `[outbox] max_queue_size`.
    #[default]
    Rows,
    /// Both databases of the daemon, against `[disk] reserved_bytes`.
    ReservedBytes,
    /// The outbox database, against `[disk] outbox_max_bytes`.
    DatabaseBytes,
}

/// What is there, and what may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Rows that wait or are on their way.
    pub rows: u64,
    /// `[outbox] max_queue_size`.
    pub max_rows: u64,
    /// Bytes in use in both databases.
    pub both_bytes: u64,
    /// `[disk] reserved_bytes`.
    pub reserved_bytes: u64,
    /// Bytes in use in the outbox database.
    pub outbox_bytes: u64,
    /// `[disk] outbox_max_bytes`.
    pub outbox_max_bytes: u64,
}

/// The fullest measure.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// The step that it has reached.
    pub level: Level,
    /// Percent of the limit; may exceed 100.
    pub used_pct: f64,
    /// Which one it is.
    pub measure: Measure,
}

/// What subscribers are told of two looks in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    None,
    /// It went up a step, or several.
    High,
    /// It is below the first step again.
    Cleared,
}

/// Percent from which on the log warns (R199).
pub const WARN_PCT: f64 = 90.0;

// === impl Level ===

impl Level {
    /// The step of a percentage.
    pub fn of(used_pct: f64) -> Self {
        match used_pct {
            pct if pct >= 100.0 => Self::Full,
            pct if pct >= 95.0 => Self::Critical,
            pct if pct >= 80.0 => Self::High,
            _ => Self::Normal,
        }
    }

    /// Whether new sends are refused.
    pub fn refuses_sends(self) -> bool {
        self >= Self::Critical
    }
}

// === impl Measure ===

impl Measure {
    /// The name in events and errors.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::ReservedBytes => "reserved_bytes",
            Self::DatabaseBytes => "database_bytes",
        }
    }

    /// The setting that limits it.
    pub fn setting(self) -> &'static str {
        match self {
            Self::Rows => "[outbox] max_queue_size",
            Self::ReservedBytes => "[disk] reserved_bytes",
            Self::DatabaseBytes => "[disk] outbox_max_bytes",
        }
    }
}

// === impl Pressure ===

impl Pressure {
    /// The fullest of three measures; rows win a tie.
    pub fn of(usage: &Usage) -> Self {
        let measures = [
            (Measure::Rows, usage.rows, usage.max_rows),
            (Measure::ReservedBytes, usage.both_bytes, usage.reserved_bytes),
            (Measure::DatabaseBytes, usage.outbox_bytes, usage.outbox_max_bytes),
        ];
        let mut fullest = Self::default();
        for (measure, used, limit) in measures {
            let used_pct = percent(used, limit);
            if used_pct > fullest.used_pct {
                fullest = Self { level: Level::of(used_pct), used_pct, measure };
            }
        }
        fullest
    }
}

/// What to tell after two looks.
pub fn change(before: Level, after: Level) -> Change {
    match (before, after) {
        (before, after) if after > before => Change::High,
        (before, Level::Normal) if before > Level::Normal => Change::Cleared,
        _ => Change::None,
    }
}

/// How much of a limit is used, in percent. A limit of zero is full.
pub fn percent(used: u64, limit: u64) -> f64 {
    if limit == 0 { 100.0 } else { used as f64 * 100.0 / limit as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Covers: R194-R196
    #[test]
    fn the_steps_are_80_95_and_100_percent() {
        let level = |rows| Pressure::of(&Usage { rows, max_rows: 1000, ..limits() }).level;
        for (rows, expected) in [
            (0, Level::Normal),
            (799, Level::Normal),
            (800, Level::High),
            (949, Level::High),
            (950, Level::Critical),
            (999, Level::Critical),
            (1000, Level::Full),
            (5000, Level::Full),
        ] {
            assert_eq!(level(rows), expected, "{rows}");
            assert_eq!(level(rows).refuses_sends(), rows >= 950, "{rows}");
        }
    }

    #[test]
    fn the_fullest_measure_decides() {
        let usage = Usage { rows: 10, max_rows: 100, both_bytes: 81, outbox_bytes: 96, ..limits() };
        let pressure = Pressure::of(&usage);
        assert_eq!((pressure.level, pressure.measure), (Level::Critical, Measure::DatabaseBytes));
        let pressure = Pressure::of(&Usage { outbox_bytes: 1, ..usage });
        assert_eq!((pressure.level, pressure.measure), (Level::High, Measure::ReservedBytes));
    }

    #[test]
    fn each_rise_is_told_once_and_the_end_once() {
        use Level::{Critical, Full, High, Normal};
        for (before, after, told) in [
            (Normal, Normal, Change::None),
            (Normal, High, Change::High),
            (High, High, Change::None),
            (High, Critical, Change::High),
            (Normal, Full, Change::High),
            (Full, Critical, Change::None),
            (Full, High, Change::None),
            (Full, Normal, Change::Cleared),
            (High, Normal, Change::Cleared),
        ] {
            assert_eq!(change(before, after), told, "{before:?} {after:?}");
        }
    }

    fn limits() -> Usage {
        Usage { max_rows: 1000, reserved_bytes: 100, outbox_max_bytes: 100, ..Usage::default() }
    }
}
