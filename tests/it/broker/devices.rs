//! Several devices of one member, and what the member shows of itself.

use serde_json::{Value, json};

use crate::support::mesh::RawMesh;
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::raw::{Member, Raw};
use crate::support::wait;

const PHONE: &str = "01J0000000000000000000000A";
const LAPTOP: &str = "01J0000000000000000000000B";

/// A daemon's connection from one state directory; `shown` as its hello has it.
async fn device(mesh: &RawMesh, member: &Member, instance: &str, shown: Option<Value>) -> Raw {
    let mut hello = member.hello();
    hello["instanceId"] = json!(instance);
    hello["bootId"] = json!(instance);
    if let Some(shown) = shown {
        hello["shown"] = shown;
    }
    let (mut raw, _) = Raw::hello(&mesh.url(), &hello).await;
    raw.negotiate(&["client_message_id_dedupe", "concurrent_connection_policy"], &["delivery_ack"]).await;
    raw
}

fn shown(summary: &str, visible: bool) -> Value {
    json!({"status": "idle", "summary": summary, "visible": visible})
}

/// Waits until the summary of a member is stored; all that is stored of it.
async fn stored(mesh: &RawMesh, member: &Member, summary: &str) -> Value {
    let db = mesh.broker.tables().await;
    let sql = format!("SELECT COALESCE(shown, '{{}}') FROM member WHERE id = '{}'", member.member_id);
    let found = wait::until("a summary to be stored", async || {
        let shown: Value = serde_json::from_str(&db.texts(&sql).await[0]).expect("JSON");
        (shown["summary"] == summary).then_some(shown)
    });
    let found = found.await;
    db.close().await;
    found
}

async fn only_who_is_asked_to_show_a_member_shows_it(backend: Backend) {
    let mesh = RawMesh::with_policy(backend, "allow_concurrent").await;
    let (alice, bob) = (mesh.member("alice").await, mesh.member("bob").await);
    let mut alice_raw = device(&mesh, &alice, PHONE, None).await;
    let mut phone = device(&mesh, &bob, PHONE, Some(shown("", true))).await;
    let mut laptop = device(&mesh, &bob, LAPTOP, Some(shown("", true))).await;
    let (answer, _) = laptop.request(json!({"type": "set_visible", "visible": false})).await;
    assert_eq!((&answer["type"], &answer["error"]), (&json!("ack"), &Value::Null), "{answer}");

    // The other device knows nothing of that and says something else.
    phone.send(&json!({"type": "set_summary", "summary": "on the way"})).await;
    assert_eq!(stored(&mesh, &bob, "on the way").await["visible"], false);
    // Nor does a hello that says nothing of it.
    let mut phone = device(&mesh, &bob, PHONE, None).await;
    phone.send(&json!({"type": "set_summary", "summary": "there"})).await;
    assert_eq!(stored(&mesh, &bob, "there").await["visible"], false);
    let is_listed = async |alice: &mut Raw| {
        let key = bob.public();
        alice.peers().await.iter().any(|peer| peer["memberPubkey"] == key.as_str())
    };
    assert!(!is_listed(&mut alice_raw).await);

    let (answer, _) = phone.request(json!({"type": "set_visible", "visible": true})).await;
    assert_eq!((&answer["type"], &answer["error"]), (&json!("ack"), &Value::Null), "{answer}");
    alice_raw.event("peer_visible").await;
    assert!(is_listed(&mut alice_raw).await);
}

async fn a_connection_that_was_replaced_has_no_say_any_more(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (bob, carol) = (mesh.member("bob").await, mesh.member("carol").await);
    let mut carol_raw = device(&mesh, &carol, LAPTOP, None).await;
    let mut old = device(&mesh, &bob, PHONE, None).await;
    old.send(&json!({"type": "set_status", "status": "working"})).await;
    old.send(&json!({"type": "set_summary", "summary": "before"})).await;
    old.answers_so_far().await;
    let _bob_raw = device(&mesh, &bob, PHONE, Some(shown("after", true))).await;
    assert_eq!(stored(&mesh, &bob, "after").await["status"], "idle");
    // Both changes are looked at in one round, or bob's in an earlier one.
    carol_raw.send(&json!({"type": "set_summary", "summary": "a mark"})).await;
    stored(&mesh, &carol, "a mark").await;
    assert_eq!(stored(&mesh, &bob, "after").await["status"], "idle");
}

/// Whoever changes its mind all the time costs the others no more than a word a tick.
async fn of_many_changes_the_last_one_is_told(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, bob) = (mesh.member("alice").await, mesh.member("bob").await);
    let mut alice_raw = device(&mesh, &alice, PHONE, None).await;
    let mut bob_raw = device(&mesh, &bob, LAPTOP, None).await;
    alice_raw.event("peer_joined").await;
    for number in 0..41 {
        // No more often than its share.
        if number % 5 == 0 {
            let (answer, _) = bob_raw.request(json!({"type": "set_visible", "visible": number % 10 == 5})).await;
            assert_eq!(answer["error"], Value::Null, "{answer}");
        }
        bob_raw.send(&json!({"type": "set_summary", "summary": format!("number {number}")})).await;
    }
    let (answer, mut told) = alice_raw.request(json!({"type": "list_peers"})).await;
    let listed = answer["peers"].as_array().expect("a list");
    assert!(listed.iter().all(|peer| peer["memberPubkey"] != bob.public().as_str()), "at once: {answer}");
    // What is stored at a tick was told at that tick.
    stored(&mesh, &bob, "number 40").await;
    told.extend(alice_raw.request(json!({"type": "list_peers"})).await.1);
    told.retain(|frame| frame["event"] == "peer_hidden" || frame["event"] == "peer_visible");
    assert!(told.len() < 6, "9 changes: {told:?}");
    assert_eq!(told.last().map(|frame| &frame["event"]), Some(&json!("peer_hidden")), "{told:?}");
}

async fn who_hides_and_goes_is_gone_for_the_others(backend: Backend) {
    let mesh = RawMesh::configured(backend, "[timers]\ngrace_ms = 1\n").await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let (bob, mut bob_raw) = mesh.connected("bob").await;
    bob_raw.request(json!({"type": "set_visible", "visible": false})).await;
    bob_raw.close().await;
    let hidden = alice_raw.event("peer_hidden").await;
    assert_eq!(hidden["eventData"]["pubkey"], bob.public().as_str(), "{hidden}");
}

/// What was said a moment before a link was lost is not lost with it.
async fn a_change_that_waits_to_be_stored_survives_a_new_link(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let bob = mesh.member("bob").await;
    let mut old = device(&mesh, &bob, PHONE, None).await;
    old.send(&json!({"type": "set_summary", "summary": "said in time"})).await;
    old.answers_so_far().await;
    let _bob_raw = device(&mesh, &bob, PHONE, None).await;
    stored(&mesh, &bob, "said in time").await;
}

on_both_databases! {
    only_who_is_asked_to_show_a_member_shows_it,
    a_connection_that_was_replaced_has_no_say_any_more,
    of_many_changes_the_last_one_is_told,
    who_hides_and_goes_is_gone_for_the_others,
    a_change_that_waits_to_be_stored_survives_a_new_link,
}
