//! Callers who are gone before they have their answer.

use serde_json::json;

use crate::support::keys::Key;
use crate::support::mesh::{RawMesh, join_body};
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::raw::{Member, Raw};
use crate::support::sqlite::Db;
use crate::support::wait;

const HOST: &str = "01J0000000000000000000000A";
const BOOT: &str = "01J00000000000000000000001";

async fn what_was_asked_is_done_although_its_caller_has_gone(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let http = mesh.broker.http();
    let (alice, mut alice_raw) = mesh.connected("alice").await;
    let bob = mesh.member("bob").await;
    let (mut bob_raw, _) = Raw::daemon(&mesh.url(), &bob, HOST, BOOT).await;
    let invite = mesh.mesh.invite(&mesh.broker, 1).await;
    let carol = Key::random();

    let db = mesh.broker.tables().await;
    lock(&db, backend).await;
    let admin = format!("/v1/meshes/{}/admin", mesh.mesh.id);
    let revoke = mesh.mesh.signed(&mesh.mesh.owner, json!({"type": "member_revoke", "memberId": bob.member_id}));
    let policy =
        mesh.mesh.signed(&mesh.mesh.owner, json!({"type": "mesh_policy_set", "concurrencyPolicy": "prefer_oldest"}));
    for request in [
        http.post("/join", &join_body(&invite, &carol, "carol")),
        http.post(&admin, &revoke),
        http.post(&admin, &policy),
    ] {
        let connection = request.send_only().await;
        http.get("/healthz").send().await.expect(200);
        drop(connection);
    }
    // It has noticed by now that they are gone.
    http.get("/healthz").send().await.expect(200);
    db.run("ROLLBACK").await;

    bob_raw.expect_close(4005, "member_revoked").await;
    alice_raw.event("member_revoked").await;
    let find = format!("SELECT id FROM member WHERE pubkey = '{}'", carol.public());
    let member_id = wait::until("carol to be a member", async || db.texts(&find).await.pop()).await;
    db.close().await;
    let carol = Member { mesh_id: mesh.mesh.id.clone(), member_id, key: carol, name: "carol".into() };
    let mut carol_raw = Raw::member(&mesh.url(), &carol).await;
    assert_eq!(carol_raw.peers().await.len(), 2, "alice and carol");
    wait::until("the policy to hold", async || {
        let asked = mesh.mesh.admin(&mesh.broker, &alice.key, json!({"type": "mesh_policy_get"})).await;
        (asked.expect(200).json()["concurrencyPolicy"] == "prefer_oldest").then_some(())
    })
    .await;
}

/// The time of a hello is over while the broker notes who came.
async fn a_hello_in_time_is_admitted_however_slow_the_database_is(backend: Backend) {
    let mesh = RawMesh::configured(backend, "[timers]\nhello_ms = 1000\n").await;
    let alice = mesh.member("alice").await;
    let mut hello = alice.hello();
    hello["instanceId"] = json!(HOST);
    hello["bootId"] = json!(BOOT);
    let db = mesh.broker.tables().await;
    lock(&db, backend).await;
    let mut raw = Raw::connect(&mesh.url()).await;
    raw.send(&hello).await;
    Raw::connect(&mesh.url()).await.expect_close(1008, "hello_timeout").await;
    db.run("ROLLBACK").await;
    db.close().await;
    raw.expect("hello_ack").await;
    assert_eq!(raw.peers().await.len(), 1);
}

/// Nobody can change a mesh or a member until it is rolled back.
async fn lock(db: &Db, backend: Backend) {
    match backend {
        Backend::Sqlite => db.run("BEGIN IMMEDIATE").await,
        Backend::Postgres => db.run("BEGIN; LOCK TABLE mesh, member IN EXCLUSIVE MODE").await,
    }
}

on_both_databases! {
    a_hello_in_time_is_admitted_however_slow_the_database_is,
    what_was_asked_is_done_although_its_caller_has_gone,
}
