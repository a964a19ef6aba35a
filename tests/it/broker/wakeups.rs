//! Brokers of one database wake each other, and a broker tells a sender that there is
//! room again.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::broker::Broker;
use crate::support::daemon::Daemon;
use crate::support::mesh::{Mesh, RawMesh};
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::raw::{Raw, plain_send, send_with_id};
use crate::support::wait;

const FINGERPRINT: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const HOST: &str = "01J0000000000000000000000B";
const OTHER_HOST: &str = "01J0000000000000000000000A";
const BOOT: &str = "01J00000000000000000000002";
/// Copies of one sender that wait for one receiver.
const PAIR_ROWS: usize = 1_000;
/// No test waits for a scan with these.
const NO_SCANS: &str = "[timers]\nscan_ms = 3600000\n";

async fn two_nodes(toml: &str) -> (RawMesh, Broker) {
    let broker = Broker::configured(Backend::Postgres, toml).await;
    let mesh = Mesh::create(&broker, "demo").await;
    let second = broker.second_node(toml).await;
    (RawMesh { broker, mesh }, second)
}

async fn listeners(mesh: &RawMesh, sql: &str) -> i64 {
    let db = mesh.broker.tables().await;
    let from = "FROM pg_stat_activity WHERE datname = current_database() AND query ILIKE 'LISTEN%'";
    let count = db.number(&format!("SELECT count({sql}) {from}")).await;
    db.close().await;
    count
}

// Covers: D-K16
#[tokio::test]
async fn a_message_and_a_newcomer_are_known_at_the_other_node_without_a_scan() {
    if !Backend::Postgres.is_there() {
        return;
    }
    let (mesh, second) = two_nodes(NO_SCANS).await;
    wait::until("both to listen", async || (listeners(&mesh, "*").await == 2).then_some(())).await;
    let (alice, bob) = (mesh.member("alice").await, mesh.member("bob").await);
    let (mut alice, _) = Raw::daemon(&mesh.url(), &alice, OTHER_HOST, BOOT).await;
    let (mut bob_raw, _) = Raw::daemon(&second.url(), &bob, HOST, BOOT).await;
    // Who is where is the same at both.
    for raw in [&mut alice, &mut bob_raw] {
        wait::soon("both in the list", async { while raw.peers().await.len() != 2 {} }).await;
    }
    for _ in 0..3 {
        let (ack, _) = alice.request(plain_send(&bob.public())).await;
        let push = bob_raw.message().await;
        assert_eq!((&push["messageId"], &push["redelivery"]), (&ack["messageId"], &json!(false)), "{push}");
        bob_raw.send(&json!({"type": "client_ack", "deliveryId": push["deliveryId"]})).await;
    }
}

// Covers: D-K16
#[tokio::test]
async fn a_lost_wake_up_costs_a_scan_and_nothing_else() {
    if !Backend::Postgres.is_there() {
        return;
    }
    let (mesh, second) = two_nodes("[timers]\nscan_ms = 1000\n").await;
    wait::until("both to listen", async || (listeners(&mesh, "*").await == 2).then_some(())).await;
    let (_, mut alice) = mesh.connected("alice").await;
    let bob = mesh.member("bob").await;
    let (mut bob_raw, _) = Raw::daemon(&second.url(), &bob, HOST, BOOT).await;
    for _ in 0..5 {
        listeners(&mesh, "pg_terminate_backend(pid)").await;
        let (ack, _) = alice.request(plain_send(&bob.public())).await;
        let push = bob_raw.message().await;
        assert_eq!(push["messageId"], ack["messageId"]);
        bob_raw.send(&json!({"type": "client_ack", "deliveryId": push["deliveryId"]})).await;
    }
    assert_eq!(bob_raw.answers_so_far().await, Vec::<Value>::new(), "each once");
    wait::until("both to listen again", async || (listeners(&mesh, "*").await == 2).then_some(())).await;
}

/// As when the host behind it is gone without a word.
#[tokio::test]
async fn a_connection_that_says_nothing_any_more_is_made_anew() {
    if !Backend::Postgres.is_there() {
        return;
    }
    let broker = Broker::configured(Backend::Postgres, "[timers]\nscan_ms = 200\n").await;
    let mesh = RawMesh { mesh: Mesh::create(&broker, "demo").await, broker };
    wait::until("it to listen", async || (listeners(&mesh, "*").await == 1).then_some(())).await;
    let silent = listeners(&mesh, "*) * max(pid").await;
    let signal = |name: &str| {
        let done = std::process::Command::new("kill").args([name, &silent.to_string()]).status();
        assert!(done.expect("kill runs").success());
    };
    signal("-STOP");
    wait::until("another to listen", async || (listeners(&mesh, "*").await == 2).then_some(())).await;
    signal("-CONT");
    wait::until("the first to end", async || (listeners(&mesh, "*").await == 1).then_some(())).await;
}

async fn fill(alice: &mut Raw, bob: &str) {
    for number in 0..PAIR_ROWS {
        let (ack, _) = alice.request(send_with_id(bob, &format!("m{number}"), FINGERPRINT)).await;
        assert_eq!(ack["queued"], true, "{ack}");
    }
    let (ack, _) = alice.request(send_with_id(bob, "more", FINGERPRINT)).await;
    assert_eq!(ack["code"], "recipient_queue_full", "{ack}");
}

/// Takes half of what waits, one by one.
async fn take_half(bob: &mut Raw) {
    for _ in 0..PAIR_ROWS / 2 {
        let push = bob.message().await;
        bob.send(&json!({"type": "client_ack", "deliveryId": push["deliveryId"]})).await;
    }
}

async fn a_sender_is_told_that_there_is_room_again(backend: Backend) {
    let mesh = RawMesh::configured(backend, NO_SCANS).await;
    let (alice, bob) = (mesh.member("alice").await, mesh.member("bob").await);
    let mut alice_raw = Raw::member(&mesh.url(), &alice).await;
    alice_raw.negotiate(&[], &["receiver_ready"]).await;
    fill(&mut alice_raw, &bob.public()).await;
    let (mut bob_raw, _) = Raw::daemon(&mesh.url(), &bob, HOST, BOOT).await;
    take_half(&mut bob_raw).await;
    let ready = alice_raw.expect_past_events("receiver_ready").await;
    assert_eq!(ready, json!({"type": "receiver_ready", "memberId": bob.member_id}));
    let (ack, _) = alice_raw.request(send_with_id(&bob.public(), "more", FINGERPRINT)).await;
    assert_eq!(ack["queued"], true, "{ack}");
    assert_eq!(alice_raw.answers_so_far().await, Vec::<Value>::new(), "told once");
}

on_both_databases! {
    a_sender_is_told_that_there_is_room_again,
}

#[tokio::test]
async fn a_sender_at_another_node_is_told_as_well() {
    if !Backend::Postgres.is_there() {
        return;
    }
    let (mesh, second) = two_nodes(NO_SCANS).await;
    wait::until("both to listen", async || (listeners(&mesh, "*").await == 2).then_some(())).await;
    let (alice, bob) = (mesh.member("alice").await, mesh.member("bob").await);
    let mut alice_raw = Raw::member(&mesh.url(), &alice).await;
    alice_raw.negotiate(&[], &["receiver_ready"]).await;
    fill(&mut alice_raw, &bob.public()).await;
    let (mut bob_raw, _) = Raw::daemon(&second.url(), &bob, HOST, BOOT).await;
    take_half(&mut bob_raw).await;
    let ready = alice_raw.expect_past_events("receiver_ready").await;
    assert_eq!(ready["memberId"], json!(bob.member_id));
}

/// More than the broker keeps for a pair: the rest follows as soon as there is room, not
/// after the pause of a refusal, which is half a minute.
#[tokio::test]
async fn a_backlog_flows_when_its_receiver_is_back() {
    const MESSAGES: usize = 1_500;
    let broker = Broker::start().await;
    let mesh = Mesh::create(&broker, "demo").await;
    let alice = Daemon::join(&broker, &mesh, "alice").await;
    let mut bob = Daemon::join(&broker, &mesh, "bob").await;
    alice.connected().await;
    alice.knows("bob").await;
    bob.stop().await;
    for number in 0..MESSAGES {
        alice.send("bob", &format!("m{number}")).await;
    }
    let full = async || {
        let db = alice.outbox_db().await;
        let waiting = db.number("SELECT count(*) FROM outbox WHERE status = 'pending'").await;
        db.close().await;
        (waiting == (MESSAGES - PAIR_ROWS) as i64).then_some(())
    };
    wait::until("the broker to take no more", full).await;
    bob.start().await;
    let all = async || (bob.inbox("").await.len() == MESSAGES).then_some(());
    wait::until_within(Duration::from_secs(14), "everything to arrive", all).await;
}
