//! What is removed, what is remembered, and who is told.

use serde_json::json;

use crate::support::mesh::RawMesh;
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::raw::{Raw, send_with_id};
use crate::support::wait;

const FINGERPRINT: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const HOST: &str = "01J0000000000000000000000A";
const BOOT: &str = "01J00000000000000000000001";

/// Waits until the tables give this number.
async fn until_number(mesh: &RawMesh, sql: &str, wanted: i64) {
    let db = mesh.broker.tables().await;
    wait::until(sql, async || (db.number(sql).await == wanted).then_some(())).await;
    db.close().await;
}

/// The value of a metric.
async fn metric(mesh: &RawMesh, name: &str) -> Option<f64> {
    let text = mesh.broker.http().get("/metrics").send().await.expect(200).text();
    let line = text.lines().find(|line| line.starts_with(name) && !line.starts_with('#'))?;
    line.rsplit(' ').next()?.parse().ok()
}

async fn a_message_that_nobody_takes_ends_and_its_sender_hears_of_it_when_it_returns(backend: Backend) {
    let mut mesh = RawMesh::configured(backend, "[timers]\nsweep_ms = 100\n").await;
    let (alice, bob) = (mesh.member("alice").await, mesh.member("bob").await);
    let (mut alice_raw, _) = Raw::daemon(&mesh.url(), &alice, HOST, BOOT).await;
    for id in ["m1", "m2"] {
        let (ack, _) = alice_raw.request(send_with_id(&bob.public(), id, FINGERPRINT)).await;
        assert_eq!(ack["queued"], true, "{ack}");
    }
    alice_raw.close().await;
    // The time is over while the sender is away, and the broker starts again.
    mesh.broker.stop().await;
    mesh.broker.configure("[timers]\nsweep_ms = 100\nundelivered_ms = 1\n");
    mesh.broker.restart().await;
    until_number(&mesh, "SELECT count(*) FROM delivery WHERE expired_at IS NOT NULL", 2).await;
    mesh.broker.kill9();
    mesh.broker.configure("[timers]\nsweep_ms = 3600000\n");
    mesh.broker.restart().await;
    let (mut alice_raw, _) = Raw::daemon(&mesh.url(), &alice, HOST, BOOT).await;
    for id in ["m1", "m2"] {
        let status = alice_raw.expect_past_events("delivery_status").await;
        assert_eq!((&status["client_message_id"], &status["state"]), (&json!(id), &json!("expired")), "{status}");
        assert!(status["at"].is_i64(), "{status}");
    }
    // Told once, and the id stays what it was.
    let (again, before) = alice_raw.request(send_with_id(&bob.public(), "m1", FINGERPRINT)).await;
    assert_eq!((&again["queued"], &again["duplicate"]), (&json!(true), &json!(true)), "{again}");
    assert!(before.iter().all(|frame| frame["type"] != "delivery_status"), "{before:?}");
    alice_raw.close().await;
    until_number(&mesh, "SELECT count(*) FROM delivery WHERE expiry_told_at IS NULL", 0).await;
    let (mut alice_raw, _) = Raw::daemon(&mesh.url(), &alice, HOST, BOOT).await;
    assert_eq!(alice_raw.answers_so_far().await, Vec::<serde_json::Value>::new());
    // The receiver comes too late.
    let mut bob_raw = Raw::member(&mesh.url(), &bob).await;
    assert_eq!(bob_raw.answers_so_far().await, Vec::<serde_json::Value>::new());
}

// Covers: R137
async fn a_message_goes_and_its_id_stays(backend: Backend) {
    let mut mesh = RawMesh::configured(backend, "[timers]\nsweep_ms = 100\n").await;
    let (alice, mut alice_raw) = mesh.connected("alice").await;
    let (bob, mut bob_raw) = mesh.connected("bob").await;
    let (first, _) = alice_raw.request(send_with_id(&bob.public(), "m1", FINGERPRINT)).await;
    let push = bob_raw.message().await;
    bob_raw.send(&json!({"type": "client_ack", "deliveryId": push["deliveryId"]})).await;
    until_number(&mesh, "SELECT count(*) FROM delivery WHERE delivered_at IS NOT NULL", 1).await;
    mesh.broker.stop().await;
    mesh.broker.configure("[timers]\nsweep_ms = 100\ndelivered_ms = 1\n");
    mesh.broker.restart().await;
    until_number(&mesh, "SELECT count(*) FROM message_queue", 0).await;
    until_number(&mesh, "SELECT count(*) FROM message_history", 0).await;
    mesh.broker.kill9();
    mesh.broker.restart().await;
    let mut alice_raw = Raw::member(&mesh.url(), &alice).await;
    let (again, _) = alice_raw.request(send_with_id(&bob.public(), "m1", FINGERPRINT)).await;
    assert_eq!((&again["duplicate"], &again["messageId"]), (&json!(true), &first["messageId"]), "{again}");
    assert_eq!(again["historyAvailable"], false, "{again}");
    let mut bob_raw = Raw::member(&mesh.url(), &bob).await;
    assert_eq!(bob_raw.answers_so_far().await, Vec::<serde_json::Value>::new(), "no second delivery");
}

async fn an_id_is_forgotten_after_its_time_unless_the_mesh_keeps_ids_for_ever(backend: Backend) {
    let mut mesh = RawMesh::configured(backend, "[timers]\nsweep_ms = 100\n").await;
    let (alice, mut alice_raw) = mesh.connected("alice").await;
    let bob = mesh.member("bob").await;
    alice_raw.request(send_with_id(&bob.public(), "scoped", FINGERPRINT)).await;
    let set = json!({"type": "mesh_policy_set", "dedupeMode": "permanent"});
    mesh.mesh.admin(&mesh.broker, &mesh.mesh.owner, set).await.expect(200);
    let answer = alice_raw.negotiate(&["client_message_id_dedupe"], &[]).await;
    let params = &answer["params"]["client_message_id_dedupe"];
    assert_eq!((&params["mode"], params.get("dedupe_retention_days")), (&json!("permanent"), None), "{answer}");
    let (first, _) = alice_raw.request(send_with_id(&bob.public(), "permanent", FINGERPRINT)).await;
    let db = mesh.broker.tables().await;
    let rows = db.objects("client_message_id, first_seen_at, expires_at", "FROM client_message_dedupe").await;
    for row in rows {
        let kept =
            row["expires_at"].as_i64().map(|at| (at - row["first_seen_at"].as_i64().expect("a time")) / 86_400_000);
        assert_eq!(kept, (row["client_message_id"] == "scoped").then_some(365), "{row}");
    }
    // A year later.
    db.run("UPDATE client_message_dedupe SET expires_at = 1 WHERE expires_at IS NOT NULL").await;
    db.close().await;
    until_number(&mesh, "SELECT count(*) FROM client_message_dedupe", 1).await;
    mesh.broker.crash().await;
    let mut alice_raw = Raw::member(&mesh.url(), &alice).await;
    let (again, _) = alice_raw.request(send_with_id(&bob.public(), "permanent", FINGERPRINT)).await;
    assert_eq!((&again["duplicate"], &again["messageId"]), (&json!(true), &first["messageId"]), "{again}");
}

async fn nothing_is_removed_while_the_clock_is_behind_the_last_sweep(backend: Backend) {
    let mut mesh = RawMesh::configured(backend, "[timers]\nsweep_ms = 100\n").await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let bob = mesh.member("bob").await;
    alice_raw.request(send_with_id(&bob.public(), "m1", FINGERPRINT)).await;
    until_number(&mesh, "SELECT count(*) FROM broker_state WHERE key = 'last_sweep'", 1).await;
    mesh.broker.stop().await;
    let db = mesh.broker.tables().await;
    db.run("UPDATE broker_state SET value = value + 86400000").await;
    db.run("UPDATE client_message_dedupe SET expires_at = 1").await;
    db.close().await;
    mesh.broker.restart().await;
    wait::until("a sweep that removes nothing", async || {
        mesh.broker.output().contains("behind the last sweep").then_some(())
    })
    .await;
    until_number(&mesh, "SELECT count(*) FROM client_message_dedupe", 1).await;
}

async fn what_should_not_be_is_counted(backend: Backend) {
    let mesh = RawMesh::configured(backend, "[timers]\nsweep_ms = 100\ncheck_ms = 100\n").await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let bob = mesh.member("bob").await;
    for id in ["m1", "m2", "m3"] {
        alice_raw.request(send_with_id(&bob.public(), id, FINGERPRINT)).await;
    }
    wait::until("a search that finds nothing", async || {
        let runs = metric(&mesh, "cm_broker_dedupe_orphan_check_total").await?;
        let torn = metric(&mesh, "cm_broker_atomicity_violation_found").await?;
        (runs >= 1.0 && torn == 0.0 && metric(&mesh, "cm_broker_dedupe_orphan_found").await.is_none()).then_some(())
    })
    .await;
    let db = mesh.broker.tables().await;
    db.run("DELETE FROM message_queue WHERE client_message_id = 'm1'").await;
    db.run("DELETE FROM client_message_dedupe WHERE client_message_id = 'm2'").await;
    db.close().await;
    wait::until("both findings", async || {
        let orphan = metric(&mesh, &format!("cm_broker_dedupe_orphan_found{{mesh_id=\"{}\"}}", mesh.mesh.id)).await;
        let torn = metric(&mesh, "cm_broker_atomicity_violation_found").await;
        (orphan == Some(1.0) && torn == Some(1.0)).then_some(())
    })
    .await;
}

on_both_databases! {
    a_message_that_nobody_takes_ends_and_its_sender_hears_of_it_when_it_returns,
    a_message_goes_and_its_id_stays,
    an_id_is_forgotten_after_its_time_unless_the_mesh_keeps_ids_for_ever,
    nothing_is_removed_while_the_clock_is_behind_the_last_sweep,
    what_should_not_be_is_counted,
}
