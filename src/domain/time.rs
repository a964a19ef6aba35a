//! Points in time as the databases and the broker link write them.

use std::fmt;
use std::time::Duration;

/// Milliseconds since 1970-01-01T00:00:00Z, as stored in every table and
/// written in every frame. Never negative in practice; signed because SQL is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub i64);

// === impl UnixMillis ===

impl UnixMillis {
    /// The time `after` later; saturates instead of wrapping.
    pub fn plus(self, after: Duration) -> Self {
        Self(self.0.saturating_add(saturating_ms(after)))
    }

    /// The time `before` earlier; saturates instead of wrapping.
    pub fn minus(self, before: Duration) -> Self {
        Self(self.0.saturating_sub(saturating_ms(before)))
    }

    /// How long ago `earlier` was; zero when it lies in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0).max(0).unsigned_abs())
    }

    /// The distance to `other` in milliseconds, without a sign.
    pub fn distance_ms(self, other: Self) -> u64 {
        self.0.abs_diff(other.0)
    }
}

impl fmt::Display for UnixMillis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn saturating_ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(UnixMillis(i64::MAX).plus(Duration::MAX), UnixMillis(i64::MAX));
        assert_eq!(UnixMillis(5).since(UnixMillis(9)), Duration::ZERO);
        assert_eq!(UnixMillis(9).since(UnixMillis(5)), Duration::from_millis(4));
        assert_eq!(UnixMillis(-1).distance_ms(UnixMillis(1)), 2);
    }
}
