//! A receipt that is lost on its way to a real broker: the message comes again,
//! and everybody who has to recognise it has started anew by then.

use serde_json::{Value, json};

use crate::support::broker::Broker;
use crate::support::daemon::{Daemon, unique};
use crate::support::http::EventStream;
use crate::support::mesh::Mesh;
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::proxy::Proxy;
use crate::support::wait;

const QUICK: &str = "[reconnect]\ninitial_backoff_ms = 50\nmax_backoff_ms = 200\n";

/// Bob, whose link to the broker can be cut, and alice, whose link cannot.
struct Cuttable {
    broker: Broker,
    proxy: Proxy,
    alice: Daemon,
    bob: Daemon,
}

impl Cuttable {
    async fn start(backend: Backend) -> Self {
        let broker = Broker::on(backend).await;
        let proxy = Proxy::to(broker.address()).await;
        let mesh = Mesh::create(&broker, "demo").await;
        let over = Mesh { url: proxy.url(), ..mesh.clone() };
        let mut bob = Daemon::joined(&broker, &over, "bob").await;
        let mut alice = Daemon::joined(&broker, &mesh, "alice").await;
        for daemon in [&mut alice, &mut bob] {
            daemon.configure(QUICK);
            daemon.start().await;
            daemon.connected().await;
        }
        alice.knows("bob").await;
        bob.knows("alice").await;
        Self { broker, proxy, alice, bob }
    }

    /// The copies of this id: which of them the broker knows to be delivered.
    async fn delivered(&self, id: &str) -> Vec<bool> {
        let db = self.broker.tables().await;
        let rest = format!("FROM delivery WHERE client_message_id = '{id}'");
        let rows = db.objects("delivered_at, expired_at", &rest).await;
        db.close().await;
        assert!(rows.iter().all(|row| row["expired_at"].is_null()), "{rows:?}");
        rows.iter().map(|row| !row["delivered_at"].is_null()).collect()
    }
}

/// What bob's file holds under this id.
async fn rows(bob: &Daemon, id: &str) -> i64 {
    let db = bob.inbox_db().await;
    let rows = db.number(&format!("SELECT count(*) FROM inbox WHERE client_message_id = '{id}'")).await;
    db.close().await;
    rows
}

/// Messages that this process of bob's recognised as repeats.
async fn recognised(bob: &Daemon) -> Option<f64> {
    let text = bob.http().get("/v1/metrics").send().await.expect(200).text();
    let of = |line: &&str| line.starts_with("cm_daemon_dedupe_total{") && line.contains("direction=\"in\"");
    text.lines().find(of)?.rsplit(' ').next()?.parse().ok()
}

/// Texts of the messages of a stream, up to the one that was sent last.
async fn told_until(stream: &mut EventStream, last: &str) -> Vec<Value> {
    let mut told = Vec::new();
    while told.last() != Some(&json!(last)) {
        told.push(stream.next_of("message").await.json()["message"]["body"].clone());
    }
    told
}

// Covers: R138, R139, R176
async fn what_was_stored_but_not_acknowledged_is_stored_once_over_two_restarts(backend: Backend) {
    let mut all = Cuttable::start(backend).await;
    all.proxy.cut_at("client_ack");
    let text = unique("stored, but the broker was not told");
    let id = all.alice.send("bob", &text).await;
    wait::until("the receipt to be lost", async || (all.proxy.cuts() == 1).then_some(())).await;
    all.bob.kill9();
    all.broker.kill9();
    // What each of them has on disk, now that nobody can write any more.
    assert_eq!(rows(&all.bob, &id).await, 1, "a receipt is sent after the commit");
    assert_eq!(all.delivered(&id).await, [false], "the broker has not heard of it");

    all.broker.restart().await;
    all.bob.start().await;
    let recognised_at_first = recognised(&all.bob).await.unwrap_or(0.0);
    // What is stored, and then whatever is told from here on.
    let mut stream = all.bob.http().get("/v1/events?from_start=true").stream().await;
    all.proxy.restore();
    wait::until("the broker to know", async || (all.delivered(&id).await == [true]).then_some(())).await;
    let marker = unique("after it");
    all.alice.send("bob", &marker).await;
    all.bob.received(&marker).await;
    assert_eq!(rows(&all.bob, &id).await, 1);
    assert_eq!(told_until(&mut stream, &marker).await, [json!(text), json!(marker)]);
    let recognised = recognised(&all.bob).await;
    assert!(recognised > Some(recognised_at_first), "it did come again: {recognised:?}");

    // All receipts name the same copy: the broker made no second one.
    let mut receipts = all.proxy.client_frames("client_ack");
    receipts.retain(|frame| frame["clientMessageId"] == id.as_str());
    assert!(receipts.len() > 1, "{receipts:?}");
    let sent = all.alice.outbox_status(&id, "done").await;
    for receipt in &receipts {
        assert_eq!(receipt["deliveryId"], receipts[0]["deliveryId"], "{receipts:?}");
        assert_eq!(receipt["brokerMessageId"], sent["broker_message_id"], "{receipts:?}");
        assert_eq!(receipt["state"], "stored", "{receipts:?}");
    }
}

on_both_databases! {
    what_was_stored_but_not_acknowledged_is_stored_once_over_two_restarts,
}
