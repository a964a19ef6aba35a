//! `GetSend`: how far one send has come, without its text.

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Pair, unique};
use crate::support::wait;

async fn sent(daemon: &Daemon, id: &str) -> Value {
    daemon.http().get(&format!("/v1/send/{id}")).send().await.expect(200).json()
}

#[tokio::test]
async fn a_send_tells_how_far_it_is_from_queued_to_delivered() {
    let Pair { mut broker, alice, bob, .. } = Pair::start().await;
    broker.stop().await;
    let text = unique("secret");
    // An id may hold what a path gives a meaning to.
    let id = "a/b?c%#d";
    alice.post_send(&json!({"to": "bob", "message": text, "client_message_id": id})).await.expect(202);
    let path = "a%2Fb%3Fc%25%23d";
    let waiting = sent(&alice, path).await;
    assert_eq!((&waiting["client_message_id"], &waiting["status"]), (&json!(id), &json!("queued")), "{waiting}");
    assert_eq!((&waiting["recipient"]["name"], &waiting["broker_message_id"]), (&json!("bob"), &json!("")));
    assert!(waiting["queued_at"].is_string() && waiting.get("accepted_at").is_none(), "{waiting}");
    assert!(!waiting.to_string().contains(&text), "the text is not repeated");
    broker.restart().await;
    let row = bob.received(&text).await;
    let delivered = wait::until("delivered", async || {
        let answer = sent(&alice, path).await;
        (answer["status"] == "delivered").then_some(answer)
    })
    .await;
    assert_eq!(delivered["broker_message_id"], row["broker_message_id"]);
    for time in ["queued_at", "accepted_at", "delivered_at"] {
        assert!(delivered[time].is_string(), "{time}: {delivered}");
    }
    assert!(delivered["attempts"].as_u64() >= Some(1) && delivered.get("error").is_none(), "{delivered}");

    let shown = alice.cli(&["outbox", "status", id]).await.ok().stdout;
    assert!(shown.starts_with(&format!("delivered  {id}  to bob")) && shown.contains("queued"), "{shown}");
    let printed: Value =
        serde_json::from_str(&alice.cli(&["outbox", "status", id, "--json"]).await.ok().stdout).expect("JSON");
    assert_eq!(printed, delivered);
}

#[tokio::test]
async fn an_id_that_no_send_has_is_not_found() {
    let Pair { broker: _broker, alice, bob, .. } = Pair::start().await;
    let unknown = alice.http().get("/v1/send/nothing").send().await.expect(404).json();
    assert_eq!(
        (&unknown["code"], &unknown["metadata"]["client_message_id"]),
        (&json!("send_not_found"), &json!("nothing"))
    );
    let wrong = alice.http().get("/v1/send/a%20b").send().await.expect(400).json();
    assert_eq!(wrong["code"], "idempotency_key_invalid");
    // What was received is no send of one's own, and neither is what was refused.
    let id = alice.send("bob", &unique("hi")).await;
    wait::until("it to arrive", async || (!bob.inbox("").await.is_empty()).then_some(())).await;
    bob.http().get(&format!("/v1/send/{id}")).send().await.expect(404);
    alice.post_send(&json!({"to": "nobody", "message": "hi", "client_message_id": "free"})).await.expect(404);
    alice.http().get("/v1/send/free").send().await.expect(404);
    let ran = alice.cli(&["outbox", "status", "free"]).await;
    assert!(ran.code == 1 && ran.stderr.contains("send_not_found"), "{ran:?}");
}

#[tokio::test]
async fn what_was_given_up_or_retired_says_so() {
    let Pair { mut broker, mut alice, .. } = Pair::start().await;
    broker.stop().await;
    for id in ["dead", "dropped"] {
        alice.post_send(&json!({"to": "bob", "message": "x", "client_message_id": id})).await.expect(202);
    }
    alice.http().post("/v1/outbox/drop", &json!({"id": "dropped"})).send().await.expect(200);
    let dropped = sent(&alice, "dropped").await;
    assert_eq!(
        (&dropped["status"], &dropped["error"]["code"]),
        (&json!("aborted"), &json!("outbox_aborted_fingerprint_match"))
    );
    assert_eq!(dropped["error"]["metadata"]["aborted_by"], "operator");
    alice.stop().await;
    let db = alice.outbox_db().await;
    db.run("UPDATE outbox SET status = 'dead', dead_at = 1, dead_reason = 'max_age', last_error = 'too old' WHERE client_message_id = 'dead'").await;
    drop(db);
    alice.start().await;
    let dead = sent(&alice, "dead").await;
    assert_eq!(
        (&dead["status"], &dead["error"]["code"]),
        (&json!("dead"), &json!("outbox_dead_fingerprint_match")),
        "{dead}"
    );
    assert_eq!((&dead["error"]["metadata"]["reason"], &dead["last_error"]), (&json!("max_age"), &json!("too old")));
}

// Covers: R77
#[tokio::test]
async fn a_direct_message_mentions_members_too() {
    let Pair { broker: _broker, alice, bob, .. } = Pair::start().await;
    let text = unique("look");
    let body = |mentions: Value| json!({"to": "bob", "message": text, "client_message_id": "m", "mentions": mentions});
    let refused = alice.post_send(&body(json!(["nobody"]))).await.expect(404).json();
    assert_eq!(refused["code"], "unknown_peer");
    alice.post_send(&body(json!(vec!["bob"; 17]))).await.expect(400);
    alice.post_send(&body(json!(["bob", "alice"]))).await.expect(202);
    let row = bob.received(&text).await;
    let peers = bob.http().get("/v1/peers?include_offline=true").send().await.expect(200).json();
    let ids: Vec<&str> = row["mentions"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    let member = |name: &str| {
        let all = peers["peers"].as_array().expect("a list");
        all.iter().find(|peer| peer["display_name"] == name).expect("the peer")["member_id"].as_str().expect("an id")
    };
    assert_eq!(ids, [member("bob"), member("alice")], "{row}");
    // Other mentions are another request.
    let other = alice.post_send(&body(json!(["bob"]))).await.expect(409).json();
    assert!(other["code"].as_str().is_some_and(|code| code.ends_with("_fingerprint_mismatch")), "{other}");
}
