//! What others wrote, as it may stand in an error, a log line or on a terminal.

use super::names;

/// Longest text of others that is repeated, in bytes.
pub const SAID_BYTES: usize = 200;

/// One line of at most [`SAID_BYTES`], with a mark for each character that could steer a
/// terminal or hide something, and how much was left out.
pub fn said(text: &str) -> String {
    cut(&names::replace(text.trim(), is_unsafe), SAID_BYTES)
}

/// Whether a character acts on a terminal, or on how others are shown.
pub fn is_unsafe(c: char) -> bool {
    c.is_control() || names::changes_direction(c) || matches!(c, '\u{2028}' | '\u{2029}')
}

/// The first bytes of a text, and how many more there were.
pub fn cut(text: &str, limit: usize) -> String {
    let kept = &text[..text.floor_char_boundary(limit)];
    match text.len() - kept.len() {
        0 => text.to_owned(),
        more => format!("{kept}… ({more} bytes more)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_repeated_is_one_short_line() {
        assert_eq!(said(" too\u{1b}[2J\nlate\u{202e} "), "too\u{FFFD}[2J\u{FFFD}late\u{FFFD}");
        let long = said(&"ü".repeat(1_000));
        assert!(long.starts_with("üü") && long.ends_with("… (1800 bytes more)"), "{long}");
        assert_eq!(cut("short", 5), "short");
    }
}
