//! What the broker is told of a message that was not opened when it came.

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::fake_broker::{ALL_BITS, Client, FakeBroker};
use crate::support::keys::Key;
use crate::support::mesh::RawMesh;
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::raw::{Raw, send_with_id};
use crate::support::wait;

const FINGERPRINT: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// The daemon's connection to a broker with every bit.
async fn connect(fake: &FakeBroker) -> Client {
    let mut client = fake.accept().await;
    client.welcome().await;
    client.negotiate(&[ALL_BITS, &["delivery_outcome"]].concat()).await;
    client.roster().await;
    client
}

async fn count(alice: &Daemon, table: &str) -> i64 {
    let db = alice.inbox_db().await;
    let rows = db.number(&format!("SELECT count(*) FROM {table}")).await;
    db.close().await;
    rows
}

fn answer(ack: &Value) -> Value {
    json!({"type": "ack", "id": "", "messageId": "", "queued": false, "_reqId": ack["_reqId"]})
}

/// Said when it opens, again with each link until it is answered, and through an
/// end of the process.
#[tokio::test]
async fn what_waited_is_acknowledged_when_it_opens_until_the_broker_answers() {
    let mut fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure("[reconnect]\ninitial_backoff_ms = 50\nmax_backoff_ms = 200\n");
    alice.start().await;
    let mut client = connect(&fake).await;
    let carol = Key::random();
    client.push_from(&carol, "m1", Some("c1"), "from a stranger").await;
    let ack = client.expect("client_ack").await;
    assert_eq!((&ack["deliveryId"], &ack["state"]), (&json!("m1"), &json!("waiting")), "{ack}");
    assert_eq!(ack["_reqId"], Value::Null, "{ack}");
    client.drop_link();

    fake.carol = Some(carol);
    let mut client = connect(&fake).await;
    let ack = client.expect("client_ack").await;
    assert_eq!((&ack["deliveryId"], &ack["state"]), (&json!("m1"), &json!("stored")), "{ack}");
    assert!(ack["_reqId"].is_string(), "{ack}");
    alice.received("from a stranger").await;
    // Refused, which is no answer; what comes after it is read after it.
    let mut refusal = answer(&ack);
    refusal["error"] = json!("busy");
    refusal["code"] = json!("rate_limited");
    client.send(&refusal).await;
    client.push_from(&fake.bob, "m0", Some("c0"), "after the refusal").await;
    client.expect("client_ack").await;
    client.drop_link();
    let mut client = connect(&fake).await;
    let ack = client.expect("client_ack").await;
    assert_eq!((&ack["deliveryId"], &ack["state"]), (&json!("m1"), &json!("stored")), "{ack}");
    // Not answered, and the process ends.
    alice.kill9();
    client.drop_link();
    alice.start().await;
    let mut client = connect(&fake).await;
    let ack = client.expect("client_ack").await;
    assert_eq!((&ack["deliveryId"], &ack["state"]), (&json!("m1"), &json!("stored")), "{ack}");
    client.send(&answer(&ack)).await;
    wait::until("the receipt to be forgotten", async || (count(&alice, "inbox_receipt").await == 0).then_some(()))
        .await;
    client.drop_link();
    let mut client = connect(&fake).await;
    client.push_from(&fake.bob, "m2", Some("c2"), "the next").await;
    let ack = client.expect("client_ack").await;
    assert_eq!(ack["deliveryId"], "m2", "nothing is said of the first one: {ack}");
}

#[tokio::test]
async fn a_broker_without_the_bit_is_told_what_it_understands() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let mut client = fake.link(&alice).await;
    client.push_from(&Key::random(), "m1", Some("c1"), "from a stranger").await;
    let ack = client.expect("client_ack").await;
    assert_eq!((&ack["deliveryId"], &ack["state"]), (&json!("m1"), &json!("stored")), "{ack}");
    let hello = client.hello.clone();
    let mut push = crate::support::fake_broker::push_frame(&hello, &fake.bob, "m2", Some("c2"), &[1; 24], &[2; 60]);
    client.send(&push).await;
    let ack = client.expect("client_ack").await;
    assert_eq!((&ack["state"], &ack["reason"]), (&json!("quarantined"), &Value::Null), "{ack}");
    push["messageId"] = json!("m3");
    push["deliveryId"] = json!("m3");
    push["nonce"] = json!("short");
    client.send(&push).await;
    assert_eq!(client.expect("client_ack").await["state"], "quarantined");
    assert_eq!((count(&alice, "inbox_waiting").await, count(&alice, "inbox_quarantine").await), (1, 2));
}

/// A real daemon's word, as it reaches the sender.
async fn what_cannot_be_opened_is_told_to_its_sender(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let mut bob = Daemon::joined(&mesh.broker, &mesh.mesh, "bob").await;
    bob.start().await;
    bob.connected().await;
    let alice = mesh.member("alice").await;
    let mut raw = Raw::member(&mesh.url(), &alice).await;
    raw.negotiate(&[], &["delivery_ack", "delivery_outcome"]).await;
    bob.knows("alice").await;
    let mut malformed = send_with_id(&bob.public(), "malformed", FINGERPRINT);
    let (nonce, sealed) = crate::support::keys::seal(&alice.key, &bob.public(), &[0xFF, 0x43, 0x4D, 0x33, 0xFF]);
    malformed["nonce"] = json!(crate::support::keys::base64(&nonce));
    malformed["ciphertext"] = json!(crate::support::keys::base64(&sealed));
    for (frame, reason) in [(send_with_id(&bob.public(), "garbage", FINGERPRINT), "unreadable"), (malformed, "invalid")]
    {
        raw.send(&frame).await;
        raw.expect_past_events("ack").await;
        let status = raw.expect_past_events("delivery_status").await;
        assert_eq!(status["client_message_id"], frame["client_message_id"], "{status}");
        assert_eq!((&status["state"], &status["reason"]), (&json!("rejected"), &json!(reason)), "{status}");
    }
    assert!(bob.inbox("").await.is_empty());
}

on_both_databases! {
    what_cannot_be_opened_is_told_to_its_sender,
}
