//! Older messages of the caller.

use serde_json::{Value, json};

use crate::support::keys::Key;
use crate::support::mesh::RawMesh;
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::raw::{Raw, plain_send};

async fn page(raw: &mut Raw, mut fields: Value) -> Value {
    fields["type"] = json!("history_get");
    raw.request(fields).await.0
}

fn ids(page: &Value) -> Vec<Value> {
    assert_eq!(page["type"], "history_page", "{page}");
    page["messages"].as_array().expect("messages").iter().map(|message| message["messageId"].clone()).collect()
}

async fn pages_go_back_over_what_was_addressed_to_the_caller_alone(backend: Backend) {
    let mut mesh = RawMesh::start(backend).await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let (_, mut carol_raw) = mesh.connected("carol").await;
    let (bob, mut bob_raw) = mesh.connected("bob").await;
    let mut sent = Vec::new();
    for n in 0..5 {
        let from = if n % 2 == 0 { &mut alice_raw } else { &mut carol_raw };
        let frame = plain_send(&bob.public());
        let (ack, _) = from.request(frame.clone()).await;
        let push = bob_raw.message().await;
        assert_eq!(push["ciphertext"], frame["ciphertext"]);
        bob_raw.send(&json!({"type": "client_ack", "deliveryId": push["deliveryId"]})).await;
        sent.push((ack["messageId"].clone(), push));
    }
    assert_eq!(ids(&page(&mut alice_raw, json!({})).await), Vec::<Value>::new(), "what one sent is no part of it");
    mesh.broker.stop().await;
    mesh.broker.restart().await;
    let mut bob_raw = Raw::member(&mesh.url(), &bob).await;
    let answer = bob_raw.negotiate(&["history"], &[]).await;
    assert_eq!((&answer["missing_required"], &answer["params"]["history"]["version"]), (&json!([]), &json!(1)));
    let first = page(&mut bob_raw, json!({"limit": 2})).await;
    assert_eq!(ids(&first), [sent[4].0.clone(), sent[3].0.clone()]);
    let row = &first["messages"][0];
    for field in ["ciphertext", "nonce", "senderPubkey", "senderMemberId", "createdAt", "deliveryId"] {
        assert_eq!(row[field], sent[4].1[field], "{field}: sealed as it came");
    }
    let second = page(&mut bob_raw, json!({"limit": 2, "before": first["nextBefore"]})).await;
    assert_eq!(ids(&second), [sent[2].0.clone(), sent[1].0.clone()]);
    let last = page(&mut bob_raw, json!({"limit": 2, "before": second["nextBefore"]})).await;
    assert_eq!((ids(&last), last.get("nextBefore")), (vec![sent[0].0.clone()], None));

    for limit in [0, 201] {
        let refused = page(&mut bob_raw, json!({"limit": limit})).await;
        assert_eq!((&refused["type"], &refused["code"]), (&json!("ack"), &json!("invalid")), "{refused}");
    }
    let topic = page(&mut bob_raw, json!({"topicId": "nowhere"})).await;
    assert_eq!(topic["code"], "topic_not_found", "{topic}");
}

async fn what_a_session_got_is_for_its_key_alone(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let bob = mesh.member("bob").await;
    let session = Key::random();
    let (mut session_raw, _) = Raw::hello(&mesh.url(), &bob.session_hello(&session)).await;
    let (ack, _) = alice_raw.request(plain_send(&session.public())).await;
    assert_eq!(session_raw.message().await["messageId"], ack["messageId"]);
    assert_eq!(ids(&page(&mut session_raw, json!({})).await), [ack["messageId"].clone()]);
    let mut member_raw = Raw::member(&mesh.url(), &bob).await;
    assert_eq!(ids(&page(&mut member_raw, json!({})).await), Vec::<Value>::new());
}

on_both_databases! {
    pages_go_back_over_what_was_addressed_to_the_caller_alone,
    what_a_session_got_is_for_its_key_alone,
}
