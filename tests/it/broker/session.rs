//! `session_hello`: sessions of a member with keys of their own.

use serde_json::{Value, json};

use crate::support::keys::{Key, now_ms};
use crate::support::mesh::RawMesh;
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::raw::{Raw, plain_send};

#[track_caller]
fn refused(url: String, hello: Value, code: &'static str) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let mut raw = Raw::connect(&url).await;
        raw.send(&hello).await;
        let error = raw.expect("error").await;
        assert_eq!(error["code"], code, "{caller}: {error}");
        raw.expect_close(1008, code).await;
    }
}

fn with(mut hello: Value, field: &str, value: Value) -> Value {
    hello[field] = value;
    hello
}

const HOUR: i64 = 3_600_000;

async fn a_session_speaks_for_its_member_under_its_own_key(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = mesh.connected("alice").await;
    let (_, mut bob_raw) = mesh.connected("bob").await;
    let session = Key::random();
    let (mut raw, ack) = Raw::hello(&mesh.url(), &alice.session_hello(&session)).await;
    assert!(ack["presenceId"].is_string() && ack["memberDisplayName"].is_string(), "{ack}");

    let rows = bob_raw.peers().await;
    let row = rows.iter().find(|row| row["pubkey"] == session.public().as_str()).expect("the session is listed");
    assert_eq!(row["memberPubkey"], alice.public().as_str());
    assert_eq!(row["peerRole"], "session");
    assert_eq!(row["displayName"], "alice-session");
    let parent = rows.iter().find(|row| row["pubkey"] == alice.public().as_str()).expect("the member is listed");
    assert_eq!(parent["peerRole"], "control-plane");

    // A message to the session's key reaches the session alone.
    let (ack, _) = bob_raw.request(plain_send(&session.public())).await;
    assert_eq!(ack["queued"], true, "{ack}");
    assert_eq!(raw.message().await["messageId"], ack["messageId"]);
    assert_eq!(alice_raw.answers_so_far().await, Vec::<Value>::new());

    // What the session sends is shown under its key.
    let bob_key = bob_raw.peers().await[1]["memberPubkey"].as_str().expect("a key").to_owned();
    let (ack, _) = raw.request(plain_send(&bob_key)).await;
    assert_eq!(ack["queued"], true, "{ack}");
    let push = bob_raw.message().await;
    assert_eq!(push["senderPubkey"], session.public().as_str());
    assert_eq!(push["senderMemberPubkey"], alice.public().as_str());
}

async fn the_parent_id_is_optional(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let alice = mesh.member("alice").await;
    let mut hello = alice.session_hello(&Key::random());
    hello.as_object_mut().expect("an object").remove("parentMemberId");
    Raw::hello(&mesh.url(), &hello).await;
}

async fn a_session_that_connects_again_replaces_itself(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let alice = mesh.member("alice").await;
    let session = Key::random();
    let (mut first, _) = Raw::hello(&mesh.url(), &alice.session_hello(&session)).await;
    let (mut second, _) = Raw::hello(&mesh.url(), &alice.session_hello(&session)).await;
    first.expect_close(1000, "session_replaced").await;
    assert_eq!(second.peers().await.len(), 1);
}

async fn each_fault_of_a_session_hello_has_its_code(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (url, alice, bob) = (mesh.url(), mesh.member("alice").await, mesh.member("bob").await);
    let session = Key::random();
    let hello = || alice.session_hello(&session);
    let now = now_ms();

    refused(url.clone(), with(hello(), "sessionPubkey", json!(session.public().to_uppercase())), "bad_session_pubkey")
        .await;
    refused(
        url.clone(),
        with(hello(), "parentMemberPubkey", json!(alice.public().to_uppercase())),
        "bad_parent_pubkey",
    )
    .await;

    let other = alice.attestation(&Key::random(), now + HOUR);
    refused(url.clone(), with(hello(), "parentAttestation", other), "attestation_mismatch").await;
    let of_bob = bob.attestation(&session, now + HOUR);
    refused(url.clone(), with(hello(), "parentAttestation", of_bob), "attestation_mismatch").await;

    refused(url.clone(), with(hello(), "parentAttestation", alice.attestation(&session, now - 1000)), "expired").await;
    let long = alice.attestation(&session, now + 25 * HOUR);
    refused(url.clone(), with(hello(), "parentAttestation", long), "ttl_too_long").await;

    let mut forged = alice.attestation(&session, now + HOUR);
    forged["signature"] = bob.attestation(&session, now + HOUR)["signature"].clone();
    refused(url.clone(), with(hello(), "parentAttestation", forged), "bad_signature").await;

    let signed_by_member = alice.key.sign("claudemesh-session-hello");
    refused(url.clone(), with(hello(), "signature", json!(signed_by_member)), "bad_signature").await;

    let wrong_parent = with(hello(), "parentMemberId", json!(bob.member_id));
    refused(url.clone(), wrong_parent, "parent_member_id_mismatch").await;

    let stranger = crate::support::raw::Member { key: Key::random(), ..alice.clone() };
    refused(url.clone(), stranger.session_hello(&session), "unauthorized").await;

    let late = now - 61_000;
    let signed = format!("claudemesh-session-hello|{}|{}|{}|{late}", alice.mesh_id, alice.public(), session.public());
    let late = with(with(hello(), "timestamp", json!(late)), "signature", json!(session.sign(&signed)));
    refused(url, late, "timestamp_skew").await;
}

on_both_databases! {
    a_session_speaks_for_its_member_under_its_own_key,
    the_parent_id_is_optional,
    a_session_that_connects_again_replaces_itself,
    each_fault_of_a_session_hello_has_its_code,
}
