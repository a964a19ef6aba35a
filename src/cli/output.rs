//! What commands print: lines, tables and JSON.
//!
//! Texts that come from other members are shown, never obeyed: control and
//! direction characters are replaced before they reach a terminal. JSON escapes
//! them by itself.

use std::fmt::Display;
use std::io::{self, Write};

use chrono::{DateTime, Local};
use comfy_table::{Table, presets};
use serde::Serialize;

use super::failure::Failure;
use crate::domain::error_code::ErrorCode;
use crate::proto::wkt::Timestamp;

/// Standard output for results, standard error for everything else.
pub struct Output {
    stdout: Box<dyn Write>,
    stderr: Box<dyn Write>,
}

// === impl Output ===

impl Output {
    /// The process's own.
    pub fn standard() -> Self {
        Self { stdout: Box::new(io::stdout()), stderr: Box::new(io::stderr()) }
    }

    /// Prints a line of the result.
    pub fn line(&mut self, line: impl Display) -> Result<(), Failure> {
        writeln!(self.stdout, "{line}").and_then(|()| self.stdout.flush()).map_err(|error| write_failure(&error))
    }

    /// Prints a result as JSON for reading.
    pub fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(|error| json_failure(&error))?;
        self.line(text)
    }

    /// Prints one result of many as JSON in one line.
    pub fn json_line(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(|error| json_failure(&error))?;
        self.line(text)
    }

    /// Prints a table; cells must be [`safe`].
    pub fn table<const N: usize>(&mut self, header: [&str; N], rows: Vec<[String; N]>) -> Result<(), Failure> {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(header).add_rows(rows);
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        for line in table.lines() {
            self.line(line.trim_end())?;
        }
        Ok(())
    }

    /// Says something beside the result, on standard error. That nobody reads it
    /// does not stop the command.
    pub fn note(&mut self, note: impl Display) {
        let _ = writeln!(self.stderr, "{note}");
    }
}

/// A text in one line, without what could steer a terminal.
pub fn safe(text: &str) -> String {
    text.chars().map(|c| if is_unsafe(c) { '\u{FFFD}' } else { c }).collect()
}

/// A text with its line breaks; further lines are indented by two spaces, so
/// that no text can look like the next entry.
pub fn safe_lines(text: &str) -> String {
    text.lines().map(safe).collect::<Vec<_>>().join("\n  ")
}

/// A time in the local zone, to the second; `-` if there is none.
pub fn time(time: Option<&Timestamp>) -> String {
    local(time).map_or_else(|| "-".to_owned(), |time| time.format("%Y-%m-%d %H:%M:%S").to_string())
}

fn local(time: Option<&Timestamp>) -> Option<DateTime<Local>> {
    DateTime::from_timestamp_millis(time?.to_unix_ms()?).map(|time| time.with_timezone(&Local))
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{2069}' | '\u{061C}' | '\u{FEFF}')
}

fn write_failure(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::output_closed();
    }
    Failure::new(ErrorCode::InternalError, format!("cannot write to standard output: {error}"))
}

fn json_failure(error: &serde_json::Error) -> Failure {
    Failure::new(ErrorCode::InternalError, format!("the result cannot be written as JSON: {error}"))
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

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
            Output { stdout: Box::new(self.clone()), stderr: Box::new(self.clone()) }
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
        let mut output = Output { stdout: Box::new(Closed), stderr: Box::new(Closed) };
        let failure = output.line("x").unwrap_err();
        assert!(failure.is_silent());
        assert_eq!(failure.exit(), 0);
    }
}
