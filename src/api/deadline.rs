//! `grpc-timeout`: the caller's deadline, which tonic enforces only in its own
//! server and not inside a router.

use std::time::Duration;

use http::HeaderMap;

/// How long the caller waits for the end of the call. Bounds the time to a unary
/// call's answer; a stream looks at it itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(pub Duration);

// === impl Deadline ===

impl Deadline {
    /// The deadline of a request; `None` without one, or with one that is not of
    /// the form `<up to 8 digits><unit>`.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get("grpc-timeout")?.to_str().ok()?;
        let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let count: u64 = digits.parse().ok()?;
        Some(Self(match unit {
            "H" => Duration::from_secs(count * 3600),
            "M" => Duration::from_secs(count * 60),
            "S" => Duration::from_secs(count),
            "m" => Duration::from_millis(count),
            "u" => Duration::from_micros(count),
            "n" => Duration::from_nanos(count),
            _ => return None,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_units_are_read_and_nothing_else() {
        let read = |text: &str| {
            Deadline::of(&HeaderMap::from_iter([("grpc-timeout".parse().unwrap(), text.parse().unwrap())]))
        };
        for (text, expected) in [
            ("2H", Duration::from_secs(7200)),
            ("3M", Duration::from_secs(180)),
            ("99999999S", Duration::from_secs(99_999_999)),
            ("300m", Duration::from_millis(300)),
            ("5u", Duration::from_micros(5)),
            ("7n", Duration::from_nanos(7)),
        ] {
            assert_eq!(read(text), Some(Deadline(expected)), "{text}");
        }
        for bad in ["", "S", "1", "1x", "-1S", "100000000S", "1.5S", "1 S"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(Deadline::of(&HeaderMap::new()), None);
    }
}
