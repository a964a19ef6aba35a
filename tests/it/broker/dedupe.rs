//! One id, one message: what the broker remembers.

use serde_json::{Value, json};

use crate::support::mesh::RawMesh;
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::raw::{Raw, plain_send, send_with_id};

fn fingerprint(digit: char) -> String {
    digit.to_string().repeat(64)
}

async fn acked(raw: &mut Raw, frame: &Value) -> Value {
    raw.send(frame).await;
    raw.expect_past_events("ack").await
}

async fn rows(mesh: &RawMesh, id: &str) -> i64 {
    let db = mesh.broker.tables().await;
    let count = db.number(&format!("SELECT count(*) FROM message_queue WHERE client_message_id = '{id}'")).await;
    db.close().await;
    count
}

// Covers: R137, R149
async fn a_repeated_id_is_the_same_message(backend: Backend) {
    let mut mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = mesh.connected("alice").await;
    let bob = mesh.member("bob").await;
    let first = acked(&mut alice_raw, &send_with_id(&bob.public(), "once", &fingerprint('a'))).await;
    assert_eq!(first["duplicate"], false, "{first}");
    for killed in [false, true, false, true, false] {
        if killed {
            mesh.broker.crash().await;
            alice_raw = Raw::member(&mesh.url(), &alice).await;
        }
        // Sealed anew each time, as an honest retry is.
        let again = acked(&mut alice_raw, &send_with_id(&bob.public(), "once", &fingerprint('a'))).await;
        assert_eq!(again["queued"], true, "{again}");
        assert_eq!(again["duplicate"], true, "{again}");
        assert_eq!(again["messageId"], first["messageId"]);
        assert_eq!(again["historyId"], first["historyId"]);
    }
    assert_eq!(rows(&mesh, "once").await, 1);
    // No second fan-out: the next push is the next message.
    let mut bob_raw = Raw::member(&mesh.url(), &bob).await;
    let next = acked(&mut alice_raw, &plain_send(&bob.public())).await;
    assert_eq!(bob_raw.message().await["messageId"], first["messageId"]);
    assert_eq!(bob_raw.message().await["messageId"], next["messageId"]);
}

// Covers: R137
async fn an_id_is_remembered_over_a_kill_and_over_the_delivery(backend: Backend) {
    let mut mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = mesh.connected("alice").await;
    let (bob, mut bob_raw) = mesh.connected("bob").await;
    let first = acked(&mut alice_raw, &send_with_id(&bob.public(), "once", &fingerprint('a'))).await;
    let push = bob_raw.message().await;
    bob_raw.send(&json!({"type": "client_ack", "brokerMessageId": push["messageId"]})).await;
    bob_raw.answers_so_far().await;
    mesh.broker.crash().await;
    let mut alice_raw = Raw::member(&mesh.url(), &alice).await;
    let again = acked(&mut alice_raw, &send_with_id(&bob.public(), "once", &fingerprint('a'))).await;
    assert_eq!((&again["duplicate"], &again["messageId"]), (&json!(true), &first["messageId"]), "{again}");
    let mut bob_raw = Raw::member(&mesh.url(), &bob).await;
    let next = acked(&mut alice_raw, &plain_send(&bob.public())).await;
    assert_eq!(bob_raw.message().await["messageId"], next["messageId"], "the first was settled before");
}

async fn an_id_used_for_something_else_is_refused_in_words_that_end_a_retry(backend: Backend) {
    let mut mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = mesh.connected("alice").await;
    let bob = mesh.member("bob").await;
    let first = acked(&mut alice_raw, &send_with_id(&bob.public(), "once", &fingerprint('a'))).await;
    mesh.broker.crash().await;
    let mut alice_raw = Raw::member(&mesh.url(), &alice).await;
    let other = acked(&mut alice_raw, &send_with_id(&bob.public(), "once", &fingerprint('b'))).await;
    assert_eq!(other["queued"], false, "{other}");
    assert_eq!(other["code"], "idempotency_key_reused", "{other}");
    assert_eq!(other["retryable"], false, "{other}");
    assert!(other["error"].as_str().is_some_and(|text| text.contains("invalid")), "{other}");
    assert_eq!(rows(&mesh, "once").await, 1);
    // The first bytes win, and a correct repeat still works.
    mesh.broker.crash().await;
    let mut alice_raw = Raw::member(&mesh.url(), &alice).await;
    let mut bob_raw = Raw::member(&mesh.url(), &bob).await;
    let again = acked(&mut alice_raw, &send_with_id(&bob.public(), "once", &fingerprint('a'))).await;
    assert_eq!(again["messageId"], first["messageId"], "{again}");
    assert_eq!(bob_raw.message().await["messageId"], first["messageId"]);
}

async fn without_a_fingerprint_the_envelope_is_compared(backend: Backend) {
    let mut mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = mesh.connected("alice").await;
    let bob = mesh.member("bob").await;
    let mut frame = plain_send(&bob.public());
    frame["client_message_id"] = json!("plain");
    let first = acked(&mut alice_raw, &frame).await;
    mesh.broker.crash().await;
    let mut alice_raw = Raw::member(&mesh.url(), &alice).await;
    let same = acked(&mut alice_raw, &frame).await;
    assert_eq!((&same["duplicate"], &same["messageId"]), (&json!(true), &first["messageId"]), "{same}");
    let mut other = plain_send(&bob.public());
    other["client_message_id"] = json!("plain");
    assert_eq!(acked(&mut alice_raw, &other).await["code"], "idempotency_key_reused");
}

// Covers: R150
async fn members_do_not_share_ids(backend: Backend) {
    let mut mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = mesh.connected("alice").await;
    let (carol, bob) = (mesh.member("carol").await, mesh.member("bob").await);
    let first = acked(&mut alice_raw, &send_with_id(&bob.public(), "shared", &fingerprint('a'))).await;
    mesh.broker.crash().await;
    let mut carol_raw = Raw::member(&mesh.url(), &carol).await;
    let second = acked(&mut carol_raw, &send_with_id(&bob.public(), "shared", &fingerprint('b'))).await;
    assert_eq!(second["duplicate"], false, "nobody can learn of another's id: {second}");
    assert_ne!(first["messageId"], second["messageId"]);
    // Each has its own answer to a repeat.
    mesh.broker.crash().await;
    for (member, digit, sent) in [(&alice, 'a', &first), (&carol, 'b', &second)] {
        let mut raw = Raw::member(&mesh.url(), member).await;
        let again = acked(&mut raw, &send_with_id(&bob.public(), "shared", &fingerprint(digit))).await;
        assert_eq!((&again["duplicate"], &again["messageId"]), (&json!(true), &sent["messageId"]), "{again}");
    }
    let mut bob_raw = Raw::member(&mesh.url(), &bob).await;
    assert_eq!(bob_raw.message().await["messageId"], first["messageId"]);
    assert_eq!(bob_raw.message().await["messageId"], second["messageId"]);
    assert_eq!(bob_raw.answers_so_far().await, Vec::<Value>::new(), "two messages, each once");
}

// Covers: R156
async fn sends_without_an_id_are_never_duplicates(backend: Backend) {
    let mut mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = mesh.connected("alice").await;
    let bob = mesh.member("bob").await;
    let frame = plain_send(&bob.public());
    let first = acked(&mut alice_raw, &frame).await;
    mesh.broker.crash().await;
    let mut alice_raw = Raw::member(&mesh.url(), &alice).await;
    let mut bob_raw = Raw::member(&mesh.url(), &bob).await;
    let second = acked(&mut alice_raw, &frame).await;
    assert_ne!(first["messageId"], second["messageId"]);
    assert_eq!(bob_raw.message().await["messageId"], first["messageId"]);
    assert_eq!(bob_raw.message().await["messageId"], second["messageId"]);
}

async fn a_refused_send_does_not_use_its_id(backend: Backend) {
    let mut mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = mesh.connected("alice").await;
    let bob = mesh.member("bob").await;
    let stranger = crate::support::keys::Key::random().public();
    let refused = acked(&mut alice_raw, &send_with_id(&stranger, "again", &fingerprint('a'))).await;
    assert_eq!(refused["code"], "recipient_not_found", "{refused}");
    mesh.broker.crash().await;
    let mut alice_raw = Raw::member(&mesh.url(), &alice).await;
    let taken = acked(&mut alice_raw, &send_with_id(&bob.public(), "again", &fingerprint('b'))).await;
    assert_eq!((&taken["queued"], &taken["duplicate"]), (&json!(true), &json!(false)), "{taken}");
}

// Covers: R137, R149
async fn one_id_sent_by_ten_connections_at_once_is_stored_once(backend: Backend) {
    let mut mesh = RawMesh::start(backend).await;
    let alice = mesh.member("alice").await;
    let bob = mesh.member("bob").await;
    let frame = send_with_id(&bob.public(), "race", &fingerprint('a'));
    let mut acks = Vec::new();
    // And ten times more after a kill.
    for killed in [false, true] {
        if killed {
            mesh.broker.crash().await;
        }
        let mut connections = Vec::new();
        for _ in 0..10 {
            connections.push(Raw::member(&mesh.url(), &alice).await);
        }
        for raw in &mut connections {
            raw.send(&frame).await;
        }
        for raw in &mut connections {
            acks.push(raw.expect_past_events("ack").await);
        }
    }
    assert!(acks.iter().all(|ack| ack["messageId"] == acks[0]["messageId"] && ack["queued"] == true), "{acks:?}");
    assert_eq!(acks.iter().filter(|ack| ack["duplicate"] == false).count(), 1, "{acks:?}");
    assert_eq!(rows(&mesh, "race").await, 1);
    let mut bob_raw = Raw::member(&mesh.url(), &bob).await;
    assert_eq!(bob_raw.message().await["messageId"], acks[0]["messageId"]);
    assert_eq!(bob_raw.answers_so_far().await, Vec::<Value>::new(), "one copy for twenty sends");
}

on_both_databases! {
    a_repeated_id_is_the_same_message,
    an_id_is_remembered_over_a_kill_and_over_the_delivery,
    an_id_used_for_something_else_is_refused_in_words_that_end_a_retry,
    without_a_fingerprint_the_envelope_is_compared,
    members_do_not_share_ids,
    sends_without_an_id_are_never_duplicates,
    a_refused_send_does_not_use_its_id,
    one_id_sent_by_ten_connections_at_once_is_stored_once,
}
