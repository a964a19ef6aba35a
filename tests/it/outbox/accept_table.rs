//! Every state of an id, asked again with the same and with another request,
//! of a daemon that started anew in between.

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::fake_broker::{Client, FakeBroker};
use crate::support::http::Response;

const ID: &str = "the-id";

fn request(message: &str) -> Value {
    json!({"to": "bob", "message": message, "client_message_id": ID})
}

/// A daemon whose id [`ID`] is queued, and its link.
async fn queued() -> (FakeBroker, Daemon, Client) {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let client = fake.link(&alice).await;
    alice.post_send(&request("first")).await.expect(202);
    (fake, alice, client)
}

/// A refusal of another request under a known id.
#[track_caller]
fn assert_conflict(answer: Response, code: &str) -> Value {
    let answer = answer.expect(409);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{:?}", answer.headers);
    let problem = answer.json();
    assert_eq!(problem["code"], code, "{problem}");
    assert_eq!(problem["status"], 409, "{problem}");
    let metadata = &problem["metadata"];
    assert_eq!(metadata["client_message_id"], ID, "{problem}");
    let fingerprint = metadata["fingerprint"].as_str().unwrap_or_default();
    assert!(fingerprint.len() == 16 && fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit()), "{problem}");
    problem
}

/// One row, unchanged since.
async fn rows(alice: &Daemon) -> Vec<Value> {
    let db = alice.outbox_db().await;
    let rows = db.objects("client_message_id, status, CAST(payload AS TEXT), dead_reason", "FROM outbox").await;
    db.close().await;
    rows
}

// Covers: R151
#[tokio::test]
async fn none_then_pending() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    fake.link(&alice).await.drop_link();
    drop(fake);
    let first = alice.post_send(&request("first")).await.expect(202).json();
    assert_eq!((&first["status"], &first["client_message_id"]), (&json!("queued"), &json!(ID)), "{first}");
    alice.kill9();
    alice.start().await;
    let again = alice.post_send(&request("first")).await.expect(202).json();
    assert_eq!(again["status"], "queued", "{again}");
    assert_eq!(again["queued_at"], first["queued_at"], "it is the first request's row");
    assert_conflict(alice.post_send(&request("other")).await, "outbox_pending_fingerprint_mismatch");
    let rows = rows(&alice).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(rows[0]["status"], "pending");
}

#[tokio::test]
async fn inflight() {
    let (fake, mut alice, mut client) = queued().await;
    client.expect("send").await;
    alice.outbox_status(ID, "inflight").await;
    let mut client = alice.anew(&fake, client).await;
    client.expect("send").await;
    alice.outbox_status(ID, "inflight").await;
    let again = alice.post_send(&request("first")).await.expect(202).json();
    assert_eq!(again["status"], "inflight", "{again}");
    assert_conflict(alice.post_send(&request("other")).await, "outbox_inflight_fingerprint_mismatch");
    assert_eq!(rows(&alice).await.len(), 1);
}

// Covers: R151
#[tokio::test]
async fn done() {
    let (fake, mut alice, mut client) = queued().await;
    let send = client.expect("send").await;
    client.ack(&send, "broker-1").await;
    alice.outbox_status(ID, "done").await;
    let mut client = alice.anew(&fake, client).await;
    let again = alice.post_send(&request("first")).await.expect(200).json();
    assert_eq!(again["duplicate"], true, "{again}");
    assert_eq!(again["broker_message_id"], "broker-1", "{again}");
    assert_eq!(again["history_id"], "broker-1", "{again}");
    let problem = assert_conflict(alice.post_send(&request("other")).await, "outbox_done_fingerprint_mismatch");
    assert_eq!(problem["metadata"]["broker_message_id"], "broker-1", "{problem}");
    // The broker was not asked again.
    let later = client.frames_within(std::time::Duration::from_millis(300)).await;
    assert!(later.iter().all(|frame| frame["type"] != "send"), "{later:?}");
}

#[tokio::test]
async fn dead() {
    let (fake, mut alice, mut client) = queued().await;
    let send = client.expect("send").await;
    let refusal = json!({
        "type": "ack", "id": send["id"], "messageId": "", "queued": false,
        "error": "forbidden: not allowed here", "code": "forbidden", "retryable": false,
    });
    client.send(&refusal).await;
    alice.outbox_status(ID, "dead").await;
    let _client = alice.anew(&fake, client).await;
    let problem = assert_conflict(alice.post_send(&request("first")).await, "outbox_dead_fingerprint_match");
    assert!(problem.to_string().contains("forbidden"), "the reason is told: {problem}");
    assert_conflict(alice.post_send(&request("other")).await, "outbox_dead_fingerprint_mismatch");
    assert_eq!(rows(&alice).await.len(), 1);
}

#[tokio::test]
async fn aborted() {
    let (fake, mut alice, mut client) = queued().await;
    client.expect("send").await;
    alice.stop().await;
    let db = alice.outbox_db().await;
    db.run("UPDATE outbox SET status = 'aborted', aborted_at = 1, aborted_by = 'operator'").await;
    db.close().await;
    alice.start().await;
    let _client = fake.link(&alice).await;
    assert_conflict(alice.post_send(&request("first")).await, "outbox_aborted_fingerprint_match");
    assert_conflict(alice.post_send(&request("other")).await, "outbox_aborted_fingerprint_mismatch");
    assert_eq!(rows(&alice).await.len(), 1);
}

/// What makes a request another one, and what does not.
#[tokio::test]
async fn every_field_of_a_request_counts() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    fake.link(&alice).await.drop_link();
    drop(fake);
    let first = json!({
        "to": "bob", "message": "text", "client_message_id": ID, "priority": "next",
        "meta": {"a": 1, "b": {"c": [1, 2]}}, "reply_to_id": "earlier",
    });
    alice.post_send(&first).await.expect(202);
    alice.kill9();
    alice.start().await;
    for (field, value) in [
        ("message", json!("text ")),
        ("priority", json!("now")),
        ("meta", json!({"a": 2, "b": {"c": [1, 2]}})),
        ("meta", json!({})),
        ("reply_to_id", json!("another")),
        ("reply_to_id", json!("")),
    ] {
        let mut other = first.clone();
        other[field] = value;
        assert_conflict(alice.post_send(&other).await, "outbox_pending_fingerprint_mismatch");
    }
    // Spelled otherwise, but the same.
    let same = r#"{"meta":{"b":{"c":[1,2]},"a":1.0},"replyToId":"earlier","message":"text","to":"bob","client_message_id":"the-id"}"#;
    let request = alice.http().request("POST", "/v1/send").header("Content-Type", "application/json").body(same);
    request.send().await.expect(202);
}

/// A known id is answered before anything is resolved.
#[tokio::test]
async fn a_finished_send_is_answered_though_its_destination_is_gone() {
    let (fake, mut alice, mut client) = queued().await;
    let send = client.expect("send").await;
    client.ack(&send, "broker-1").await;
    alice.outbox_status(ID, "done").await;
    let _client = alice.anew(&fake, client).await;
    let mut gone = request("first");
    gone["to"] = json!("nobody-of-that-name");
    assert_conflict(alice.post_send(&gone).await, "outbox_done_fingerprint_mismatch");
    gone["client_message_id"] = json!("fresh");
    let refused = alice.post_send(&gone).await.expect(404).json();
    assert_eq!(refused["code"], "unknown_peer", "{refused}");
    // A refused request uses no id.
    alice.post_send(&json!({"to": "bob", "message": "x", "client_message_id": "fresh"})).await.expect(202);
}
