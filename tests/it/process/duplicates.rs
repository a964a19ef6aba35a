//! Two hosts with the key of one member: which of the two daemons stays, and how
//! the other one ends.

use serde_json::{Value, json};

use crate::support::broker::Broker;
use crate::support::daemon::{Daemon, unique};
use crate::support::fake_broker::FakeBroker;
use crate::support::mesh::Mesh;

/// A daemon that runs, another member, and a copy of the first one's home whose
/// daemon does not run yet.
struct Twins {
    _broker: Broker,
    bob: Daemon,
    original: Daemon,
    copy: Daemon,
}

impl Twins {
    async fn under(policy: &str) -> Self {
        let broker = Broker::start().await;
        let mesh = Mesh::create_with(&broker, json!({"slug": "demo", "concurrency_policy": policy})).await;
        let bob = Daemon::join(&broker, &mesh, "bob").await;
        let mut original = Daemon::join(&broker, &mesh, "alice").await;
        original.connected().await;
        original.knows("bob").await;
        // At rest, so that the copied databases are whole.
        original.stop().await;
        let copy = original.copied();
        original.start().await;
        original.connected().await;
        bob.connected().await;
        bob.knows("alice").await;
        Self { _broker: broker, bob, original, copy }
    }
}

/// Messages go both ways.
async fn works(alice: &Daemon, bob: &Daemon) {
    let (there, back) = (unique("there"), unique("back"));
    alice.send("bob", &there).await;
    bob.received(&there).await;
    bob.send("alice", &back).await;
    alice.received(&back).await;
}

async fn reconnects(daemon: &Daemon) -> Value {
    let status = daemon.cli(&["daemon", "status", "--mesh", "demo", "--json"]).await.ok().json();
    status["link"]["reconnects"].clone()
}

/// The process has ended because of the other one, and says so where it was
/// started, in its log and to whoever asks later.
async fn ended_with(daemon: &mut Daemon, code: i32, name: &str) {
    assert_eq!(daemon.ended().await, code, "{}", daemon.output());
    assert!(daemon.output().contains(name), "{}", daemon.output());
    let log = daemon.log();
    assert!(log.iter().any(|line| line.to_string().contains(name)), "{log:?}");
    let status = daemon.cli(&["daemon", "status", "--mesh", "demo"]).await.exits(3);
    assert!(status.stderr.contains(&format!("ended with exit code {code}")), "{status:?}");
    for file in ["pid", "sock", "http.port"] {
        assert!(!daemon.file(file).exists(), "{file}");
    }
}

// Covers: R68, R69
#[tokio::test]
async fn under_prefer_oldest_the_second_daemon_ends_and_the_first_is_untouched() {
    let Twins { _broker, bob, mut original, mut copy } = Twins::under("prefer_oldest").await;
    let before = reconnects(&original).await;
    let mut events = original.http().get("/v1/events").stream().await;
    let command = copy.command();
    copy.spawn(command);
    ended_with(&mut copy, 13, "member_already_connected").await;
    original.process().assert_running();
    works(&original, &bob).await;
    assert_eq!(reconnects(&original).await, before, "it has the link that it had");
    // The first thing that its subscribers hear of is the message.
    let first = events.next().await.expect("an event").json();
    assert!(first.get("daemon_disconnect").is_none(), "{first}");
    // Nor does a second try change anything.
    let command = copy.command();
    copy.spawn(command);
    ended_with(&mut copy, 13, "member_already_connected").await;
    works(&original, &bob).await;
    // When the first one is gone, the copy is welcome.
    original.stop().await;
    copy.start().await;
    copy.connected().await;
    works(&copy, &bob).await;
}

// Covers: R66, R67, R69
#[tokio::test]
async fn a_replaced_daemon_does_not_throw_out_the_one_that_replaced_it() {
    let Twins { _broker, bob, mut original, mut copy } = Twins::under("prefer_newest").await;
    copy.start().await;
    copy.connected().await;
    ended_with(&mut original, 12, "replaced_by_newer_connection").await;
    works(&copy, &bob).await;
    let before = reconnects(&copy).await;
    // However often: being refused for it does not end the yielding.
    for _ in 0..2 {
        let command = original.command();
        original.spawn(command);
        ended_with(&mut original, 13, "member_already_connected").await;
    }
    copy.process().assert_running();
    works(&copy, &bob).await;
    assert_eq!(reconnects(&copy).await, before, "it has the link that it had");
}

/// Only the hello after the end says it: once greeted, the daemon holds its
/// member as any other does.
// Covers: R67
#[tokio::test]
async fn the_first_hello_after_being_replaced_yields() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let client = fake.connect().await;
    assert_eq!(client.hello["yield"], Value::Null, "{}", client.hello);
    client.close(4003, "replaced_by_newer_connection").await;
    assert_eq!(alice.ended().await, 12, "{}", alice.output());
    let command = alice.command();
    alice.spawn(command);
    // Not before a broker has greeted it.
    fake.accept().await.drop_link();
    let client = fake.connect().await;
    assert_eq!(client.hello["yield"], true, "{}", client.hello);
    client.drop_link();
    let client = fake.connect().await;
    assert_eq!(client.hello["yield"], Value::Null, "{}", client.hello);
    alice.connected().await;
    // An ordinary end is no reason to yield.
    alice.stop().await;
    drop(client);
    alice.start().await;
    let client = fake.connect().await;
    assert_eq!(client.hello["yield"], Value::Null, "{}", client.hello);
}
