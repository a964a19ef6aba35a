//! What a receiver makes of a message beyond storing it, and what its sender hears.

use serde_json::{Value, json};

use crate::support::mesh::RawMesh;
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::raw::{Member, Raw, send_with_id};
use crate::support::wait;

const FINGERPRINT: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const HOST: &str = "01J0000000000000000000000A";
const BOOT: &str = "01J0000000000000000000000B";

/// A daemon's connection that knows every outcome. It is asked for with the first
/// question: what waits is pushed after the answer to that.
async fn daemon(mesh: &RawMesh, member: &Member) -> Raw {
    device(mesh, member, HOST).await
}

/// The same from another state directory.
async fn device(mesh: &RawMesh, member: &Member, instance: &str) -> Raw {
    let mut hello = member.hello();
    hello["instanceId"] = json!(instance);
    hello["bootId"] = json!(BOOT);
    let (mut raw, _) = Raw::hello(&mesh.url(), &hello).await;
    let require = ["client_message_id_dedupe", "concurrent_connection_policy"];
    let answer = raw.negotiate(&require, &["delivery_ack", "delivery_outcome", "max_payload"]).await;
    assert_eq!(answer["params"]["delivery_outcome"]["version"], 1, "{answer}");
    raw
}

async fn send(from: &mut Raw, to: &Member, id: &str) {
    from.send(&send_with_id(&to.public(), id, FINGERPRINT)).await;
    let ack = from.expect_past_events("ack").await;
    assert_eq!(ack["queued"], true, "{ack}");
}

fn receipt(push: &Value, state: &str) -> Value {
    json!({"type": "client_ack", "deliveryId": push["deliveryId"], "state": state})
}

fn rejected(push: &Value, reason: &str) -> Value {
    let mut ack = receipt(push, "quarantined");
    ack["reason"] = json!(reason);
    ack
}

async fn until_number(mesh: &RawMesh, sql: &str, wanted: i64) {
    let db = mesh.broker.tables().await;
    wait::until(sql, async || (db.number(sql).await == wanted).then_some(())).await;
    db.close().await;
}

async fn a_message_that_was_set_aside_is_told_to_its_sender_with_the_reason(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, bob) = (mesh.member("alice").await, mesh.member("bob").await);
    let (mut alice_raw, mut bob_raw) = (daemon(&mesh, &alice).await, daemon(&mesh, &bob).await);
    for (number, (given, told)) in [
        (Some("invalid"), "invalid"),
        (Some("not_subscribed"), "not_subscribed"),
        (Some("a_word_of_the_future"), "unreadable"),
        (None, "unreadable"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("m{number}");
        send(&mut alice_raw, &bob, &id).await;
        let push = bob_raw.message().await;
        bob_raw.send(&given.map_or_else(|| receipt(&push, "quarantined"), |reason| rejected(&push, reason))).await;
        let status = alice_raw.expect_past_events("delivery_status").await;
        assert_eq!((&status["client_message_id"], &status["state"]), (&json!(id), &json!("rejected")), "{status}");
        assert_eq!((&status["reason"], &status["recipientMemberId"]), (&json!(told), &json!(bob.member_id)));
        // It is at its end: said again nothing changes, and it does not come again.
        bob_raw.send(&receipt(&push, "waiting")).await;
        bob_raw.send(&rejected(&push, "invalid")).await;
    }
    bob_raw.answers_so_far().await;
    assert_eq!(alice_raw.answers_so_far().await, Vec::<Value>::new());
    until_number(&mesh, "SELECT count(*) FROM delivery WHERE reject_reason IS NULL OR waiting_at IS NOT NULL", 0).await;
    let mut again = daemon(&mesh, &bob).await;
    assert_eq!(again.answers_so_far().await, Vec::<Value>::new());
}

/// Of two devices of a member one cannot open a message and the other one stores it.
async fn what_one_device_stored_is_delivered_whatever_another_made_of_it(backend: Backend) {
    let mesh = RawMesh::with_policy(backend, "allow_concurrent").await;
    let (alice, bob) = (mesh.member("alice").await, mesh.member("bob").await);
    let mut alice_raw = daemon(&mesh, &alice).await;
    let mut phone = daemon(&mesh, &bob).await;
    let mut laptop = device(&mesh, &bob, "01J0000000000000000000000C").await;
    let told = async |alice: &mut Raw, state: &str| {
        let status = alice.expect_past_events("delivery_status").await;
        assert_eq!(status["state"], state, "{status}");
    };
    for number in 0..20 {
        send(&mut alice_raw, &bob, &format!("m{number}")).await;
        let (first, second) = (phone.message().await, laptop.message().await);
        assert_eq!(first["deliveryId"], second["deliveryId"]);
        phone.send(&rejected(&first, "unreadable")).await;
        told(&mut alice_raw, "rejected").await;
        // The second device may have been given it on an earlier connection.
        if number % 2 == 0 {
            laptop = device(&mesh, &bob, "01J0000000000000000000000C").await;
        }
        laptop.send(&receipt(&second, "stored")).await;
        told(&mut alice_raw, "delivered").await;
        // A later word of the first device takes nothing back.
        phone.send(&rejected(&first, "invalid")).await;
    }
    phone.answers_so_far().await;
    assert_eq!(alice_raw.answers_so_far().await, Vec::<Value>::new());
    until_number(
        &mesh,
        "SELECT count(*) FROM delivery WHERE delivered_at IS NOT NULL AND expired_at IS NULL AND reject_reason IS NULL",
        20,
    )
    .await;
    // Each gave its room in the queue back once: 1,000 fit, and no more.
    phone.close().await;
    laptop.close().await;
    for number in 0..1_000 {
        send(&mut alice_raw, &bob, &format!("then-{number}")).await;
    }
    alice_raw.send(&send_with_id(&bob.public(), "one-too-many", FINGERPRINT)).await;
    let ack = alice_raw.expect_past_events("ack").await;
    assert_eq!(ack["code"], "recipient_queue_full", "{ack}");
}

/// Who does not know the word is told nothing false, and the same frames as ever
/// of all else.
async fn a_sender_without_the_bit_hears_of_deliveries_as_before(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, bob) = (mesh.member("alice").await, mesh.member("bob").await);
    let (mut alice_raw, _) = Raw::daemon(&mesh.url(), &alice, HOST, BOOT).await;
    let mut bob_raw = daemon(&mesh, &bob).await;
    for (id, state) in [("aside", "quarantined"), ("there", "stored")] {
        send(&mut alice_raw, &bob, id).await;
        let push = bob_raw.message().await;
        bob_raw.send(&receipt(&push, state)).await;
    }
    let status = alice_raw.expect_past_events("delivery_status").await;
    assert_eq!((&status["client_message_id"], &status["state"]), (&json!("there"), &json!("delivered")), "{status}");
    let mut names: Vec<&String> = status.as_object().expect("an object").keys().collect();
    names.sort();
    assert_eq!(names, ["at", "client_message_id", "state", "type"], "no key that it does not know");
    // It learns the rest as soon as it knows the word.
    alice_raw.close().await;
    let mut alice_raw = daemon(&mesh, &alice).await;
    let status = alice_raw.expect_past_events("delivery_status").await;
    assert_eq!((&status["client_message_id"], &status["state"]), (&json!("aside"), &json!("rejected")), "{status}");
}

/// Before the bit every acknowledgement said that the receiver has it.
async fn what_a_receiver_without_the_bit_acknowledges_is_delivered(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, bob) = (mesh.member("alice").await, mesh.member("bob").await);
    let mut alice_raw = daemon(&mesh, &alice).await;
    let (mut bob_raw, _) = Raw::daemon(&mesh.url(), &bob, HOST, BOOT).await;
    for (id, state) in [("sealed", "waiting"), ("aside", "quarantined"), ("there", "stored")] {
        send(&mut alice_raw, &bob, id).await;
        let push = bob_raw.message().await;
        bob_raw.send(&receipt(&push, state)).await;
        let status = alice_raw.expect_past_events("delivery_status").await;
        assert_eq!((&status["client_message_id"], &status["state"]), (&json!(id), &json!("delivered")), "{status}");
    }
}

async fn the_status_of_a_message_tells_every_end_and_not_who_hides(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, bob) = (mesh.member("alice").await, mesh.member("bob").await);
    let (mut alice_raw, mut bob_raw) = (daemon(&mesh, &alice).await, daemon(&mesh, &bob).await);
    let mut status = async |id: &str, receiver: &mut Raw, end: Option<&str>, then: &str| {
        alice_raw.send(&send_with_id(&bob.public(), id, FINGERPRINT)).await;
        let ack = alice_raw.expect_past_events("ack").await;
        let push = receiver.message().await;
        if let Some(end) = end {
            receiver.send(&receipt(&push, end)).await;
            alice_raw.expect_past_events("delivery_status").await;
        }
        let question = json!({"type": "message_status", "messageId": ack["messageId"]});
        let (answer, _) = alice_raw.request(question.clone()).await;
        let told = answer["recipients"][0]["status"].clone();
        assert_eq!((&told, &answer["delivered"]), (&json!(then), &json!(then == "delivered")), "{answer}");
        question
    };
    status("m1", &mut bob_raw, Some("stored"), "delivered").await;
    status("m2", &mut bob_raw, Some("quarantined"), "rejected").await;
    let question = status("m3", &mut bob_raw, None, "held").await;
    bob_raw.request(json!({"type": "set_visible", "visible": false})).await;
    status("m4", &mut bob_raw, None, "disconnected").await;
    // The same as when it is away.
    let (hides, _) = alice_raw.request(question.clone()).await;
    bob_raw.close().await;
    let (away, _) = alice_raw.request(question).await;
    assert_eq!(hides["recipients"], away["recipients"]);
}

async fn who_was_away_hears_of_a_rejection_when_it_returns(backend: Backend) {
    let mut mesh = RawMesh::start(backend).await;
    let (alice, bob) = (mesh.member("alice").await, mesh.member("bob").await);
    let mut alice_raw = daemon(&mesh, &alice).await;
    send(&mut alice_raw, &bob, "m1").await;
    alice_raw.close().await;
    let mut bob_raw = daemon(&mesh, &bob).await;
    let push = bob_raw.message().await;
    bob_raw.send(&rejected(&push, "unreadable")).await;
    until_number(&mesh, "SELECT count(*) FROM delivery WHERE reject_reason = 'unreadable'", 1).await;
    mesh.broker.kill9();
    mesh.broker.restart().await;
    let mut alice_raw = daemon(&mesh, &alice).await;
    let status = alice_raw.expect_past_events("delivery_status").await;
    assert_eq!((&status["state"], &status["reason"]), (&json!("rejected"), &json!("unreadable")), "{status}");
    until_number(&mesh, "SELECT count(*) FROM delivery WHERE expiry_told_at IS NULL", 0).await;
    let mut alice_raw = daemon(&mesh, &alice).await;
    assert_eq!(alice_raw.answers_so_far().await, Vec::<Value>::new(), "told once");
}

/// A word that was written to a link that is dead already was not heard.
async fn who_does_not_answer_is_told_again_on_its_next_link(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, bob) = (mesh.member("alice").await, mesh.member("bob").await);
    let (mut alice_raw, mut bob_raw) = (daemon(&mesh, &alice).await, daemon(&mesh, &bob).await);
    send(&mut alice_raw, &bob, "m1").await;
    let push = bob_raw.message().await;
    alice_raw.stop_reading().await;
    for _ in 0..3 {
        let (answer, _) = bob_raw.request(rejected(&push, "invalid")).await;
        assert_eq!(answer["type"], "ack", "{answer}");
    }
    drop(alice_raw);
    let mut alice_raw = daemon(&mesh, &alice).await;
    let status = alice_raw.expect_past_events("delivery_status").await;
    assert_eq!((&status["state"], &status["reason"]), (&json!("rejected"), &json!("invalid")), "{status}");
    until_number(&mesh, "SELECT count(*) FROM delivery WHERE expiry_told_at IS NULL", 0).await;
    let mut alice_raw = daemon(&mesh, &alice).await;
    assert_eq!(alice_raw.answers_so_far().await, Vec::<Value>::new(), "it has answered");
}

/// Each round looks for what senders do not know; what is under way is not told twice.
async fn what_is_under_way_to_its_sender_is_told_once(backend: Backend) {
    let mesh = RawMesh::configured(backend, "[timers]\nsweep_ms = 50\n").await;
    let (alice, bob) = (mesh.member("alice").await, mesh.member("bob").await);
    let (mut alice_raw, mut bob_raw) = (daemon(&mesh, &alice).await, daemon(&mesh, &bob).await);
    for number in 0..20 {
        send(&mut alice_raw, &bob, &format!("m{number}")).await;
        let push = bob_raw.message().await;
        bob_raw.send(&rejected(&push, "invalid")).await;
        let status = alice_raw.expect_past_events("delivery_status").await;
        assert_eq!(status["client_message_id"], format!("m{number}"), "{status}");
    }
    until_number(&mesh, "SELECT count(*) FROM delivery WHERE expiry_told_at IS NULL", 0).await;
    assert_eq!(alice_raw.answers_so_far().await, Vec::<Value>::new());
}

async fn a_message_that_waits_for_a_key_is_delivered_when_its_receiver_says_so(backend: Backend) {
    let mut mesh = RawMesh::start(backend).await;
    let (alice, bob) = (mesh.member("alice").await, mesh.member("bob").await);
    let (mut alice_raw, mut bob_raw) = (daemon(&mesh, &alice).await, daemon(&mesh, &bob).await);
    let mut pushes = Vec::new();
    for id in ["opens", "never"] {
        send(&mut alice_raw, &bob, id).await;
        let push = bob_raw.message().await;
        bob_raw.send(&receipt(&push, "waiting")).await;
        pushes.push(push);
    }
    until_number(&mesh, "SELECT count(*) FROM delivery WHERE waiting_at IS NOT NULL", 2).await;
    assert_eq!(alice_raw.answers_so_far().await, Vec::<Value>::new(), "not delivered, and nobody says so");
    // The receiver has it: it does not come again, whatever is started anew.
    mesh.broker.kill9();
    mesh.broker.restart().await;
    let (mut alice_raw, mut bob_raw) = (daemon(&mesh, &alice).await, daemon(&mesh, &bob).await);
    send(&mut alice_raw, &bob, "next").await;
    let next = bob_raw.message().await;
    assert_eq!(next["client_message_id"], "next", "{next}");

    // Nobody else has a say in it.
    let (_, mut eve_raw) = mesh.connected("eve").await;
    eve_raw.send(&receipt(&pushes[0], "stored")).await;
    eve_raw.answers_so_far().await;
    let (answer, _) = bob_raw.request(receipt(&pushes[0], "stored")).await;
    assert_eq!((&answer["type"], &answer["error"]), (&json!("ack"), &Value::Null), "{answer}");
    let status = alice_raw.expect_past_events("delivery_status").await;
    assert_eq!((&status["client_message_id"], &status["state"]), (&json!("opens"), &json!("delivered")), "{status}");
    assert_eq!(status["recipientMemberId"], json!(bob.member_id), "{status}");
    let (answer, _) = bob_raw.request(rejected(&pushes[1], "unreadable")).await;
    assert_eq!(answer["type"], "ack", "{answer}");
    let status = alice_raw.expect_past_events("delivery_status").await;
    assert_eq!((&status["client_message_id"], &status["state"]), (&json!("never"), &json!("rejected")), "{status}");
    // Said again it is answered again, and told to nobody.
    let (answer, _) = bob_raw.request(receipt(&pushes[0], "stored")).await;
    assert_eq!(answer["type"], "ack", "{answer}");
    assert_eq!(alice_raw.answers_so_far().await, Vec::<Value>::new());
}

/// What waits at its receiver takes no room in the queue, and its end is counted
/// once.
async fn what_waits_at_its_receiver_takes_no_room(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, bob) = (mesh.member("alice").await, mesh.member("bob").await);
    let (mut alice_raw, mut bob_raw) = (daemon(&mesh, &alice).await, daemon(&mesh, &bob).await);
    let mut first = Value::Null;
    for number in 0..20 {
        send(&mut alice_raw, &bob, &format!("waits-{number}")).await;
        first = bob_raw.message().await;
        bob_raw.send(&receipt(&first, "waiting")).await;
    }
    let (answer, _) = bob_raw.request(receipt(&first, "stored")).await;
    assert_eq!(answer["type"], "ack");
    alice_raw.expect_past_events("delivery_status").await;
    bob_raw.close().await;
    // 1,000 copies of one sender fit, as if those had never been.
    for number in 0..1_000 {
        send(&mut alice_raw, &bob, &format!("m{number}")).await;
    }
    alice_raw.send(&send_with_id(&bob.public(), "one-too-many", FINGERPRINT)).await;
    let ack = alice_raw.expect_past_events("ack").await;
    assert_eq!(ack["code"], "recipient_queue_full", "{ack}");
}

async fn what_waits_for_ever_ends_with_the_brokers_limit(backend: Backend) {
    let mesh = RawMesh::configured(backend, "[timers]\nsweep_ms = 100\nundelivered_ms = 1500\n").await;
    let (alice, bob) = (mesh.member("alice").await, mesh.member("bob").await);
    let (mut alice_raw, mut bob_raw) = (daemon(&mesh, &alice).await, daemon(&mesh, &bob).await);
    send(&mut alice_raw, &bob, "m1").await;
    let push = bob_raw.message().await;
    bob_raw.send(&receipt(&push, "waiting")).await;
    let status = alice_raw.expect_past_events("delivery_status").await;
    assert_eq!(
        (&status["state"], &status["recipientMemberId"]),
        (&json!("expired"), &json!(bob.member_id)),
        "{status}"
    );
}

on_both_databases! {
    what_one_device_stored_is_delivered_whatever_another_made_of_it,
    a_message_that_was_set_aside_is_told_to_its_sender_with_the_reason,
    a_sender_without_the_bit_hears_of_deliveries_as_before,
    what_a_receiver_without_the_bit_acknowledges_is_delivered,
    the_status_of_a_message_tells_every_end_and_not_who_hides,
    who_was_away_hears_of_a_rejection_when_it_returns,
    who_does_not_answer_is_told_again_on_its_next_link,
    what_is_under_way_to_its_sender_is_told_once,
    a_message_that_waits_for_a_key_is_delivered_when_its_receiver_says_so,
    what_waits_at_its_receiver_takes_no_room,
    what_waits_for_ever_ends_with_the_brokers_limit,
}
