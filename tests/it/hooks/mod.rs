//! Scripts that run for events: which, with what, and within which bounds.

mod capability;
mod confine;
mod events;
mod operate;
mod pre_send;
mod replies;
mod restart;
mod runner;
mod settings;
mod topics;

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::fake_broker::{Client, FakeBroker};
use crate::support::wait;

/// A member whose broker is the test, with hooks.
struct Rig {
    fake: FakeBroker,
    alice: Daemon,
    client: Client,
    pushed: u32,
}

impl Rig {
    /// Starts a daemon with these sections of hooks.toml and these scripts.
    async fn start(settings: &str, scripts: &[(&str, &str)]) -> Self {
        Self::with_config("", settings, scripts).await
    }

    /// The same, with a config.toml.
    async fn with_config(config: &str, settings: &str, scripts: &[(&str, &str)]) -> Self {
        let fake = FakeBroker::start().await;
        let mut alice = fake.member("alice");
        alice.configure(config);
        configure(&alice, settings);
        for (name, body) in scripts {
            script(&alice, name, body);
        }
        alice.start().await;
        let client = fake.link(&alice).await;
        Self { fake, alice, client, pushed: 0 }
    }

    /// Has bob send a message; its id.
    async fn push(&mut self, text: &str) -> String {
        self.pushed += 1;
        let id = format!("m{}", self.pushed);
        self.client.push_from(&self.fake.bob, &id, Some(&format!("c-{id}")), text).await;
        self.client.expect("client_ack").await;
        id
    }

    fn out(&self, name: &str) -> PathBuf {
        self.alice.home().join(name)
    }

    /// The content of a file that a hook writes, once it is there.
    async fn written(&self, name: &str) -> String {
        written(&self.alice, name).await
    }
}

/// The content of a file in the member's home, once it is there.
async fn written(daemon: &Daemon, name: &str) -> String {
    let path = daemon.home().join(name);
    wait::until(&format!("{name} to be written"), async || std::fs::read_to_string(&path).ok()).await
}

/// Writes hooks.toml.
pub(crate) fn configure(daemon: &Daemon, settings: &str) {
    let hooks = daemon.file("hooks");
    std::fs::create_dir_all(&hooks).expect("the hooks directory");
    std::fs::set_permissions(&hooks, std::fs::Permissions::from_mode(0o700)).expect("its mode");
    let path = hooks.join("hooks.toml");
    std::fs::write(&path, settings).expect("hooks.toml");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("its mode");
}

/// Writes a hook. In its text `OUT` stands for the member's home, where it may leave
/// files; `keep NAME` stores its input there as a whole.
pub(crate) fn script(daemon: &Daemon, name: &str, body: &str) {
    let home = daemon.home().display().to_string();
    let text = format!(
        "#!/bin/sh\nkeep() {{ cat > \"{home}/$1.part\"; mv \"{home}/$1.part\" \"{home}/$1\"; }}\n{}\n",
        body.replace("OUT", &home)
    );
    let path = daemon.file("hooks").join(format!("{name}.sh"));
    std::fs::write(&path, text).expect("a hook");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("its mode");
}

/// The ended runs, the newest first.
async fn runs(daemon: &Daemon, query: &str) -> Vec<Value> {
    let answer = daemon.http().get(&format!("/v1/hooks/runs?limit=1000&{query}")).send().await.expect(200).json();
    answer["runs"].as_array().cloned().unwrap_or_else(|| panic!("{answer}"))
}

/// The ended runs of a hook, once there are so many.
async fn ended(daemon: &Daemon, hook: &str, count: usize) -> Vec<Value> {
    wait::until(&format!("{count} runs of {hook} to end"), async || {
        Some(runs(daemon, &format!("hook={hook}")).await).filter(|runs| runs.len() >= count)
    })
    .await
}

/// The value of a metric whose line holds all of these labels.
async fn metric(daemon: &Daemon, name: &str, labels: &[&str]) -> f64 {
    let text = daemon.http().get("/v1/metrics").send().await.expect(200).text();
    let is_it = |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
    text.lines().find(is_it).and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
}

/// The lines of the log that hold a text.
fn log_lines(daemon: &Daemon, text: &str) -> Vec<Value> {
    daemon.log().into_iter().filter(|line| line["message"].as_str().is_some_and(|said| said.contains(text))).collect()
}

/// Sends through a run's socket with curl; `DATA` is the JSON body. Writes the status
/// and the answer to a file of the home.
fn curl(path: &str, data: &str, file: &str) -> String {
    format!(
        "curl -s -o OUT/{file}.body -w '%{{http_code}}' --unix-socket \"$CLAUDEMESH_DAEMON_SOCK\" \
         -H \"Authorization: Bearer $CLAUDEMESH_CAPABILITY_TOKEN\" -H 'Content-Type: application/json' \
         {} http://localhost{path} | keep {file}\n",
        if data.is_empty() { String::new() } else { format!("-d \"{data}\"") }
    )
}

/// What [`curl`] got: the status, and the answer.
async fn answered(daemon: &Daemon, file: &str) -> (String, Value) {
    let status = written(daemon, file).await;
    let body = std::fs::read_to_string(daemon.home().join(format!("{file}.body"))).unwrap_or_default();
    (status, serde_json::from_str(&body).unwrap_or(json!(body)))
}
