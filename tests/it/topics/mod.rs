//! Topics between real daemons: who gets what is posted, and who may read it.

mod filters;
mod keys;
mod late;
mod legacy;
mod outcomes;
mod posts;
mod subscriptions;

use serde_json::{Value, json};

use crate::support::broker::Broker;
use crate::support::daemon::Daemon;
use crate::support::http::Response;
use crate::support::wait;

/// Three members with running daemons: the mesh's creator, one whom its owner
/// certified, and one who joined with a plain link. Bind every part of it.
pub(crate) struct Trio {
    pub(crate) broker: Broker,
    pub(crate) alice: Daemon,
    pub(crate) bob: Daemon,
    pub(crate) carol: Daemon,
}

impl Trio {
    async fn start() -> Self {
        let broker = Broker::start().await;
        let url = broker.url();
        Self::through(broker, &url).await
    }

    /// The creator reaches the broker by this URL.
    async fn through(broker: Broker, url: &str) -> Self {
        let mut alice = Daemon::unjoined("demo", "alice");
        let token = broker.admin_token_file().display().to_string();
        let create =
            ["mesh", "create", "demo", "--broker", url, "--admin-token-file", &token, "--display-name", "alice"];
        alice.cli(&create).await.ok();
        let mut bob = Daemon::joined_by(&link(&alice, &[]).await, "demo", "bob").await;
        let mut carol = Daemon::joined_by(&link(&alice, &["--plain"]).await, "demo", "carol").await;
        for daemon in [&mut alice, &mut bob, &mut carol] {
            daemon.configure("[reconnect]\ninitial_backoff_ms = 50\nmax_backoff_ms = 400\n");
            daemon.start().await;
        }
        for daemon in [&alice, &bob, &carol] {
            daemon.connected().await;
            for name in ["alice", "bob", "carol"] {
                daemon.knows(name).await;
            }
        }
        Self { broker, alice, bob, carol }
    }

    /// With the topic `ops` of alice, which bob reads too.
    pub(crate) async fn with_ops() -> Self {
        let trio = Self::start().await;
        create(&trio.alice, "ops").await;
        subscribe(&trio.bob, "ops").await;
        has_key(&trio.bob, "ops").await;
        trio
    }
}

async fn link(owner: &Daemon, more: &[&str]) -> String {
    owner.cli(&[&["mesh", "invite", "demo"], more].concat()).await.ok().stdout.trim().to_owned()
}

async fn create(daemon: &Daemon, name: &str) -> Value {
    daemon.http().post("/v1/topic/create", &json!({"topic": name})).send().await.expect(200).json()
}

async fn subscribe(daemon: &Daemon, name: &str) -> Value {
    daemon.http().post("/v1/topic/subscribe", &json!({"topic": name})).send().await.expect(200).json()
}

async fn unsubscribe(daemon: &Daemon, name: &str) -> Value {
    daemon.http().post("/v1/topic/unsubscribe", &json!({"topic": name})).send().await.expect(200).json()
}

/// A topic as a daemon lists it.
async fn topic(daemon: &Daemon, name: &str) -> Option<Value> {
    let list = daemon.http().get("/v1/topic/list?limit=1000").send().await.expect(200).json();
    list["topics"].as_array().unwrap_or_else(|| panic!("{list}")).iter().find(|topic| topic["name"] == name).cloned()
}

async fn becomes(daemon: &Daemon, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    wait::until(&format!("#{name} {what}"), async || topic(daemon, name).await.filter(|topic| is(topic))).await
}

async fn has_key(daemon: &Daemon, name: &str) -> Value {
    becomes(daemon, name, "to have a key", |topic| topic["waiting_for_key"] == false && topic["subscribed"] == true)
        .await
}

/// `POST /v1/topic/post`, whatever the answer.
async fn try_post(daemon: &Daemon, body: &Value) -> Response {
    daemon.http().post("/v1/topic/post", body).send().await
}

/// Posts, which must be taken; the client message id.
async fn post(daemon: &Daemon, name: &str, message: &str) -> String {
    let answer = try_post(daemon, &json!({"topic": name, "message": message})).await.expect(202).json();
    answer["client_message_id"].as_str().expect("client_message_id").to_owned()
}

/// How many messages of this text a daemon has.
async fn count(daemon: &Daemon, text: &str) -> usize {
    daemon.inbox("").await.iter().filter(|row| row["body"] == text).count()
}
