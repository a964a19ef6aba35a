//! Two brokers over one PostgreSQL database.

use serde_json::{Value, json};

use crate::support::broker::Broker;
use crate::support::cli;
use crate::support::mesh::{Mesh, RawMesh};
use crate::support::postgres::Backend;
use crate::support::process;
use crate::support::raw::{Member, Raw, plain_send, send_with_id};
use crate::support::wait;

const SCANS: &str = "[timers]\nscan_ms = 200\n";
const FINGERPRINT: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const HOST_A: &str = "01J0000000000000000000000A";
const HOST_B: &str = "01J0000000000000000000000B";
const BOOT_1: &str = "01J00000000000000000000001";
const BOOT_2: &str = "01J00000000000000000000002";

/// A mesh, and a second broker that serves it as well.
async fn two_nodes(policy: &str) -> (RawMesh, Broker) {
    let broker = Broker::configured(Backend::Postgres, SCANS).await;
    let mesh = Mesh::create_with(&broker, json!({"slug": "demo", "concurrency_policy": policy})).await;
    let second = broker.second_node(SCANS).await;
    (RawMesh { broker, mesh }, second)
}

/// Kills both, and starts them again over their database.
async fn crash(mesh: &mut RawMesh, second: &mut Broker) {
    mesh.broker.kill9();
    second.kill9();
    mesh.broker.restart().await;
    second.restart().await;
}

fn hello(member: &Member, instance: &str, boot: &str) -> Value {
    let mut hello = member.hello();
    hello["instanceId"] = json!(instance);
    hello["bootId"] = json!(boot);
    hello
}

/// The clock of another broker was ahead when the older one was accepted.
#[tokio::test]
async fn a_message_from_the_other_node_is_not_behind_a_copy_with_an_id_of_the_future() {
    if !Backend::Postgres.is_there() {
        return;
    }
    let (mesh, second) = two_nodes("prefer_newest").await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let bob = mesh.member("bob").await;
    let (first, _) = alice_raw.request(send_with_id(&bob.public(), "m1", FINGERPRINT)).await;
    let db = mesh.broker.tables().await;
    db.run("UPDATE delivery SET id = '02' || substr(id, 3)").await;
    db.close().await;
    let (mut bob_raw, _) = Raw::daemon(&second.url(), &bob, HOST_B, BOOT_2).await;
    assert_eq!(bob_raw.message().await["messageId"], first["messageId"]);
    let (sent, _) = alice_raw.request(send_with_id(&bob.public(), "m2", FINGERPRINT)).await;
    let push = bob_raw.message().await;
    assert_eq!(push["messageId"], sent["messageId"], "{push}");
    bob_raw.send(&json!({"type": "client_ack", "deliveryId": push["deliveryId"]})).await;
    assert_eq!(bob_raw.answers_so_far().await, Vec::<Value>::new(), "each came once");
}

#[tokio::test]
async fn a_message_reaches_a_receiver_at_the_other_node_within_a_scan() {
    if !Backend::Postgres.is_there() {
        return;
    }
    let (mut mesh, mut second) = two_nodes("prefer_newest").await;
    let (alice, mut alice_raw) = mesh.connected("alice").await;
    // Joined at the one, known at the other.
    let bob = mesh.member("bob").await;
    let (mut bob_raw, _) = Raw::daemon(&second.url(), &bob, HOST_B, BOOT_2).await;
    let (ack, _) = alice_raw.request(send_with_id(&bob.public(), "m1", FINGERPRINT)).await;
    assert_eq!(ack["queued"], true, "{ack}");
    let push = bob_raw.message().await;
    assert_eq!((&push["messageId"], &push["redelivery"]), (&ack["messageId"], &json!(false)), "{push}");
    bob_raw.send(&json!({"type": "client_ack", "deliveryId": push["deliveryId"]})).await;
    bob_raw.answers_so_far().await;
    // The same id at either node is the same message.
    crash(&mut mesh, &mut second).await;
    let mut alice_raw = Raw::member(&second.url(), &alice).await;
    for _ in 0..2 {
        let (again, _) = alice_raw.request(send_with_id(&bob.public(), "m1", FINGERPRINT)).await;
        assert_eq!((&again["duplicate"], &again["messageId"]), (&json!(true), &ack["messageId"]), "{again}");
        alice_raw = Raw::member(&mesh.url(), &alice).await;
    }
    // Joined at the second, addressed at the first.
    let carol = mesh.mesh.join(&second, "carol").await;
    let (ack, _) = alice_raw.request(plain_send(&carol.public())).await;
    assert_eq!(ack["queued"], true, "{ack}");
    let mut carol_raw = Raw::member(&second.url(), &carol).await;
    assert_eq!(carol_raw.message().await["messageId"], ack["messageId"]);
}

#[tokio::test]
async fn one_id_at_two_nodes_at_once_is_stored_once() {
    if !Backend::Postgres.is_there() {
        return;
    }
    let (mut mesh, mut second) = two_nodes("prefer_newest").await;
    let (alice, bob) = (mesh.member("alice").await, mesh.member("bob").await);
    let mut acks = vec![Vec::new(); 20];
    // And once more after both were killed.
    for killed in [false, true] {
        if killed {
            crash(&mut mesh, &mut second).await;
        }
        let mut connections = Vec::new();
        for n in 0..10 {
            let url = if n % 2 == 0 { mesh.url() } else { second.url() };
            connections.push(Raw::member(&url, &alice).await);
        }
        for (round, acks) in acks.iter_mut().enumerate() {
            let frame = send_with_id(&bob.public(), &format!("race-{round}"), FINGERPRINT);
            for raw in &mut connections {
                raw.send(&frame).await;
            }
            for raw in &mut connections {
                acks.push(raw.expect_past_events("ack").await);
            }
            let one = |ack: &Value| ack["messageId"] == acks[0]["messageId"] && ack["queued"] == true;
            assert!(acks.iter().all(one), "{acks:?}");
            assert_eq!(acks.iter().filter(|ack| ack["duplicate"] == false).count(), 1, "{acks:?}");
        }
    }
    let db = mesh.broker.tables().await;
    assert_eq!(db.number("SELECT count(*) FROM message_queue").await, 20);
    assert_eq!(db.number("SELECT count(*) FROM delivery").await, 20);
    db.close().await;
}

#[tokio::test]
async fn two_members_with_the_same_ids_at_two_nodes_do_not_meet() {
    if !Backend::Postgres.is_there() {
        return;
    }
    let (mut mesh, mut second) = two_nodes("prefer_newest").await;
    let (alice, carol, bob) = (mesh.member("alice").await, mesh.member("carol").await, mesh.member("bob").await);
    let (mut alice_raw, _) = Raw::daemon(&mesh.url(), &alice, HOST_A, BOOT_1).await;
    let (first, _) = alice_raw.request(send_with_id(&bob.public(), "same", FINGERPRINT)).await;
    let db = mesh.broker.tables().await;
    let before = db.number("SELECT max(started_at) FROM node").await;
    db.close().await;
    crash(&mut mesh, &mut second).await;
    let (mut alice_raw, _) = Raw::daemon(&mesh.url(), &alice, HOST_A, BOOT_1).await;
    let (mut carol_raw, _) = Raw::daemon(&second.url(), &carol, HOST_A, BOOT_1).await;
    let (other, _) = carol_raw.request(send_with_id(&bob.public(), "same", &"f".repeat(64))).await;
    let (again, _) = alice_raw.request(send_with_id(&bob.public(), "same", FINGERPRINT)).await;
    assert_eq!((&again["duplicate"], &again["messageId"]), (&json!(true), &first["messageId"]), "{again}");
    let mut bob_raw = Raw::member(&second.url(), &bob).await;
    assert_eq!((&first["duplicate"], &other["duplicate"]), (&json!(false), &json!(false)), "{first} {other}");
    let mut seen = vec![bob_raw.message().await["messageId"].clone(), bob_raw.message().await["messageId"].clone()];
    let mut sent = vec![first["messageId"].clone(), other["messageId"].clone()];
    seen.sort_by_key(ToString::to_string);
    sent.sort_by_key(ToString::to_string);
    assert_eq!(seen, sent);
    // Two rounds of both nodes later both are still there.
    wait::until("two more scans", async || {
        let db = mesh.broker.tables().await;
        let twice = format!("started_at > {before} AND last_seen_at - started_at > 1000");
        let done = db.number(&format!("SELECT count(*) FROM node WHERE {twice}")).await == 2;
        db.close().await;
        done.then_some(())
    })
    .await;
    assert!(alice_raw.peers().await.len() + carol_raw.peers().await.len() >= 2);
}

/// A broker looks only after the meshes that have somebody there; who comes first sees
/// the others at once, not after the next round.
#[tokio::test]
async fn the_first_of_a_mesh_at_a_node_sees_who_is_at_the_other_one() {
    if !Backend::Postgres.is_there() {
        return;
    }
    let seldom = "[timers]\nscan_ms = 600000\n";
    let mesh = RawMesh::configured(Backend::Postgres, seldom).await;
    let second = mesh.broker.second_node(seldom).await;
    let (alice, bob) = (mesh.member("alice").await, mesh.member("bob").await);
    let (mut alice_raw, _) = Raw::daemon(&mesh.url(), &alice, HOST_A, BOOT_1).await;
    for _ in 0..2 {
        let (mut bob_raw, _) = Raw::daemon(&second.url(), &bob, HOST_B, BOOT_2).await;
        let listed: Vec<Value> = bob_raw.peers().await.iter().map(|peer| peer["memberPubkey"].clone()).collect();
        assert_eq!(listed, [json!(alice.public()), json!(bob.public())]);
        bob_raw.close().await;
    }
    alice_raw.answers_so_far().await;
}

#[tokio::test]
async fn a_daemon_that_comes_back_at_the_other_node_is_replaced_at_the_first() {
    if !Backend::Postgres.is_there() {
        return;
    }
    let (mesh, second) = two_nodes("prefer_oldest").await;
    let (_, mut alice) = mesh.connected("alice").await;
    let bob = mesh.member("bob").await;
    let (mut old, _) = Raw::daemon(&mesh.url(), &bob, HOST_B, BOOT_1).await;
    let (ack, _) = alice.request(plain_send(&bob.public())).await;
    let push = old.message().await;
    assert_eq!(push["messageId"], ack["messageId"]);
    // The same process comes back elsewhere: whatever the policy, no conflict.
    let (mut new, answer) = Raw::hello(&second.url(), &hello(&bob, HOST_B, BOOT_1)).await;
    assert_eq!(answer["generation"], 2, "{answer}");
    new.negotiate(&["concurrent_connection_policy"], &["delivery_ack"]).await;
    // What the old socket says no longer counts, if it can still say anything.
    old.try_send(&json!({"type": "client_ack", "deliveryId": push["deliveryId"]})).await;
    old.expect_close(4003, "replaced_by_newer_connection").await;
    let again = new.message().await;
    assert_eq!((&again["messageId"], &again["redelivery"]), (&ack["messageId"], &json!(true)), "{again}");
    let db = mesh.broker.tables().await;
    assert_eq!(db.number("SELECT count(*) FROM delivery WHERE delivered_at IS NOT NULL").await, 0);
    new.send(&json!({"type": "client_ack", "deliveryId": again["deliveryId"]})).await;
    wait::until("the row to be settled", async || {
        (db.number("SELECT count(*) FROM delivery WHERE delivered_at IS NOT NULL").await == 1).then_some(())
    })
    .await;
    assert_eq!(db.number("SELECT count(*) FROM audit WHERE event = 'member_concurrent_connection'").await, 0);
    db.close().await;
}

// Covers: R66, R72
#[tokio::test]
async fn prefer_newest_closes_the_older_host_at_the_other_node() {
    if !Backend::Postgres.is_there() {
        return;
    }
    let (mesh, second) = two_nodes("prefer_newest").await;
    let bob = mesh.member("bob").await;
    let (mut old, _) = Raw::daemon(&mesh.url(), &bob, HOST_A, BOOT_1).await;
    let (mut new, _) = Raw::daemon(&second.url(), &bob, HOST_B, BOOT_2).await;
    let frames = old.expect_close(4003, "replaced_by_newer_connection").await;
    assert!(frames.iter().any(|frame| frame["type"] == "close_reason"), "{frames:?}");
    assert_eq!(new.peers().await.len(), 1);
    let db = mesh.broker.tables().await;
    assert!(db.number("SELECT count(*) FROM audit WHERE event = 'member_concurrent_connection'").await > 0);
    db.close().await;
}

// Covers: R68, R72
#[tokio::test]
async fn prefer_oldest_refuses_a_newcomer_at_the_other_node_until_the_first_is_gone() {
    if !Backend::Postgres.is_there() {
        return;
    }
    let (mut mesh, second) = two_nodes("prefer_oldest").await;
    let bob = mesh.member("bob").await;
    let (mut old, _) = Raw::daemon(&mesh.url(), &bob, HOST_A, BOOT_1).await;
    let mut new = Raw::connect(&second.url()).await;
    new.send(&hello(&bob, HOST_B, BOOT_2)).await;
    new.send(
        &json!({"type": "feature_negotiation_request", "require": ["concurrent_connection_policy"], "optional": []}),
    )
    .await;
    new.expect_close(4004, "member_already_connected").await;
    // The same directory in another process is a second host too.
    let mut copy = Raw::connect(&second.url()).await;
    copy.send(&hello(&bob, HOST_A, BOOT_2)).await;
    copy.expect_close(4004, "member_already_connected").await;
    // The second had noted its hello; it is taken back at once.
    let db = mesh.broker.tables().await;
    let noted = format!("SELECT count(*) FROM presence WHERE instance_id = '{HOST_B}' AND disconnected_at IS NULL");
    assert_eq!(db.number(&noted).await, 0);
    db.close().await;
    wait::soon("the first alone", async { while old.peers().await.len() != 1 {} }).await;
    mesh.broker.stop().await;
    let (mut new, _) = Raw::daemon(&second.url(), &bob, HOST_B, BOOT_2).await;
    let rows = new.peers().await;
    assert_eq!(rows.len(), 1, "{rows:?}");
}

#[tokio::test]
async fn a_member_that_is_revoked_at_one_node_is_closed_at_the_other() {
    if !Backend::Postgres.is_there() {
        return;
    }
    let (mesh, second) = two_nodes("prefer_newest").await;
    let (bob, _) = mesh.connected("bob").await;
    let mut bob_raw = Raw::daemon(&second.url(), &bob, HOST_B, BOOT_2).await.0;
    let revoke = json!({"type": "member_revoke", "memberId": bob.member_id});
    mesh.mesh.admin(&mesh.broker, &mesh.mesh.owner, revoke).await.expect(200);
    bob_raw.expect_close(4005, "member_revoked").await;
    let mut again = Raw::connect(&second.url()).await;
    again.send(&hello(&bob, HOST_B, BOOT_2)).await;
    again.expect_close(4005, "member_revoked").await;
}

#[tokio::test]
async fn nodes_advertise_what_all_of_them_have() {
    if !Backend::Postgres.is_there() {
        return;
    }
    let (mesh, _second) = two_nodes("prefer_newest").await;
    let alice = mesh.member("alice").await;
    let db = mesh.broker.tables().await;
    let far = i64::MAX / 2;
    db.run(&format!("INSERT INTO node VALUES ('old', '0.1.0', 'client_message_id_dedupe,delivery_ack', 0, {far})"))
        .await;
    wait::until("the common features", async || {
        let mut raw = Raw::member(&mesh.url(), &alice).await;
        let answer = raw.negotiate(&["history"], &[]).await;
        (answer["missing_required"] == json!(["history"])).then_some(())
    })
    .await;
    db.run("DELETE FROM node WHERE id = 'old'").await;
    db.close().await;
    wait::until("all features again", async || {
        let mut raw = Raw::member(&mesh.url(), &alice).await;
        let answer = raw.negotiate(&["history"], &[]).await;
        (answer["missing_required"] == json!([])).then_some(())
    })
    .await;
}

#[tokio::test]
async fn connections_that_the_server_cuts_lose_nothing() {
    if !Backend::Postgres.is_there() {
        return;
    }
    let mesh = RawMesh::start(Backend::Postgres).await;
    let (_, mut alice) = mesh.connected("alice").await;
    let bob = mesh.member("bob").await;
    let db = mesh.broker.tables().await;
    for n in 0..100 {
        if n % 10 == 5 {
            let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                       WHERE datname = current_database() AND pid <> pg_backend_pid()";
            db.run(cut).await;
        }
        // As a daemon does: again, until it is taken.
        loop {
            let (ack, _) = alice.request(send_with_id(&bob.public(), &format!("m{n}"), FINGERPRINT)).await;
            if ack["queued"] == true {
                break;
            }
            assert_eq!(ack["retryable"], true, "{ack}");
        }
    }
    assert_eq!(db.number("SELECT count(*) FROM message_queue").await, 100);
    assert_eq!(db.number("SELECT count(*) FROM client_message_dedupe").await, 100);
    db.close().await;
}

#[tokio::test]
async fn a_server_that_may_lose_commits_is_refused() {
    if !Backend::Postgres.is_there() {
        return;
    }
    let database = Backend::Postgres.database().expect("a database");
    let name = database.psql("SELECT current_database()");
    database.psql(&format!("ALTER DATABASE {name} SET synchronous_commit = off"));
    let home = process::directory();
    let url = database.url();
    let environment = [("CLAUDEMESH_BROKER_DATABASE_URL", url.as_str())];
    let refused = cli::run_with(home.path(), &["broker", "serve", "--listen", "127.0.0.1:0"], &environment).await;
    let refused = refused.exits(10);
    assert!(refused.stderr.contains("synchronous_commit = off"), "{}", refused.stderr);
}

#[tokio::test]
async fn migrate_brings_the_schema_and_two_at_once_wait_for_each_other() {
    if !Backend::Postgres.is_there() {
        return;
    }
    let database = Backend::Postgres.database().expect("a database");
    let home = process::directory();
    let url = database.url();
    let environment = [("CLAUDEMESH_BROKER_DATABASE_URL", url.as_str())];
    let arguments = ["broker", "migrate"];
    let (one, two) = tokio::join!(
        cli::run_with(home.path(), &arguments, &environment),
        cli::run_with(home.path(), &arguments, &environment)
    );
    let (one, two) = (one.ok(), two.ok());
    assert!(one.stdout.contains("has schema") && one.stdout == two.stdout, "{} {}", one.stdout, two.stdout);
    assert!(!one.all().contains("cm@"), "no credentials: {}", one.all());
    assert!(database.psql("SELECT count(*) FROM seaql_migrations").parse::<u32>().expect("a number") >= 3);
    assert_eq!(database.psql("SELECT count(*) FROM pg_index WHERE NOT indisvalid"), "0");
}
