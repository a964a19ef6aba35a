//! Times as people read them. JSON has them as the API writes them.

use std::time::Duration;

use chrono::{DateTime, Datelike as _, Local, TimeZone};

use crate::domain::time::UnixMillis;
use crate::proto::wkt::Timestamp;
use crate::runtime::clock::Clock;

/// A time in the local zone: `14:03:22` today, `Mon 23 Nov 14:03` this year, with
/// the year before. `-` if there is none.
pub fn time(time: Option<&Timestamp>) -> String {
    shown(time, Clock::system().now(), &Local)
}

/// How long ago that was: `12 s ago`. `-` if there is no time.
pub(super) fn ago(time: Option<&Timestamp>) -> String {
    let Some(at) = time.and_then(|time| time.to_unix_ms()) else { return "-".to_owned() };
    age(Clock::system().now().since(UnixMillis(at)))
}

/// A span that was typed.
pub(super) fn parse_span(text: &str) -> Result<Duration, String> {
    let wrong = || "a span is a number with a unit, such as 90s, 30min, 2h or 7d".to_owned();
    humantime::parse_duration(text).map_err(|_| wrong())
}

/// A span in its largest unit and the next one: `1h2m`.
pub(super) fn span(seconds: u32) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{minutes}m{}s", seconds % 60),
        3600..86400 => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

fn shown<Tz: TimeZone>(time: Option<&Timestamp>, now: UnixMillis, zone: &Tz) -> String
where
    Tz::Offset: std::fmt::Display,
{
    let local = |ms: i64| DateTime::from_timestamp_millis(ms).map(|time| time.with_timezone(zone));
    let Some(at) = time.and_then(|time| time.to_unix_ms()).and_then(local) else { return "-".to_owned() };
    let form = match local(now.0) {
        Some(now) if now.date_naive() == at.date_naive() => "%H:%M:%S",
        Some(now) if now.year() == at.year() => "%a %-d %b %H:%M",
        _ => "%a %-d %b %Y %H:%M",
    };
    at.format(form).to_string()
}

fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..5 => "just now".to_owned(),
        5..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..86400 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use chrono::FixedOffset;

    use super::*;

    #[test]
    fn a_time_is_as_long_as_it_must_be() {
        // 2026-11-25T00:30:00Z, which is still the 24th four hours west.
        let now = UnixMillis(1_795_566_600_000);
        let shown = |ms: i64, hours: i32| {
            let zone = FixedOffset::east_opt(hours * 3600).unwrap();
            shown(Some(&Timestamp::from_unix_ms(ms)), now, &zone)
        };
        assert_eq!(shown(now.0 - 1000, 0), "00:29:59");
        assert_eq!(shown(now.0 - 3_600_000, 0), "Tue 24 Nov 23:30");
        assert_eq!(shown(now.0 - 3_600_000, -4), "19:30:00");
        assert_eq!(shown(now.0 - 365 * 86_400_000, 0), "Tue 25 Nov 2025 00:30");
        assert_eq!(time(None), "-");
    }

    #[test]
    fn an_age_has_one_unit() {
        let ages = [0, 5, 59, 60, 3599, 3600, 86_399, 86_400, 10 * 86_400].map(|s| age(Duration::from_secs(s)));
        let expected = [
            "just now",
            "5 s ago",
            "59 s ago",
            "1 min ago",
            "59 min ago",
            "1 h ago",
            "23 h ago",
            "1 d ago",
            "10 d ago",
        ];
        assert_eq!(ages, expected);
        assert_eq!(ago(None), "-");
    }

    #[test]
    fn a_span_that_is_none_is_explained() {
        assert_eq!(parse_span("2h"), Ok(Duration::from_secs(7200)));
        for wrong in ["-1s", "5", "soon", ""] {
            assert!(parse_span(wrong).unwrap_err().contains("such as 90s"), "{wrong}");
        }
    }

    #[test]
    fn spans_have_two_units() {
        assert_eq!([0, 61, 3600, 90_000].map(span), ["0s", "1m1s", "1h0m", "1d1h"]);
    }
}
