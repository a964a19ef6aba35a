//! Keys that are replaced while messages wait: in the outbox, on the way without
//! an answer, and at the broker.

use serde_json::Value;

use super::pinned;
use super::rotation::{follows, metric, rotate, talk};
use crate::support::broker::Broker;
use crate::support::daemon::{Daemon, unique};
use crate::support::mesh::Mesh;
use crate::support::proxy::Proxy;
use crate::support::wait;

/// Two members; the way of one of them to the broker leads over a proxy.
struct World {
    _broker: Broker,
    proxy: Proxy,
    alice: Daemon,
    bob: Daemon,
}

impl World {
    async fn with_a_proxy_before(name: &str) -> Self {
        let broker = Broker::start().await;
        let proxy = Proxy::to(broker.address()).await;
        let direct = Mesh::create(&broker, "demo").await;
        let behind = Mesh { url: proxy.url(), ..direct.clone() };
        let mesh = |who: &str| if who == name { &behind } else { &direct };
        let alice = Daemon::join(&broker, mesh("alice"), "alice").await;
        let bob = Daemon::join(&broker, mesh("bob"), "bob").await;
        for (daemon, other) in [(&alice, "bob"), (&bob, "alice")] {
            daemon.connected().await;
            daemon.knows(other).await;
        }
        Self { _broker: broker, proxy, alice, bob }
    }

    /// Cuts the way over the proxy, and waits until its member has noticed.
    async fn cut(&self, daemon: &Daemon) {
        self.proxy.cut();
        wait::until("the loss to be noticed", async || {
            let health = daemon.http().get("/v1/health").send().await.expect(200).json();
            (health["connected"] == false).then_some(())
        })
        .await;
    }
}

/// Sends so many texts; their ids and texts.
async fn send_some(alice: &Daemon, what: &str, count: usize) -> (Vec<String>, Vec<String>) {
    let (mut ids, mut texts) = (Vec::new(), Vec::new());
    for number in 0..count {
        let text = unique(&format!("{what} {number}"));
        ids.push(alice.send("bob", &text).await);
        texts.push(text);
    }
    (ids, texts)
}

/// All of them arrive, and nothing arrives twice.
async fn each_once(alice: &Daemon, bob: &Daemon, texts: &[String]) {
    for text in texts {
        bob.received(text).await;
    }
    // What was sent again is behind this one at the latest.
    let last = unique("last");
    alice.send("bob", &last).await;
    bob.received(&last).await;
    let bodies: Vec<Value> = bob.inbox("").await.into_iter().map(|row| row["body"].clone()).collect();
    for text in texts {
        assert_eq!(bodies.iter().filter(|body| *body == text).count(), 1, "{text} in {bodies:?}");
    }
}

async fn count(alice: &Daemon, condition: &str) -> i64 {
    let db = alice.outbox_db().await;
    let count = db.number(&format!("SELECT count(*) FROM outbox WHERE {condition}")).await;
    db.close().await;
    count
}

/// The key that the last frame of each send names in this field.
fn keys_named(proxy: &Proxy, ids: &[String], field: &str) -> Vec<Value> {
    let frames = proxy.client_frames("send");
    let last = |id: &String| frames.iter().rfind(|frame| frame["client_message_id"] == id.as_str());
    ids.iter().map(|id| last(id).unwrap_or_else(|| panic!("no frame of {id}"))[field].clone()).collect()
}

// Covers: D-J3
#[tokio::test]
async fn the_senders_own_rows_outlast_its_rotation() {
    let world = World::with_a_proxy_before("alice").await;
    let World { proxy, alice, bob, .. } = &world;
    // Two that the broker has under the old key, without the sender's knowledge.
    proxy.swallow(&["ack"]);
    let (mut ids, mut texts) = send_some(alice, "unanswered", 2).await;
    for (id, text) in ids.iter().zip(&texts) {
        bob.received(text).await;
        alice.outbox_status(id, "inflight").await;
    }
    // Ten that were accepted while there was no broker.
    world.cut(alice).await;
    let (more_ids, more_texts) = send_some(alice, "queued", 10).await;
    ids.extend(more_ids);
    texts.extend(more_texts);
    proxy.swallow(&["ack", "send"]);
    proxy.restore();
    alice.connected().await;
    let new = rotate(alice).await["new_pubkey"].as_str().expect("a key").to_owned();
    follows(bob, "alice", &new).await;
    assert_eq!(count(alice, "status IN ('pending', 'inflight')").await, 12, "all of them still wait");
    proxy.swallow(&[]);
    proxy.hang_up();
    each_once(alice, bob, &texts).await;
    wait::until("all to be done", async || (count(alice, "status = 'done'").await == 13).then_some(())).await;
    assert!(keys_named(proxy, &ids, "sender_key").iter().all(|key| *key == new.as_str()), "under the new key");
    talk(alice, "alice", bob, "bob").await;
}

/// What leaves before the sender has heard of the new key is refused and sealed
/// again: after a long absence the receiver may have erased the old one.
// Covers: D-J3
#[tokio::test]
async fn what_waits_at_the_sender_outlasts_a_rotation_of_the_receiver() {
    let world = World::with_a_proxy_before("alice").await;
    let World { proxy, alice, bob, .. } = &world;
    world.cut(alice).await;
    let (ids, texts) = send_some(alice, "leaves at once", 10).await;
    let old = bob.public();
    let new = rotate(bob).await["new_pubkey"].as_str().expect("a key").to_owned();
    assert_eq!(pinned(alice, "bob").await["pubkey"], old.as_str(), "the sender has not heard of it");
    proxy.restore();
    each_once(alice, bob, &texts).await;
    assert!(keys_named(proxy, &ids, "recipient_key").iter().all(|key| *key == new.as_str()), "for the new key");
    assert_eq!(metric(bob, "cm_daemon_decrypt_archived_total").await, 0.0);

    world.cut(alice).await;
    let (ids, texts) = send_some(alice, "leaves later", 10).await;
    let new = rotate(bob).await["new_pubkey"].as_str().expect("a key").to_owned();
    let opened_by_old_keys = metric(bob, "cm_daemon_decrypt_archived_total").await;
    proxy.swallow(&["send"]);
    proxy.restore();
    follows(alice, "bob", &new).await;
    proxy.swallow(&[]);
    proxy.hang_up();
    each_once(alice, bob, &texts).await;
    assert!(keys_named(proxy, &ids, "recipient_key").iter().all(|key| *key == new.as_str()), "for the new key");
    assert_eq!(metric(bob, "cm_daemon_decrypt_archived_total").await, opened_by_old_keys);
}

/// The broker has the new key and the receiver, who is stopped, does not know
/// that: as far as a rotation can come while its member is away.
// Covers: D-J3
#[tokio::test]
async fn what_waits_at_the_broker_under_both_keys_of_an_absent_receiver_is_opened() {
    let mut world = World::with_a_proxy_before("bob").await;
    let World { proxy, alice, bob, .. } = &world;
    let old = bob.public();
    proxy.swallow(&["push", "member_rotated"]);
    let (ids, mut texts) = send_some(alice, "for the old key", 5).await;
    for id in &ids {
        alice.outbox_status(id, "done").await;
    }
    let asked = bob.cli(&["daemon", "rotate-keypair"]);
    let lost = async {
        let told = wait::until("the sender to hear of the new key", async || {
            Some(pinned(alice, "bob").await["pubkey"].clone()).filter(|key| *key != old.as_str())
        })
        .await;
        proxy.cut();
        told
    };
    let (answer, new) = tokio::join!(asked, lost);
    assert!(answer.exits(1).stderr.contains("broker_unreachable"));
    world.bob.stop().await;
    let World { proxy, alice, bob, .. } = &world;
    assert_eq!(bob.public(), old);
    let (ids, more) = send_some(alice, "for the new key", 5).await;
    for id in &ids {
        alice.outbox_status(id, "done").await;
    }
    texts.extend(more);
    assert_eq!(bob.inbox_db().await.number("SELECT count(*) FROM inbox").await, 0, "all of it is at the broker");
    proxy.swallow(&[]);
    proxy.restore();
    world.bob.start().await;
    let World { alice, bob, .. } = &world;
    each_once(alice, bob, &texts).await;
    assert_eq!(bob.public(), new.as_str().expect("a key"));
    assert_eq!(metric(bob, "cm_daemon_decrypt_archived_total").await, 5.0, "five were sealed for the old key");
    talk(alice, "alice", bob, "bob").await;
}
