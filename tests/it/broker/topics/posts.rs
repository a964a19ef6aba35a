//! To whom posts go, and what is refused.

use serde_json::{Value, json};

use super::{
    Topic, ask, change, connected, done, join, knowing, leave, legacy_topic, number, post, posted, refused, revoke,
};
use crate::support::mesh::RawMesh;
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::raw::{Raw, plain_send};

/// A push of this post, from alice, whole.
#[track_caller]
fn assert_is(push: &Value, ack: &Value, frame: &Value, topic: &str) {
    assert_eq!((&push["messageId"], &push["historyId"]), (&ack["messageId"], &ack["messageId"]), "{push}");
    assert_eq!((&push["topic"], &push["topicId"]), (&json!("ops"), &json!(topic)), "{push}");
    for field in ["nonce", "ciphertext", "client_message_id", "request_fingerprint", "priority"] {
        assert_eq!(push[field], frame[field], "{field}");
    }
    assert_eq!(push["senderName"], "alice", "{push}");
    assert!(push["deliveryId"].as_str().is_some_and(|id| !id.is_empty()), "{push}");
    for absent in ["recipientKey", "targetSpec", "subtype"] {
        assert!(push.get(absent).is_none(), "{absent}: {push}");
    }
}

async fn acknowledge(raw: &mut Raw, push: &Value) {
    raw.send(&json!({"type": "client_ack", "deliveryId": push["deliveryId"]})).await;
    assert_eq!(raw.answers_so_far().await, Vec::<Value>::new(), "once");
}

async fn a_post_goes_once_to_everybody_else_who_is_in_the_topic(backend: Backend) {
    // Nothing but the post itself brings it.
    let mut mesh = RawMesh::configured(backend, "[timers]\nscan_ms = 3600000\n").await;
    let (alice, mut alice_raw) = mesh.connected("alice").await;
    let (bob, mut bob_raw) = mesh.connected("bob").await;
    let (carol, mut carol_raw) = mesh.connected("carol").await;
    let (dora, mut dora_raw) = mesh.connected("dora").await;
    let (eve, mut eve_raw) = mesh.connected("eve").await;
    let id = legacy_topic(&mut alice_raw, "ops").await;
    for raw in [&mut bob_raw, &mut carol_raw, &mut dora_raw, &mut eve_raw] {
        raw.send(&join("ops")).await;
        raw.answers_so_far().await;
    }
    // One is away, one has left, one was revoked.
    carol_raw.close().await;
    dora_raw.send(&leave("ops")).await;
    dora_raw.answers_so_far().await;
    revoke(&mesh, &eve).await;
    let frame = post(&id, "m1");
    let ack = posted(&mut alice_raw, frame.clone()).await;
    assert_eq!((&ack["duplicate"], &ack["historyId"]), (&json!(false), &ack["messageId"]), "{ack}");

    let push = bob_raw.message().await;
    assert_is(&push, &ack, &frame, &id);
    assert_eq!((&push["bodyVersion"], push.get("keyEpoch")), (&json!(1), None), "{push}");
    assert_eq!((&push["senderMemberId"], &push["redelivery"]), (&json!(alice.member_id), &json!(false)), "{push}");
    acknowledge(&mut bob_raw, &push).await;
    for raw in [&mut alice_raw, &mut dora_raw] {
        assert_eq!(raw.answers_so_far().await, Vec::<Value>::new());
    }
    // It is a row among posts, with a copy for each of the two.
    for (table, rows) in [("topic_message", 1), ("message_queue", 0), ("delivery", 2), ("message_history", 1)] {
        assert_eq!(number(&mesh, &format!("SELECT count(*) FROM {table}")).await, rows, "{table}");
    }
    let of_eve = format!("SELECT count(*) FROM delivery WHERE recipient_member_id = '{}'", eve.member_id);
    assert_eq!(number(&mesh, &of_eve).await, 0);
    // What waits outlives the broker, and so does what was taken.
    mesh.broker.crash().await;
    let mut carol_raw = Raw::member(&mesh.url(), &carol).await;
    let push = carol_raw.message().await;
    assert_is(&push, &ack, &frame, &id);
    acknowledge(&mut carol_raw, &push).await;
    for member in [&bob, &carol, &dora, &alice] {
        let mut raw = Raw::member(&mesh.url(), member).await;
        assert_eq!(raw.answers_so_far().await, Vec::<Value>::new(), "{}", member.name);
    }
}

async fn a_sealed_post_names_the_epoch_of_its_key(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = connected(&mesh, "alice").await;
    let bob = mesh.member("bob").await;
    // It is in the topic and knows nothing of keys; the post goes to it all the same.
    let mut bob_raw = Raw::member(&mesh.url(), &bob).await;
    let topic = Topic::create(&mut alice_raw, &alice).await;
    bob_raw.send(&join(&topic.id)).await;
    bob_raw.answers_so_far().await;
    let frame = topic.post("m1", 1);
    let ack = posted(&mut alice_raw, frame.clone()).await;
    let push = bob_raw.message().await;
    assert_is(&push, &ack, &frame, &topic.id);
    assert_eq!((&push["bodyVersion"], &push["keyEpoch"]), (&json!(2), &json!(1)), "{push}");
    let db = mesh.broker.tables().await;
    let rows = db.objects("body_version, key_epoch, topic_id, client_message_id", "FROM topic_message").await;
    let row = json!({"body_version": 2, "key_epoch": 1, "topic_id": topic.id, "client_message_id": "m1"});
    assert_eq!(rows, [row]);
    db.close().await;
}

async fn what_may_not_be_posted_is_refused_and_uses_no_id(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = connected(&mesh, "alice").await;
    let (bob, mut bob_raw) = connected(&mesh, "bob").await;
    let (_, mut eve_raw) = connected(&mesh, "eve").await;
    let mut topic = Topic::create(&mut alice_raw, &alice).await;
    done(&mut bob_raw, join(&topic.id)).await;
    let plain = legacy_topic(&mut alice_raw, "plain").await;

    refused(&mut eve_raw, topic.post("m1", 1), "topic_not_joined").await;
    refused(&mut eve_raw, post(&plain, "m1"), "topic_not_joined").await;
    for nowhere in ["#nowhere", "#", "#ops"] {
        // Over the link a topic is named by its id.
        refused(&mut alice_raw, plain_send(nowhere), "topic_not_found").await;
    }
    let unencrypted = refused(&mut alice_raw, post(&topic.id, "m1"), "unencrypted").await;
    assert_eq!(unencrypted["retryable"], false, "{unencrypted}");
    refused(&mut alice_raw, topic.post("m1", 0), "invalid").await;
    // Perhaps a database was restored, and it is told of them again.
    for epoch in [2, 7] {
        refused(&mut alice_raw, topic.post("m1", epoch), "key_epoch_stale").await;
    }
    let mut other = topic.post("m1", 1);
    other["topicId"] = json!(plain);
    refused(&mut alice_raw, other, "invalid").await;
    let mut keyed = post(&plain, "m1");
    keyed["keyEpoch"] = json!(1);
    refused(&mut alice_raw, keyed, "invalid").await;

    // New posts may use the newest epoch and the one before.
    for members in [&[&alice, &bob][..], &[&alice]] {
        change(&mesh, "UPDATE topic_epoch SET created_at = 0").await;
        topic.renew(&mut alice_raw, members, &alice).await;
    }
    let stale = refused(&mut alice_raw, topic.post("m1", 1), "key_epoch_stale").await;
    assert_eq!(stale["retryable"], true, "{stale}");
    refused(&mut alice_raw, topic.post("m1", 4), "key_epoch_stale").await;
    assert_eq!(number(&mesh, "SELECT count(*) FROM topic_message").await, 0);
    for (id, epoch) in [("m1", 2), ("m2", 3)] {
        let ack = posted(&mut alice_raw, topic.post(id, epoch)).await;
        assert_eq!(ack["duplicate"], false, "{ack}");
        assert_eq!(bob_raw.message().await["keyEpoch"], epoch);
    }
    // Who has left posts no more.
    done(&mut bob_raw, leave(&topic.id)).await;
    refused(&mut bob_raw, topic.post("m3", 3), "topic_not_joined").await;
}

// Covers: R137, R146, R149
async fn a_repeated_post_is_the_same_post(backend: Backend) {
    let mut mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = connected(&mesh, "alice").await;
    let bob = mesh.member("bob").await;
    let mut bob_raw = knowing(&mesh.url(), &bob).await;
    let mut topic = Topic::create(&mut alice_raw, &alice).await;
    done(&mut bob_raw, join(&topic.id)).await;
    let first = posted(&mut alice_raw, topic.post("once", 1)).await;
    assert_eq!(first["duplicate"], false, "{first}");
    for killed in [false, true, false] {
        if killed {
            mesh.broker.crash().await;
            alice_raw = knowing(&mesh.url(), &alice).await;
        }
        // Sealed anew each time, as an honest retry is.
        let again = posted(&mut alice_raw, topic.post("once", 1)).await;
        assert_eq!(
            (&again["duplicate"], &again["messageId"], &again["historyId"]),
            (&json!(true), &first["messageId"], &first["historyId"]),
            "{again}"
        );
        let mut other = topic.post("once", 1);
        other["request_fingerprint"] = json!("f".repeat(64));
        let other = ask(&mut alice_raw, other).await;
        assert_eq!(
            (&other["queued"], &other["code"], &other["retryable"]),
            (&json!(false), &json!("idempotency_key_reused"), &json!(false)),
            "{other}"
        );
    }
    // One id of one sender, whether posted or sent to a member.
    let direct = crate::support::raw::send_with_id(&bob.public(), "once", &"f".repeat(64));
    assert_eq!(ask(&mut alice_raw, direct).await["code"], "idempotency_key_reused");
    // Also under a newer key, and when the sender has left meanwhile.
    change(&mesh, "UPDATE topic_epoch SET created_at = 0").await;
    topic.renew(&mut alice_raw, &[&alice], &alice).await;
    change(&mesh, "UPDATE topic_epoch SET created_at = 0").await;
    topic.renew(&mut alice_raw, &[&alice], &alice).await;
    for epoch in [1, 3] {
        assert_eq!(posted(&mut alice_raw, topic.post("once", epoch)).await["messageId"], first["messageId"]);
    }
    done(&mut alice_raw, leave(&topic.id)).await;
    let again = posted(&mut alice_raw, topic.post("once", 3)).await;
    assert_eq!((&again["duplicate"], &again["messageId"]), (&json!(true), &first["messageId"]), "{again}");
    assert_eq!(number(&mesh, "SELECT count(*) FROM topic_message").await, 1);
    assert_eq!(number(&mesh, "SELECT count(*) FROM delivery").await, 1);
    let mut bob_raw = Raw::member(&mesh.url(), &bob).await;
    assert_eq!(bob_raw.message().await["messageId"], first["messageId"]);
    assert_eq!(bob_raw.answers_so_far().await, Vec::<Value>::new(), "one copy for all of these");
}

// Covers: R149
async fn one_post_by_ten_connections_at_once_is_stored_once(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = connected(&mesh, "alice").await;
    let (_, mut bob_raw) = connected(&mesh, "bob").await;
    let topic = Topic::create(&mut alice_raw, &alice).await;
    done(&mut bob_raw, join(&topic.id)).await;
    let mut connections = Vec::new();
    for _ in 0..10 {
        connections.push(knowing(&mesh.url(), &alice).await);
    }
    let frame = topic.post("race", 1);
    for raw in &mut connections {
        raw.send(&frame).await;
    }
    let mut acks = Vec::new();
    for raw in &mut connections {
        acks.push(raw.expect_past_events("ack").await);
    }
    assert!(acks.iter().all(|ack| ack["messageId"] == acks[0]["messageId"] && ack["queued"] == true), "{acks:?}");
    assert_eq!(acks.iter().filter(|ack| ack["duplicate"] == false).count(), 1, "{acks:?}");
    assert_eq!(bob_raw.message().await["messageId"], acks[0]["messageId"]);
    assert_eq!(bob_raw.answers_so_far().await, Vec::<Value>::new());
    assert_eq!(number(&mesh, "SELECT count(*) FROM topic_message").await, 1);
}

on_both_databases! {
    a_post_goes_once_to_everybody_else_who_is_in_the_topic,
    a_sealed_post_names_the_epoch_of_its_key,
    what_may_not_be_posted_is_refused_and_uses_no_id,
    a_repeated_post_is_the_same_post,
    one_post_by_ten_connections_at_once_is_stored_once,
}
