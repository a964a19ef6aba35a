//! From push to acknowledgement: who gets a message again, and whose word
//! settles it.

use serde_json::{Value, json};

use crate::support::mesh::RawMesh;
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::raw::{Member, Raw, plain_send, send_with_id};
use crate::support::wait;

const FINGERPRINT: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

/// Sends a marker and returns the ids of what reaches a fresh connection of
/// the receiver before it. The marker is the newest message, so everything
/// that is still open comes first.
async fn open_for(mesh: &RawMesh, sender: &mut Raw, receiver: &Member) -> Vec<Value> {
    let (marker, _) = sender.request(plain_send(&receiver.public())).await;
    let mut raw = Raw::member(&mesh.url(), receiver).await;
    let mut open = Vec::new();
    loop {
        let push = raw.message().await;
        raw.send(&json!({"type": "client_ack", "brokerMessageId": marker["messageId"]})).await;
        if push["messageId"] == marker["messageId"] {
            raw.answers_so_far().await;
            return open;
        }
        open.push(push["messageId"].clone());
    }
}

// Covers: R138
async fn without_an_ack_a_message_comes_back_on_the_next_connection(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let (bob, mut bob_raw) = mesh.connected("bob").await;
    let (ack, _) = alice_raw.request(plain_send(&bob.public())).await;
    let first = bob_raw.message().await;
    bob_raw.close().await;
    let mut again = Raw::member(&mesh.url(), &bob).await;
    let second = again.message().await;
    assert_eq!(second["messageId"], ack["messageId"]);
    assert_eq!(second["redelivery"], true, "{second}");
    assert_eq!(second["deliveryId"], first["deliveryId"], "the same delivery");
}

async fn each_form_of_acknowledgement_settles_a_delivery(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let (bob, mut bob_raw) = mesh.connected("bob").await;
    for (number, form) in ["clientMessageId", "brokerMessageId", "deliveryId"].into_iter().enumerate() {
        alice_raw.send(&send_with_id(&bob.public(), &format!("form-{number}"), FINGERPRINT)).await;
        alice_raw.expect_past_events("ack").await;
        let push = bob_raw.message().await;
        let value = match form {
            "clientMessageId" => &push["client_message_id"],
            "brokerMessageId" => &push["messageId"],
            _ => &push["deliveryId"],
        };
        bob_raw.send(&json!({"type": "client_ack", form: value, "state": "stored"})).await;
    }
    // A legacy daemon without an id to name uses the message id for both.
    let (_, _) = alice_raw.request(plain_send(&bob.public())).await;
    let push = bob_raw.message().await;
    let id = &push["messageId"];
    bob_raw.send(&json!({"type": "client_ack", "clientMessageId": id, "brokerMessageId": id})).await;
    assert_eq!(bob_raw.answers_so_far().await, Vec::<Value>::new(), "an acknowledgement has no reply");
    bob_raw.close().await;
    assert_eq!(open_for(&mesh, &mut alice_raw, &bob).await, Vec::<Value>::new());
}

async fn nobody_settles_what_belongs_to_another_member(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = mesh.connected("alice").await;
    let (_, mut carol_raw) = mesh.connected("carol").await;
    let (bob, mut bob_raw) = mesh.connected("bob").await;
    alice_raw.send(&send_with_id(&bob.public(), "for-bob", FINGERPRINT)).await;
    let ack = alice_raw.expect_past_events("ack").await;
    let push = bob_raw.message().await;
    bob_raw.close().await;
    for raw in [&mut carol_raw, &mut alice_raw] {
        for (form, value) in [
            ("clientMessageId", json!("for-bob")),
            ("brokerMessageId", push["messageId"].clone()),
            ("deliveryId", push["deliveryId"].clone()),
        ] {
            raw.send(&json!({"type": "client_ack", form: value})).await;
        }
        assert_eq!(raw.answers_so_far().await, Vec::<Value>::new());
    }
    drop(alice);
    assert_eq!(open_for(&mesh, &mut alice_raw, &bob).await, vec![ack["messageId"].clone()]);
}

async fn acknowledgements_of_nothing_are_passed_over(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (_, mut raw) = mesh.connected("alice").await;
    for frame in [
        json!({"type": "client_ack"}),
        json!({"type": "client_ack", "clientMessageId": "nobody"}),
        json!({"type": "client_ack", "brokerMessageId": "nobody", "deliveryId": ""}),
        json!({"type": "client_ack", "deliveryId": 7}),
    ] {
        raw.send(&frame).await;
    }
    assert_eq!(raw.answers_so_far().await, Vec::<Value>::new());
}

// Covers: R137, R138
async fn what_was_acked_to_the_sender_survives_a_kill_of_the_broker(backend: Backend) {
    let mut mesh = RawMesh::start(backend).await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let bob = mesh.member("bob").await;
    let mut ids = Vec::new();
    for _ in 0..50 {
        ids.push(alice_raw.request(plain_send(&bob.public())).await.0["messageId"].clone());
    }
    mesh.broker.kill9();
    mesh.broker.restart().await;
    let mut bob_raw = Raw::member(&mesh.url(), &bob).await;
    for id in ids {
        assert_eq!(bob_raw.message().await["messageId"], id);
    }
}

/// A push that stays unanswered is pushed again when its lease is over, to who
/// takes part in acknowledging, and to nobody else.
// Covers: R138
async fn an_unanswered_push_comes_again_to_who_acknowledges_and_once_to_others(backend: Backend) {
    let mesh = RawMesh::configured(backend, "[timers]\nlease_ms = 1000\nscan_ms = 200\n").await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let (legacy, mut legacy_raw) = mesh.connected("legacy").await;
    let bob = mesh.member("bob").await;
    let (mut bob_raw, answer) =
        Raw::daemon(&mesh.url(), &bob, "01J0000000000000000000000A", "01J0000000000000000000000B").await;
    assert!(answer["supported"].as_array().is_some_and(|bits| bits.contains(&json!("delivery_ack"))), "{answer}");
    for receiver in [&legacy, &bob] {
        alice_raw.request(plain_send(&receiver.public())).await;
    }
    legacy_raw.message().await;
    let first = bob_raw.message().await;
    assert_eq!(first["redelivery"], false);
    let since = std::time::Instant::now();
    let again = bob_raw.message().await;
    assert!(since.elapsed().as_millis() > 700, "not before the lease is over");
    assert_eq!(again["messageId"], first["messageId"]);
    assert_eq!(again["redelivery"], true, "{again}");
    bob_raw.send(&json!({"type": "client_ack", "deliveryId": again["deliveryId"], "state": "stored"})).await;

    // The legacy connection got nothing more: its next push is the next message.
    let (next, _) = alice_raw.request(plain_send(&legacy.public())).await;
    assert_eq!(legacy_raw.message().await["messageId"], next["messageId"]);
    // And bob nothing after the acknowledgement.
    let (next, _) = alice_raw.request(plain_send(&bob.public())).await;
    assert_eq!(bob_raw.message().await["messageId"], next["messageId"]);
}

async fn the_sender_is_told_about_the_delivery(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let alice = mesh.member("alice").await;
    let (mut alice_raw, _) =
        Raw::daemon(&mesh.url(), &alice, "01J0000000000000000000000A", "01J0000000000000000000000B").await;
    let (bob, mut bob_raw) = mesh.connected("bob").await;
    alice_raw.send(&send_with_id(&bob.public(), "told", FINGERPRINT)).await;
    alice_raw.expect_past_events("ack").await;
    let push = bob_raw.message().await;
    bob_raw.send(&json!({"type": "client_ack", "brokerMessageId": push["messageId"]})).await;
    let status = alice_raw.expect_past_events("delivery_status").await;
    assert_eq!(status["client_message_id"], "told", "{status}");
    assert_eq!(status["state"], "delivered", "{status}");
    assert!(status["at"].as_i64().is_some_and(|at| at > 0), "{status}");
}

async fn a_sibling_of_the_member_gets_its_messages_too_and_one_ack_is_enough(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let (bob, mut first) = mesh.connected("bob").await;
    let mut second = Raw::member(&mesh.url(), &bob).await;
    let (ack, _) = alice_raw.request(plain_send(&bob.public())).await;
    let push = first.message().await;
    assert_eq!(push["messageId"], ack["messageId"]);
    assert_eq!(second.message().await["messageId"], ack["messageId"]);
    first.send(&json!({"type": "client_ack", "brokerMessageId": push["messageId"]})).await;
    first.answers_so_far().await;
    first.close().await;
    second.close().await;
    assert_eq!(open_for(&mesh, &mut alice_raw, &bob).await, Vec::<Value>::new());
}

/// The wall clock was ahead when the older one was accepted.
async fn what_follows_a_copy_with_an_id_of_the_future_is_pushed_as_well(backend: Backend) {
    let mut mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = mesh.connected("alice").await;
    let bob = mesh.member("bob").await;
    let (first, _) = alice_raw.request(send_with_id(&bob.public(), "m1", FINGERPRINT)).await;
    mesh.broker.stop().await;
    let db = mesh.broker.tables().await;
    db.run("UPDATE delivery SET id = '02' || substr(id, 3)").await;
    db.close().await;
    mesh.broker.restart().await;
    let mut bob_raw = Raw::member(&mesh.url(), &bob).await;
    let push = bob_raw.message().await;
    assert_eq!(push["messageId"], first["messageId"], "{push}");
    assert!(push["deliveryId"].as_str().is_some_and(|id| id.starts_with("02")), "{push}");

    let mut alice_raw = Raw::member(&mesh.url(), &alice).await;
    for number in 2..4 {
        let (sent, _) = alice_raw.request(send_with_id(&bob.public(), &format!("m{number}"), FINGERPRINT)).await;
        let push = bob_raw.message().await;
        assert_eq!(push["messageId"], sent["messageId"], "{push}");
        bob_raw.send(&json!({"type": "client_ack", "deliveryId": push["deliveryId"]})).await;
    }
}

/// The table takes no acknowledgement for a while.
async fn an_acknowledgement_that_could_not_be_written_is_written_later(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let bob = mesh.member("bob").await;
    let (mut bob_raw, _) = Raw::daemon(&mesh.url(), &bob, "01J0000000000000000000000B", "01J1").await;
    let (sent, _) = alice_raw.request(send_with_id(&bob.public(), "m1", FINGERPRINT)).await;
    let push = bob_raw.message().await;
    assert_eq!(push["messageId"], sent["messageId"]);
    let db = mesh.broker.tables().await;
    match backend {
        Backend::Sqlite => {
            db.run(
                "CREATE TRIGGER refuse BEFORE UPDATE OF delivered_at ON delivery \
                 BEGIN SELECT RAISE(ABORT, 'not now'); END",
            )
            .await;
        }
        Backend::Postgres => {
            db.run(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$; \
                 CREATE TRIGGER refuse BEFORE UPDATE OF delivered_at ON delivery FOR EACH ROW EXECUTE FUNCTION refuse()",
            )
            .await;
        }
    }
    bob_raw.send(&json!({"type": "client_ack", "deliveryId": push["deliveryId"]})).await;
    wait::until("the write to fail", async || {
        mesh.broker.metric("cm_broker_batch_split_total").await.filter(|splits| *splits > 0.0)
    })
    .await;
    db.run(if backend == Backend::Sqlite { "DROP TRIGGER refuse" } else { "DROP TRIGGER refuse ON delivery" }).await;
    wait::until("the acknowledgement to be written", async || {
        (db.number("SELECT count(*) FROM delivery WHERE delivered_at IS NOT NULL").await == 1).then_some(())
    })
    .await;
    db.close().await;
    assert_eq!(bob_raw.answers_so_far().await, Vec::<Value>::new(), "it was not pushed again");
}

/// One sender's backlog does not stand before another one's message; each keeps its order.
async fn the_senders_of_a_backlog_take_turns(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let (_, mut carol_raw) = mesh.connected("carol").await;
    let bob = mesh.member("bob").await;
    let mut alices = Vec::new();
    for _ in 0..200 {
        alices.push(alice_raw.request(plain_send(&bob.public())).await.0["messageId"].clone());
    }
    let carols = carol_raw.request(plain_send(&bob.public())).await.0["messageId"].clone();
    let mut bob_raw = Raw::member(&mesh.url(), &bob).await;
    let mut pushed = Vec::new();
    for _ in 0..201 {
        pushed.push(bob_raw.message().await["messageId"].clone());
    }
    let place = pushed.iter().position(|id| *id == carols).expect("carol's");
    // After one read of the other sender's at most.
    assert!(place <= 64, "{place} came before");
    pushed.remove(place);
    assert_eq!(pushed, alices, "in order, each once");
}

on_both_databases! {
    the_senders_of_a_backlog_take_turns,
    what_follows_a_copy_with_an_id_of_the_future_is_pushed_as_well,
    an_acknowledgement_that_could_not_be_written_is_written_later,
    without_an_ack_a_message_comes_back_on_the_next_connection,
    each_form_of_acknowledgement_settles_a_delivery,
    nobody_settles_what_belongs_to_another_member,
    acknowledgements_of_nothing_are_passed_over,
    what_was_acked_to_the_sender_survives_a_kill_of_the_broker,
    an_unanswered_push_comes_again_to_who_acknowledges_and_once_to_others,
    the_sender_is_told_about_the_delivery,
    a_sibling_of_the_member_gets_its_messages_too_and_one_ack_is_enough,
}
