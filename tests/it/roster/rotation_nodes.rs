//! A member's new key where two brokers serve from one database.

use serde_json::json;

use super::pinned;
use super::rotation::{follows, rotate, talk};
use crate::support::broker::Broker;
use crate::support::daemon::Daemon;
use crate::support::mesh::Mesh;
use crate::support::postgres::Backend;
use crate::support::wait;

/// Another broker shows the whole chain too, or its members would take the new key
/// for a broker's forgery.
// Covers: R375, R379
#[tokio::test]
async fn members_at_another_broker_of_the_database_follow() {
    if !Backend::Postgres.is_there() {
        return;
    }
    let scans = "[timers]\nscan_ms = 200\n";
    let broker = Broker::configured(Backend::Postgres, scans).await;
    let mesh = Mesh::create(&broker, "demo").await;
    let second = broker.second_node(scans).await;
    let (mut alice, mut bob) =
        (Daemon::joined(&broker, &mesh, "alice").await, Daemon::joined(&second, &mesh.at(&second), "bob").await);
    alice.start().await;
    bob.start().await;
    // Each broker reads what the other wrote once in a scan.
    for (from, to) in [(&alice, "bob"), (&bob, "alice")] {
        let send =
            from.http().post("/v1/send", &json!({"to": to, "message": "hello"})).header("idempotency-key", "hello");
        wait::until("the other member to be known", async || (send.send().await.status == 202).then_some(())).await;
    }
    let old = alice.public();
    for seq in 1..=2 {
        let rotated = rotate(&alice).await;
        assert_eq!(rotated["rotation_seq"], seq, "{rotated}");
        // The first time before anything is sent, the second time as it may come.
        if seq == 2 {
            talk(&alice, "alice", &bob, "bob").await;
        }
        follows(&bob, "alice", rotated["new_pubkey"].as_str().expect("new_pubkey")).await;
        talk(&alice, "alice", &bob, "bob").await;
    }
    let former = pinned(&bob, "alice").await["rotated_out_pubkeys"].clone();
    assert_eq!(former.as_array().map(|keys| (keys.len(), &keys[1])), Some((2, &json!(old))), "{former}");
}
