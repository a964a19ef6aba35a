//! `*` and `@group`, as legacy clients use them.

use serde_json::{Value, json};

use crate::support::keys;
use crate::support::mesh::RawMesh;
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::raw::{Raw, plain_send};

fn plain(target: &str, text: &str) -> Value {
    let mut frame = plain_send(target);
    frame["ciphertext"] = json!(keys::base64(text.as_bytes()));
    frame
}

async fn a_broadcast_reaches_every_other_member_and_no_sibling(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = mesh.connected("alice").await;
    let mut sibling = Raw::member(&mesh.url(), &alice).await;
    let (_, mut bob_raw) = mesh.connected("bob").await;
    let (_, mut carol_raw) = mesh.connected("carol").await;
    for target in ["*", "@all"] {
        let frame = plain(target, "to all");
        let (ack, _) = alice_raw.request(frame.clone()).await;
        assert_eq!(ack["queued"], true, "{ack}");
        for raw in [&mut bob_raw, &mut carol_raw] {
            let push = raw.message().await;
            assert_eq!(push["messageId"], ack["messageId"]);
            assert_eq!(push["ciphertext"], frame["ciphertext"]);
            assert_eq!(push["senderName"], "alice");
            assert_eq!(push["senderMemberPubkey"], alice.public().as_str());
        }
    }
    assert_eq!(sibling.answers_so_far().await, Vec::<Value>::new());
    assert_eq!(alice_raw.answers_so_far().await, Vec::<Value>::new());
}

async fn a_group_reaches_those_who_have_exactly_its_name(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let mut connected = Vec::new();
    for (name, groups) in
        [("bob", json!([{"name": "ops"}])), ("carol", json!([{"name": "ops/night"}])), ("dave", json!([]))]
    {
        let member = mesh.member(name).await;
        let mut hello = member.hello();
        hello["groups"] = groups;
        connected.push(Raw::hello(&mesh.url(), &hello).await.0);
    }
    let (ack, _) = alice_raw.request(plain("@ops", "to ops")).await;
    assert_eq!(ack["queued"], true, "{ack}");
    let (marker, _) = alice_raw.request(plain("*", "to all")).await;
    assert_eq!(connected[0].message().await["messageId"], ack["messageId"]);
    for raw in &mut connected {
        assert_eq!(raw.message().await["messageId"], marker["messageId"]);
    }
}

async fn a_hidden_peer_gets_no_broadcast_but_its_direct_messages(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let (bob, mut bob_raw) = mesh.connected("bob").await;
    bob_raw.request(json!({"type": "set_visible", "visible": false})).await;
    alice_raw.request(plain("*", "to all")).await;
    let (direct, _) = alice_raw.request(plain_send(&bob.public())).await;
    assert_eq!(bob_raw.message().await["messageId"], direct["messageId"]);
}

on_both_databases! {
    a_broadcast_reaches_every_other_member_and_no_sibling,
    a_group_reaches_those_who_have_exactly_its_name,
    a_hidden_peer_gets_no_broadcast_but_its_direct_messages,
}
