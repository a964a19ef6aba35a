//! A member that is connected twice.

use serde_json::{Value, json};

use crate::support::mesh::RawMesh;
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::raw::{Member, Raw, Seen, plain_send};
use crate::support::wait;

const HOST_A: &str = "01J0000000000000000000000A";
const HOST_B: &str = "01J0000000000000000000000B";
const BOOT_1: &str = "01J00000000000000000000001";
const BOOT_2: &str = "01J00000000000000000000002";

/// Waits for the audit row of the event.
async fn audited(mesh: &RawMesh) {
    let db = mesh.broker.tables().await;
    wait::until("an audit row", async || {
        let rows = db.objects("event, payload", "FROM audit WHERE event = 'member_concurrent_connection'").await;
        (!rows.is_empty()).then_some(())
    })
    .await;
    db.close().await;
}

/// Frames before a close, and the close.
async fn end(raw: &mut Raw) -> (Vec<Value>, u16, String) {
    let mut frames = Vec::new();
    loop {
        match raw.next().await {
            Seen::Frame(frame) => frames.push(frame),
            Seen::Closed(code, reason) => return (frames, code, reason),
        }
    }
}

fn assert_announced(frames: &[Value], code: u16) {
    let reason = frames.iter().find(|frame| frame["type"] == "close_reason");
    let reason = reason.unwrap_or_else(|| panic!("no close_reason before the close: {frames:?}"));
    assert_eq!(reason["code"], code, "{reason}");
    assert!(reason["kind"].is_string() && reason["detail"].is_string(), "{reason}");
}

// Covers: R66, R71, R72
async fn prefer_newest_is_the_default_and_closes_the_older_host(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let bob = mesh.member("bob").await;
    let (mut old, answer) = Raw::daemon(&mesh.url(), &bob, HOST_A, BOOT_1).await;
    assert_eq!(answer["params"]["concurrent_connection_policy"]["default_policy"], "prefer_newest", "{answer}");
    let (mut new, _) = Raw::daemon(&mesh.url(), &bob, HOST_B, BOOT_2).await;
    let (frames, code, reason) = end(&mut old).await;
    assert_eq!((code, reason.as_str()), (4003, "replaced_by_newer_connection"), "{frames:?}");
    assert_announced(&frames, 4003);
    let (ack, _) = alice_raw.request(plain_send(&bob.public())).await;
    assert_eq!(new.message().await["messageId"], ack["messageId"]);
    audited(&mesh).await;
}

// Covers: R68, R71, R72
async fn prefer_oldest_refuses_the_newcomer(backend: Backend) {
    let mesh = RawMesh::with_policy(backend, "prefer_oldest").await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let bob = mesh.member("bob").await;
    let (mut old, answer) = Raw::daemon(&mesh.url(), &bob, HOST_A, BOOT_1).await;
    assert_eq!(answer["params"]["concurrent_connection_policy"]["default_policy"], "prefer_oldest", "{answer}");
    let (frames, code, reason) = newcomer(&mesh, &bob).await;
    assert_eq!((code, reason.as_str()), (4004, "member_already_connected"), "{frames:?}");
    assert_announced(&frames, 4004);
    let (ack, _) = alice_raw.request(plain_send(&bob.public())).await;
    assert_eq!(old.message().await["messageId"], ack["messageId"], "the older connection is untouched");
    audited(&mesh).await;
}

async fn newcomer(mesh: &RawMesh, member: &Member) -> (Vec<Value>, u16, String) {
    let mut hello = member.hello();
    hello["instanceId"] = json!(HOST_B);
    hello["bootId"] = json!(BOOT_2);
    let mut raw = Raw::connect(&mesh.url()).await;
    raw.send(&hello).await;
    raw.send(&json!({
        "type": "feature_negotiation_request",
        "require": ["client_message_id_dedupe", "concurrent_connection_policy"],
        "optional": [],
    }))
    .await;
    end(&mut raw).await
}

// Covers: R70, R72
async fn allow_concurrent_keeps_both_as_siblings(backend: Backend) {
    let mesh = RawMesh::with_policy(backend, "allow_concurrent").await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let bob = mesh.member("bob").await;
    let (mut first, _) = Raw::daemon(&mesh.url(), &bob, HOST_A, BOOT_1).await;
    let (mut second, _) = Raw::daemon(&mesh.url(), &bob, HOST_B, BOOT_2).await;
    let (ack, _) = alice_raw.request(plain_send(&bob.public())).await;
    assert_eq!(first.message().await["messageId"], ack["messageId"]);
    assert_eq!(second.message().await["messageId"], ack["messageId"]);
    let rows = alice_raw.peers().await;
    assert_eq!(rows.iter().filter(|row| row["memberPubkey"] == bob.public().as_str()).count(), 2, "{rows:?}");
    audited(&mesh).await;
}

async fn a_reconnect_of_the_same_process_is_no_second_connection(backend: Backend) {
    let mesh = RawMesh::with_policy(backend, "prefer_oldest").await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let bob = mesh.member("bob").await;
    let (old, _) = Raw::daemon(&mesh.url(), &bob, HOST_A, BOOT_1).await;
    let (mut new, _) = Raw::daemon(&mesh.url(), &bob, HOST_A, BOOT_1).await;
    let (ack, _) = alice_raw.request(plain_send(&bob.public())).await;
    assert_eq!(new.message().await["messageId"], ack["messageId"]);
    drop(old);
    let db = mesh.broker.tables().await;
    assert_eq!(db.number("SELECT count(*) FROM audit WHERE event = 'member_concurrent_connection'").await, 0);
    db.close().await;
}

async fn an_old_command_line_never_evicts_a_daemon(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let bob = mesh.member("bob").await;
    let (mut daemon, _) = Raw::daemon(&mesh.url(), &bob, HOST_A, BOOT_1).await;
    let mut legacy = Raw::member(&mesh.url(), &bob).await;
    assert_eq!(legacy.peers().await.len(), 3);
    legacy.close().await;
    let (ack, _) = alice_raw.request(plain_send(&bob.public())).await;
    assert_eq!(daemon.message().await["messageId"], ack["messageId"]);
}

async fn equal_session_ids_of_two_members_do_not_meet(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, bob) = (mesh.member("alice").await, mesh.member("bob").await);
    let same = |member: &Member| {
        let mut hello = member.hello();
        hello["sessionId"] = json!("daemon-1");
        hello
    };
    let (mut alice_raw, _) = Raw::hello(&mesh.url(), &same(&alice)).await;
    let (mut bob_raw, _) = Raw::hello(&mesh.url(), &same(&bob)).await;
    assert_eq!(alice_raw.peers().await.len(), 2);
    // The same member with the same session id replaces itself.
    let (mut again, _) = Raw::hello(&mesh.url(), &same(&alice)).await;
    alice_raw.expect_close(1000, "session_replaced").await;
    assert_eq!(again.peers().await.len(), 2);
    assert_eq!(bob_raw.peers().await.len(), 2);
}

on_both_databases! {
    prefer_newest_is_the_default_and_closes_the_older_host,
    prefer_oldest_refuses_the_newcomer,
    allow_concurrent_keeps_both_as_siblings,
    a_reconnect_of_the_same_process_is_no_second_connection,
    an_old_command_line_never_evicts_a_daemon,
    equal_session_ids_of_two_members_do_not_meet,
}
