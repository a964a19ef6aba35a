//! How old a send may get, and for how long its id is safe at the broker.
//!
//! A repeat is recognised as long as the broker remembers the id. Whatever is
//! retried after that may be delivered twice, so the age limit has to end
//! before it, with a margin.

use std::time::Duration;

use super::time::UnixMillis;

/// What every broker that dedupes promises, in hours.
const LEAST_WINDOW_HOURS: u64 = 24;
/// The age limit that fits into the least promise, in hours; the default.
pub const DEFAULT_MAX_AGE_HOURS: u32 = 23;

/// How long the broker says that it remembers ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DedupeWindow {
    /// It has not said so yet; only the least promise holds.
    #[default]
    Unknown,
    /// So many days.
    Days(u32),
    /// For ever.
    Permanent,
}

/// What follows from a configured age limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgeLimit {
    /// It is used as it is.
    Use {
        /// Hours.
        hours: u32,
    },
    /// It is used although repeats may be delivered twice: the operator accepts
    /// that.
    UseAtRisk {
        /// Hours.
        hours: u32,
        /// What would be safe.
        safe_hours: u32,
    },
    /// The broker has not said yet how long it remembers; until then less is
    /// used.
    UseLess {
        /// Hours.
        hours: u32,
    },
    /// The daemon must not start.
    Refuse {
        /// What would be safe.
        safe_hours: u32,
    },
}

// === impl DedupeWindow ===

impl DedupeWindow {
    /// The greatest age limit that the window covers, in hours: the window less
    /// a tenth of it, at least a day.
    pub fn safe_hours(self) -> u32 {
        let hours = match self {
            Self::Unknown => 0,
            Self::Permanent => u64::from(u32::MAX),
            Self::Days(days) => {
                let window = u64::from(days) * 24;
                window.saturating_sub(24.max(window.div_ceil(10)))
            }
        };
        u32::try_from(hours).unwrap_or(u32::MAX).max(DEFAULT_MAX_AGE_HOURS)
    }

    /// For how long after its first transmit an id is recognised.
    fn length(self) -> Option<Duration> {
        let hours = match self {
            Self::Unknown => LEAST_WINDOW_HOURS,
            Self::Days(days) => (u64::from(days) * 24).max(LEAST_WINDOW_HOURS),
            Self::Permanent => return None,
        };
        Some(Duration::from_secs(hours * 3600))
    }

    /// Whether a row that is queued again now, and then lives for `max_age`, is
    /// still recognised at its last transmit.
    pub fn covers_requeue(self, first_transmit: Option<UnixMillis>, now: UnixMillis, max_age: Duration) -> bool {
        match (first_transmit, self.length()) {
            // The broker has never seen the id, or never forgets it.
            (None, _) | (_, None) => true,
            (Some(first), Some(length)) => now.plus(max_age).since(first) <= length,
        }
    }

    /// How long what recognises a repeat is kept on this host; `None`: for ever.
    pub fn tombstone_life(self) -> Option<Duration> {
        const A_YEAR: Duration = Duration::from_secs(365 * 86_400);
        match self {
            Self::Unknown => Some(A_YEAR),
            Self::Days(days) => Some(Duration::from_secs(u64::from(days) * 86_400)),
            Self::Permanent => None,
        }
    }

    /// The text in the database.
    pub fn to_text(self) -> String {
        match self {
            Self::Unknown => "unknown".to_owned(),
            Self::Days(days) => days.to_string(),
            Self::Permanent => "permanent".to_owned(),
        }
    }

    /// Undoes [`Self::to_text`]; anything else is unknown.
    pub fn from_text(text: &str) -> Self {
        match text {
            "permanent" => Self::Permanent,
            days => days.parse().map_or(Self::Unknown, Self::Days),
        }
    }
}

/// What follows from `[outbox] max_age_hours`.
pub fn age_limit(configured_hours: u32, accept_redelivery_risk: bool, window: DedupeWindow) -> AgeLimit {
    let safe_hours = window.safe_hours();
    if configured_hours <= safe_hours {
        AgeLimit::Use { hours: configured_hours }
    } else if accept_redelivery_risk {
        AgeLimit::UseAtRisk { hours: configured_hours, safe_hours }
    } else if window == DedupeWindow::Unknown {
        AgeLimit::UseLess { hours: DEFAULT_MAX_AGE_HOURS }
    } else {
        AgeLimit::Refuse { safe_hours }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_margin_is_a_tenth_and_at_least_a_day() {
        for (days, hours) in [(1, 23), (2, 24), (7, 144), (30, 648), (365, 7884)] {
            assert_eq!(DedupeWindow::Days(days).safe_hours(), hours, "{days} days");
        }
        assert_eq!(DedupeWindow::Unknown.safe_hours(), 23);
        assert_eq!(DedupeWindow::Permanent.safe_hours(), u32::MAX);
    }

    // Covers: R165, R166
    #[test]
    fn the_whole_table_of_age_limits() {
        use AgeLimit as L;
        use DedupeWindow as W;
        for (hours, risk, window, expected) in [
            (23, false, W::Unknown, L::Use { hours: 23 }),
            (23, true, W::Unknown, L::Use { hours: 23 }),
            (24, false, W::Unknown, L::UseLess { hours: 23 }),
            (24, true, W::Unknown, L::UseAtRisk { hours: 24, safe_hours: 23 }),
            (144, false, W::Days(7), L::Use { hours: 144 }),
            (145, false, W::Days(7), L::Refuse { safe_hours: 144 }),
            (145, true, W::Days(7), L::UseAtRisk { hours: 145, safe_hours: 144 }),
            (7884, false, W::Days(365), L::Use { hours: 7884 }),
            (7885, false, W::Days(365), L::Refuse { safe_hours: 7884 }),
            (100_000, false, W::Permanent, L::Use { hours: 100_000 }),
        ] {
            assert_eq!(age_limit(hours, risk, window), expected, "{hours} {risk} {window:?}");
        }
    }

    #[test]
    fn an_id_is_kept_while_its_last_retry_is_inside_the_window() {
        let hour = Duration::from_secs(3600);
        let first = UnixMillis(0);
        let at = |hours: u32| first.plus(hour * hours);
        let covers = |window: DedupeWindow, now| window.covers_requeue(Some(first), now, hour * 23);
        assert!(covers(DedupeWindow::Unknown, at(1)));
        assert!(!covers(DedupeWindow::Unknown, at(2)));
        assert!(covers(DedupeWindow::Days(7), at(145)));
        assert!(!covers(DedupeWindow::Days(7), at(146)));
        assert!(covers(DedupeWindow::Permanent, at(1_000_000)));
        assert!(DedupeWindow::Unknown.covers_requeue(None, at(1_000_000), hour * 23));
    }

    #[test]
    fn windows_survive_the_database() {
        for window in [DedupeWindow::Unknown, DedupeWindow::Days(365), DedupeWindow::Permanent] {
            assert_eq!(DedupeWindow::from_text(&window.to_text()), window);
        }
        assert_eq!(DedupeWindow::from_text("soon"), DedupeWindow::Unknown);
    }
}
