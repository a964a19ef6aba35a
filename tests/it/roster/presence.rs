//! Who is online, and when that is not known.

use serde_json::{Value, json};

use super::{peer, sees};
use crate::support::broker::Broker;
use crate::support::daemon::Daemon;
use crate::support::fake_broker::FakeBroker;
use crate::support::keys::Key;
use crate::support::mesh::Mesh;
use crate::support::proxy::Proxy;
use crate::support::wait;

struct Rig {
    _broker: Broker,
    proxy: Proxy,
    alice: Daemon,
    _bob: Daemon,
}

/// Alice by a link that can be cut, and bob.
async fn rig() -> Rig {
    let broker = Broker::start().await;
    let proxy = Proxy::to(broker.address()).await;
    let mesh = Mesh::create(&broker, "demo").await;
    let mut at_proxy = mesh.clone();
    at_proxy.url = proxy.url();
    let alice = Daemon::join(&broker, &at_proxy, "alice").await;
    let bob = Daemon::join(&broker, &mesh, "bob").await;
    sees(&alice, "bob", "bob there", |bob| bob["online"] == true).await;
    Rig { _broker: broker, proxy, alice, _bob: bob }
}

async fn names(daemon: &Daemon, query: &str) -> Vec<Value> {
    let answer = daemon.http().get(&format!("/v1/peers?{query}")).send().await.expect(200).json();
    answer["peers"].as_array().expect("peers").iter().map(|peer| peer["display_name"].clone()).collect()
}

async fn cut(rig: &Rig) {
    rig.proxy.cut();
    sees(&rig.alice, "alice", "alice without a link", |own| own["online"] == false).await;
}

#[tokio::test]
async fn an_outage_leaves_the_list_and_says_that_nothing_is_known() {
    let rig = rig().await;
    let send = json!({"to": "bob", "message": "hi"});
    assert_eq!(rig.alice.post_send(&send).await.expect(202).json()["recipient_online"], true);
    assert_eq!(names(&rig.alice, "").await, ["alice", "bob"]);
    cut(&rig).await;
    let bob = peer(&rig.alice, "bob").await.expect("bob");
    assert_eq!(bob.get("online"), None, "{bob}");
    assert_eq!(bob["sessions"].as_array().map(Vec::len), Some(1), "as last known: {bob}");
    // Oneself is known to be away; of bob it is not known.
    assert_eq!(names(&rig.alice, "").await, ["bob"]);
    assert_eq!(names(&rig.alice, "include_offline=true").await, ["alice", "bob"]);
    let answer = rig.alice.post_send(&send).await.expect(202).json();
    assert_eq!(answer.get("recipient_online"), None, "{answer}");
    let list = rig.alice.cli(&["peer", "list", "--online"]).await.ok();
    let row = list.stdout.lines().find(|line| line.starts_with("bob ")).unwrap_or_else(|| panic!("{}", list.stdout));
    assert!(row.contains("unknown"), "{row}");
    assert!(list.stderr.contains("who is online is not known"), "{}", list.stderr);
    rig.proxy.restore();
    sees(&rig.alice, "bob", "bob there again", |bob| bob["online"] == true).await;
    assert_eq!(names(&rig.alice, "").await, ["alice", "bob"]);
}

#[tokio::test]
async fn nothing_is_known_after_a_reconnect_until_the_broker_has_told() {
    let rig = rig().await;
    cut(&rig).await;
    rig.proxy.swallow(&["peers_list"]);
    rig.proxy.restore();
    sees(&rig.alice, "alice", "alice with a link", |own| own["online"] == true).await;
    // The list was asked for and has not come.
    wait::until("the question", async || (rig.proxy.client_frames("list_peers").len() > 1).then_some(())).await;
    let bob = peer(&rig.alice, "bob").await.expect("bob");
    assert_eq!(bob.get("online"), None, "what was told over the last link says nothing of now: {bob}");
    let answer = rig.alice.post_send(&json!({"to": "bob", "message": "hi"})).await.expect(202).json();
    assert_eq!(answer.get("recipient_online"), None, "{answer}");
    let note = rig.alice.cli(&["peer", "list"]).await.ok().stderr;
    assert!(note.contains("who is online is not known; the broker has not said yet"), "{note}");
}

#[tokio::test]
async fn a_start_without_a_broker_knows_nobody_and_lists_everybody() {
    let Rig { _broker, proxy, mut alice, _bob } = rig().await;
    proxy.cut();
    alice.kill9();
    alice.start().await;
    assert_eq!(names(&alice, "").await, ["bob"]);
    let bob = peer(&alice, "bob").await.expect("bob");
    assert_eq!((bob.get("online"), bob["status"].as_str()), (None, Some("unspecified")), "{bob}");
}

fn presence_event(id: &str, event: &str, name: &str, key: &str) -> Value {
    json!({
        "type": "push", "messageId": id, "meshId": "FakeMesh", "senderPubkey": "system", "priority": "low", "nonce": "",
        "ciphertext": "", "createdAt": "2026-01-01T00:00:00.000Z", "subtype": "system", "event": event,
        "eventData": {"name": name, "pubkey": key},
    })
}

#[tokio::test]
async fn a_newcomer_is_told_with_its_id_once_a_list_has_it() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let mut events = alice.http().get("/v1/events?types=peer_join").stream().await;
    let mut client = fake.link(&alice).await;
    let carol = Key::random().public();
    client.carol = Some(carol.clone());
    client.send(&presence_event("n1", "peer_joined", "carol", &carol)).await;
    client.roster().await;
    let joined = events.next_of("peer_join").await.json()["peer_join"].clone();
    assert_eq!((&joined["display_name"], &joined["member_id"]), (&json!("carol"), &json!("member-carol")), "{joined}");
}

/// Whether a list had it or not.
#[tokio::test]
async fn a_newcomer_comes_before_it_goes() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let mut events = alice.http().get("/v1/events?types=peer_join,peer_leave").stream().await;
    let mut client = fake.link(&alice).await;
    let stranger = "77".repeat(32);
    for (id, event) in [("n1", "peer_joined"), ("n2", "peer_left")] {
        client.send(&presence_event(id, event, "dora", &stranger)).await;
    }
    let mut kinds = Vec::new();
    while kinds.len() < 2 {
        let event = events.next().await.expect("an event");
        let kind = event.kind.clone().unwrap_or_default();
        if kind.starts_with("peer_") {
            assert_eq!(event.json()[kind.as_str()]["display_name"], "dora", "{event:?}");
            kinds.push(kind);
        }
    }
    assert_eq!(kinds, ["peer_join", "peer_leave"]);
}
