//! A broker that lies about members, and members that lie about names.

use serde_json::{Value, json};

use super::{capabilities, pinned, rotation};
use crate::support::broker::Broker;
use crate::support::daemon::{Daemon, Pair, unique};
use crate::support::fake_broker::{Client, FakeBroker};
use crate::support::keys::{self, Key};
use crate::support::raw::Raw;
use crate::support::sqlite::Db;
use crate::support::wait;

/// What our own envelopes begin with, never valid UTF-8.
const ENVELOPE: [u8; 4] = [0xFF, 0x43, 0x4D, 0x33];

async fn linked() -> (FakeBroker, Daemon, Client) {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let client = fake.link(&alice).await;
    (fake, alice, client)
}

/// The plain bytes of a send, opened with the receiver's key.
fn opened(send: &Value, to: &Key, own: &str) -> Option<Vec<u8>> {
    let bytes = |field: &str| keys::from_base64(send[field].as_str().expect("base64"));
    keys::open(to, own, &bytes("nonce"), &bytes("ciphertext"))
}

#[tokio::test]
async fn a_swapped_key_stops_sends_until_the_operator_accepts_it() {
    let (fake, alice, mut client) = linked().await;
    let mut events = alice.http().get("/v1/events").stream().await;
    let swapped = Key::random();
    client.bob_row = json!({"pubkey": swapped.public()});
    client.tell_roster().await;
    let told = events.next_of("member_key_changed").await.json();
    let change = &told["member_key_changed"];
    assert_eq!(change["pinned_pubkey"], fake.bob.public(), "{told}");
    assert_eq!(change["shown_pubkey"], swapped.public(), "{told}");
    let refused = alice.post_send(&json!({"to": "bob", "message": "no"})).await.expect(409).json();
    assert_eq!(refused["code"], "member_key_changed", "{refused}");

    // Both keys are shown, and only the one that is shown can be accepted.
    let seen = alice.cli(&["verify", "bob"]).await.ok();
    for key in [fake.bob.public(), swapped.public()] {
        assert!(seen.stdout.contains(&key), "{}", seen.all());
    }
    let wrong = alice.cli(&["verify", "bob", "--accept=0123456789abcdef"]).await.exits(1);
    assert!(wrong.stderr.contains("no_pending_change"), "{}", wrong.all());
    alice.cli(&["verify", "bob", "--confirm"]).await.exits(5);
    assert_eq!(pinned(&alice, "bob").await["pubkey"], fake.bob.public());
    let accepted = alice.cli(&["verify", "bob", "--accept"]).await.ok();
    assert!(accepted.stdout.contains(&fake.bob.public()) && accepted.stdout.contains(&swapped.public()));
    assert_eq!(pinned(&alice, "bob").await["pubkey"], swapped.public());
    let text = unique("for the accepted key");
    alice.send("bob", &text).await;
    let send = client.expect("send").await;
    assert_eq!(send["targetSpec"], swapped.public(), "{send}");
    let own = client.hello["pubkey"].as_str().expect("pubkey");
    assert_eq!(opened(&send, &swapped, own).as_deref(), Some(text.as_bytes()));
}

#[tokio::test]
async fn a_hidden_capability_is_told_and_changes_nothing() {
    let (fake, alice, mut client) = linked().await;
    let mut events = alice.http().get("/v1/events").stream().await;
    client.bob_row = json!({"capabilities": capabilities(&fake.bob, &["envelope_v3"])});
    client.tell_roster().await;
    wait::until("the capability", async || {
        (pinned(&alice, "bob").await["capabilities"] == json!(["envelope_v3"])).then_some(())
    })
    .await;
    // Hidden altogether, then replaced by a statement of somebody else.
    for row in [json!({}), json!({"capabilities": capabilities(&Key::random(), &[])})] {
        client.bob_row = row;
        client.tell_roster().await;
        let send_id = alice.send("bob", "still sealed").await;
        let send = client.expect("send").await;
        let own = client.hello["pubkey"].as_str().expect("pubkey").to_owned();
        let plain = opened(&send, &fake.bob, &own).expect("bob opens it");
        assert!(plain.starts_with(&ENVELOPE), "no weaker form");
        client.ack(&send, &send_id).await;
    }
    let told = events.next_of("peer_feature_downgrade").await.json();
    let change = &told["peer_feature_downgrade"];
    assert_eq!((&change["member_id"], &change["display_name"]), (&json!("member-bob"), &json!("bob")), "{told}");
    assert_eq!(change["missing_capabilities"], json!(["envelope_v3"]), "{told}");
}

#[tokio::test]
async fn a_signed_chain_is_followed_and_a_fork_is_not() {
    let (fake, alice, mut client) = linked().await;
    let mut events = alice.http().get("/v1/events").stream().await;
    let (second, third, other) = (Key::random(), Key::random(), Key::random());
    let chain = [rotation("member-bob", 1, &fake.bob, &second), rotation("member-bob", 2, &second, &third)];
    client.bob_row = json!({"pubkey": third.public(), "rotations": chain});
    client.tell_roster().await;
    let told = events.next_of("member_keypair_rotated").await.json();
    let change = &told["member_keypair_rotated"];
    assert_eq!((&change["old_pubkey"], &change["new_pubkey"]), (&json!(fake.bob.public()), &json!(third.public())));
    assert_eq!(pinned(&alice, "bob").await["rotated_out_pubkeys"], json!([second.public(), fake.bob.public()]));
    alice.send("bob", "to the newest key").await;
    let send = client.expect("send").await;
    assert_eq!(send["targetSpec"], third.public());

    // Two successors of one key, a statement of a stranger, and a way back.
    let fork = [rotation("member-bob", 3, &third, &other), rotation("member-bob", 3, &third, &second)];
    let forged = [rotation("member-bob", 3, &second, &other)];
    for (pubkey, rotations) in [(&other, json!(fork)), (&other, json!(forged)), (&fake.bob, json!(chain))] {
        client.bob_row = json!({"pubkey": pubkey.public(), "rotations": rotations});
        client.tell_roster().await;
        let told = events.next_of("member_key_changed").await.json();
        assert_eq!(told["member_key_changed"]["shown_pubkey"], pubkey.public(), "{told}");
        assert_eq!(pinned(&alice, "bob").await["pubkey"], third.public());
        alice.post_send(&json!({"to": "bob", "message": "no"})).await.expect(409);
        client.bob_row = json!({"pubkey": third.public()});
        client.tell_roster().await;
        wait::until("the old state", async || (pinned(&alice, "bob").await["pin_state"] == "pinned").then_some(()))
            .await;
    }
}

/// A message under a key that was rotated out within the grace is the member's;
/// one under a key that was rotated out longer ago is nobody's.
#[tokio::test]
async fn an_old_key_of_a_sender_counts_for_the_grace() {
    let (fake, alice, mut client) = linked().await;
    let new = Key::random();
    client.bob_row = json!({"pubkey": new.public(), "rotations": [rotation("member-bob", 1, &fake.bob, &new)]});
    client.tell_roster().await;
    wait::until("the new key", async || (pinned(&alice, "bob").await["pubkey"] == new.public()).then_some(())).await;
    client.push_from(&fake.bob, "m1", Some("c1"), "sealed before").await;
    let row = alice.received("sealed before").await;
    assert_eq!(row["sender_member_id"], "member-bob", "{row}");
    // Eight days ago, as the daemon's own list has it.
    let db = alice.outbox_db().await;
    let long_ago = keys::now_ms() - 8 * 86_400_000;
    db.run(&format!(
        "UPDATE pinned_member SET previous_keys = '[{{\"key\":\"{}\",\"rotated_out_at\":{long_ago}}}]' \
         WHERE member_id = 'member-bob'",
        fake.bob.public()
    ))
    .await;
    db.close().await;
    drop(client);
    let mut alice = alice;
    alice.stop().await;
    alice.start().await;
    let mut client = fake.accept().await;
    client.bob_row = json!({"pubkey": new.public(), "rotations": [rotation("member-bob", 1, &fake.bob, &new)]});
    client.welcome().await;
    client.negotiate(crate::support::fake_broker::ALL_BITS).await;
    client.roster().await;
    client.push_from(&fake.bob, "m2", Some("c2"), "sealed too late").await;
    client.push_from(&new, "m3", Some("c3"), "sealed with the new key").await;
    alice.received("sealed with the new key").await;
    assert!(alice.inbox("").await.iter().all(|row| row["body"] != "sealed too late"));
    let db = alice.inbox_db().await;
    assert_eq!(db.texts("SELECT reason FROM inbox_quarantine").await, ["sender_key_rotated_out"]);
}

#[tokio::test]
async fn a_name_that_two_members_have_means_neither_until_it_is_accepted() {
    let Pair { broker, mesh, alice, bob } = Pair::start().await;
    let mallory = mesh.join(&broker, "mallory").await;
    let mut raw = Raw::member(&broker.url(), &mallory).await;
    alice.knows("mallory").await;
    let mut events = alice.http().get("/v1/events").stream().await;
    // Compared without case and width.
    let (answer, _) = raw.request(json!({"type": "member_rename", "displayName": "ＢＯＢ"})).await;
    assert_eq!(answer.get("error"), None, "{answer}");
    let told = events.next_of("name_binding_changed").await.json();
    assert_eq!(told["name_binding_changed"]["claiming_member_id"], mallory.member_id.as_str(), "{told}");
    let refused = alice.post_send(&json!({"to": "bob", "message": "to whom?"})).await.expect(400).json();
    assert_eq!(refused["code"], "ambiguous_peer", "{refused}");
    let named: Vec<&str> = refused["candidates"]
        .as_array()
        .expect("candidates")
        .iter()
        .filter_map(|one| one["member_id"].as_str())
        .collect();
    assert!(named.len() == 2 && named.contains(&mallory.member_id.as_str()), "{refused}");
    // What is printed of either can be sent to.
    let key = mallory.public();
    for (name, text) in
        [(format!("bob?{}", &bob.public()[..8]), "for bob"), (bob.public()[..16].to_owned(), "for bob too")]
    {
        alice.cli(&["send", &name, text]).await.ok();
        bob.received(text).await;
    }
    // Its own name is still its own.
    let answer = alice.post_send(&json!({"to": "mallory", "message": "by the old name"})).await.expect(202).json();
    assert_eq!(answer["recipient"]["member_id"], mallory.member_id.as_str(), "{answer}");
    assert_eq!(answer["recipient"]["name_bound"], false, "{answer}");
    // The operator decides, and may decide otherwise.
    let bobs = bob.public();
    alice.cli(&["verify", &bobs[..16], "--accept"]).await.ok();
    let text = unique("for the real bob");
    alice.send("bob", &text).await;
    bob.received(&text).await;
    let before = alice.cli(&["verify", &key[..16], "--json"]).await.json();
    assert_ne!(before["member"]["name_bound_to"], "", "{before}");
    alice.cli(&["verify", &key[..16], "--accept"]).await.ok();
    let answer = alice.post_send(&json!({"to": "bob", "message": "to the new bob"})).await.expect(202).json();
    assert_eq!(answer["recipient"]["member_id"], mallory.member_id.as_str(), "{answer}");
    for name in ["deadbeefdeadbeef", "a\u{202E}b", "a\u{7}", "", "eve, bob", "bob (8f1c22ab8f1c22ab)", "bob？8f1c22ab"]
    {
        let (answer, _) = raw.request(json!({"type": "member_rename", "displayName": name})).await;
        assert!(answer["error"].is_string(), "{name:?}: {answer}");
    }
}

/// Who held a name for a moment, before its true bearer came, gets nothing either.
#[tokio::test]
async fn a_name_that_was_held_before_its_bearer_came_is_asked_about() {
    let Pair { broker, mesh, alice, bob: _bob } = Pair::start().await;
    let squatter = mesh.join(&broker, "squatter").await;
    let mut raw = Raw::member(&broker.url(), &squatter).await;
    alice.knows("squatter").await;
    for name in ["zed", "squatter"] {
        let (answer, _) = raw.request(json!({"type": "member_rename", "displayName": name})).await;
        assert_eq!(answer.get("error"), None, "{answer}");
        alice.knows(name).await;
    }
    let zed = Daemon::join(&broker, &mesh, "zed").await;
    alice.knows("zed").await;
    let refused = alice.post_send(&json!({"to": "zed", "message": "the password"})).await.expect(400).json();
    assert_eq!(refused["code"], "ambiguous_peer", "{refused}");
    alice.cli(&["verify", &zed.public()[..16], "--accept"]).await.ok();
    alice.send("zed", "the password").await;
    zed.received("the password").await;
}

/// Somebody with the broker's database invents a member of bob's name.
#[tokio::test]
async fn a_ghost_in_the_brokers_database_gets_nothing() {
    let Pair { mut broker, mesh, alice, bob } = Pair::start().await;
    let mut events = alice.http().get("/v1/events").stream().await;
    broker.stop().await;
    let ghost = Key::random().public();
    insert_member(&broker, &mesh.id, "GHOST", &ghost, "bob").await;
    broker.restart().await;
    let told = events.next_of("name_binding_changed").await.json();
    assert_eq!(told["name_binding_changed"]["claiming_member_id"], "GHOST", "{told}");
    bob.connected().await;
    alice.post_send(&json!({"to": "bob", "message": "whose?"})).await.expect(400);
    alice.cli(&["verify", &bob.public()[..16], "--accept"]).await.ok();
    let text = unique("not for a ghost");
    alice.send("bob", &text).await;
    bob.received(&text).await;
    let db = Db::open(&broker.database()).await;
    assert_eq!(db.number("SELECT COUNT(*) FROM delivery WHERE recipient_member_id = 'GHOST'").await, 0);
    db.close().await;
    let shown = alice.cli(&["verify", &ghost[..16], "--json"]).await.json();
    assert_eq!((&shown["member"]["bound_name"], &shown["member"]["certified"]), (&json!(""), &json!(false)), "{shown}");
}

async fn insert_member(broker: &Broker, mesh_id: &str, id: &str, pubkey: &str, name: &str) {
    let db = Db::open(&broker.database()).await;
    let now = keys::now_ms();
    db.run(&format!(
        "INSERT INTO member (id, mesh_id, pubkey, display_name, role, joined_at) \
         VALUES ('{id}', '{mesh_id}', '{pubkey}', '{name}', 'member', {now})"
    ))
    .await;
    db.run(&format!(
        "INSERT INTO member_key (mesh_id, pubkey, member_id, seq, registered_at) \
         VALUES ('{mesh_id}', '{pubkey}', '{id}', 0, {now})"
    ))
    .await;
    db.close().await;
}
