//! Feature bits: what the broker offers and how it answers for the rest.

use serde_json::{Value, json};

use crate::support::mesh::RawMesh;

fn names(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|name| name.as_str().expect("a name")).collect()
}

// Covers: R397-R399, R403
#[tokio::test]
async fn the_answer_lists_bits_with_their_parameters() {
    let mesh = RawMesh::start().await;
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
#[tokio::test]
async fn bits_of_the_future_are_not_offered() {
    let mesh = RawMesh::start().await;
    let (_, mut raw) = mesh.connected("alice").await;
    let answer = raw.negotiate(&[], &["mesh_skill_share", "mcp_host"]).await;
    let supported = names(&answer["supported"]);
    assert!(!supported.contains(&"mesh_skill_share") && !supported.contains(&"mcp_host"), "{answer}");
    assert_eq!(answer["missing_required"], json!([]), "a missing optional bit is no fault: {answer}");
}

// Covers: R403
#[tokio::test]
async fn a_required_bit_that_is_missing_is_named_and_the_client_decides() {
    let mesh = RawMesh::start().await;
    let (_, mut raw) = mesh.connected("alice").await;
    let answer = raw.negotiate(&["client_message_id_dedupe", "time_travel"], &[]).await;
    assert_eq!(answer["missing_required"], json!(["time_travel"]), "{answer}");
    assert!(!names(&answer["supported"]).is_empty());
    assert_eq!(raw.peers().await.len(), 1);
}

#[tokio::test]
async fn the_advertised_memory_is_the_configured_one() {
    let mesh = RawMesh::with(&[("dedupe_retention_days", "30")]).await;
    let (_, mut raw) = mesh.connected("alice").await;
    let answer = raw.negotiate(&["client_message_id_dedupe"], &[]).await;
    assert_eq!(answer["params"]["client_message_id_dedupe"]["dedupe_retention_days"], 30, "{answer}");
}
