//! Colours and weights of what is printed: few, and only as a help. A stream
//! that must not have them drops them (`output.rs`).

use anstyle::{AnsiColor, Style};

/// The first word of an error.
pub(super) const ERROR: Style = AnsiColor::Red.on_default().bold();
/// Headings.
pub(super) const STRONG: Style = Style::new().bold();
/// What matters less than what stands beside it, such as times.
pub(super) const DIM: Style = Style::new().dimmed();

const GOOD: Style = AnsiColor::Green.on_default();
const WAITING: Style = AnsiColor::Yellow.on_default();
const BAD: Style = AnsiColor::Red.on_default();

/// A text in a style.
pub(super) fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// The name of a state: is it as it should be, does it wait, or is it over?
pub(super) fn state(word: &str) -> String {
    let style = match word {
        "accepted" | "delivered" | "ready" | "connected" | "running" | "started" | "sound" | "active" => GOOD,
        "queued" | "inflight" | "pending" | "starting" | "stopping" | "waiting" | "connecting" | "degraded" => WAITING,
        "dead" | "aborted" | "expired" | "closed" | "no answer" | "damaged" | "key changed" | "removed" | "missing" => {
            BAD
        }
        "offline" | "unknown" | "stopped" | "disabled" | "unconfigured" => DIM,
        _ => return word.to_owned(),
    };
    styled(style, word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_style_ends_where_its_text_does() {
        assert_eq!(state("queued"), "\u{1b}[33mqueued\u{1b}[0m");
        assert_eq!(state("something else"), "something else");
    }
}
