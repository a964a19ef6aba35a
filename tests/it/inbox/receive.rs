//! From a push to a row, an acknowledgement and an event.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Pair, unique};
use crate::support::fake_broker::{Client, FakeBroker};
use crate::support::keys::{self, Key};
use crate::support::raw::Raw;

async fn connected() -> (FakeBroker, Daemon, Client) {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let client = fake.link(&alice).await;
    (fake, alice, client)
}

/// The value of a metric whose line holds this label.
async fn metric(daemon: &Daemon, name: &str, label: &str) -> f64 {
    let text = daemon.http().get("/v1/metrics").send().await.expect(200).text();
    let line = text.lines().find(|line| line.starts_with(name) && line.contains(label));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
}

// Covers: R90, R138
#[tokio::test]
async fn every_field_of_a_send_reaches_the_receiver() {
    let Pair { broker: _broker, alice, bob, mesh, .. } = Pair::start().await;
    let mut events = bob.http().get("/v1/events").stream().await;
    let text = unique("full of fields: ünïcode \u{1f600} \"quotes\" \\ and\nlines");
    let body = json!({
        "to": "bob", "message": text, "priority": "now", "reply_to_id": "earlier-id", "client_message_id": "own-id",
        "meta": {"number": 1.5, "list": [1, "two", null, true], "nested": {"ä": "ö"}},
    });
    alice.post_send(&body).await.expect(202);
    let row = bob.received(&text).await;
    assert_eq!(row["client_message_id"], "own-id");
    assert_eq!(row["priority"], "now");
    assert_eq!(row["reply_to_id"], "earlier-id");
    assert_eq!(row["meta"], body["meta"]);
    assert_eq!(row["kind"], "direct");
    assert_eq!(row["mesh"], mesh.slug.as_str());
    assert_eq!(row["sender_pubkey"], alice.public().as_str());
    assert_eq!(row["sender_name"], "alice");
    assert_eq!(row["unencrypted"], false);
    for time in ["sent_at", "received_at"] {
        let text = row[time].as_str().unwrap_or_else(|| panic!("{row}"));
        assert!(text.ends_with('Z') && chrono::DateTime::parse_from_rfc3339(text).is_ok(), "{text}");
    }
    let sent = alice.outbox_status("own-id", "done").await;
    assert_eq!(row["broker_message_id"], sent["broker_message_id"], "one id everywhere");

    let event = events.next_of("message").await;
    assert_eq!(event.json()["message"], row, "the event holds the same row");
    assert_eq!(event.id.as_deref(), row["event_id"].as_str());
}

/// A client that is no daemon: raw text in a box, no envelope.
#[tokio::test]
async fn a_legacy_client_is_understood_both_ways() {
    let Pair { broker, mesh, alice, .. } = Pair::start().await;
    let legacy = mesh.join(&broker, "legacy").await;
    let mut raw = Raw::member(&broker.url(), &legacy).await;
    let text = unique("from an old client");
    let (nonce, sealed) = keys::seal(&legacy.key, &alice.public(), text.as_bytes());
    let mut frame = crate::support::raw::plain_send(&alice.public());
    frame["nonce"] = json!(keys::base64(&nonce));
    frame["ciphertext"] = json!(keys::base64(&sealed));
    let (ack, _) = raw.request(frame).await;
    let row = alice.received(&text).await;
    assert_eq!(row["sender_pubkey"], legacy.public().as_str());
    assert_eq!(row["sender_name"], "legacy");
    assert_eq!(row["client_message_id"], format!("b:{}", ack["messageId"].as_str().expect("an id")));

    // Back: raw text, and the caller is told what the receiver cannot know.
    let back = unique("to an old client");
    let answer = alice.post_send(&json!({"to": "legacy", "message": back, "meta": {"a": 1}})).await.expect(202).json();
    let push = raw.message().await;
    let field = |name: &str| keys::from_base64(push[name].as_str().expect("base64"));
    let opened = keys::open(&legacy.key, &alice.public(), &field("nonce"), &field("ciphertext"));
    assert_eq!(opened, Some(back.into_bytes()));
    assert!(answer["degraded"].as_array().is_some_and(|lost| lost.contains(&json!("meta"))), "{answer}");
}

/// The second copy comes to a daemon that reads what it knows from its disk, over
/// the link of a broker that started anew; the third to the same process.
// Covers: R139, R175, R176, R178
#[tokio::test]
async fn a_message_that_comes_twice_is_stored_told_and_counted_once() {
    let (fake, mut alice, mut client) = connected().await;
    let mut events = alice.http().get("/v1/events").stream().await;
    let own = client.hello["pubkey"].as_str().expect("pubkey").to_owned();
    let (nonce, sealed) = keys::seal(&fake.bob, &own, b"twice");
    let mut before = f64::NAN;
    for (delivery, id) in ["d1", "d2", "d3"].iter().zip(["m1", "m1", "m1"]) {
        if *delivery == "d2" {
            let event = events.next_of("message").await;
            assert_eq!(event.json()["message"]["body"], "twice");
            client = alice.anew(&fake, client).await;
            before = metric(&alice, "cm_daemon_dedupe_total{", "direction=\"in\"").await;
            let after = event.id.expect("a stored message has an id");
            events = alice.http().get("/v1/events").header("Last-Event-ID", &after).stream().await;
        }
        let mut push =
            crate::support::fake_broker::push_frame(&client.hello, &fake.bob, id, Some("same-id"), &nonce, &sealed);
        push["deliveryId"] = json!(delivery);
        client.send(&push).await;
        // Every copy is acknowledged, or it would come back for ever.
        let ack = client.expect("client_ack").await;
        assert_eq!(ack["deliveryId"], *delivery, "{ack}");
        assert_eq!(ack["state"], "stored", "{ack}");
    }
    client.push_from(&fake.bob, "m2", Some("other-id"), "next").await;
    client.expect("client_ack").await;
    let rows = alice.inbox("").await;
    let bodies: Vec<&Value> = rows.iter().map(|row| &row["body"]).collect();
    assert_eq!(bodies, [&json!("twice"), &json!("next")]);
    assert_eq!(events.next_of("message").await.json()["message"]["body"], "next", "no event for a repeat");
    let counted = metric(&alice, "cm_daemon_dedupe_total{", "direction=\"in\"").await;
    assert_eq!(counted - before, 2.0, "two repeats");
}

/// One message of many is not taken by the database.
#[tokio::test]
async fn a_message_that_cannot_be_stored_is_set_aside_and_holds_up_no_other() {
    let (fake, alice, mut client) = connected().await;
    let mut events = alice.http().get("/v1/events").stream().await;
    let db = alice.inbox_db().await;
    db.run("CREATE TRIGGER refuse BEFORE INSERT ON inbox WHEN NEW.body = 'bad' BEGIN SELECT RAISE(ABORT, 'no'); END")
        .await;
    let texts = ["one", "two", "bad", "three", "four"];
    for text in texts {
        client.push_from(&fake.bob, &format!("m-{text}"), Some(&format!("c-{text}")), text).await;
    }
    let mut states = std::collections::HashMap::new();
    while states.len() < texts.len() {
        let ack = client.expect("client_ack").await;
        let id = ack["brokerMessageId"].as_str().unwrap_or_else(|| panic!("{ack}")).to_owned();
        states.insert(id, ack["state"].as_str().map(str::to_owned));
    }
    for text in texts {
        let state = if text == "bad" { "quarantined" } else { "stored" };
        assert_eq!(states[&format!("m-{text}")].as_deref(), Some(state), "{states:?}");
    }
    for text in ["one", "two", "three", "four"] {
        assert_eq!(events.next_of("message").await.json()["message"]["body"], text);
    }
    assert_eq!(db.texts("SELECT reason FROM inbox_quarantine").await, ["not_storable"]);
    db.close().await;
}

/// As after a commit whose answer was lost.
#[tokio::test]
async fn a_row_that_the_daemon_does_not_know_of_takes_no_place_of_another() {
    let (fake, alice, mut client) = connected().await;
    client.push_from(&fake.bob, "m1", Some("c1"), "first").await;
    client.expect("client_ack").await;
    let mut events = alice.http().get("/v1/events").stream().await;
    let db = alice.inbox_db().await;
    db.run("CREATE TEMP TABLE copied AS SELECT * FROM inbox").await;
    db.run("UPDATE copied SET id = 'unheard', seq = seq + 1, client_message_id = 'c-unheard', body = 'unheard'").await;
    db.run("INSERT INTO inbox SELECT * FROM copied").await;
    db.close().await;
    client.push_from(&fake.bob, "m2", Some("c2"), "second").await;
    assert_eq!(client.expect("client_ack").await["state"], "stored");
    for text in ["unheard", "second"] {
        assert_eq!(events.next_of("message").await.json()["message"]["body"], text);
    }
    let rows = alice.inbox("").await;
    assert_eq!(rows.iter().map(|row| &row["body"]).collect::<Vec<_>>(), ["first", "unheard", "second"]);
}

/// Two members may choose the same id; neither hides the other's message.
#[tokio::test]
async fn an_id_is_the_senders_own() {
    let Pair { broker, mesh, alice, bob } = Pair::start().await;
    let carol = Daemon::join(&broker, &mesh, "carol").await;
    carol.knows("bob").await;
    for (daemon, text) in [(&alice, "from alice"), (&carol, "from carol")] {
        let body = json!({"to": "bob", "message": text, "client_message_id": "shared-id"});
        daemon.post_send(&body).await.expect(202);
        bob.received(text).await;
    }
    assert_eq!(bob.inbox("").await.len(), 2);
}

/// The acknowledgement says "it is on disk": nothing is acknowledged before.
#[tokio::test]
async fn an_acknowledged_message_survives_a_kill() {
    let (fake, mut alice, mut client) = connected().await;
    for number in 0..10 {
        client
            .push_from(&fake.bob, &format!("m{number}"), Some(&format!("c{number}")), &format!("text {number}"))
            .await;
        client.expect("client_ack").await;
        alice.kill9();
        let db = alice.inbox_db().await;
        assert_eq!(db.number(&format!("SELECT count(*) FROM inbox WHERE client_message_id = 'c{number}'")).await, 1);
        db.close().await;
        alice.start().await;
        client = fake.connect().await;
    }
}

#[tokio::test]
async fn a_broadcast_of_a_legacy_client_is_stored_and_marked() {
    let Pair { broker, mesh, alice, bob } = Pair::start().await;
    let legacy = mesh.join(&broker, "legacy").await;
    let mut raw = Raw::member(&broker.url(), &legacy).await;
    let text = unique("to everybody");
    let mut frame = crate::support::raw::plain_send("*");
    frame["ciphertext"] = json!(keys::base64(text.as_bytes()));
    raw.request(frame).await;
    for daemon in [&alice, &bob] {
        let row = daemon.received(&text).await;
        assert_eq!((&row["kind"], &row["unencrypted"]), (&json!("broadcast"), &json!(true)), "{row}");
    }
}

/// A direct message that does not open is not shown as if it had.
#[tokio::test]
async fn a_box_that_does_not_open_is_never_text() {
    let (fake, alice, mut client) = connected().await;
    let own = client.hello["pubkey"].as_str().expect("pubkey").to_owned();
    let (nonce, sealed) = keys::seal(&Key::random(), &own, b"by a stranger");
    let frames = [
        // Sealed by another key than the frame says.
        crate::support::fake_broker::push_frame(&client.hello, &fake.bob, "m1", Some("c1"), &nonce, &sealed),
        // No box at all, but readable as base64.
        crate::support::fake_broker::push_frame(&client.hello, &fake.bob, "m2", Some("c2"), &[0; 24], b"plain text"),
        // Shorter than a box can be.
        crate::support::fake_broker::push_frame(&client.hello, &fake.bob, "m3", Some("c3"), &nonce, b"x"),
    ];
    for frame in &frames {
        client.send(frame).await;
    }
    client.push_from(&fake.bob, "m4", Some("c4"), "good").await;
    alice.received("good").await;
    assert_eq!(alice.inbox("").await.len(), 1);
    let db = alice.inbox_db().await;
    assert_eq!(db.number("SELECT count(*) FROM inbox WHERE client_message_id IN ('c1', 'c2', 'c3')").await, 0);
    db.close().await;
    alice.http().get("/v1/health").send().await.expect(200);
    let rest = client.frames_within(Duration::from_millis(100)).await;
    assert!(rest.iter().all(|frame| frame["state"] != "stored" || frame["deliveryId"] == "m4"), "{rest:?}");
}
