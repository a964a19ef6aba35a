//! A requeued direct message is still for one member alone, and still one
//! message: with a real broker, a third member who listens, and restarts.

use serde_json::json;

use crate::support::broker::Broker;
use crate::support::daemon::{Daemon, unique};
use crate::support::mesh::Mesh;
use crate::support::proxy::Proxy;
use crate::support::sqlite::Db;
use crate::support::wait;

struct Three {
    broker: Broker,
    proxy: Proxy,
    alice: Daemon,
    bob: Daemon,
    carol: Daemon,
}

async fn three() -> Three {
    let broker = Broker::start().await;
    let proxy = Proxy::to(broker.address()).await;
    let mesh = Mesh::create(&broker, "demo").await;
    let bob = Daemon::join(&broker, &mesh, "bob").await;
    let carol = Daemon::join(&broker, &mesh, "carol").await;
    let over = Mesh { url: proxy.url(), ..mesh };
    let alice = Daemon::join(&broker, &over, "alice").await;
    for daemon in [&alice, &bob, &carol] {
        daemon.connected().await;
    }
    alice.knows("bob").await;
    alice.knows("carol").await;
    Three { broker, proxy, alice, bob, carol }
}

/// Makes a row look like one that was given up.
async fn give_up(alice: &Daemon, id: &str) {
    let db = alice.outbox_db().await;
    let set = "status = 'dead', dead_reason = 'max_age', dead_at = 1, broker_message_id = NULL, accepted_at = NULL";
    db.run(&format!("UPDATE outbox SET {set} WHERE client_message_id = '{id}'")).await;
    db.close().await;
}

#[tokio::test]
async fn only_its_receiver_gets_it() {
    let Three { broker, proxy, mut alice, bob, carol } = three().await;
    alice.stop().await;
    alice.start().await;
    let secret = unique("for bob alone");
    let id = alice.send("bob", &secret).await;
    bob.received(&secret).await;
    alice.stop().await;
    give_up(&alice, &id).await;
    alice.start().await;
    let patched = unique("patched for bob alone");
    let body = json!({"id": id, "patched_message": patched});
    let answer = alice.http().post("/v1/outbox/requeue", &body).send().await.expect(200).json();
    let successor = answer["entry"]["client_message_id"].as_str().expect("an id").to_owned();
    bob.received(&patched).await;
    // A message for carol, accepted later, has arrived: nothing else was on its way
    // to her before it.
    let marker = unique("for carol");
    alice.send("carol", &marker).await;
    carol.received(&marker).await;
    let texts: Vec<String> = carol.inbox("").await.iter().map(|row| row["body"].to_string()).collect();
    assert_eq!(texts, [json!(marker).to_string()]);
    for frame in proxy.client_frames("send") {
        let text = frame.to_string();
        assert!(!text.contains(&secret) && !text.contains(&patched), "{text}");
        if frame["client_message_id"] == successor.as_str() {
            assert_eq!(frame["targetSpec"], bob.public().as_str(), "{text}");
        }
        assert!(frame["targetSpec"].as_str().is_some_and(|target| target.len() == 64), "{text}");
    }
    let db = Db::open(&broker.database()).await;
    let rest = format!("FROM message_queue WHERE client_message_id = '{successor}'");
    assert_eq!(db.number(&format!("SELECT count(*) {rest}")).await, 1);
    db.close().await;
}

// Covers: R168
#[tokio::test]
async fn a_requeue_of_what_the_broker_had_is_no_second_message() {
    let Three { mut broker, proxy, mut alice, mut bob, carol } = three().await;
    proxy.drop_acks(1);
    let text = unique("accepted, but nobody told");
    let id = alice.send("bob", &text).await;
    wait::until("the ack to be lost", async || (proxy.acks_dropped() == 1).then_some(())).await;
    alice.kill9();
    bob.received(&text).await;
    give_up(&alice, &id).await;
    // Everybody starts anew: what recognises the repeat is on disk.
    bob.stop().await;
    broker.stop().await;
    broker.restart().await;
    bob.start().await;
    alice.start().await;
    alice.connected().await;
    alice.cli(&["outbox", "requeue", &id]).await.ok();
    let row = alice.outbox_status(&id, "done").await;
    let db = Db::open(&broker.database()).await;
    let stored = db.texts(&format!("SELECT id FROM message_queue WHERE client_message_id = '{id}'")).await;
    assert_eq!(stored, [row["broker_message_id"].as_str().expect("an id")], "one message, and its id is told");
    db.close().await;
    let marker = unique("after it");
    alice.send("bob", &marker).await;
    bob.received(&marker).await;
    let texts: Vec<String> = bob.inbox("").await.iter().map(|row| row["body"].to_string()).collect();
    assert_eq!(texts, [json!(text).to_string(), json!(marker).to_string()]);
    assert_eq!(carol.inbox("").await.len(), 0);
}
