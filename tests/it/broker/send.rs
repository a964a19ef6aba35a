//! `send`, `ack` and `push`: the shapes, for every kind of sender.

use serde_json::{Value, json};

use crate::support::keys::Key;
use crate::support::mesh::RawMesh;
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::raw::{Raw, plain_send, send_with_id};

const FINGERPRINT: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

async fn a_legacy_send_is_acked_and_pushed(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = mesh.connected("alice").await;
    let (bob, mut bob_raw) = mesh.connected("bob").await;
    let frame = plain_send(&bob.public());
    let (ack, _) = alice_raw.request(frame.clone()).await;
    assert_eq!(ack["type"], "ack");
    assert_eq!(ack["id"], "", "the sender gave none: {ack}");
    assert_eq!(ack["queued"], true, "{ack}");
    assert!(ack.get("error").is_none(), "a legacy daemon reads any error as failure: {ack}");
    let id = ack["messageId"].as_str().expect("messageId");
    assert!(!id.is_empty(), "{ack}");

    let push = bob_raw.message().await;
    assert_eq!(push["messageId"], id);
    assert_eq!(push["meshId"], mesh.mesh.id.as_str());
    for field in ["priority", "nonce", "ciphertext"] {
        assert_eq!(push[field], frame[field], "{field}");
    }
    assert_eq!(push["senderPubkey"], alice.public().as_str(), "the key that opens the box");
    assert_eq!(push["senderMemberPubkey"], alice.public().as_str());
    assert_eq!(push["senderMemberId"], alice.member_id.as_str());
    assert_eq!(push["senderName"], "alice");
    let created = push["createdAt"].as_str().expect("createdAt");
    assert!(chrono::DateTime::parse_from_rfc3339(created).is_ok(), "{created}");
    assert_eq!(push["redelivery"], false, "{push}");
    assert!(push["deliveryId"].as_str().is_some_and(|id| !id.is_empty()), "{push}");
    for absent in ["client_message_id", "request_fingerprint", "subtype", "topic"] {
        assert!(push.get(absent).is_none_or(Value::is_null), "{absent} in {push}");
    }
}

// Covers: R138
async fn the_senders_id_travels_to_the_receiver(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let (bob, mut bob_raw) = mesh.connected("bob").await;
    alice_raw.send(&send_with_id(&bob.public(), "my-id-1", FINGERPRINT)).await;
    let ack = alice_raw.expect_past_events("ack").await;
    assert_eq!(ack["id"], "my-id-1", "{ack}");
    assert_eq!(ack["duplicate"], false, "{ack}");
    assert!(ack["historyId"].as_str().is_some_and(|id| !id.is_empty()), "{ack}");
    let push = bob_raw.message().await;
    assert_eq!(push["client_message_id"], "my-id-1");
    assert_eq!(push["request_fingerprint"], FINGERPRINT);
}

async fn the_three_priorities_pass_and_others_are_refused(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let (bob, mut bob_raw) = mesh.connected("bob").await;
    for priority in ["now", "next", "low"] {
        let mut frame = plain_send(&bob.public());
        frame["priority"] = json!(priority);
        let (ack, _) = alice_raw.request(frame).await;
        assert_eq!(ack["queued"], true, "{ack}");
        assert_eq!(bob_raw.message().await["priority"], priority);
    }
    for (field, value) in [
        ("priority", json!("urgent")),
        ("nonce", json!("short")),
        ("nonce", json!("!!!not base64!!!")),
        ("ciphertext", json!("***")),
        ("targetSpec", json!("")),
    ] {
        let mut frame = plain_send(&bob.public());
        frame[field] = value;
        let (ack, _) = alice_raw.request(frame.clone()).await;
        assert_failed(&ack, "invalid", false);
    }
    // Nothing of these was stored: the next message is the next push.
    let (ack, _) = alice_raw.request(plain_send(&bob.public())).await;
    assert_eq!(bob_raw.message().await["messageId"], ack["messageId"]);
}

/// A failed ack that legacy clients and ours both understand.
#[track_caller]
fn assert_failed(ack: &Value, code: &str, retryable: bool) {
    assert_eq!(ack["type"], "ack", "{ack}");
    assert_eq!(ack["queued"], false, "{ack}");
    assert_eq!(ack["messageId"], "", "{ack}");
    assert!(ack["error"].as_str().is_some_and(|text| !text.is_empty()), "{ack}");
    assert_eq!(ack["code"], code, "{ack}");
    assert_eq!(ack["retryable"], retryable, "{ack}");
}

async fn a_known_member_that_is_away_gets_it_when_it_comes(backend: Backend) {
    // Its hello is what brings it, not the scan for lost wake-ups.
    let mesh = RawMesh::configured(backend, "[timers]\nscan_ms = 3600000\n").await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let bob = mesh.member("bob").await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        let (ack, _) = alice_raw.request(plain_send(&bob.public())).await;
        assert_eq!(ack["queued"], true, "{ack}");
        ids.push(ack["messageId"].clone());
    }
    let mut bob_raw = Raw::member(&mesh.url(), &bob).await;
    for id in ids {
        assert_eq!(bob_raw.message().await["messageId"], id, "in the order of accept");
    }
}

async fn a_key_that_nobody_has_fails_in_words_that_legacy_clients_read_as_final(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let (ack, _) = alice_raw.request(plain_send(&Key::random().public())).await;
    assert_failed(&ack, "recipient_not_found", false);
    let text = ack["error"].as_str().expect("error");
    // The member link looks for `not_found`, the session link for `target_not_found`.
    assert!(text.contains("target_not_found"), "{text}");
}

// Covers: R150
async fn meshes_do_not_reach_into_each_other(backend: Backend) {
    let mut mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = mesh.connected("alice").await;
    let other = crate::support::mesh::Mesh::create(&mesh.broker, "other").await;
    let (eve, mallory) = (other.join(&mesh.broker, "eve").await, other.join(&mesh.broker, "mallory").await);
    let mut eve_raw = Raw::member(&mesh.url(), &eve).await;
    let (ack, _) = alice_raw.request(plain_send(&eve.public())).await;
    assert_failed(&ack, "recipient_not_found", false);
    assert_eq!(alice_raw.peers().await.len(), 1);
    assert_eq!(eve_raw.peers().await.len(), 1);

    // One id in two meshes is two messages.
    let bob = mesh.member("bob").await;
    alice_raw.send(&send_with_id(&bob.public(), "same", FINGERPRINT)).await;
    let first = alice_raw.expect_past_events("ack").await;
    mesh.broker.crash().await;
    let mut eve_raw = Raw::member(&mesh.url(), &eve).await;
    let theirs = || send_with_id(&mallory.public(), "same", &FINGERPRINT.replace('0', "1"));
    eve_raw.send(&theirs()).await;
    let second = eve_raw.expect_past_events("ack").await;
    assert_eq!((&first["queued"], &second["queued"]), (&json!(true), &json!(true)), "{first} {second}");
    assert_ne!(first["messageId"], second["messageId"]);
    assert_eq!(second["duplicate"], false, "{second}");
    // Each mesh knows its own.
    mesh.broker.crash().await;
    let own = || send_with_id(&bob.public(), "same", FINGERPRINT);
    for (member, frame, sent) in [(&alice, own(), &first), (&eve, theirs(), &second)] {
        let mut raw = Raw::member(&mesh.url(), member).await;
        raw.send(&frame).await;
        let again = raw.expect_past_events("ack").await;
        assert_eq!((&again["duplicate"], &again["messageId"]), (&json!(true), &sent["messageId"]), "{again}");
    }
    for (member, sent) in [(&bob, &first), (&mallory, &second)] {
        let mut raw = Raw::member(&mesh.url(), member).await;
        assert_eq!(raw.message().await["messageId"], sent["messageId"]);
        assert_eq!(raw.answers_so_far().await, Vec::<Value>::new());
    }
}

async fn a_request_id_comes_back_on_every_kind_of_answer(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, mut raw) = mesh.connected("alice").await;
    for frame in [
        json!({"type": "list_peers"}),
        json!({"type": "member_list"}),
        json!({"type": "set_visible", "visible": true}),
        json!({"type": "set_profile", "title": "tester"}),
        plain_send(&alice.public()),
        plain_send(&Key::random().public()),
    ] {
        let (answer, _) = raw.request(frame.clone()).await;
        assert!(answer["_reqId"].is_string(), "{frame}: {answer}");
    }
}

on_both_databases! {
    a_legacy_send_is_acked_and_pushed,
    the_senders_id_travels_to_the_receiver,
    the_three_priorities_pass_and_others_are_refused,
    a_known_member_that_is_away_gets_it_when_it_comes,
    a_key_that_nobody_has_fails_in_words_that_legacy_clients_read_as_final,
    meshes_do_not_reach_into_each_other,
    a_request_id_comes_back_on_every_kind_of_answer,
}
