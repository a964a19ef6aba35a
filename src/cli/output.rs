//! What commands print: lines, tables, JSON and failures.
//!
//! Texts that come from other members are shown, never obeyed: control and
//! direction characters are replaced before they reach a terminal, and escaped in
//! JSON. Colours are part of every text and are dropped on the way to
//! what is no terminal, or when they are not wanted.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write};

use anstream::AutoStream;
use anstream::adapter::strip_str;
use serde::Serialize;
use unicode_width::UnicodeWidthStr as _;

use super::failure::Failure;
use super::style::{ERROR, STRONG, styled};
pub use super::times::time;
use crate::domain::error_code::ErrorCode;
use crate::domain::foreign::is_unsafe;
use crate::domain::message::MIN_PREFIX_DIGITS;
use crate::domain::names;
use crate::domain::roster::{MARK, MARK_DIGITS};
use crate::proto::pb::{MessageKind, Recipient};

/// Blanks between the columns of a table.
const GAP: usize = 2;

/// Standard output for results, standard error for everything else.
pub struct Output {
    stdout: Box<dyn Write>,
    stderr: Box<dyn Write>,
    json: bool,
    /// Somebody reads standard error as it is written.
    is_watched: bool,
}

// === impl Output ===

impl Output {
    /// The process's own. With `json` nothing but the result and, if there is
    /// one, the failure is printed.
    pub fn standard(json: bool, color: clap::ColorChoice) -> Self {
        let choice = match color {
            clap::ColorChoice::Auto => anstream::ColorChoice::Auto,
            clap::ColorChoice::Always => anstream::ColorChoice::AlwaysAnsi,
            clap::ColorChoice::Never => anstream::ColorChoice::Never,
        };
        Self {
            stdout: Box::new(AutoStream::new(io::stdout(), choice)),
            stderr: Box::new(AutoStream::new(io::stderr(), choice)),
            json,
            is_watched: io::stderr().is_terminal(),
        }
    }

    /// Prints a line of the result.
    pub fn line(&mut self, line: impl Display) -> Result<(), Failure> {
        writeln!(self.stdout, "{line}").and_then(|()| self.stdout.flush()).map_err(|error| write_failure(&error))
    }

    /// Prints a result as JSON for reading.
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(|error| json_failure(&error))?;
        self.line(safe_json(&text))
    }

    /// Prints one result of many as JSON in one line.
    pub fn json_line(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(|error| json_failure(&error))?;
        self.line(safe_json(&text))
    }

    /// Prints a table; cells must be [`safe`].
    pub fn table<const N: usize>(&mut self, header: [&str; N], rows: Vec<[String; N]>) -> Result<(), Failure> {
        let mut widths = header.map(width);
        for row in &rows {
            for (most, cell) in widths.iter_mut().zip(row) {
                *most = width(cell).max(*most);
            }
        }
        let header = header.map(|title| styled(STRONG, title));
        for row in std::iter::once(&header).chain(&rows) {
            let mut line = String::new();
            // Blanks before a cell and not after it: the last one has none.
            let mut missing = 0;
            for (cell, most) in row.iter().zip(widths) {
                if !cell.is_empty() {
                    line.push_str(&" ".repeat(missing));
                    line.push_str(cell);
                    missing = 0;
                }
                missing += most - width(cell) + GAP;
            }
            self.line(line)?;
        }
        Ok(())
    }

    /// Says something beside the result, on standard error. That nobody reads it
    /// does not stop the command.
    pub fn note(&mut self, note: impl Display) {
        if !self.json {
            let _ = writeln!(self.stderr, "{note}");
        }
    }

    /// Says why the command failed, in the form that was asked for.
    pub fn failure(&mut self, failure: &Failure) {
        self.tell(failure, None);
    }

    /// Says why the command failed for one mesh of several.
    pub fn failure_of(&mut self, mesh: &str, failure: &Failure) {
        self.tell(failure, Some(mesh));
    }

    fn tell(&mut self, failure: &Failure, mesh: Option<&str>) {
        if failure.is_silent() {
            return;
        }
        // What cannot be told cannot be told elsewhere either.
        if self.json {
            if let Ok(object) = serde_json::to_string(&Told { mesh, failure }) {
                let _ = writeln!(self.stderr, "{}", safe_json(&object));
            }
            return;
        }
        let text = failure.to_string();
        let text = text.strip_prefix("error:").unwrap_or(&text);
        let mesh = mesh.map(|mesh| format!("{mesh}: ")).unwrap_or_default();
        let _ = writeln!(self.stderr, "{mesh}{}{text}", styled(ERROR, "error:"));
        // A wrong command line is explained by its own help.
        let code = ErrorCode::from_name(failure.code()).filter(|code| *code != ErrorCode::UsageError);
        if let Some(code) = code.filter(|_| self.is_watched) {
            let _ = writeln!(self.stderr, "  more: claudemesh explain {code}");
        }
    }
}

/// A failure, and the mesh that it is about when there are several.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    mesh: Option<&'a str>,
    #[serde(flatten)]
    failure: &'a Failure,
}

/// A text in one line, without what could steer a terminal.
pub fn safe(text: &str) -> String {
    names::replace(text, is_unsafe)
}

/// JSON with escapes for what could steer a terminal. Such characters stand in its
/// texts alone, but for the line breaks between them.
fn safe_json(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        if is_unsafe(c) && c != '\n' {
            safe.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            safe.push(c);
        }
    }
    safe
}

/// A member's name. One that does not mean this member alone is marked with the
/// first digits of its key: `bob?f8ac1d51`.
pub fn member_name(name: &str, pubkey: &str, name_bound: bool) -> String {
    let digits = |count| pubkey.chars().take(count).collect::<String>();
    match names::shown(name) {
        name if name.is_empty() => digits(MIN_PREFIX_DIGITS),
        name if name_bound => name,
        name => format!("{name}{MARK}{}", digits(MARK_DIGITS)),
    }
}

/// A member's name or a topic's.
pub fn recipient_name(recipient: &Recipient) -> String {
    match recipient.kind() {
        // Also a subscriber that has a post.
        MessageKind::Direct | MessageKind::Topic if !recipient.member_id.is_empty() => {
            member_name(&recipient.name, &recipient.pubkey, recipient.name_bound)
        }
        MessageKind::Topic => format!("#{}", safe(&recipient.name)),
        _ => safe(&recipient.name),
    }
}

/// A text with its line breaks; further lines are indented by two spaces, so
/// that no text can look like the next entry.
pub fn safe_lines(text: &str) -> String {
    text.lines().map(safe).collect::<Vec<_>>().join("\n  ")
}

/// Columns that a text takes on the screen, its colours left out.
fn width(text: &str) -> usize {
    strip_str(text).map(|part| part.width()).sum()
}

fn write_failure(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::output_closed();
    }
    Failure::new(ErrorCode::OutputFailed, format!("cannot write to standard output: {error}"))
}

fn json_failure(error: &serde_json::Error) -> Failure {
    Failure::new(ErrorCode::InternalError, format!("the result cannot be written as JSON: {error}"))
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::json;

    use super::*;
    use crate::cli::style::state;

    /// Both streams in memory.
    #[derive(Clone, Default)]
    pub(in crate::cli) struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Captured {
        pub(in crate::cli) fn output(&self) -> Output {
            self.output_as(false)
        }
        /// The streams of a command with `--json`, or without.
        pub(in crate::cli) fn output_as(&self, json: bool) -> Output {
            let plain = || Box::new(AutoStream::never(Box::new(self.clone()) as Box<dyn Write>));
            Output { stdout: plain(), stderr: plain(), json, is_watched: false }
        }
        pub(in crate::cli) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn tables_are_aligned_without_trailing_blanks() {
        let captured = Captured::default();
        let rows = vec![["bob".to_owned(), "idle".to_owned()], ["日本".to_owned(), "x".to_owned()]];
        captured.output().table(["NAME", "STATUS"], rows).unwrap();
        assert_eq!(captured.text(), "NAME  STATUS\nbob   idle\n日本  x\n");
        let coloured = vec![[state("ready"), "x".to_owned()], [String::new(), String::new()]];
        let captured = Captured::default();
        captured.output().table(["A", "B"], coloured).unwrap();
        assert_eq!(captured.text(), "A      B\nready  x\n\n");
    }

    #[test]
    fn texts_of_others_cannot_steer_the_terminal() {
        assert_eq!(safe("a\u{1b}[2Jb\nc"), "a\u{FFFD}[2Jb\u{FFFD}c");
        assert_eq!(safe("a\u{202E}b"), "a\u{FFFD}b");
        assert_eq!(safe_lines("one\n\u{7}two\r\n"), "one\n  \u{FFFD}two");
    }

    #[test]
    fn a_closed_pipe_ends_a_command_quietly() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut output = Output { stdout: Box::new(Closed), stderr: Box::new(Closed), json: false, is_watched: false };
        let failure = output.line("x").unwrap_err();
        assert!(failure.is_silent());
        assert_eq!(failure.exit(), 0);
    }

    #[test]
    fn a_failure_is_words_or_one_json_object() {
        let failure = Failure::new(ErrorCode::UnknownPeer, "no member matches \"bbo\"").next("see who is there");
        let captured = Captured::default();
        captured.output().failure(&failure);
        captured.output().failure_of("demo", &failure);
        let words = "error: no member matches \"bbo\" (unknown_peer)\n  see who is there\n";
        assert_eq!(captured.text(), format!("{words}demo: {words}"));
        let captured = Captured::default();
        let mut output = captured.output_as(true);
        output.note("note: this is for people");
        output.failure(&failure);
        let object: serde_json::Value = serde_json::from_str(&captured.text()).unwrap();
        assert_eq!(captured.text().lines().count(), 1);
        let expected = json!({
            "code": "unknown_peer",
            "message": "no member matches \"bbo\"",
            "next": ["see who is there"],
            "exit_code": 1,
            "retryable": false,
            "metadata": {},
            "candidates": [],
        });
        assert_eq!(object, expected);
    }

    #[test]
    fn json_is_safe_for_a_terminal_and_means_the_same() {
        let value = json!({"text": "a\u{9b}31m\u{202e}b\u{7f}\u{feff}ü\n\u{1F980}", "list": [1, "\u{2066}"]});
        for (pretty, lines) in [(true, 7), (false, 1)] {
            let captured = Captured::default();
            let mut output = captured.output();
            if pretty {
                output.json(&value).unwrap()
            } else {
                output.json_line(&value).unwrap()
            }
            let text = captured.text();
            assert!(!text.chars().any(|c| is_unsafe(c) && c != '\n'), "{text:?}");
            assert_eq!(text.lines().count(), lines, "{text}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
        }
    }

    #[test]
    fn who_watches_is_told_where_more_is() {
        let captured = Captured::default();
        let mut output = Output { is_watched: true, ..captured.output() };
        output.failure(&Failure::new(ErrorCode::UnknownPeer, "x"));
        output.failure(&Failure::new(ErrorCode::UsageError, "y"));
        output.failure(&Failure::foreign("made_up", "z"));
        let expected = "error: x (unknown_peer)\n  more: claudemesh explain unknown_peer\n\
                        error: y (usage_error)\nerror: z (made_up)\n";
        assert_eq!(captured.text(), expected);
    }
}
