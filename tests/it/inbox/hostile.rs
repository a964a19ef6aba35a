//! A broker or a member that sends what it should not.

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::fake_broker::{Client, FakeBroker, push_frame};
use crate::support::keys::{self, Key, random_bytes};

async fn connected() -> (FakeBroker, Daemon, Client) {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let client = fake.link(&alice).await;
    (fake, alice, client)
}

/// The daemon still takes a good message, on the same connection.
async fn assert_alive(fake: &FakeBroker, alice: &mut Daemon, client: &mut Client, marker: &str) {
    client.push_from(&fake.bob, &format!("m-{marker}"), Some(marker), marker).await;
    alice.received(marker).await;
    alice.process().assert_running();
}

#[tokio::test]
async fn frames_that_make_no_sense_are_counted_and_passed_over() {
    let (fake, mut alice, mut client) = connected().await;
    let good = |client: &Client| {
        let own = client.hello["pubkey"].as_str().expect("pubkey").to_owned();
        let (nonce, sealed) = keys::seal(&fake.bob, &own, b"text");
        push_frame(&client.hello, &fake.bob, "m", Some("c"), &nonce, &sealed)
    };
    let mut frames = vec![
        json!({"type": "push"}),
        json!({"type": "ack"}),
        json!({"type": "ack", "id": "nobody", "messageId": "x", "queued": true}),
        json!({"type": "hello_ack"}),
        json!({"type": "feature_negotiation_response"}),
        json!({"type": "delivery_status", "client_message_id": "nobody", "state": "delivered", "at": -1}),
        json!({"type": "members_list", "members": [{"memberId": "x", "pubkey": "no key"}]}),
        json!({"type": "peers_list", "peers": "none"}),
        json!({"type": "error", "code": 7}),
        json!({"type": "nobody_knows"}),
        json!([1, 2, 3]),
        json!("text"),
        Value::Null,
    ];
    let fields = ["messageId", "senderPubkey", "nonce", "ciphertext", "meshId", "priority", "createdAt", "deliveryId"];
    for field in fields {
        for value in [Value::Null, json!(7), json!(""), json!("x".repeat(70_000)), json!({"a": [1]}), json!("\u{0}")] {
            let mut push = good(&client);
            push["client_message_id"] = json!(hex::encode(random_bytes(8)));
            push[field] = value;
            frames.push(push);
        }
    }
    for id in [json!(""), json!("x".repeat(100_000)), json!(7), json!("a\u{0}b"), json!(" ")] {
        let mut push = good(&client);
        push["client_message_id"] = id;
        frames.push(push);
    }
    for frame in &frames {
        client.send(frame).await;
    }
    assert_alive(&fake, &mut alice, &mut client, "after the noise").await;
}

/// The mesh of a message is inside the box of our own peers; a push for another
/// mesh is not ours.
#[tokio::test]
async fn a_push_of_another_mesh_is_not_stored() {
    let (fake, mut alice, mut client) = connected().await;
    let own = client.hello["pubkey"].as_str().expect("pubkey").to_owned();
    let (nonce, sealed) = keys::seal(&fake.bob, &own, b"elsewhere");
    let mut push = push_frame(&client.hello, &fake.bob, "m1", Some("c1"), &nonce, &sealed);
    push["meshId"] = json!("AnotherMesh");
    client.send(&push).await;
    assert_alive(&fake, &mut alice, &mut client, "own mesh").await;
    assert!(alice.inbox("").await.iter().all(|row| row["body"] != "elsewhere"));
}

/// What was recorded once cannot be played again under another id.
#[tokio::test]
async fn a_recorded_box_under_another_id_is_refused() {
    let (fake, mut alice, mut client) = connected().await;
    let own = client.hello["pubkey"].as_str().expect("pubkey").to_owned();
    let (nonce, sealed) = keys::seal(&fake.bob, &own, b"recorded");
    client.send(&push_frame(&client.hello, &fake.bob, "m1", Some("c1"), &nonce, &sealed)).await;
    alice.received("recorded").await;
    client.send(&push_frame(&client.hello, &fake.bob, "m2", Some("c2"), &nonce, &sealed)).await;
    client.send(&push_frame(&client.hello, &fake.bob, "m3", None, &nonce, &sealed)).await;
    assert_alive(&fake, &mut alice, &mut client, "after the replay").await;
    let recorded = alice.inbox("").await.iter().filter(|row| row["body"] == "recorded").count();
    assert_eq!(recorded, 1);
}

/// The author is whoever's key opens the box, not whom the frame names: what the broker
/// says of a key that no member has makes it a session of that member at most.
#[tokio::test]
async fn a_frame_cannot_lend_a_name() {
    let (fake, mut alice, mut client) = connected().await;
    let own = client.hello["pubkey"].as_str().expect("pubkey").to_owned();
    let stranger = Key::random();
    let (nonce, sealed) = keys::seal(&stranger, &own, b"forged");
    let mut push = push_frame(&client.hello, &fake.bob, "m1", Some("c1"), &nonce, &sealed);
    push["senderPubkey"] = json!(stranger.public());
    client.send(&push).await;
    assert_alive(&fake, &mut alice, &mut client, "after the forgery").await;
    let forged = alice.received("forged").await;
    assert_eq!(forged["sender_name"], "bob~", "{forged}");
    assert_eq!(forged["sender_member_id"], format!("key:{}", stranger.public()), "{forged}");
    let known = &forged["provenance"];
    assert_eq!((&known["pin_state"], &known["name_bound"]), (&json!("unspecified"), &json!(false)), "{forged}");
    assert!(!alice.cli(&["inbox"]).await.ok().stdout.contains("bob: forged"));
}
