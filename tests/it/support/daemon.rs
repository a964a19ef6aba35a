//! The real daemon.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use serde_json::{Value, json};

use super::broker::{Broker, read_trimmed};
use super::cli::{self, Ran};
use super::fake_broker::{Client, FakeBroker};
use super::http::{Response, Target};
use super::mesh::Mesh;
use super::process::{self, Process};
use super::sqlite::Db;
use super::{keys, wait};

/// A member with a home of its own, whose daemon runs or not.
pub(crate) struct Daemon {
    // Before its directory: a failure shows the log.
    process: Option<Process>,
    home: tempfile::TempDir,
    slug: String,
    name: String,
    environment: Vec<(String, String)>,
}

impl Daemon {
    /// Joins the mesh by an invite and starts the daemon.
    pub(crate) async fn join(broker: &Broker, mesh: &Mesh, name: &str) -> Self {
        let mut daemon = Self::joined(broker, mesh, name).await;
        daemon.start().await;
        daemon
    }

    /// Joins the mesh by an invite; the daemon does not run yet.
    pub(crate) async fn joined(broker: &Broker, mesh: &Mesh, name: &str) -> Self {
        let invite = mesh.invite(broker, 1).await;
        Self::joined_by(&invite.link(), &mesh.slug, name).await
    }

    /// Joins by a link.
    pub(crate) async fn joined_by(link: &str, slug: &str, name: &str) -> Self {
        let daemon = Self::unjoined(slug, name);
        daemon.cli(&["join", link, "--display-name", name]).await.ok();
        daemon
    }

    /// A home without any mesh.
    pub(crate) fn unjoined(slug: &str, name: &str) -> Self {
        Self {
            home: process::directory(),
            slug: slug.to_owned(),
            name: name.to_owned(),
            process: None,
            environment: Vec::new(),
        }
    }

    /// The same member on another host: a copy of the home, whose daemon does not
    /// run.
    pub(crate) fn copied(&self) -> Self {
        let copy = Self::unjoined(&self.slug, &self.name);
        let status = Command::new("cp").arg("-a").arg(self.home.path().join(".")).arg(copy.home.path()).status();
        assert!(status.expect("cp runs").success(), "the home is copied");
        copy
    }

    /// A variable of the next starts and commands.
    pub(crate) fn env(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Writes settings to `config.toml`; for the next start or a reload.
    pub(crate) fn configure(&self, toml: &str) {
        std::fs::create_dir_all(self.dir()).expect("the state directory");
        std::fs::write(self.dir().join("config.toml"), toml).expect("config.toml");
    }

    /// The command of a start in the foreground.
    pub(crate) fn command(&self) -> Command {
        self.command_of(Path::new(process::binary()))
    }

    fn command_of(&self, program: &Path) -> Command {
        let mut command = process::with_program(program, self.home.path());
        command.args(["daemon", "up", "--foreground", "--mesh", &self.slug]);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts it and waits until it answers.
    pub(crate) async fn start(&mut self) {
        let command = self.command();
        self.start_as(command).await;
    }

    /// Starts it by a command of one's own, such as a tracer around it.
    pub(crate) async fn start_as(&mut self, command: Command) {
        self.spawn(command);
        let health = self.http().get("/v1/health");
        wait::until("the daemon to answer", async || {
            self.process().assert_running();
            health.try_send().await.ok().filter(|response| response.status == 200)
        })
        .await;
    }

    /// Starts it and does not wait.
    pub(crate) fn spawn(&mut self, command: Command) {
        assert!(self.process.is_none(), "{} already runs", self.name);
        let name = format!("daemon of {}", self.name);
        self.process = Some(Process::spawn(&name, command, &self.output_file(), vec![self.dir().join("daemon.log")]));
    }

    /// Starts it where it must refuse: the exit code and what it said.
    pub(crate) async fn refused(&mut self) -> (i32, String) {
        let command = self.command();
        self.spawn(command);
        let status = self.process().wait().await;
        let said = self.process().output();
        self.process = None;
        (status.code().unwrap_or(-1), said)
    }

    /// Waits until the link to the broker is up.
    pub(crate) async fn connected(&self) {
        let health = self.http().get("/v1/health");
        wait::until("the daemon to be connected", async || {
            let response = health.try_send().await.ok()?;
            (response.status == 200 && response.json()["connected"] == true).then_some(())
        })
        .await;
    }

    /// Waits until the member of that name can be sent to.
    pub(crate) async fn knows(&self, name: &str) {
        wait::until(&format!("{} to know {name}", self.name), async || {
            let answer = self.http().get("/v1/peers?include_offline=true&limit=1000").send().await.expect(200).json();
            answer["peers"].as_array()?.iter().any(|peer| peer["display_name"] == name).then_some(())
        })
        .await;
    }

    /// The running process.
    pub(crate) fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the daemon runs")
    }

    /// SIGKILL.
    pub(crate) fn kill9(&mut self) {
        self.process().kill9();
        self.process = None;
    }

    /// Kills it and drops its link, as if the broker had gone as well, and starts
    /// both anew.
    pub(crate) async fn anew(&mut self, fake: &FakeBroker, client: Client) -> Client {
        self.kill9();
        client.drop_link();
        self.start().await;
        fake.link(self).await
    }

    /// SIGTERM, and waits for the end.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("the daemon runs");
        process.terminate();
        process.wait().await
    }

    /// Waits for an end of its own accord; the exit code.
    pub(crate) async fn ended(&mut self) -> i32 {
        let mut process = self.process.take().expect("the daemon runs");
        process.wait().await.code().unwrap_or(-1)
    }

    /// Runs a verb as this member.
    pub(crate) async fn cli(&self, arguments: &[&str]) -> Ran {
        let environment: Vec<(&str, &str)> = self.environment.iter().map(|(name, value)| (&**name, &**value)).collect();
        cli::run_with(self.home.path(), arguments, &environment).await
    }

    /// `CLAUDEMESH_HOME`.
    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    /// The state directory.
    pub(crate) fn dir(&self) -> PathBuf {
        self.home.path().join("daemon").join(&self.slug)
    }

    /// A file of the state directory.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir().join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.file("sock")
    }

    /// The local API over the socket.
    pub(crate) fn http(&self) -> Target {
        Target::unix(&self.socket())
    }

    /// The local API over TCP.
    pub(crate) fn tcp(&self) -> Target {
        Target::tcp(format!("127.0.0.1:{}", read_trimmed(&self.file("http.port"))))
    }

    pub(crate) fn token(&self) -> String {
        read_trimmed(&self.file("local_token"))
    }

    /// This member's public key.
    pub(crate) fn public(&self) -> String {
        self.config_member()["pubkey"].as_str().expect("pubkey").to_owned()
    }

    /// The member's entry in `config.json`.
    pub(crate) fn config_member(&self) -> Value {
        let text = std::fs::read_to_string(self.home.path().join("config.json")).expect("config.json");
        let config: Value = serde_json::from_str(&text).expect("config.json is JSON");
        let meshes = config["meshes"].as_array().expect("meshes").clone();
        meshes.into_iter().find(|mesh| mesh["slug"] == self.slug.as_str()).expect("the mesh is in config.json")
    }

    pub(crate) fn output_file(&self) -> PathBuf {
        self.home.path().join("daemon.out")
    }

    /// What it wrote on stdout and stderr, over all starts.
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(self.output_file()).unwrap_or_default()
    }

    /// The lines of `daemon.log`.
    pub(crate) fn log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.file("daemon.log")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }

    /// `POST /v1/send`, whatever the answer.
    pub(crate) async fn post_send(&self, body: &Value) -> Response {
        self.http().post("/v1/send", body).send().await
    }

    /// Sends, which must be taken; the client message id.
    pub(crate) async fn send(&self, to: &str, message: &str) -> String {
        let answer = self.post_send(&json!({"to": to, "message": message})).await.expect(202).json();
        answer["client_message_id"].as_str().expect("client_message_id").to_owned()
    }

    /// The inbox by `GET /v1/inbox` with these parameters, all pages.
    pub(crate) async fn inbox(&self, query: &str) -> Vec<Value> {
        let mut messages = Vec::new();
        let mut page = String::new();
        loop {
            let path = format!("/v1/inbox?limit=1000{page}&{query}");
            let body = self.http().get(&path).send().await.expect(200).json();
            messages.extend(body["messages"].as_array().unwrap_or_else(|| panic!("{body}")).clone());
            match body["next_page_token"].as_str().filter(|token| !token.is_empty()) {
                Some(token) => page = format!("&page_token={token}"),
                None => return messages,
            }
        }
    }

    /// The inbox row with this text, once it is there.
    pub(crate) async fn received(&self, text: &str) -> Value {
        wait::until(&format!("{text:?} in the inbox of {}", self.name), async || {
            self.inbox("").await.into_iter().find(|row| row["body"] == text)
        })
        .await
    }

    pub(crate) async fn outbox_db(&self) -> Db {
        Db::open(&self.file("outbox.db")).await
    }

    pub(crate) async fn inbox_db(&self) -> Db {
        Db::open(&self.file("inbox.db")).await
    }

    /// Waits until the row of this id has the status.
    pub(crate) async fn outbox_status(&self, id: &str, status: &str) -> Value {
        let db = self.outbox_db().await;
        let rest = format!("FROM outbox WHERE client_message_id = '{id}'");
        let row = wait::until(&format!("outbox row {id} to be {status}"), async || {
            let columns = "id, status, attempts, last_error, broker_message_id, delivered_at, next_attempt_at";
            db.objects(columns, &rest).await.into_iter().find(|row| row["status"] == status)
        })
        .await;
        db.close().await;
        row
    }
}

/// Two members with running daemons on one mesh. Bind every part of it: what a
/// pattern leaves out is dropped, and a broker that is dropped is dead.
pub(crate) struct Pair {
    pub(crate) broker: Broker,
    pub(crate) mesh: Mesh,
    pub(crate) alice: Daemon,
    pub(crate) bob: Daemon,
}

impl Pair {
    pub(crate) async fn start() -> Self {
        let broker = Broker::start().await;
        let mesh = Mesh::create(&broker, "demo").await;
        let alice = Daemon::join(&broker, &mesh, "alice").await;
        let bob = Daemon::join(&broker, &mesh, "bob").await;
        for daemon in [&alice, &bob] {
            daemon.connected().await;
            daemon.knows("alice").await;
            daemon.knows("bob").await;
        }
        Self { broker, mesh, alice, bob }
    }
}

/// A text that no other test uses.
pub(crate) fn unique(prefix: &str) -> String {
    format!("{prefix} {}", hex::encode(keys::random_bytes(8)))
}
