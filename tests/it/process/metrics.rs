//! The metrics of a daemon, each moved by what it counts.

use serde_json::json;

use crate::support::daemon::{Daemon, unique};
use crate::support::fake_broker::{FakeBroker, push_frame};
use crate::support::keys;
use crate::support::wait;
use crate::topics::Trio;

/// The value of this sample, with its labels but for the mesh; 0 while it is not there.
async fn value(daemon: &Daemon, name: &str, labels: &str) -> f64 {
    let text = daemon.http().get("/v1/metrics").send().await.expect(200).text();
    let comma = if labels.is_empty() { "" } else { "," };
    let sample = format!("{name}{{mesh=\"demo\"{comma}{labels}}} ");
    text.lines().find_map(|line| line.strip_prefix(&sample)).map_or(0.0, |value| value.parse().expect("a number"))
}

async fn becomes(daemon: &Daemon, name: &str, labels: &str, wanted: f64) {
    wait::until(&format!("{name}{{{labels}}} to be {wanted}"), async || {
        (value(daemon, name, labels).await == wanted).then_some(())
    })
    .await;
}

// Covers: R304, R305, R306, R308, R314
#[tokio::test]
async fn sends_are_counted_in_each_of_their_states() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure("[reconnect]\ninitial_backoff_ms = 50\nmax_backoff_ms = 200\n");
    alice.start().await;
    fake.link(&alice).await.drop_link();
    let depth = "cm_daemon_outbox_depth";
    let body = json!({"to": "bob", "message": "one", "client_message_id": "first"});
    alice.post_send(&body).await.expect(202);
    let second = alice.send("bob", "two").await;
    becomes(&alice, depth, "status=\"pending\"", 2.0).await;
    assert_eq!(value(&alice, "cm_daemon_send_total", "kind=\"dm\",status=\"queued\"").await, 2.0);
    assert_eq!(value(&alice, "cm_daemon_ipc_duration_seconds_count", "endpoint=\"/v1/send\"").await, 2.0);
    let longest = "le=\"+Inf\",endpoint=\"/v1/send\"";
    assert_eq!(value(&alice, "cm_daemon_ipc_duration_seconds_bucket", longest).await, 2.0);
    wait::until("the oldest to be a second old", async || {
        (value(&alice, "cm_daemon_outbox_age_seconds", "").await >= 1.0).then_some(())
    })
    .await;

    let mut client = fake.link(&alice).await;
    let (one, two) = (client.expect("send").await, client.expect("send").await);
    becomes(&alice, depth, "status=\"inflight\"", 2.0).await;
    assert_eq!(value(&alice, "cm_daemon_outbox_age_seconds", "").await, 0.0, "nothing is pending");
    client.ack(&one, "broker-1").await;
    let refused = json!({
        "type": "ack", "id": two["id"], "messageId": "", "queued": false, "code": "forbidden", "retryable": false,
    });
    client.send(&refused).await;
    alice.outbox_status("first", "done").await;
    alice.outbox_status(&second, "dead").await;
    alice.post_send(&body).await.expect(200);
    assert_eq!(value(&alice, "cm_daemon_dedupe_total", "direction=\"out\"").await, 1.0);
    assert_eq!(value(&alice, "cm_daemon_send_total", "kind=\"dm\",status=\"duplicate\"").await, 1.0);
    for (status, rows) in [("pending", 0.0), ("inflight", 0.0), ("dead", 1.0)] {
        becomes(&alice, depth, &format!("status=\"{status}\""), rows).await;
    }
    for status in ["accepted", "dead"] {
        becomes(&alice, "cm_daemon_send_total", &format!("kind=\"dm\",status=\"{status}\""), 1.0).await;
    }
}

// Covers: R306, R309, R319, R320
#[tokio::test]
async fn what_comes_is_counted_by_what_it_is() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let mut client = fake.link(&alice).await;
    let bytes = value(&alice, "cm_daemon_inbox_bytes", "").await;
    assert!(bytes > 0.0);
    for delivery in ["m1", "m2"] {
        client.push_from(&fake.bob, delivery, Some("same"), &"x".repeat(200_000)).await;
        client.expect("client_ack").await;
    }
    assert_eq!(value(&alice, "cm_daemon_recv_total", "kind=\"direct\",from_type=\"peer\"").await, 1.0);
    assert_eq!(value(&alice, "cm_daemon_dedupe_total", "direction=\"in\"").await, 1.0);
    assert_eq!(value(&alice, "cm_daemon_inbox_rows", "").await, 1.0);
    becomes_more(&alice, "cm_daemon_inbox_bytes", bytes).await;

    // A frame that is none, one with a key of another version, a box that does not open.
    assert_eq!(value(&alice, "cm_daemon_invalid_inbound_total", "").await, 0.0);
    client.send(&json!({"type": "push", "messageId": 5})).await;
    becomes(&alice, "cm_daemon_invalid_inbound_total", "", 1.0).await;
    let unknown = value(&alice, "cm_daemon_unknown_frame_key_total", "").await;
    let own = client.hello["pubkey"].as_str().expect("pubkey").to_owned();
    let (nonce, sealed) = keys::seal(&fake.bob, &own, b"broken");
    let mut push = push_frame(&client.hello, &fake.bob, "m3", Some("other"), &nonce, &sealed[1..]);
    push["fromTheFuture"] = json!(1);
    client.send(&push).await;
    client.expect("client_ack").await;
    assert_eq!(value(&alice, "cm_daemon_unknown_frame_key_total", "").await, unknown + 1.0);
    assert_eq!(value(&alice, "cm_daemon_invalid_inbound_total", "").await, 2.0);
}

async fn becomes_more(daemon: &Daemon, name: &str, than: f64) {
    wait::until(&format!("{name} to be more than {than}"), async || {
        (value(daemon, name, "").await > than).then_some(())
    })
    .await;
}

// Covers: R308, R309
#[tokio::test]
async fn posts_are_counted_as_such_and_own_messages_as_ones_own() {
    let Trio { alice, bob, broker: _broker, .. } = Trio::with_ops().await;
    let text = unique("posted");
    alice.cli(&["topic", "post", "ops", &text]).await.ok();
    becomes(&alice, "cm_daemon_send_total", "kind=\"topic\",status=\"accepted\"", 1.0).await;
    becomes(&bob, "cm_daemon_recv_total", "kind=\"topic\",from_type=\"peer\"", 1.0).await;
    let own = unique("to oneself");
    alice.send("alice", &own).await;
    alice.received(&own).await;
    becomes(&alice, "cm_daemon_recv_total", "kind=\"direct\",from_type=\"self\"", 1.0).await;
}
