//! Feature bits: what the broker offers and how it answers for the rest.

use serde_json::{Value, json};

use crate::support::mesh::RawMesh;
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::raw::{Raw, plain_send};

fn names(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|name| name.as_str().expect("a name")).collect()
}

// Covers: R397-R399, R403
async fn the_answer_lists_bits_with_their_parameters(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (_, mut raw) = mesh.connected("alice").await;
    let answer =
        raw.negotiate(&["client_message_id_dedupe", "concurrent_connection_policy"], &["mesh_skill_share"]).await;
    assert_eq!(answer["missing_required"], json!([]), "{answer}");
    let supported = names(&answer["supported"]);
    for bit in [
        "client_message_id_dedupe",
        "concurrent_connection_policy",
        "member_keypair_rotated_event",
        "max_payload",
        "delivery_ack",
    ] {
        assert!(supported.contains(&bit), "{bit} in {answer}");
        assert_eq!(answer["params"][bit]["version"], 1, "{bit} in {answer}");
    }
    let dedupe = &answer["params"]["client_message_id_dedupe"];
    assert_eq!(
        (&dedupe["mode"], &dedupe["dedupe_retention_days"]),
        (&json!("retention_scoped"), &json!(365)),
        "{answer}"
    );
    assert!(answer["params"]["max_payload"]["inline_bytes"].as_u64().is_some_and(|bytes| bytes >= 1024), "{answer}");
}

// Covers: R401
async fn bits_of_the_future_are_not_offered(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (_, mut raw) = mesh.connected("alice").await;
    let answer = raw.negotiate(&[], &["mesh_skill_share", "mcp_host"]).await;
    let supported = names(&answer["supported"]);
    assert!(!supported.contains(&"mesh_skill_share") && !supported.contains(&"mcp_host"), "{answer}");
    assert_eq!(answer["missing_required"], json!([]), "a missing optional bit is no fault: {answer}");
}

// Covers: R403
async fn a_required_bit_that_is_missing_is_named_and_the_client_decides(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (_, mut raw) = mesh.connected("alice").await;
    let answer = raw.negotiate(&["client_message_id_dedupe", "time_travel"], &[]).await;
    assert_eq!(answer["missing_required"], json!(["time_travel"]), "{answer}");
    assert!(!names(&answer["supported"]).is_empty());
    assert_eq!(raw.peers().await.len(), 1);
}

// Covers: R404
async fn a_client_that_stays_without_a_required_bit_is_closed_with_the_reason(backend: Backend) {
    let mesh = RawMesh::configured(backend, "[timers]\nnegotiation_ms = 300\n").await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let bob = mesh.member("bob").await;
    let mut hello = bob.hello();
    hello["instanceId"] = json!("01J0000000000000000000000A");
    hello["bootId"] = json!("01J00000000000000000000001");
    let (mut raw, _) = Raw::hello(&mesh.url(), &hello).await;
    raw.negotiate(&["client_message_id_dedupe", "time_travel"], &[]).await;
    let (ack, _) = alice_raw.request(plain_send(&bob.public())).await;
    assert_eq!(ack["queued"], true, "{ack}");
    let frames = raw.expect_close(4010, "feature_unavailable").await;
    let reason = frames.iter().find(|frame| frame["type"] == "close_reason");
    let reason = reason.unwrap_or_else(|| panic!("no close_reason: {frames:?}"));
    assert_eq!(
        (&reason["kind"], &reason["feature"], &reason["code"], &reason["retryable"]),
        (&json!("feature_unavailable"), &json!("time_travel"), &json!(4010), &json!(false)),
        "{reason}"
    );
    assert!(
        frames.iter().all(|frame| frame["type"] != "push" || frame["subtype"] == "system"),
        "no message: {frames:?}"
    );
}

async fn the_advertised_memory_is_the_configured_one(backend: Backend) {
    let mesh = RawMesh::with(backend, &[("dedupe_retention_days", "30")]).await;
    let (_, mut raw) = mesh.connected("alice").await;
    let answer = raw.negotiate(&["client_message_id_dedupe"], &[]).await;
    assert_eq!(answer["params"]["client_message_id_dedupe"]["dedupe_retention_days"], 30, "{answer}");
}

on_both_databases! {
    a_client_that_stays_without_a_required_bit_is_closed_with_the_reason,
    the_answer_lists_bits_with_their_parameters,
    bits_of_the_future_are_not_offered,
    a_required_bit_that_is_missing_is_named_and_the_client_decides,
    the_advertised_memory_is_the_configured_one,
}
