//! A send to oneself: in the own inbox, under the rules of every other one, and
//! never at the broker.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Pair, unique};
use crate::support::fake_broker::FakeBroker;
use crate::support::wait;

async fn rows(alice: &Daemon, id: &str) -> i64 {
    let db = alice.inbox_db().await;
    let rows = db.number(&format!("SELECT count(*) FROM inbox WHERE client_message_id = '{id}'")).await;
    db.close().await;
    rows
}

/// A member whose broker does not answer, and never did.
async fn alone() -> (FakeBroker, Daemon) {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    (fake, alice)
}

#[tokio::test]
async fn it_arrives_without_a_link_by_key_name_and_prefix() {
    let (_fake, alice) = alone().await;
    let mut events = alice.http().get("/v1/events?types=message,delivery_status").stream().await;
    let key = alice.public();
    for (number, to) in [key.as_str(), "alice", "ALICE", &key[..16], &key[..40].to_uppercase()].into_iter().enumerate()
    {
        let (id, text) = (format!("note-{number}"), unique("a note"));
        let body = json!({"to": to, "message": text, "client_message_id": id, "priority": "now",
                          "meta": {"of": "mine"}, "reply_to_id": "an-earlier-one"});
        let answer = alice.post_send(&body).await.expect(202).json();
        assert_eq!((&answer["status"], &answer["degraded"]), (&json!("queued"), &json!([])), "{answer}");
        assert_eq!(answer["recipient"]["pubkey"], key.as_str(), "{answer}");
        assert_eq!(answer["recipient_online"], true, "{answer}");

        let event = events.next_of("message").await.json();
        let message = &event["message"];
        assert_eq!((&message["body"], &message["kind"]), (&json!(text), &json!("direct")), "{event}");
        assert_eq!((&message["client_message_id"], &message["priority"]), (&json!(id), &json!("now")));
        assert_eq!((&message["meta"], &message["reply_to_id"]), (&json!({"of": "mine"}), &json!("an-earlier-one")));
        assert_eq!((&message["sender_pubkey"], &message["sender_name"]), (&json!(key), &json!("alice")));
        assert_eq!(message["broker_message_id"], "", "it has no id there: {event}");
        for state in ["accepted", "delivered"] {
            let status = events.next_of("delivery_status").await.json()["delivery_status"].clone();
            assert_eq!((&status["client_message_id"], &status["status"]), (&json!(id), &json!(state)), "{status}");
            assert_eq!(status["recipient"]["member_id"], message["sender_member_id"], "{status}");
        }
        // The rules of an id.
        let again = alice.post_send(&body).await.expect(200).json();
        assert_eq!((&again["status"], &again["duplicate"]), (&json!("accepted"), &json!(true)), "{again}");
        assert!(again["delivered_at"].is_string(), "{again}");
        let mut other = body.clone();
        other["message"] = json!("another text");
        let refused = alice.post_send(&other).await.expect(409).json();
        assert_eq!(refused["code"], "outbox_done_fingerprint_mismatch", "{refused}");
        assert_eq!(rows(&alice, &id).await, 1);
    }
    assert_eq!(alice.inbox("").await.len(), 5);
}

#[tokio::test]
async fn it_never_reaches_the_broker_and_waits_for_nobody() {
    let Pair { mut broker, alice, bob, .. } = Pair::start().await;
    let text = unique("for me");
    let done = alice.cli(&["send", "alice", &text, "--wait", "delivered", "--timeout", "20s"]).await.ok();
    assert!(done.stdout.contains("delivered"), "{}", done.all());
    alice.received(&text).await;
    let tables = broker.tables().await;
    assert_eq!(tables.number("SELECT count(*) FROM message_queue").await, 0);
    tables.close().await;

    // What waits for the broker does not hold it up.
    broker.kill9();
    let waiting = alice.send("bob", &unique("for bob")).await;
    let text = unique("for me, without a broker");
    let id = alice.send(&alice.public(), &text).await;
    alice.received(&text).await;
    alice.outbox_status(&id, "done").await;
    alice.outbox_status(&waiting, "pending").await;
    assert!(bob.inbox("").await.is_empty());
}

/// Killed at any moment after the answer, it is there once at the next start.
#[tokio::test]
async fn killed_at_any_moment_it_is_delivered_once() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    for number in 0..8_u64 {
        let id = format!("m{number}");
        alice.post_send(&json!({"to": "alice", "message": id, "client_message_id": id})).await.expect(202);
        // A little later each time: before, while and after the inbox takes it.
        tokio::time::sleep(Duration::from_micros(300 * number)).await;
        alice.kill9();
        alice.start().await;
        alice.outbox_status(&id, "done").await;
        assert_eq!(rows(&alice, &id).await, 1, "{id}");
    }
    assert_eq!(alice.inbox("").await.len(), 8);
}

/// Ended between the commits of inbox and outbox, and before either.
#[tokio::test]
async fn a_row_whose_outcome_is_not_known_is_brought_again_and_stored_once() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let text = unique("brought again");
    let body = json!({"to": "alice", "message": text, "client_message_id": "m1"});
    alice.post_send(&body).await.expect(202);
    alice.outbox_status("m1", "done").await;
    for inbox_had_it in [true, false] {
        alice.stop().await;
        let db = alice.outbox_db().await;
        db.run("UPDATE outbox SET status = 'inflight', accepted_at = NULL, receiver_stored_at = NULL").await;
        db.close().await;
        if !inbox_had_it {
            let db = alice.inbox_db().await;
            db.run("DELETE FROM inbox").await;
            db.run("DELETE FROM inbox_seen").await;
            db.close().await;
        }
        alice.start().await;
        alice.outbox_status("m1", "done").await;
        alice.received(&text).await;
        assert_eq!(rows(&alice, "m1").await, 1, "the inbox had it: {inbox_had_it}");
    }
    let again = alice.post_send(&body).await.expect(200).json();
    assert_eq!(again["duplicate"], true, "{again}");
}

/// A backlog that an earlier version queued for the broker.
#[tokio::test]
async fn what_was_queued_for_the_broker_stays_here() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let text = unique("queued before");
    alice.send("alice", &text).await;
    alice.received(&text).await;
    alice.stop().await;
    let db = alice.inbox_db().await;
    db.run("DELETE FROM inbox").await;
    db.run("DELETE FROM inbox_seen").await;
    db.close().await;
    let db = alice.outbox_db().await;
    db.run("UPDATE outbox SET status = 'pending', to_self = 0, receiver_stored_at = NULL").await;
    db.close().await;
    alice.start().await;
    let mut client = fake.link(&alice).await;
    wait::until("it to be in the inbox", async || {
        alice.inbox("").await.into_iter().find(|row| row["body"] == text.as_str())
    })
    .await;
    let to_bob = alice.send("bob", "after it").await;
    let sent = client.expect("send").await;
    assert_eq!(sent["client_message_id"], to_bob.as_str(), "{sent}");
    let sends: Vec<&Value> = client.received.iter().filter(|frame| frame["type"] == "send").collect();
    assert_eq!(sends.len(), 1, "{sends:?}");
}
