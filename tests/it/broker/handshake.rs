//! `hello`: what opens a connection and how each fault is refused.

use serde_json::{Value, json};

use crate::support::keys::{Key, now_ms};
use crate::support::mesh::RawMesh;
use crate::support::raw::{Member, Raw, plain_send};
use crate::support::sqlite::Db;

/// Says `hello` and expects this refusal and a close.
#[track_caller]
fn refused(
    url: String,
    hello: Value,
    code: &'static str,
    close: u16,
    reason: &'static str,
) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let mut raw = Raw::connect(&url).await;
        raw.send(&hello).await;
        let error = raw.expect("error").await;
        assert_eq!(error["code"], code, "{caller}: {error}");
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{caller}: {error}");
        raw.expect_close(close, reason).await;
    }
}

fn with(mut hello: Value, field: &str, value: Value) -> Value {
    hello[field] = value;
    hello
}

#[tokio::test]
async fn a_signed_hello_opens_the_connection() {
    let mesh = RawMesh::start().await;
    let alice = mesh.member("alice").await;
    let (mut raw, ack) = Raw::hello(&mesh.url(), &alice.hello()).await;
    assert!(ack["presenceId"].as_str().is_some_and(|id| !id.is_empty()), "{ack}");
    assert_eq!(ack["memberDisplayName"], "alice", "{ack}");
    let profile = &ack["memberProfile"];
    assert!(profile["groups"].is_array() && profile["messageMode"].is_string(), "{ack}");
    assert_eq!(profile.get("roleTag"), Some(&Value::Null), "{ack}");
    assert_eq!(ack["memberId"], alice.member_id.as_str(), "{ack}");
    let time = ack["brokerTime"].as_i64().unwrap_or_default();
    assert!((time - now_ms()).abs() < 10_000, "{ack}");
    assert_eq!(ack["brokerVersion"], env!("CARGO_PKG_VERSION"), "{ack}");
    assert_eq!(raw.answers_so_far().await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_name_in_the_hello_counts_for_the_connection() {
    let mesh = RawMesh::start().await;
    let alice = mesh.member("alice").await;
    let (mut raw, _) = Raw::hello(&mesh.url(), &with(alice.hello(), "displayName", json!("alice at work"))).await;
    assert_eq!(raw.peers().await[0]["displayName"], "alice at work");
}

#[tokio::test]
async fn each_fault_of_a_hello_has_its_code() {
    let mesh = RawMesh::start().await;
    let (url, alice) = (mesh.url(), mesh.member("alice").await);
    let minute = 61_000;
    refused(url.clone(), alice.hello_at(now_ms() - minute), "timestamp_skew", 1008, "timestamp_skew").await;
    refused(url.clone(), alice.hello_at(now_ms() + minute), "timestamp_skew", 1008, "timestamp_skew").await;

    let forged = Member { key: Key::random(), ..alice.clone() };
    let foreign_signature = with(alice.hello(), "signature", forged.hello()["signature"].clone());
    refused(url.clone(), foreign_signature, "bad_signature", 1008, "bad_signature").await;
    let moved = with(alice.hello(), "timestamp", json!(now_ms() - 1234));
    refused(url.clone(), moved, "bad_signature", 1008, "bad_signature").await;

    refused(url.clone(), with(alice.hello(), "signature", json!("abcd")), "malformed", 1008, "malformed").await;
    refused(url.clone(), with(alice.hello(), "pubkey", json!("not hex")), "malformed", 1008, "malformed").await;
    let session = with(alice.hello(), "sessionPubkey", json!("ABCD"));
    refused(url.clone(), session, "bad_session_pubkey", 1008, "bad_session_pubkey").await;

    // A valid signature of a key that is no member, of another mesh, and of a
    // member id that is not the key's.
    refused(url.clone(), forged.hello(), "unauthorized", 1008, "unauthorized").await;
    let elsewhere = Member { mesh_id: "0123456789abcdefghijABCDEFGHIJ01".into(), ..alice.clone() };
    refused(url.clone(), elsewhere.hello(), "unauthorized", 1008, "unauthorized").await;
    let bob = mesh.member("bob").await;
    let mixed = Member { member_id: bob.member_id, ..alice };
    refused(url, mixed.hello(), "unauthorized", 1008, "unauthorized").await;
}

#[tokio::test]
async fn anything_before_the_hello_is_answered_and_the_hello_still_counts() {
    let mesh = RawMesh::start().await;
    let alice = mesh.member("alice").await;
    let mut raw = Raw::connect(&mesh.url()).await;
    for frame in [json!({"type": "list_peers"}), json!({"type": "nobody_knows"}), plain_send(&alice.public())] {
        raw.send(&frame).await;
        assert_eq!(raw.expect("error").await["code"], "no_hello", "{frame}");
    }
    raw.send(&alice.hello()).await;
    raw.expect("hello_ack").await;
    assert_eq!(raw.peers().await.len(), 1);
}

#[tokio::test]
async fn noise_is_passed_over_and_the_connection_lives() {
    let mesh = RawMesh::start().await;
    let alice = mesh.member("alice").await;
    let mut raw = Raw::connect(&mesh.url()).await;
    raw.send_text("{\"type\": \"hello\"").await;
    raw.send(&alice.hello()).await;
    raw.expect("hello_ack").await;
    for noise in [
        "not json",
        "{",
        "",
        "[]",
        "null",
        "42",
        "\"text\"",
        "{}",
        "{\"type\": 7}",
        "{\"type\": \"nobody_knows\"}",
        "{\"type\": null, \"a\": {\"b\": [1, 2, {\"c\": null}]}}",
    ] {
        raw.send_text(noise).await;
    }
    raw.send_text(&"[".repeat(20_000)).await;
    assert_eq!(raw.answers_so_far().await, Vec::<Value>::new());
}

#[tokio::test]
async fn unknown_keys_of_a_frame_are_dropped() {
    let mesh = RawMesh::start().await;
    let alice = mesh.member("alice").await;
    let hello = with(with(alice.hello(), "futureField", json!({"a": 1})), "protocolVersion", json!(99));
    let (mut raw, _) = Raw::hello(&mesh.url(), &hello).await;
    let (answer, _) = raw.request(json!({"type": "list_peers", "futureField": [1]})).await;
    assert_eq!(answer["type"], "peers_list");
}

#[tokio::test]
async fn a_revoked_member_is_refused_for_good() {
    let mut mesh = RawMesh::start().await;
    let (alice, bob) = (mesh.member("alice").await, mesh.member("bob").await);
    mesh.broker.stop().await;
    let db = Db::open(&mesh.broker.database()).await;
    db.run(&format!("UPDATE member SET revoked_at = {} WHERE id = '{}'", now_ms(), alice.member_id)).await;
    db.close().await;
    mesh.broker.restart().await;
    refused(mesh.url(), alice.hello(), "revoked", 4002, "banned").await;
    let ours = with(
        with(alice.hello(), "instanceId", json!("01J0000000000000000000000A")),
        "bootId",
        json!("01J0000000000000000000000B"),
    );
    refused(mesh.url(), ours, "revoked", 4005, "member_revoked").await;
    Raw::member(&mesh.url(), &bob).await;
}

#[tokio::test]
async fn a_refusal_because_of_the_clock_tells_the_brokers_time() {
    let mesh = RawMesh::start().await;
    let alice = mesh.member("alice").await;
    let mut raw = Raw::connect(&mesh.url()).await;
    raw.send(&alice.hello_at(now_ms() - 300_000)).await;
    let refused = raw.expect("error").await;
    assert_eq!(refused["code"], "timestamp_skew", "{refused}");
    let told = refused["brokerTime"].as_i64().expect("brokerTime");
    assert!((told - now_ms()).abs() < 10_000, "{refused}");
    let mut again = Raw::connect(&mesh.url()).await;
    again.send(&alice.hello_at(told)).await;
    again.expect("hello_ack").await;
}
