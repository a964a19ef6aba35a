//! `claudemesh daemon logs`.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, Local};
use serde_json::{Map, Value};

use super::running_or_joined;
use crate::cli::failure::Failure;
use crate::cli::output::{Output, safe};
use crate::cli::{Context, running};
use crate::config::paths::Root;
use crate::domain::error_code::ErrorCode;
use crate::runtime::private_file::FileError;

/// How far from the end the lines are looked for, in bytes.
const TAIL: u64 = 4 << 20;
/// Between two looks for new lines.
const LOOK: Duration = Duration::from_millis(250);

const EXAMPLES: &str = "\
Examples:
  claudemesh daemon logs -n 200
  claudemesh daemon logs -f --mesh demo
  claudemesh daemon logs --json | jq 'select(.level == \"WARN\")'";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Args {
    /// The mesh; the only running daemon's if left out
    #[arg(long, value_name = "MESH")]
    mesh: Option<String>,
    /// Go on with new lines, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// How many of the last lines to show
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50)]
    lines: usize,
    /// Print the lines as they are in the file
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: Args, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let root = context.root()?;
    let mesh = running_or_joined(args.mesh.as_deref(), context, &root)?;
    let mut log = Log::open(root.state_dir(&mesh).log()).map_err(|error| {
        if error.source.kind() == io::ErrorKind::NotFound {
            return no_log(&root, &mesh, &error.path);
        }
        error.into()
    })?;
    let mut text = log.tail()?;
    let older = root.state_dir(&mesh).older_log();
    if text.lines().count() < args.lines
        && let Ok(mut older) = Log::open(older)
    {
        text.insert_str(0, &older.tail()?);
    }
    let lines: Vec<&str> = text.lines().collect();
    for line in &lines[lines.len().saturating_sub(args.lines)..] {
        output.line(shown(line, args.json))?;
    }
    if !args.follow {
        return Ok(());
    }
    loop {
        tokio::time::sleep(LOOK).await;
        for line in log.new_lines()? {
            output.line(shown(&line, args.json))?;
        }
    }
}

/// There is no log. A daemon that runs goes on writing to the file that was moved away.
fn no_log(root: &Root, mesh: &str, path: &Path) -> Failure {
    let state = root.state_dir(mesh);
    if running::is_running(&state).unwrap_or(false) {
        let what =
            format!("the daemon of mesh {mesh:?} runs, but its log {} was moved away or deleted", path.display());
        return Failure::new(ErrorCode::FileNotFound, what)
            .next(format!("let it begin a new one: claudemesh daemon reload --mesh {mesh}"));
    }
    Failure::new(ErrorCode::DaemonNotRunning, format!("no daemon of mesh {mesh:?} has logged anything"))
        .next(format!("start it: claudemesh daemon up --mesh {mesh}"))
}

/// A log file that grows, and may be moved away, or emptied, and begun anew.
struct Log {
    path: PathBuf,
    file: File,
    /// A line whose end is not written yet.
    rest: Vec<u8>,
}

// === impl Log ===

impl Log {
    fn open(path: PathBuf) -> Result<Self, FileError> {
        let file = File::open(&path).map_err(|source| error(&path, source))?;
        Ok(Self { path, file, rest: Vec::new() })
    }

    /// The last lines; the first of them may be cut.
    fn tail(&mut self) -> Result<String, FileError> {
        let bytes = read_tail(&mut self.file).map_err(|source| error(&self.path, source))?;
        let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.rest = bytes[end..].to_vec();
        Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    /// The lines that were written since the last call.
    fn new_lines(&mut self) -> Result<Vec<String>, FileError> {
        let mut lines = Vec::new();
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| error(&path, source)
        };
        self.read_lines(&mut lines).map_err(failed(&self.path))?;
        // Read to its end first: it may have been moved away for a new one.
        let here = self.file.metadata().map_err(failed(&self.path))?;
        match std::fs::metadata(&self.path) {
            Ok(now) if now.ino() != here.ino() || now.dev() != here.dev() => {
                *self = Self::open(std::mem::take(&mut self.path))?;
                self.read_lines(&mut lines).map_err(failed(&self.path))?;
            }
            Ok(now) if now.len() < self.file.stream_position().map_err(failed(&self.path))? => {
                self.rest.clear();
                self.file.rewind().map_err(failed(&self.path))?;
                self.read_lines(&mut lines).map_err(failed(&self.path))?;
            }
            // Between the move and the new file.
            _ => {}
        }
        Ok(lines)
    }

    fn read_lines(&mut self, lines: &mut Vec<String>) -> io::Result<()> {
        self.file.read_to_end(&mut self.rest)?;
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            lines.push(String::from_utf8_lossy(&line[..end]).into_owned());
        }
        Ok(())
    }
}

fn read_tail(file: &mut File) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(length.min(TAIL)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn error(path: &Path, source: io::Error) -> FileError {
    FileError { action: "read", path: path.to_owned(), source }
}

/// A line for reading: time, level, message, and the fields beside it.
fn shown(line: &str, json: bool) -> String {
    if json {
        return line.to_owned();
    }
    let Ok(mut fields) = serde_json::from_str::<Map<String, Value>>(line) else { return safe(line) };
    let mut text =
        |key: &str| fields.remove(key).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default();
    let time = text("timestamp");
    let time = DateTime::parse_from_rfc3339(&time)
        .map_or(time, |time| time.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S%.3f").to_string());
    let (level, message, _) = (text("level"), text("message"), text("target"));
    let mut shown = format!("{} {level:5} {}", safe(&time), safe(&message));
    for (key, value) in fields {
        let value = match value.as_str() {
            Some(text) if !text.contains(char::is_whitespace) => text.to_owned(),
            _ => value.to_string(),
        };
        shown.push_str(&safe(&format!("  {key}={value}")));
    }
    shown
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_line_is_time_level_message_and_fields() {
        let line = r#"{"timestamp":"t","level":"INFO","message":"Ready\u001b","mesh":"demo","pid":7,"reason":"a call","target":"x"}"#;
        assert_eq!(shown(line, false), "t INFO  Ready\u{FFFD}  mesh=demo  pid=7  reason=\"a call\"");
        assert_eq!(shown(line, true), line);
        assert_eq!(shown("panicked\u{7}", false), "panicked\u{FFFD}");
    }

    // Covers: R270
    #[test]
    fn following_survives_rotation_and_half_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.log");
        let mut file = File::create(&path).unwrap();
        file.write_all(b"one\ntwo\nthr").unwrap();
        let mut log = Log::open(path.clone()).unwrap();
        assert_eq!(log.tail().unwrap(), "one\ntwo\n");
        assert!(log.new_lines().unwrap().is_empty());
        file.write_all(b"ee\n").unwrap();
        assert_eq!(log.new_lines().unwrap(), ["three"]);
        file.write_all(b"last\n").unwrap();
        std::fs::rename(&path, dir.path().join("daemon.log.1")).unwrap();
        std::fs::write(&path, "first\n").unwrap();
        assert_eq!(log.new_lines().unwrap(), ["last", "first"]);
        // Emptied in its place, in the middle of a line.
        let mut file = File::options().append(true).open(&path).unwrap();
        file.write_all(b"more than what comes after\nhal").unwrap();
        assert_eq!(log.new_lines().unwrap(), ["more than what comes after"]);
        file.set_len(0).unwrap();
        file.write_all(b"anew\n").unwrap();
        assert_eq!(log.new_lines().unwrap(), ["anew"]);
        assert!(log.new_lines().unwrap().is_empty());
    }
}
