//! The real binary as a child process: a cleared environment, its output in a
//! file, killed when the test ends.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use super::wait;

/// The program under test.
pub(crate) fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_claudemesh")
}

/// A command with nothing of the caller's environment but `PATH`: a test must
/// not depend on `CI=true`, on a proxy or on the developer's own meshes.
pub(crate) fn command(root: &Path) -> Command {
    with_program(Path::new(binary()), root)
}

/// [`command`] for another program, such as a tracer around the binary.
pub(crate) fn with_program(program: &Path, root: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", root)
        .env("CLAUDEMESH_HOME", root)
        .env("RUST_BACKTRACE", "1")
        .current_dir(root)
        .stdin(Stdio::null());
    command
}

/// A child that does not outlive its owner.
pub(crate) struct Process {
    child: Child,
    name: String,
    output: PathBuf,
    /// Further files that explain a failure.
    logs: Vec<PathBuf>,
    exited: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`; its output is appended to `output`.
    pub(crate) fn spawn(name: &str, mut command: Command, output: &Path, logs: Vec<PathBuf>) -> Self {
        let file = File::options().create(true).append(true).open(output).expect("the output file opens");
        command.stdout(file.try_clone().expect("the output file is shared")).stderr(file);
        let child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { child, name: name.to_owned(), output: output.to_owned(), logs, exited: None }
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it wrote so far.
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap_or_default()
    }

    /// Whether it ended, and how.
    pub(crate) fn status(&mut self) -> Option<ExitStatus> {
        if self.exited.is_none() {
            self.exited = self.child.try_wait().expect("the child can be asked");
        }
        self.exited
    }

    /// SIGKILL, and waits for the end. No handler runs, nothing is flushed.
    pub(crate) fn kill9(&mut self) {
        if self.status().is_none() {
            let _ = self.child.kill();
            self.exited = self.child.wait().ok();
        }
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let raw = i32::try_from(self.pid()).expect("a process id fits");
        let pid = rustix::process::Pid::from_raw(raw).expect("a process id is positive");
        rustix::process::kill_process(pid, signal).expect("the child can be signalled");
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal(rustix::process::Signal::TERM);
    }

    /// Waits for the end.
    pub(crate) async fn wait(&mut self) -> ExitStatus {
        let what = format!("{} to end", self.name);
        wait::until(&what, async || self.status()).await
    }

    /// Fails if it ended.
    pub(crate) fn assert_running(&mut self) {
        if let Some(status) = self.status() {
            panic!("{} ended with {status}; it said:\n{}", self.name, self.output());
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let status = self.status();
            eprintln!("--- {} ({status:?}) said:\n{}", self.name, tail(&self.output));
            for log in &self.logs {
                eprintln!("--- {}:\n{}", log.display(), tail(log));
            }
        }
        self.kill9();
    }
}

/// The end of a file, as much as a person reads.
fn tail(path: &Path) -> String {
    let text = std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// A directory for one test, with a path short enough for Unix sockets.
pub(crate) fn directory() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("cm").tempdir_in("/tmp").expect("a temporary directory")
}
