//! Where log lines go and how they look.
//!
//! A daemon in the background writes one JSON object a line to its log file
//! (R21); one in the foreground, and the broker, write text to standard error.
//! The level applies to this program's own lines. Libraries are heard from
//! `warn` on only: below that some write headers and frames, tokens included.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use file_rotate::compression::Compression;
use file_rotate::suffix::AppendCount;
use file_rotate::{ContentLimit, FileRotate};
use rustix::fs::OFlags;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{FilterExt as _, Targets};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, Registry, fmt};

use super::names::target;
use super::tidy::{Budget, LeftOut, tidy};

/// Mode of the log file: it holds no secrets, and its folder is private.
const LOG_MODE: u32 = 0o644;
/// Bytes after which a log is moved away, about, and how many of those that were are kept.
const ROTATE_BYTES: usize = 10_000_000;
const OLDER: usize = 4;

/// Where log lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// JSON lines, appended to this file.
    File(PathBuf),
    /// Text on standard error; in colour when that is a terminal.
    Stderr,
}

/// Logging could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened.
    #[error("cannot write the log {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The level is none of the five.
    #[error("`{0}` is no log level; use error, warn, info, debug or trace")]
    Level(String),
    /// This process logs already.
    #[error("logging was set up already")]
    AlreadySet,
}

/// Changes the level of a process that logs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Control {
    level: reload::Handle<Targets, Registry>,
    file: Option<LogFile>,
}

/// The file that lines go to. Cheap to clone.
#[derive(Clone)]
struct LogFile {
    path: PathBuf,
    // A std mutex: held for one write.
    file: Arc<Mutex<FileRotate<AppendCount>>>,
}

#[derive(Clone, Copy, Debug)]
struct Stderr;

/// What a formatter writes its lines to.
#[derive(Clone, Debug)]
struct Lines<W> {
    to: W,
    is_json: bool,
    budget: Budget,
}

/// Sets up the process's logging, once, with one of the levels `error`, `warn`,
/// `info`, `debug` and `trace`.
pub fn init(output: &Output, level: &str) -> Result<Control, Error> {
    let (filter, handle) = reload::Layer::new(targets(level)?);
    let file = match output {
        Output::File(path) => Some(LogFile::open(path)?),
        Output::Stderr => None,
    };
    let budget = Budget::default();
    let lines = match &file {
        Some(file) => json(Lines { to: file.clone(), is_json: true, budget: budget.clone() }).boxed(),
        None => fmt::layer()
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(Lines { to: Stderr, is_json: false, budget: budget.clone() })
            .boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(filter.and(budget)));
    subscriber.try_init().map_err(|_| Error::AlreadySet)?;
    Ok(Control { level: handle, file })
}

// === impl Control ===

impl Control {
    /// Opens the file again, by its path: it may have been moved away.
    pub fn reopen(&self) -> Result<(), Error> {
        if let Some(LogFile { path, file }) = &self.file {
            let new = open(path)?;
            *file.lock().unwrap_or_else(PoisonError::into_inner) = new;
        }
        Ok(())
    }

    /// Sets the level from now on (R340).
    pub fn set_level(&self, level: &str) -> Result<(), Error> {
        self.level.reload(targets(level)?).map_err(|_| Error::AlreadySet)
    }
}

// === impl LogFile ===

impl LogFile {
    fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self { path: path.to_owned(), file: Arc::new(Mutex::new(open(path)?)) })
    }
}

impl std::fmt::Debug for LogFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogFile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl io::Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl io::Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        io::stderr().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: io::Write> io::Write for Lines<W> {
    /// Takes a whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        for left_out in self.budget.left_out() {
            let told = self.told(&left_out);
            self.to.write_all(told.as_bytes())?;
        }
        self.to.write_all(&tidy(line, self.is_json))?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl<W> Lines<W> {
    fn told(&self, LeftOut { lines, place, level }: &LeftOut) -> String {
        let message = format!("{lines} more lines like those of {place} were left out");
        let mut now = String::new();
        // A text takes all.
        let _ = SystemTime.format_time(&mut fmt::format::Writer::new(&mut now));
        if !self.is_json {
            return format!("{now} {level:>5} {message}\n");
        }
        let line = serde_json::json!({
            "timestamp": now, "level": level.to_string(), "message": message, "lines": lines,
        });
        format!("{line}\n")
    }
}

impl<W: Clone + io::Write> fmt::MakeWriter<'_> for Lines<W> {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

fn targets(level: &str) -> Result<Targets, Error> {
    let level = match level {
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        other => return Err(Error::Level(other.to_owned())),
    };
    let own = Targets::new().with_default(LevelFilter::WARN.min(level)).with_target(env!("CARGO_PKG_NAME"), level);
    // The record of what ran here does not depend on how much is told otherwise. The
    // longer name wins over the shorter one that it begins with.
    Ok(own.with_target(target::AUDIT, LevelFilter::INFO))
}

fn json<W>(writer: W) -> impl tracing_subscriber::Layer<Registry> + Send + Sync
where
    W: for<'writer> fmt::MakeWriter<'writer> + Send + Sync + 'static,
{
    fmt::layer().json().flatten_event(true).with_current_span(false).with_span_list(false).with_writer(writer)
}

fn open(path: &Path) -> Result<FileRotate<AppendCount>, Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    // A link would let whoever made it say which file grows.
    options.append(true).create(true).mode(LOG_MODE).custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    let file = options.open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() || found.uid() != rustix::process::geteuid().as_raw() {
        return Err(failed(io::Error::other("it is no plain file of this user; move it away")));
    }
    // The process's mask may have narrowed the mode.
    file.set_permissions(std::fs::Permissions::from_mode(LOG_MODE)).map_err(failed)?;
    let limit = ContentLimit::BytesSurpassed(ROTATE_BYTES);
    Ok(FileRotate::new(path, AppendCount::new(OLDER), limit, Compression::None, Some(options)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::UnixMillis;
    use crate::runtime::clock::Clock;

    // Covers: R21
    #[test]
    fn every_line_is_an_object_and_libraries_are_quiet() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.log");
        let file = LogFile::open(&path).unwrap();
        let (filter, handle) = reload::Layer::new(targets("info").unwrap());
        let control = Control { level: handle, file: Some(file.clone()) };
        let lines = json(Lines { to: file, is_json: true, budget: Budget::default() });
        let subscriber = tracing_subscriber::registry().with(lines.with_filter(filter));
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(mesh = "demo", "Line\nof two");
            tracing::debug!("Too low");
            tracing::info!(target: "h2", "Frame with a header");
            control.set_level("debug").unwrap();
            tracing::debug!("Now shown");
            tracing::debug!(target: "hyper", "Still not");
        });
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let messages: Vec<&str> = lines.iter().filter_map(|line| line["message"].as_str()).collect();
        assert_eq!(messages, ["Line\nof two", "Now shown"]);
        assert_eq!((lines[0]["mesh"].as_str(), lines[0]["level"].as_str()), (Some("demo"), Some("INFO")));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
    }

    #[test]
    fn lines_of_one_cause_are_limited_and_told_by_their_number() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.log");
        let (file, clock) = (LogFile::open(&path).unwrap(), Clock::manual(UnixMillis(0)));
        let budget = Budget::by(clock.clone());
        let lines = json(Lines { to: file, is_json: true, budget: budget.clone() });
        let subscriber = tracing_subscriber::registry().with(lines.with_filter(targets("debug").unwrap().and(budget)));
        let written = || std::fs::read_to_string(&path).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..250 {
                tracing::warn!(number, "Again");
                tracing::info!(target: target::AUDIT, number, "Done");
                tracing::debug!(number, "In detail");
            }
            assert_eq!(written().matches("Again").count(), 200);
            assert_eq!((written().matches("Done").count(), written().matches("In detail").count()), (250, 250));
            clock.advance(std::time::Duration::from_secs(60));
            tracing::info!("Something else");
        });
        let text = written();
        let told: serde_json::Value = serde_json::from_str(text.lines().rev().nth(1).unwrap()).unwrap();
        assert_eq!((&told["lines"], &told["level"]), (&50.into(), &"WARN".into()), "{told}");
        assert!(told["message"].as_str().unwrap().contains("src/telemetry/logging.rs:"), "{told}");
        assert!(told["timestamp"].as_str().unwrap().ends_with('Z'), "{told}");
    }

    #[test]
    fn unknown_levels_are_refused() {
        assert!(targets("loud").is_err());
    }
}
