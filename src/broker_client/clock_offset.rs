//! The broker's clock, for hosts whose own clock is wrong.
//!
//! A hello is refused when its timestamp is more than a minute off. The answer
//! to the upgrade carries the broker's time to the second, which is enough to
//! sign a hello that passes.

use chrono::DateTime;

use crate::domain::time::UnixMillis;

/// Below this the own clock is used as it is: the header has whole seconds.
const TOLERANCE_MS: i64 = 30_000;

/// Broker time minus own time, from an HTTP `Date` header; zero when the header
/// is missing, malformed or near enough.
pub(super) fn from_date_header(date: Option<&str>, now: UnixMillis) -> i64 {
    let Some(theirs) = date.and_then(|date| DateTime::parse_from_rfc2822(date).ok()) else { return 0 };
    if_needed(theirs.timestamp_millis().saturating_sub(now.0)).unwrap_or(0)
}

/// The offset, when a hello with the own clock might not pass.
pub(super) fn if_needed(offset_ms: i64) -> Option<i64> {
    (offset_ms.saturating_abs() > TOLERANCE_MS).then_some(offset_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clock_that_is_far_off_is_corrected() {
        let date = Some("Tue, 14 Nov 2023 22:13:20 GMT");
        let at = |ms: i64| from_date_header(date, UnixMillis(1_700_000_000_000 + ms));
        assert_eq!(at(0), 0);
        assert_eq!(at(29_000), 0);
        assert_eq!(at(300_000), -300_000);
        assert_eq!(at(-300_000), 300_000);
        assert_eq!(from_date_header(None, UnixMillis(0)), 0);
        assert_eq!(from_date_header(Some("soon"), UnixMillis(0)), 0);
    }
}
