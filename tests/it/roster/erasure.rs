//! When a key that was rotated out is erased.

use serde_json::json;

use super::rotation::{json_file, linked, rotate_with, sealed_for};
use crate::support::keys;
use crate::support::wait;

/// What is gone does not come back with the right time.
// Covers: D-C14
#[tokio::test]
async fn a_clock_in_doubt_erases_no_key() {
    let (fake, mut alice, client) = linked().await;
    let first = client.hello["pubkey"].as_str().expect("pubkey").to_owned();
    let client = rotate_with(&fake, &alice, client).await;
    alice.stop().await;
    drop(client);
    let path = alice.file("keypair-archive.json");
    let mut archive = json_file(&path);
    archive["keys"][0]["expires_at"] = json!(keys::now_ms() - 1);
    std::fs::write(&path, archive.to_string()).expect("the archive");
    // The last time that was noted lies ahead: the clock was set back since, or it
    // was wrong then.
    let db = alice.outbox_db().await;
    let ahead = keys::now_ms() + 31 * 24 * 3_600_000;
    db.run(&format!("INSERT OR REPLACE INTO meta (key, value) VALUES ('last_tick', '{ahead}')")).await;
    db.close().await;

    alice.start().await;
    // A broker that does not tell its time confirms nothing.
    let mut client = fake.accept().await;
    client.send(&json!({"type": "hello_ack", "presenceId": "p", "memberDisplayName": "fake"})).await;
    client.negotiate(crate::support::fake_broker::ALL_BITS).await;
    client.roster().await;
    alice.connected().await;
    client.send(&sealed_for(&fake, &client, &first, "m1", "for the key before")).await;
    alice.received("for the key before").await;
    assert!(path.exists());
    drop(client);

    wait::until("the key to be erased once the time is known", async || {
        let client = fake.connect().await;
        alice.connected().await;
        drop(client);
        (!path.exists()).then_some(())
    })
    .await;
}
