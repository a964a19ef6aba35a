//! `claudemesh dev`, used as the test kits use it: a pipe in, a pipe out.

mod clock;
mod commands;
mod ends;
mod links;
mod ready;

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};

use crate::support::http::Target;
use crate::support::{process, wait};

/// A `claudemesh dev --json`.
struct Dev {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    stderr: ChildStderr,
    /// What its first line said.
    ready: Value,
    sent: i64,
    // Last: the directory of the mesh is made in it.
    home: tempfile::TempDir,
}

/// A member as `dev` describes it.
#[derive(Clone, Debug)]
struct Member(Value);

// === impl Dev ===

impl Dev {
    /// Starts one and reads its first line, whatever that is.
    async fn start(arguments: &[&str]) -> Self {
        let home = process::directory();
        let mut command = process::command(home.path());
        command.args(["dev", "--json"]).args(arguments);
        Self::start_as(home, command).await
    }

    /// Starts one by a command of one's own.
    async fn start_as(home: tempfile::TempDir, mut command: std::process::Command) -> Self {
        command.env("TMPDIR", home.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().expect("the binary runs");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take().expect("a pipe"));
        let first = wait::soon("the first line", lines.next_line()).await.expect("the pipe is read");
        let ready = serde_json::from_str(&first.expect("a first line")).expect("JSON");
        Self { child, stdin, lines, stderr, ready, sent: 0, home }
    }

    /// One that is ready.
    async fn ready(arguments: &[&str]) -> Self {
        let dev = Self::start(arguments).await;
        assert_eq!(dev.ready["event"], "ready", "{}", dev.ready);
        dev
    }

    /// Sends a line, and gives the answer.
    async fn line(&mut self, line: &str) -> Value {
        let stdin = self.stdin.as_mut().expect("standard input is open");
        stdin.write_all(format!("{line}\n").as_bytes()).await.expect("it reads");
        let answer = wait::soon("an answer", self.lines.next_line()).await.expect("the pipe is read");
        serde_json::from_str(&answer.expect("it goes on")).expect("JSON")
    }

    /// Sends a command, and gives the answer, which has its id.
    async fn command(&mut self, mut command: Value) -> Value {
        self.sent += 1;
        command["id"] = self.sent.into();
        let answer = self.line(&command.to_string()).await;
        assert_eq!(answer["id"], self.sent, "{answer}");
        answer
    }

    /// Sends a command that must be carried out.
    async fn ok(&mut self, command: Value) -> Value {
        let answer = self.command(command.clone()).await;
        assert_eq!(answer["ok"], true, "{command}: {answer}");
        answer
    }

    /// Does something to a member, which must be carried out.
    async fn act(&mut self, what: &str, member: &str) -> Value {
        self.ok(json!({ "do": what, "member": member })).await
    }

    /// Sends a command that must fail, with this code.
    async fn refused(&mut self, command: Value, code: &str) -> String {
        let answer = self.command(command.clone()).await;
        assert_eq!((&answer["ok"], &answer["error"]["code"]), (&json!(false), &json!(code)), "{command}: {answer}");
        answer["error"]["message"].as_str().expect("a message").to_owned()
    }

    fn member(&self, name: &str) -> Member {
        let members = self.ready["members"].as_array().expect("members");
        Member(members.iter().find(|member| member["name"] == name).expect("the member").clone())
    }

    /// The directory of the mesh.
    fn dir(&self) -> PathBuf {
        self.ready["dir"].as_str().expect("a directory").into()
    }

    /// Processes that have to do with the mesh.
    fn processes(&self) -> Vec<String> {
        let own = std::process::id().to_string();
        let dir = self.dir().display().to_string();
        processes().into_iter().filter(|pid| *pid != own && mentions(pid, &dir)).collect()
    }

    /// Waits until no process and, unless it is kept, no directory is left.
    async fn nothing_is_left(&self) {
        wait::until("all processes to end", async || self.processes().is_empty().then_some(())).await;
        wait::until("the directory to go", async || (!self.dir().exists()).then_some(())).await;
    }

    /// What is left of its output, and how it ended.
    async fn ended(&mut self) -> (String, String, Option<i32>) {
        let mut said = String::new();
        while let Some(line) = wait::soon("the last lines", self.lines.next_line()).await.expect("the pipe is read") {
            said.push_str(&line);
        }
        let mut stderr = String::new();
        wait::soon("standard error", self.stderr.read_to_string(&mut stderr)).await.expect("the pipe is read");
        let status = wait::soon("the end", self.child.wait()).await.expect("it ends");
        (said, stderr, status.code())
    }
}

// === impl Member ===

impl Member {
    fn text(&self, field: &str) -> &str {
        self.0[field].as_str().unwrap_or_else(|| panic!("{field}: {}", self.0))
    }

    fn http(&self) -> Target {
        Target::unix(Path::new(self.text("sock")))
    }

    fn pid(&self) -> String {
        self.0["pid"].to_string()
    }

    /// The state of its daemon's process, as the system tells it.
    fn state(&self) -> char {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("the process");
        let (_, rest) = stat.rsplit_once(") ").expect("a state");
        rest.chars().next().expect("a state")
    }

    async fn health(&self) -> Value {
        self.http().get("/v1/health").send().await.expect(200).json()
    }

    async fn connected(&self, yes: bool) {
        wait::until(&format!("connected to be {yes}"), async || {
            (self.health().await["connected"] == yes).then_some(())
        })
        .await;
    }

    /// Names of those that it sees online.
    async fn online(&self) -> Vec<String> {
        let answer = self.http().get("/v1/peers").send().await.expect(200).json();
        let peers = answer["peers"].as_array().expect("peers").iter();
        let online = peers.filter(|peer| peer["online"] == true);
        online.map(|peer| peer["display_name"].as_str().expect("a name").to_owned()).collect()
    }

    async fn send(&self, to: &str, text: &str) -> String {
        let answer =
            self.http().post("/v1/send", &json!({ "to": to, "message": text })).send().await.expect(202).json();
        answer["client_message_id"].as_str().expect("an id").to_owned()
    }

    /// How often a text is in the inbox.
    async fn count(&self, text: &str) -> usize {
        let answer = self.http().get("/v1/inbox?limit=1000").send().await.expect(200).json();
        answer["messages"].as_array().expect("messages").iter().filter(|row| row["body"] == text).count()
    }

    async fn received(&self, text: &str) {
        wait::until(&format!("{text:?}"), async || (self.count(text).await == 1).then_some(())).await;
    }
}

/// The ids of all processes.
fn processes() -> Vec<String> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).collect()
}

/// Whether a process that is no zombie has the text among its arguments or in its
/// environment.
fn mentions(pid: &str, text: &str) -> bool {
    ["cmdline", "environ"].iter().any(|file| {
        let content = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        String::from_utf8_lossy(&content).contains(text)
    })
}
