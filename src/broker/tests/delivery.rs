//! Sends, acks, duplicates, pushes and acknowledgements.

use std::time::Duration;

use serde_json::json;

use super::*;

// Covers: R137, R149
async fn an_id_is_accepted_once_and_answered_for_ever(backend: Backend) {
    let broker = TestBroker::start(backend).await;
    let members = broker.mesh("prefer_newest", &[1, 2]).await;
    let mut a = broker.daemon(&members[0], "ia").await;
    let first = a.message(&members[1], "m1", "f1").await;
    assert_eq!((&first["queued"], &first["duplicate"]), (&json!(true), &json!(false)), "{first}");
    let broker = TestBroker::start_in(broker.shut_down().await, |_| {}).await;
    let mut a = broker.daemon(&members[0], "ia").await;
    let again = a.message(&members[1], "m1", "f1").await;
    assert_eq!((&again["messageId"], &again["historyId"]), (&first["messageId"], &first["historyId"]));
    assert_eq!(again["duplicate"], true);
    let other = a.message(&members[1], "m1", "f2").await;
    assert_eq!((&other["code"], &other["retryable"]), (&json!("idempotency_key_reused"), &json!(false)));
    assert_eq!((&other["queued"], &other["messageId"]), (&json!(false), &first["messageId"]));

    let mut b = broker.daemon(&members[1], "ib").await;
    let push = b.expect("push").await;
    assert_eq!(push["messageId"], first["messageId"]);
    assert_eq!((&push["client_message_id"], &push["senderPubkey"]), (&json!("m1"), &json!(members[0].key())));
    assert_eq!((&push["senderMemberId"], &push["senderName"]), (&json!(members[0].id), &json!("m1")));
    assert!(b.is_quiet().await, "one copy for three sends");

    b.send(json!({"type": "client_ack", "deliveryId": push["deliveryId"]})).await;
    let status = a.expect("delivery_status").await;
    assert_eq!((&status["client_message_id"], &status["state"]), (&json!("m1"), &json!("delivered")));
}

// Covers: R137, R149
async fn an_id_survives_a_restart_and_belongs_to_its_sender_alone(backend: Backend) {
    let broker = TestBroker::start(backend).await;
    let members = broker.mesh("prefer_newest", &[1, 2]).await;
    let mut a = broker.daemon(&members[0], "ia").await;
    let first = a.message(&members[1], "same", "f1").await;
    let broker = TestBroker::start_in(broker.shut_down().await, |_| {}).await;

    let mut a = broker.daemon(&members[0], "ia").await;
    let again = a.message(&members[1], "same", "f1").await;
    assert_eq!((&again["messageId"], &again["duplicate"]), (&first["messageId"], &json!(true)));
    let mut b = broker.daemon(&members[1], "ib").await;
    assert_eq!(b.expect("push").await["messageId"], first["messageId"], "it waited for its receiver");
    let theirs = b.message(&members[0], "same", "f9").await;
    assert_eq!(theirs["duplicate"], false, "another member's id is another id");
}

async fn many_sends_at_once_are_acked_in_order_and_pushed_in_order(backend: Backend) {
    let broker = TestBroker::start(backend).await;
    let members = broker.mesh("prefer_newest", &[1, 2]).await;
    let (mut a, mut b) = (broker.daemon(&members[0], "ia").await, broker.daemon(&members[1], "ib").await);
    for n in 0..200 {
        a.send(message(&members[1].key(), &format!("m{n}"), "f")).await;
    }
    for n in 0..200 {
        assert_eq!(a.expect("ack").await["id"], format!("m{n}"));
    }
    for n in 0..200 {
        assert_eq!(b.expect("push").await["client_message_id"], format!("m{n}"));
    }
}

async fn a_backlog_larger_than_the_window_is_drained_as_it_is_acknowledged(backend: Backend) {
    let broker = TestBroker::start(backend).await;
    let members = broker.mesh("prefer_newest", &[1, 2]).await;
    let mut a = broker.daemon(&members[0], "ia").await;
    for n in 0..700 {
        a.send(message(&members[1].key(), &format!("m{n}"), "f")).await;
        a.expect("ack").await;
    }
    let mut b = broker.daemon(&members[1], "ib").await;
    for n in 0..700 {
        let push = b.expect("push").await;
        assert_eq!(push["client_message_id"], format!("m{n}"));
        assert_eq!(push["redelivery"], false);
        b.send(json!({"type": "client_ack", "deliveryId": push["deliveryId"]})).await;
    }
}

async fn what_is_not_acknowledged_comes_again_but_only_to_those_who_acknowledge(backend: Backend) {
    let broker = TestBroker::start_with(backend, |config| {
        // Longer than any pause between a commit and its push.
        config.timers.lease = Duration::from_millis(400);
        config.timers.scan = Duration::from_millis(20);
    });
    let broker = broker.await;
    let members = broker.mesh("prefer_newest", &[1, 2, 4]).await;
    let mut a = broker.daemon(&members[0], "ia").await;
    let mut b = broker.daemon(&members[1], "ib").await;
    let mut old = broker.legacy(&members[2], "old").await;

    a.message(&members[1], "m1", "f").await;
    let push = b.expect("push").await;
    let again = b.expect("push").await;
    assert_eq!((&again["deliveryId"], &again["redelivery"]), (&push["deliveryId"], &json!(true)));
    b.send(json!({"type": "client_ack", "clientMessageId": "m1", "brokerMessageId": push["messageId"]})).await;
    a.expect("delivery_status").await;

    a.message(&members[2], "m2", "f").await;
    a.message(&members[1], "m3", "f").await;
    let push = old.expect("push").await;
    assert_eq!((&push["client_message_id"], &push["redelivery"]), (&json!("m2"), &json!(false)));
    for again in [false, true, true] {
        let push = b.expect("push").await;
        assert_eq!((&push["client_message_id"], &push["redelivery"]), (&json!("m3"), &json!(again)));
    }
    assert!(old.is_quiet().await, "once per connection, while others are asked again");
    cut(old).await;
    let mut old = broker.legacy(&members[2], "old2").await;
    let push = old.expect("push").await;
    assert_eq!((&push["client_message_id"], &push["redelivery"]), (&json!("m2"), &json!(true)));
    old.send(json!({"type": "client_ack", "clientMessageId": "m2", "brokerMessageId": push["messageId"]})).await;
    a.expect("delivery_status").await;
}

async fn an_acknowledgement_settles_only_the_ackers_own_copy(backend: Backend) {
    let broker = TestBroker::start(backend).await;
    let members = broker.mesh("prefer_newest", &[1, 2, 4]).await;
    let (mut a, mut c) = (broker.daemon(&members[0], "ia").await, broker.daemon(&members[2], "ic").await);
    let ack = a.message(&members[1], "m1", "f").await;
    for frame in [
        json!({"type": "client_ack", "brokerMessageId": ack["messageId"]}),
        json!({"type": "client_ack", "clientMessageId": "m1"}),
        json!({"type": "client_ack", "deliveryId": ack["messageId"]}),
    ] {
        c.send(frame).await;
    }
    c.send(json!({"type": "list_peers", "_reqId": "done"})).await;
    assert_eq!(c.expect("peers_list").await["_reqId"], "done");
    let mut b = broker.daemon(&members[1], "ib").await;
    assert_eq!(b.expect("push").await["messageId"], ack["messageId"]);
}

async fn undelivered_messages_expire_and_their_sender_is_told(backend: Backend) {
    let impatient = |config: &mut BrokerConfig| {
        config.timers.undelivered = Duration::from_millis(1);
        config.timers.sweep = Duration::from_millis(30);
    };
    let broker = TestBroker::start_with(backend, impatient).await;
    let members = broker.mesh("prefer_newest", &[1, 2]).await;
    let mut a = broker.daemon(&members[0], "ia").await;
    a.message(&members[1], "m1", "f").await;
    let status = a.expect("delivery_status").await;
    assert_eq!((&status["client_message_id"], &status["state"]), (&json!("m1"), &json!("expired")));
    assert!(a.is_quiet().await, "told once, and the ping after it is answered");
    let broker = TestBroker::start_in(broker.shut_down().await, impatient).await;
    let mut a = broker.daemon(&members[0], "ia").await;
    let again = a.message(&members[1], "m1", "f").await;
    assert_eq!(again["duplicate"], true, "the id outlives the message");
}

async fn refusals_have_a_code_write_nothing_and_leave_the_id_free(backend: Backend) {
    let broker = TestBroker::start_with(backend, |config| config.member_rate_per_s = 1).await;
    let members = broker.mesh("prefer_newest", &[1, 2]).await;
    let mut a = broker.daemon(&members[0], "ia").await;
    let to = members[1].key();
    let mut bad_nonce = message(&to, "x", "f");
    bad_nonce["nonce"] = json!("AAAA");
    let mut foreign = message(&to, "x", "f");
    foreign["sender_key"] = json!(to);
    let mut priority = message(&to, "x", "f");
    priority["priority"] = json!("urgent");
    for (frame, code, retryable) in [
        (message(&"0".repeat(64), "x", "f"), "recipient_not_found", false),
        (message("#nowhere", "x", "f"), "topic_not_found", false),
        (message("bob", "x", "f"), "invalid", false),
        (bad_nonce, "invalid", false),
        (foreign, "sender_key_unknown", false),
        (priority, "invalid", false),
    ] {
        a.send(frame).await;
        let ack = a.expect("ack").await;
        assert_eq!((&ack["code"], &ack["retryable"], &ack["id"]), (&json!(code), &json!(retryable), &json!("x")));
        assert_eq!((&ack["queued"], &ack["messageId"]), (&json!(false), &json!("")));
    }
    a.send(message(&"0".repeat(64), "x", "f")).await;
    assert!(text(&a.expect("ack").await, "error").starts_with("no connected peer"));

    assert_eq!(a.message(&members[1], "x", "f").await["duplicate"], false, "the id is free");
    for n in 0..9 {
        assert_eq!(a.message(&members[1], &format!("y{n}"), "f").await["queued"], true);
    }
    let limited = a.message(&members[1], "z", "f").await;
    assert_eq!((&limited["code"], &limited["retryable"]), (&json!("rate_limit"), &json!(true)));
    assert!(limited["retryAfterMs"].as_u64().is_some_and(|ms| (1..=1000).contains(&ms)), "{limited}");
    let known = a.message(&members[1], "x", "f").await;
    assert_eq!(known["duplicate"], true, "an accepted id is answered whatever the budget");
}

async fn multicasts_reach_everybody_else_who_is_there_and_shows_itself(backend: Backend) {
    let broker = TestBroker::start(backend).await;
    let members = broker.mesh("prefer_newest", &[1, 2, 4, 5]).await;
    let mut a = broker.legacy(&members[0], "a").await;
    let mut b = broker.daemon(&members[1], "ib").await;
    let mut c = broker.legacy(&members[2], "c").await;
    b.send(json!({"type": "join_group", "name": "dev"})).await;
    c.send(json!({"type": "set_visible", "visible": false})).await;
    c.expect("ack").await;
    b.send(json!({"type": "list_peers"})).await;
    b.expect("peers_list").await;

    a.send(message("*", "m1", "f")).await;
    assert_eq!(a.expect("ack").await["queued"], true);
    let push = b.expect("push").await;
    assert_eq!((&push["client_message_id"], &push["senderName"]), (&json!("m1"), &json!("m1")));
    a.send(message("@dev", "m2", "f")).await;
    a.expect("ack").await;
    assert_eq!(b.expect("push").await["client_message_id"], "m2");
    a.send(message("@ops", "m3", "f")).await;
    assert_eq!(a.expect("ack").await["queued"], true);
    assert!(b.is_quiet().await && c.is_quiet().await && a.is_quiet().await);

    let mut late = broker.legacy(&members[3], "d").await;
    assert!(late.is_quiet().await, "who was not there never gets it");
    a.send(message("*", "m4", "f")).await;
    a.expect("ack").await;
    assert_eq!(late.expect("push").await["client_message_id"], "m4");
    // Frames and commits are handled in order: both answers stand after the note
    // that the copy was given.
    late.send(json!({"type": "list_peers"})).await;
    late.expect("peers_list").await;
    assert_eq!(a.message(&members[1], "m5", "f").await["queued"], true);
    cut(late).await;
    let mut late = broker.legacy(&members[3], "d2").await;
    assert!(late.is_quiet().await, "a client that never acknowledges gets a multicast once");
    cut(b).await;
    let mut b = broker.daemon(&members[1], "ib").await;
    assert_eq!(b.expect("push").await["client_message_id"], "m1", "a daemon gets it until it acknowledges");
}

/// SQLite by itself lets the log grow to 82 MB and then moves it within somebody's
/// commit; `WalKeeper` allows 75 MB on the slowest of disks.
#[tokio::test]
async fn the_log_of_a_busy_database_stays_small() {
    let broker = TestBroker::start(Backend::Sqlite).await;
    let members = broker.mesh("prefer_newest", &[1, 2]).await;
    let (mut a, mut b) = (broker.daemon(&members[0], "ia").await, broker.daemon(&members[1], "ib").await);
    // 30 MB of ciphertext.
    for n in 0..600 {
        let mut send = message(&members[1].key(), &format!("m{n}"), "f");
        send["ciphertext"] = json!("A".repeat(68_000));
        a.send(send).await;
        assert_eq!(a.expect("ack").await["queued"], true);
        let push = b.expect("push").await;
        b.send(json!({"type": "client_ack", "deliveryId": push["deliveryId"]})).await;
        a.expect("delivery_status").await;
    }
    let log = std::fs::metadata(broker.path().join("broker.db-wal")).expect("the log").len();
    assert!(log < 72 << 20, "{log} bytes");
}

on_both_databases! {
    an_id_is_accepted_once_and_answered_for_ever,
    an_id_survives_a_restart_and_belongs_to_its_sender_alone,
    many_sends_at_once_are_acked_in_order_and_pushed_in_order,
    a_backlog_larger_than_the_window_is_drained_as_it_is_acknowledged,
    what_is_not_acknowledged_comes_again_but_only_to_those_who_acknowledge,
    an_acknowledgement_settles_only_the_ackers_own_copy,
    undelivered_messages_expire_and_their_sender_is_told,
    refusals_have_a_code_write_nothing_and_leave_the_id_free,
    multicasts_reach_everybody_else_who_is_there_and_shows_itself,
}
