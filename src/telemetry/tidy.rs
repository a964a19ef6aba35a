//! What every log line passes before it is written, whatever is in it: others decide
//! much of the text, and how often it is written.
//!
//! A line has a greatest length, holds nothing that steers a terminal, and lines of one
//! cause (one place in the program) are written so many at once and then so many a
//! minute, with their number. The record of what ran here is never left out.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Map, Value};
use tracing::callsite::Identifier;
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Metadata};
use tracing_subscriber::layer::{Context, Filter};

use super::names::target;
use crate::domain::foreign::{SAID_BYTES, cut, is_unsafe};
use crate::domain::names;
use crate::runtime::clock::Clock;

/// Longest line in bytes that is written as it came.
const LINE_BYTES: usize = 4 * 1024;
/// Lines of one cause at once.
const BURST: u32 = 200;
/// One more of them after each of these.
const REFILL: Duration = Duration::from_secs(5);
/// How long lines are left out before their number is told anyhow.
const TELL_AFTER: Duration = Duration::from_secs(60);

/// How many lines each cause may still write. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    clock: Clock,
    causes: Arc<Mutex<HashMap<Identifier, Cause>>>,
}

#[derive(Debug)]
struct Cause {
    metadata: &'static Metadata<'static>,
    lines: u32,
    refilled: Duration,
    left_out: u64,
    since: Duration,
}

/// Lines of one cause that were not written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub(super) lines: u64,
    /// Where in the program they come from.
    pub(super) place: String,
    pub(super) level: Level,
}

// === impl Budget ===

impl Default for Budget {
    fn default() -> Self {
        Self { clock: Clock::system(), causes: Arc::default() }
    }
}

impl Budget {
    #[cfg(test)]
    pub(super) fn by(clock: Clock) -> Self {
        Self { clock, causes: Arc::default() }
    }

    fn admits(&self, metadata: &'static Metadata<'static>, now: Duration) -> bool {
        let mut causes = self.lock();
        let new = || Cause { metadata, lines: BURST, refilled: now, left_out: 0, since: now };
        let cause = causes.entry(metadata.callsite()).or_insert_with(new);
        let more = now.saturating_sub(cause.refilled).as_secs() / REFILL.as_secs();
        if more > 0 {
            cause.lines = cause.lines.saturating_add(u32::try_from(more).unwrap_or(BURST)).min(BURST);
            cause.refilled = now;
        }
        if cause.lines > 0 {
            cause.lines -= 1;
            return true;
        }
        if cause.left_out == 0 {
            cause.since = now;
        }
        cause.left_out += 1;
        false
    }

    /// What is to be told before the next line.
    pub(super) fn left_out(&self) -> Vec<LeftOut> {
        let now = self.clock.monotonic();
        let due = |cause: &&mut Cause| {
            cause.left_out > 0 && (cause.lines > 0 || now.saturating_sub(cause.since) >= TELL_AFTER)
        };
        let tell = |cause: &mut Cause| LeftOut {
            lines: std::mem::take(&mut cause.left_out),
            place: format!(
                "{}:{}",
                cause.metadata.file().unwrap_or_default(),
                cause.metadata.line().unwrap_or_default()
            ),
            level: *cause.metadata.level(),
        };
        self.lock().values_mut().filter(due).map(tell).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Identifier, Cause>> {
        self.causes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Filter<S> for Budget {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    // The level decides alone which places in the program are asked at all.
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // Who asks for more than `info` wants all of it.
        *metadata.level() > Level::INFO
            || metadata.target() == target::AUDIT
            || self.admits(metadata, self.clock.monotonic())
    }
}

/// A line as it may be written.
pub(super) fn tidy(line: &[u8], is_json: bool) -> Cow<'_, [u8]> {
    let text = String::from_utf8_lossy(line);
    // Colours are this program's own; what others write was escaped by the formatter.
    let is_own = |c: char| c == '\n' || (c == '\u{1b}' && !is_json);
    let is_refused = |c: char| is_unsafe(c) && !is_own(c);
    if line.len() <= LINE_BYTES && !text.chars().any(is_refused) {
        return Cow::Borrowed(line);
    }
    let text = names::replace(&text, is_refused);
    if !is_json {
        return Cow::Owned((cut(text.trim_end(), LINE_BYTES) + "\n").into_bytes());
    }
    let mut object: Map<String, Value> = serde_json::from_str(&text).unwrap_or_default();
    if line.len() > LINE_BYTES {
        for value in object.values_mut() {
            match value {
                Value::String(text) => *text = cut(text, SAID_BYTES),
                Value::Number(_) | Value::Bool(_) | Value::Null => {}
                other => *other = Value::String(cut(&other.to_string(), SAID_BYTES)),
            }
        }
    }
    let mut text = Value::Object(object).to_string();
    text.push('\n');
    Cow::Owned(text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_value_by_value_and_stays_one_object() {
        let line = serde_json::json!({"level": "WARN", "message": "x".repeat(50_000), "path": "\u{202e}y", "n": 1})
            .to_string()
            + "\n";
        let tidied = tidy(line.as_bytes(), true);
        let object: Value = serde_json::from_slice(&tidied).unwrap();
        assert!(tidied.len() < 600 && tidied.ends_with(b"\n"), "{}", tidied.len());
        assert_eq!((&object["n"], &object["path"]), (&1.into(), &"\u{FFFD}y".into()));
        assert!(object["message"].as_str().unwrap().ends_with("x… (49800 bytes more)"), "{object}");
        let text = tidy("a\u{202e}b\n".as_bytes(), false);
        assert_eq!(String::from_utf8_lossy(&text), "a\u{FFFD}b\n");
        assert!(matches!(tidy(b"{\"message\":\"as it is\"}\n", true), Cow::Borrowed(_)));
    }
}
