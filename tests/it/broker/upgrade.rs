//! A broker over the database of an older release, with rows in place.

use serde_json::json;

use crate::support::broker::Broker;
use crate::support::keys::Key;
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::raw::{Member, Raw, send_with_id};
use crate::support::wait;

const SQLITE: &str = include_str!("../../fixtures/broker_schema_1.sqlite.sql");
const POSTGRES: &str = include_str!("../../fixtures/broker_schema_1.postgres.sql");
const MESH: &str = "01J0000000000000000000MESH";
const FINGERPRINT: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn member(id: &str, seed: u8) -> Member {
    Member { mesh_id: MESH.into(), member_id: id.into(), key: Key::from_seed([seed; 32]), name: id.into() }
}

/// A mesh with two members, a message that waits for one of them and one that
/// was delivered, and an id without a message.
fn rows(alice: &Member, bob: &Member) -> String {
    let now = crate::support::keys::now_ms();
    let (a, b, far) = (alice.public(), bob.public(), now + 365 * 24 * 3_600_000);
    let blob = "'012345678901234567890123'";
    let insert_member = |member: &Member, key: &str| {
        format!(
            "INSERT INTO member VALUES ('{id}', '{MESH}', '{key}', '{id}', 'member', NULL, {now}, NULL, NULL);\n\
             INSERT INTO member_key VALUES ('{MESH}', '{key}', '{id}', 0, {now}, NULL, NULL);\n",
            id = member.member_id
        )
    };
    let message = |id: &str, client: &str| {
        format!(
            "INSERT INTO message_queue VALUES ('{id}', '{MESH}', 'alice', '{a}', '{a}', 'alice', '{b}', 'next', \
             CAST({blob} AS BLOBTYPE), CAST('sealed' AS BLOBTYPE), {client}, NULL, NULL, {now});\n\
             INSERT INTO message_history VALUES ('{id}', '{MESH}', 'alice', 'dm', '{b}', {now});\n"
        )
    };
    let id = |client: &str, message: &str| {
        format!(
            "INSERT INTO client_message_dedupe VALUES ('{MESH}', 'alice', '{client}', '{message}', '{message}', \
             '{FINGERPRINT}', 'dm', '{b}', {now}, {far}, true);\n"
        )
    };
    let copy = |copy: &str, message: &str, delivered: &str| {
        format!(
            "INSERT INTO delivery VALUES ('{copy}', '{message}', '{MESH}', 'alice', 'bob', NULL, NULL, 30, {now}, \
             NULL, NULL, NULL, {delivered}, NULL);\n"
        )
    };
    [
        format!("INSERT INTO mesh VALUES ('{MESH}', 'demo', 'demo', '{a}', 'prefer_oldest', {now});\n"),
        insert_member(alice, &a),
        insert_member(bob, &b),
        message("01J00000000000000000000M01", "'c1'"),
        message("01J00000000000000000000M02", "NULL"),
        message("01J00000000000000000000M03", "NULL"),
        id("c1", "01J00000000000000000000M01"),
        copy("01J00000000000000000000D01", "01J00000000000000000000M01", "NULL"),
        copy("01J00000000000000000000D02", "01J00000000000000000000M02", "NULL"),
        copy("01J00000000000000000000D03", "01J00000000000000000000M03", &now.to_string()),
    ]
    .concat()
}

// Covers: R156, R157
async fn the_rows_of_the_schema_before_are_served_on(backend: Backend) {
    let (alice, bob) = (member("alice", 21), member("bob", 22));
    let rows = rows(&alice, &bob);
    let broker = match backend {
        Backend::Sqlite => Broker::over_file(&format!("{SQLITE}{}", rows.replace("BLOBTYPE", "BLOB"))).await,
        Backend::Postgres => Broker::over_server(&format!("{POSTGRES}{}", rows.replace("BLOBTYPE", "BYTEA"))).await,
    };
    let url = broker.url();
    // A daemon of the new release, and the policy that was set before.
    let (mut bob_raw, answer) =
        Raw::daemon(&url, &bob, "01J0000000000000000000000B", "01J00000000000000000000001").await;
    assert_eq!(answer["params"]["concurrent_connection_policy"]["default_policy"], "prefer_oldest", "{answer}");
    let first = bob_raw.message().await;
    assert_eq!(
        (&first["client_message_id"], &first["messageId"]),
        (&json!("c1"), &json!("01J00000000000000000000M01"))
    );
    assert_eq!(bob_raw.message().await["messageId"], "01J00000000000000000000M02", "a row without an id");
    // An old client beside it; the id that was used before is known.
    let mut alice_raw = Raw::member(&url, &alice).await;
    assert_eq!(alice_raw.peers().await.len(), 2);
    let (again, _) = alice_raw.request(send_with_id(&bob.public(), "c1", FINGERPRINT)).await;
    assert_eq!((&again["duplicate"], &again["messageId"]), (&json!(true), &json!("01J00000000000000000000M01")));
    let (new, _) = alice_raw.request(send_with_id(&bob.public(), "c2", FINGERPRINT)).await;
    assert_eq!(bob_raw.message().await["messageId"], new["messageId"]);
    let db = broker.tables().await;
    wait::until("the migrations", async || {
        (db.number("SELECT count(*) FROM seaql_migrations").await >= 3).then_some(())
    })
    .await;
    assert_eq!(db.number("SELECT count(*) FROM message_queue WHERE client_message_id IS NULL").await, 2);
    assert_eq!(db.number("SELECT count(*) FROM delivery").await, 4);
    db.close().await;
}

on_both_databases! {
    the_rows_of_the_schema_before_are_served_on,
}
