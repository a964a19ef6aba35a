//! The command line, run to its end or read while it runs.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout};

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

    /// Standard error as one JSON object in one line.
    #[track_caller]
    pub(crate) fn error(&self) -> Value {
        assert_eq!(self.stderr.lines().count(), 1, "{}", self.stderr);
        serde_json::from_str(&self.stderr).unwrap_or_else(|error| panic!("{error}: {}", self.stderr))
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

/// Runs `claudemesh` with this standard input.
pub(crate) async fn run_with_input(root: &Path, arguments: &[impl AsRef<OsStr>], input: Vec<u8>) -> Ran {
    let mut command = process::command(root);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut command = tokio::process::Command::from(command);
    let mut child = command.kill_on_drop(true).spawn().expect("the binary runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    let write = async move {
        // It may not want all of it.
        let _ = stdin.write_all(&input).await;
    };
    let both = async { tokio::join!(write, child.wait_with_output()).1 };
    Ran::of(&wait::soon("the command", both).await.expect("the binary runs"))
}

/// A command that goes on until it is dropped.
pub(crate) struct Running {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    /// Starts `claudemesh` with these arguments. Its standard error goes to the
    /// test's.
    pub(crate) fn start(root: &Path, arguments: &[&str]) -> Self {
        let mut command = process::command(root);
        command.args(arguments).stdout(Stdio::piped());
        let mut command = tokio::process::Command::from(command);
        let mut child = command.kill_on_drop(true).spawn().expect("the binary runs");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Self { _child: child, lines }
    }

    /// Its next line.
    pub(crate) async fn line(&mut self) -> String {
        wait::soon("a line", self.lines.next_line()).await.expect("the pipe is read").expect("it goes on")
    }

    /// Its next line as JSON.
    pub(crate) async fn json(&mut self) -> Value {
        let line = self.line().await;
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }
}

/// Help texts of every verb, found through the help texts themselves.
pub(crate) async fn every_help_text() -> Vec<(String, String)> {
    let home = process::directory();
    let mut open = vec![Vec::new()];
    let mut found = Vec::new();
    while let Some(verb) = open.pop() {
        let mut arguments: Vec<String> = verb.clone();
        arguments.push("--help".into());
        let text = run(home.path(), &arguments).await.ok().stdout;
        let mut in_commands = false;
        for line in text.lines() {
            if line.starts_with("Commands:") {
                in_commands = true;
            } else if !line.starts_with(' ') {
                in_commands = false;
            } else if in_commands
                && line.starts_with("  ")
                && !line.starts_with("   ")
                && let Some(name) = line.split_whitespace().next()
                && name != "help"
            {
                let mut deeper = verb.clone();
                deeper.push(name.to_owned());
                open.push(deeper);
            }
        }
        found.push((format!("claudemesh {}", verb.join(" ")).trim_end().to_owned(), text));
    }
    found
}
