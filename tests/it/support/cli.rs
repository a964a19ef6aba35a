//! The command line, run to its end.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Output;

use serde_json::Value;

use super::{process, wait};

/// What a run printed and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code().unwrap_or(-1), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Fails unless the exit code is 0.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.exits(0)
    }

    /// Fails unless the exit code is `code`.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Standard output as one JSON value.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout, self.stderr))
    }

    /// Both streams, for searching.
    pub(crate) fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs `claudemesh` with these arguments below `root`.
pub(crate) async fn run(root: &Path, arguments: &[impl AsRef<OsStr>]) -> Ran {
    run_with(root, arguments, &[]).await
}

/// Runs `claudemesh` with these arguments and more environment.
pub(crate) async fn run_with(root: &Path, arguments: &[impl AsRef<OsStr>], environment: &[(&str, &str)]) -> Ran {
    let mut command = process::command(root);
    command.args(arguments).envs(environment.iter().copied());
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    Ran::of(&wait::soon("the command", command.output()).await.expect("the binary runs"))
}
