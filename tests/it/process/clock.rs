//! A host whose clock has no battery: it boots in 1970 and is set right later.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::broker::Broker;
use crate::support::daemon::{Daemon, unique};
use crate::support::mesh::Mesh;
use crate::support::proxy::Proxy;
use crate::support::{keys, tools, wait};

const DAY: i64 = 86_400_000;

/// A daemon with a past, whose next starts see the clock of a file.
struct Host {
    _broker: Broker,
    proxy: Proxy,
    alice: Daemon,
    bob: Daemon,
    clock: PathBuf,
    /// What its inbox holds.
    inbox: Vec<String>,
    /// What it has accepted and not sent.
    queued: String,
    queued_id: String,
}

impl Host {
    /// It has received, sent, rotated its key and queued, all at the right time,
    /// and is stopped. There is no way to the broker.
    async fn with_a_past() -> Self {
        let broker = Broker::start().await;
        let proxy = Proxy::to(broker.address()).await;
        let direct = Mesh::create(&broker, "demo").await;
        let behind = Mesh { url: proxy.url(), ..direct.clone() };
        let mut alice = Daemon::join(&broker, &behind, "alice").await;
        let bob = Daemon::join(&broker, &direct, "bob").await;
        for (daemon, other) in [(&alice, "bob"), (&bob, "alice")] {
            daemon.connected().await;
            daemon.knows(other).await;
        }
        let (sent, received) = (unique("sent before"), unique("received before"));
        alice.send("bob", &sent).await;
        bob.received(&sent).await;
        bob.send("alice", &received).await;
        alice.received(&received).await;
        alice.cli(&["daemon", "rotate-keypair"]).await.ok();
        wait::until("the send to be done", async || (rows(&alice, "status = 'done'").await == 1).then_some(())).await;
        alice.connected().await;
        proxy.cut();
        connected(&alice, false).await;
        let queued = unique("queued before");
        let queued_id = alice.send("bob", &queued).await;
        alice.stop().await;
        let clock = alice.home().join("clock");
        alice.env("LD_PRELOAD", &tools::faketime().display().to_string());
        alice.env("FAKETIME_TIMESTAMP_FILE", &clock.display().to_string());
        alice.env("FAKETIME_NO_CACHE", "1");
        alice.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        Self { _broker: broker, proxy, alice, bob, clock, inbox: vec![received], queued, queued_id }
    }

    fn set(&self, time: &str) {
        set(&self.clock, time);
    }
}

fn set(clock: &Path, time: &str) {
    // Not in two steps: the file is read at every look at the clock.
    let new = clock.with_extension("new");
    std::fs::write(&new, time).expect("the clock");
    std::fs::rename(new, clock).expect("the clock");
}

async fn connected(daemon: &Daemon, yes: bool) {
    wait::until(&format!("connected to be {yes}"), async || {
        let health = daemon.http().get("/v1/health").send().await.expect(200).json();
        (health["connected"] == yes).then_some(())
    })
    .await;
}

async fn rows(daemon: &Daemon, condition: &str) -> i64 {
    let db = daemon.outbox_db().await;
    let count = db.number(&format!("SELECT count(*) FROM outbox WHERE {condition}")).await;
    db.close().await;
    count
}

async fn enqueued_at(daemon: &Daemon, id: &str) -> i64 {
    let db = daemon.outbox_db().await;
    let at = db.number(&format!("SELECT enqueued_at FROM outbox WHERE client_message_id = '{id}'")).await;
    db.close().await;
    at
}

/// Codes of what `daemon status` warns of.
async fn warnings(daemon: &Daemon) -> Vec<String> {
    let status = daemon.cli(&["daemon", "status", "--mesh", "demo", "--json"]).await.ok().json();
    let warnings = status["warnings"].as_array().cloned().unwrap_or_default();
    warnings.iter().map(|warning| warning["code"].as_str().expect("a code").to_owned()).collect()
}

async fn bodies(daemon: &Daemon) -> Vec<Value> {
    daemon.inbox("").await.iter().map(|row| row["body"].clone()).collect()
}

/// Nothing was given up, removed, cleared or erased.
async fn all_is_there(host: &Host) {
    let alice = &host.alice;
    assert_eq!(bodies(alice).await, host.inbox.iter().map(|text| json!(text)).collect::<Vec<_>>());
    assert_eq!(rows(alice, "status = 'dead'").await, 0);
    assert_eq!(rows(alice, "length(payload) = 0").await, 0, "no text is cleared");
    let archive = std::fs::read_to_string(alice.file("keypair-archive.json")).expect("the rotated-out key is kept");
    let archive: Value = serde_json::from_str(&archive).expect("JSON");
    assert_eq!(archive["keys"].as_array().map(Vec::len), Some(1), "{}", archive["schema_version"]);
}

/// Starts it with a clock that shows 1970, and queues a send: its id and text.
async fn boots_in_1970(host: &mut Host) -> (String, String) {
    host.set("@1970-01-01 00:10:00");
    host.alice.start().await;
    let text = unique("queued in 1970");
    let id = host.alice.send("bob", &text).await;
    assert!(enqueued_at(&host.alice, &id).await < DAY, "the clock of the test is the daemon's");
    // Doubted before any broker is there to ask.
    assert!(warnings(&host.alice).await.contains(&"clock_not_believed".to_owned()));
    (id, text)
}

/// Both of what was queued arrive. A time far ahead of the clock is taken for half
/// a minute at a start, which a send from before the boot waits.
async fn what_was_queued_arrives(host: &Host, id: &str, text: &str) {
    wait::until_within(2 * wait::DEADLINE, "what was queued before", async || {
        bodies(&host.bob).await.contains(&json!(host.queued)).then_some(())
    })
    .await;
    host.bob.received(text).await;
    for id in [&host.queued_id, id] {
        host.alice.outbox_status(id, "done").await;
    }
}

// Covers: D-C14, D-J5
#[tokio::test]
async fn a_clock_at_1970_at_boot_gives_nothing_up_and_erases_nothing() {
    let mut host = Host::with_a_past().await;
    let (id, text) = boots_in_1970(&mut host).await;
    host.proxy.restore();
    connected(&host.alice, true).await;
    let hello = host.proxy.client_frames("hello").pop().expect("a hello");
    let said = hello["timestamp"].as_i64().expect("a time");
    assert!((said - keys::now_ms()).abs() < 60_000, "{said} is the broker's time");
    what_was_queued_arrives(&host, &id, &text).await;
    let received = unique("received in 1970");
    host.bob.send("alice", &received).await;
    host.alice.received(&received).await;
    host.inbox.push(received);
    let codes = warnings(&host.alice).await;
    for code in ["clock_offset", "clock_not_believed"] {
        assert!(codes.contains(&code.to_owned()), "{codes:?}");
    }
    let said = host.alice.cli(&["daemon", "status", "--mesh", "demo"]).await.ok();
    assert!(said.stderr.contains("this host's clock is") && said.stderr.contains("behind"), "{said:?}");
    all_is_there(&host).await;
}

/// What was queued in 1970 is not decades old when the clock is right again.
// Covers: D-C14
#[tokio::test]
async fn a_clock_that_is_set_right_makes_nothing_old() {
    let mut host = Host::with_a_past().await;
    let (id, text) = boots_in_1970(&mut host).await;
    host.set("+0");
    wait::until("the jump to be noticed", async || {
        let said = host.alice.cli(&["daemon", "status", "--mesh", "demo"]).await.ok();
        said.stderr.contains("it jumped").then_some(())
    })
    .await;
    // Each lost try for the link makes the daemon look at what is old.
    let tries = || host.alice.log().iter().filter(|line| line.to_string().contains("No link to the broker")).count();
    let before = tries();
    wait::until("two more tries", async || (tries() >= before + 2).then_some(())).await;
    all_is_there(&host).await;
    host.proxy.restore();
    connected(&host.alice, true).await;
    what_was_queued_arrives(&host, &id, &text).await;
    wait::until("the clock to be believed", async || {
        (!warnings(&host.alice).await.iter().any(|code| code.starts_with("clock"))).then_some(())
    })
    .await;
    all_is_there(&host).await;
}

/// What came in 1970 is young, and so is what was sent or queued then, to the last
/// moment before the clock is set.
// Covers: D-C14
#[tokio::test]
async fn what_came_under_the_wrong_clock_is_young_under_the_right_one() {
    let mut host = Host::with_a_past().await;
    let db = host.alice.inbox_db().await;
    let old = keys::now_ms() - 31 * DAY;
    db.run(&format!("UPDATE inbox SET received_at = {old}")).await;
    db.close().await;
    let (sent, text) = boots_in_1970(&mut host).await;
    host.proxy.restore();
    connected(&host.alice, true).await;
    host.bob.received(&text).await;
    host.alice.outbox_status(&sent, "done").await;
    let received = unique("received in 1970");
    host.bob.send("alice", &received).await;
    host.alice.received(&received).await;
    host.proxy.cut();
    connected(&host.alice, false).await;
    let last = host.alice.send("bob", "at the last moment").await;
    host.set("+0");
    host.proxy.restore();
    host.alice.outbox_status(&last, "done").await;
    // What is old by the right clock goes, and nothing else.
    wait::until("what is old to be removed", async || (bodies(&host.alice).await == [json!(received)]).then_some(()))
        .await;
    assert_eq!(rows(&host.alice, "length(payload) = 0").await, 0, "no text is cleared");
}
