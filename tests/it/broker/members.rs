//! Who is connected, and who is a member.

use serde_json::{Value, json};

use crate::support::mesh::RawMesh;
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::raw::Raw;
use crate::support::wait;

async fn list_peers_shows_every_connection_with_every_field(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let alice = mesh.member("alice").await;
    let mut hello = alice.hello();
    hello["hostname"] = json!("laptop");
    hello["peerType"] = json!("human");
    hello["model"] = json!("none");
    hello["groups"] = json!([{"name": "ops", "role": "lead"}]);
    let (mut raw, _) = Raw::hello(&mesh.url(), &hello).await;
    let (_, _bob) = mesh.connected("bob").await;
    let rows = raw.peers().await;
    assert_eq!(rows.len(), 2, "the caller included: {rows:?}");
    let row = &rows[0];
    assert_eq!(row["displayName"], "alice", "oldest first: {rows:?}");
    assert_eq!(row["pubkey"], alice.public().as_str());
    assert_eq!(row["memberPubkey"], alice.public().as_str());
    assert_eq!(row["sessionId"], hello["sessionId"]);
    assert_eq!(row["cwd"], "/tmp");
    assert_eq!(row["status"], "idle");
    assert_eq!(row.get("summary"), Some(&Value::Null), "present though unset: {row}");
    assert_eq!(row["groups"], json!([{"name": "ops", "role": "lead"}]));
    assert_eq!(row["peerRole"], "control-plane");
    assert_eq!(row["hostname"], "laptop");
    assert_eq!(row["peerType"], "human");
    assert_eq!(row["channel"], "claudemesh-daemon");
    let since = row["connectedAt"].as_str().expect("connectedAt");
    assert!(chrono::DateTime::parse_from_rfc3339(since).is_ok(), "{since}");
    assert_eq!(rows[1]["groups"], json!([]), "always an array");
}

async fn what_a_connection_says_of_itself_is_shown(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let (_, mut bob_raw) = mesh.connected("bob").await;
    for frame in [
        json!({"type": "set_status", "status": "working"}),
        json!({"type": "set_summary", "summary": "writing tests"}),
        json!({"type": "join_group", "name": "ops"}),
    ] {
        alice_raw.send(&frame).await;
    }
    assert_eq!(alice_raw.answers_so_far().await, Vec::<Value>::new(), "these have no reply");
    let row = &bob_raw.peers().await[0];
    assert_eq!((&row["status"], &row["summary"]), (&json!("working"), &json!("writing tests")), "{row}");
    assert_eq!(row["groups"][0]["name"], "ops");
    alice_raw.send(&json!({"type": "leave_group", "name": "ops"})).await;
    alice_raw.answers_so_far().await;
    assert_eq!(bob_raw.peers().await[0]["groups"], json!([]));
}

async fn statistics_of_any_size_are_not_kept(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (_, mut raw) = mesh.connected("alice").await;
    for (stats, kept) in [(json!({"runs": 3}), true), (json!({"runs": "x".repeat(9_000)}), false)] {
        raw.send(&json!({"type": "set_stats", "stats": stats})).await;
        let row = raw.peers().await.remove(0);
        let shown = if kept { stats } else { json!({"runs": 3}) };
        assert_eq!(row["stats"], shown, "{row}");
    }
}

async fn a_hidden_connection_is_shown_to_itself_only(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let (_, mut bob_raw) = mesh.connected("bob").await;
    let (ack, _) = alice_raw.request(json!({"type": "set_visible", "visible": false})).await;
    assert_eq!(ack["type"], "ack", "{ack}");
    assert!(ack.get("error").is_none(), "{ack}");
    bob_raw.event("peer_hidden").await;
    let names = |rows: Vec<Value>| rows.iter().map(|row| row["displayName"].clone()).collect::<Vec<_>>();
    assert_eq!(names(bob_raw.peers().await), [json!("bob")]);
    assert_eq!(names(alice_raw.peers().await), [json!("alice"), json!("bob")]);
}

async fn others_are_told_who_comes(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let (bob, _bob_raw) = mesh.connected("bob").await;
    let event = alice_raw.event("peer_joined").await;
    assert_eq!(event["senderPubkey"], "system", "{event}");
    assert_eq!((&event["nonce"], &event["ciphertext"]), (&json!(""), &json!("")), "{event}");
    assert_eq!(event["priority"], "low", "{event}");
    assert_eq!(event["eventData"]["name"], "bob", "{event}");
    assert_eq!(event["eventData"]["pubkey"], bob.public().as_str(), "{event}");
    assert!(event["eventData"]["groups"].is_array(), "{event}");
}

async fn a_peer_that_lost_its_link_stays_listed_and_returns_silently(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let bob = mesh.member("bob").await;
    let hello = || {
        let mut hello = bob.hello();
        hello["sessionId"] = json!("daemon-7");
        hello
    };
    let (bob_raw, _) = Raw::hello(&mesh.url(), &hello()).await;
    alice_raw.event("peer_joined").await;
    drop(bob_raw);
    assert_eq!(alice_raw.peers().await.len(), 2, "the lease outlives the socket");
    let (mut again, _) = Raw::hello(&mesh.url(), &hello()).await;
    assert_eq!(again.peers().await.len(), 2);
    let (_, before) = alice_raw.request(json!({"type": "list_peers"})).await;
    assert_eq!(before, Vec::<Value>::new(), "no event for a reattach");
}

/// For the other brokers, and for who is back later.
async fn the_loss_of_a_daemon_is_noted(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let bob = mesh.member("bob").await;
    let (raw, _) = Raw::daemon(&mesh.url(), &bob, "01J0000000000000000000000B", "01J1").await;
    let db = mesh.broker.tables().await;
    let lost = "SELECT count(*) FROM presence WHERE disconnected_at IS NOT NULL";
    assert_eq!(db.number(lost).await, 0);
    drop(raw);
    wait::until("the loss to be noted", async || (db.number(lost).await == 1).then_some(())).await;
    db.close().await;
}

async fn member_list_names_everybody_connected_or_not(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, mut raw) = mesh.connected("alice").await;
    let bob = mesh.member("bob").await;
    let (answer, _) = raw.request(json!({"type": "member_list"})).await;
    assert_eq!(answer["type"], "members_list", "{answer}");
    let rows = answer["members"].as_array().expect("members");
    assert_eq!(rows.len(), 2, "{answer}");
    for (row, member) in rows.iter().zip([&alice, &bob]) {
        assert_eq!(row["memberId"], member.member_id.as_str(), "{row}");
        assert_eq!(row["pubkey"], member.public().as_str(), "{row}");
        assert_eq!(row["displayName"], member.name.as_str(), "{row}");
        assert_eq!(row["role"], "member", "{row}");
        assert!(row["joinedAt"].as_i64().is_some_and(|at| at > 0), "{row}");
    }
}

on_both_databases! {
    list_peers_shows_every_connection_with_every_field,
    what_a_connection_says_of_itself_is_shown,
    statistics_of_any_size_are_not_kept,
    a_hidden_connection_is_shown_to_itself_only,
    others_are_told_who_comes,
    a_peer_that_lost_its_link_stays_listed_and_returns_silently,
    the_loss_of_a_daemon_is_noted,
    member_list_names_everybody_connected_or_not,
}
