//! When a broker's lack of a required feature ends the daemon.
//!
//! A daemon that gives up needs an operator, so one bad answer must not be
//! enough where it may pass: a broker that is updated node by node can lack a
//! bit for a moment, and a broker that stalls says nothing at all.

use std::time::Duration;

/// Silent connects in a row that count as a refusal.
const SILENT_CONNECTS: u32 = 3;
/// How long a broker that had the bits before may refuse them.
pub const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What came of the agreement on features in one connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// Every required bit was granted.
    Granted,
    /// The broker says that a required bit is missing, or gives parameters for
    /// it that cannot be used.
    Refused,
    /// No answer came in time, though the broker answered a ping.
    Silent,
    /// The connect failed in another way, which says nothing about features.
    Unknown,
}

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Connect again, with the usual pauses.
    TryAgain,
    /// End the daemon.
    GiveUp,
}

/// The connects so far, as far as they matter here.
#[derive(Clone, Debug)]
pub struct Patience {
    limit: Duration,
    silent: u32,
    /// Monotonic time of the first refusal of an unbroken row.
    refused_since: Option<Duration>,
}

// === impl Patience ===

impl Patience {
    /// Nothing seen yet. `limit` is [`PATIENCE`] outside of tests.
    pub fn new(limit: Duration) -> Self {
        Self { limit, silent: 0, refused_since: None }
    }

    /// Notes one connect. `granted_before` says that this broker once had the
    /// bit, in this process or an earlier one; `now` is monotonic.
    pub fn note(&mut self, agreement: Agreement, granted_before: bool, now: Duration) -> Verdict {
        match agreement {
            Agreement::Granted | Agreement::Unknown => {
                *self = Self::new(self.limit);
                return Verdict::TryAgain;
            }
            Agreement::Silent => {
                self.silent = self.silent.saturating_add(1);
                if self.silent < SILENT_CONNECTS {
                    return Verdict::TryAgain;
                }
            }
            Agreement::Refused => self.silent = 0,
        }
        let since = *self.refused_since.get_or_insert(now);
        if !granted_before || now.saturating_sub(since) >= self.limit { Verdict::GiveUp } else { Verdict::TryAgain }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(count: u64) -> Duration {
        Duration::from_secs(60 * count)
    }

    #[test]
    fn an_explicit_refusal_ends_at_once_unless_the_bit_was_there_before() {
        let mut patience = Patience::new(PATIENCE);
        assert_eq!(patience.note(Agreement::Refused, false, minutes(0)), Verdict::GiveUp);

        let mut patience = Patience::new(PATIENCE);
        assert_eq!(patience.note(Agreement::Refused, true, minutes(1)), Verdict::TryAgain);
        assert_eq!(patience.note(Agreement::Refused, true, minutes(15)), Verdict::TryAgain);
        assert_eq!(patience.note(Agreement::Refused, true, minutes(16)), Verdict::GiveUp);
    }

    #[test]
    fn three_silent_connects_in_a_row_count_as_a_refusal() {
        let mut patience = Patience::new(PATIENCE);
        let mut note = |agreement| patience.note(agreement, false, minutes(0));
        assert_eq!(note(Agreement::Silent), Verdict::TryAgain);
        assert_eq!(note(Agreement::Silent), Verdict::TryAgain);
        // No ping was answered: perhaps only the network was gone.
        assert_eq!(note(Agreement::Unknown), Verdict::TryAgain);
        assert_eq!(note(Agreement::Silent), Verdict::TryAgain);
        assert_eq!(note(Agreement::Silent), Verdict::TryAgain);
        assert_eq!(note(Agreement::Silent), Verdict::GiveUp);
    }

    #[test]
    fn silence_is_borne_as_long_as_refusals_where_the_bits_were_there_before() {
        let mut patience = Patience::new(PATIENCE);
        for minute in 0..=2 {
            assert_eq!(patience.note(Agreement::Silent, true, minutes(minute)), Verdict::TryAgain);
        }
        assert_eq!(patience.note(Agreement::Silent, true, minutes(16)), Verdict::TryAgain);
        assert_eq!(patience.note(Agreement::Refused, true, minutes(17)), Verdict::GiveUp);
    }

    #[test]
    fn what_is_granted_again_begins_the_time_anew() {
        let mut patience = Patience::new(PATIENCE);
        patience.note(Agreement::Refused, true, minutes(0));
        patience.note(Agreement::Granted, true, minutes(10));
        assert_eq!(patience.note(Agreement::Refused, true, minutes(20)), Verdict::TryAgain);
        assert_eq!(patience.note(Agreement::Refused, true, minutes(34)), Verdict::TryAgain);
        assert_eq!(patience.note(Agreement::Refused, true, minutes(35)), Verdict::GiveUp);
    }
}
