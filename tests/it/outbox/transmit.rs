//! From the row to the broker's answer.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::fake_broker::{Client, FakeBroker};
use crate::support::keys;

async fn connected() -> (FakeBroker, Daemon, Client) {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure("[reconnect]\ninitial_backoff_ms = 50\nmax_backoff_ms = 400\n");
    alice.start().await;
    let client = fake.link(&alice).await;
    (fake, alice, client)
}

fn refusal(send: &Value, code: &str, retryable: bool, retry_after_ms: Option<u64>) -> Value {
    let mut ack = json!({
        "type": "ack", "id": send["id"], "messageId": "", "queued": false,
        "error": code, "code": code, "retryable": retryable,
    });
    if let Some(ms) = retry_after_ms {
        ack["retryAfterMs"] = json!(ms);
    }
    ack
}

// Covers: R161, R163
#[tokio::test]
async fn a_row_goes_from_pending_over_inflight_to_done() {
    let (fake, alice, mut client) = connected().await;
    let id = alice.send("bob", "x").await;
    let send = client.expect("send").await;
    assert_eq!(send["targetSpec"], fake.bob.public().as_str(), "a name never leaves the host: {send}");
    assert_eq!(send["client_message_id"], id.as_str());
    assert_eq!(send["priority"], "next");
    let fingerprint = send["request_fingerprint"].as_str().unwrap_or_default();
    assert!(fingerprint.len() == 64 && fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit()), "{send}");
    let row = alice.outbox_status(&id, "inflight").await;
    assert_eq!(row["attempts"], 1, "{row}");
    client.ack(&send, "broker-1").await;
    let row = alice.outbox_status(&id, "done").await;
    assert_eq!(row["broker_message_id"], "broker-1", "{row}");
    assert!(row["delivered_at"].as_i64().is_some_and(|at| at > 0), "{row}");
}

/// A place in the window is free again when its send has ended.
#[tokio::test]
async fn more_than_a_window_of_sends_leaves_one_after_another() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure("[outbox]\nwindow = 3\n");
    alice.start().await;
    let mut client = fake.link(&alice).await;
    for number in 0..10 {
        let id = alice.send("bob", "x").await;
        let send = client.expect("send").await;
        assert_eq!(send["client_message_id"], id.as_str());
        client.ack(&send, &format!("broker-{number}")).await;
        alice.outbox_status(&id, "done").await;
    }
}

/// The broker may still answer what is on its way when the daemon is told to stop.
#[tokio::test]
async fn an_answer_that_comes_during_a_stop_is_written() {
    let (_fake, mut alice, mut client) = connected().await;
    let id = alice.send("bob", "x").await;
    let send = client.expect("send").await;
    let (status, ()) = tokio::join!(alice.stop(), client.ack(&send, "broker-1"));
    assert!(status.success(), "{status}");
    let row = alice.outbox_status(&id, "done").await;
    assert_eq!(row["broker_message_id"], "broker-1", "{row}");
}

// Covers: R140
#[tokio::test]
async fn a_row_has_one_transmit_at_a_time() {
    let (_fake, alice, mut client) = connected().await;
    let id = alice.send("bob", "slow").await;
    let first = client.expect("send").await;
    // The broker takes its time; other sends go on meanwhile.
    let other = alice.send("bob", "quick").await;
    let frames = client.frames_within(Duration::from_secs(3)).await;
    let ids: Vec<&Value> =
        frames.iter().filter(|frame| frame["type"] == "send").map(|frame| &frame["client_message_id"]).collect();
    assert_eq!(ids, [&json!(other)], "no second frame of {id}");
    client.ack(&first, "broker-1").await;
    alice.outbox_status(&id, "done").await;
}

// Covers: R141, R162
#[tokio::test]
async fn a_refusal_for_now_is_retried_with_growing_pauses() {
    let (_fake, alice, mut client) = connected().await;
    let id = alice.send("bob", "x").await;
    let mut moments = Vec::new();
    for attempt in 0..4 {
        let send = client.expect("send").await;
        moments.push(Instant::now());
        assert_eq!(send["client_message_id"], id.as_str());
        client.send(&refusal(&send, "internal", true, None)).await;
        if attempt == 0 {
            let row = alice.outbox_status(&id, "pending").await;
            assert!(row["last_error"].as_str().is_some_and(|text| text.contains("internal")), "{row}");
        }
    }
    let pauses: Vec<u128> = moments.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
    // 50 ms, doubled each time, less a quarter at most. A busy machine makes each
    // of them longer; what was planned is in the table.
    for (pause, least) in pauses.iter().zip([37, 75, 150]) {
        assert!(*pause >= least, "{pauses:?}");
    }
    let send = client.expect("send").await;
    client.ack(&send, "broker-1").await;
    alice.outbox_status(&id, "done").await;
}

/// A minute at first, which nobody waits for: the table says what was planned.
const SLOW: &str = "[reconnect]\ninitial_backoff_ms = 60000\nmax_backoff_ms = 3600000\n";

/// What the row waits, at least and at most: its stored time, less when the test
/// began to cause the failure and less when it saw that the failure was written.
fn planned(row: &Value, caused: i64, seen: i64) -> (i64, i64) {
    let at = row["next_attempt_at"].as_i64().expect("a time");
    (at - seen, at - caused)
}

// Covers: R141, R162
#[tokio::test]
async fn the_stored_pauses_double_and_stay_within_a_quarter_of_the_plan() {
    const ROWS: usize = 8;
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure(SLOW);
    alice.start().await;
    let mut client = fake.link(&alice).await;
    let mut ids = Vec::new();
    for number in 0..ROWS {
        ids.push(alice.send("bob", &format!("message {number}")).await);
    }
    for attempt in 1..=4 {
        let caused = keys::now_ms();
        for _ in 0..ROWS {
            let send = client.expect("send").await;
            client.send(&refusal(&send, "internal", true, None)).await;
        }
        let plan = 60_000 << (attempt - 1);
        let mut pauses = Vec::new();
        for id in &ids {
            let row = alice.outbox_status(id, "pending").await;
            assert_eq!(row["attempts"], attempt, "{row}");
            let (least, most) = planned(&row, caused, keys::now_ms());
            assert!(most >= plan * 3 / 4, "{row} waits {most} ms at most, planned were {plan}");
            assert!(least <= plan * 5 / 4, "{row} waits {least} ms at least, planned were {plan}");
            pauses.push(most);
        }
        let (shortest, longest) = (pauses.iter().min().expect("rows"), pauses.iter().max().expect("rows"));
        assert!(longest - shortest > plan / 100, "rows do not come back in step: {pauses:?}");
        // They become due, and the daemon looks at its next start.
        alice.stop().await;
        drop(client);
        let db = alice.outbox_db().await;
        db.run("UPDATE outbox SET next_attempt_at = 0 WHERE status = 'pending'").await;
        db.close().await;
        alice.start().await;
        client = fake.link(&alice).await;
    }
    for number in 0..ROWS {
        let send = client.expect("send").await;
        client.ack(&send, &format!("broker-{number}")).await;
    }
    for id in &ids {
        alice.outbox_status(id, "done").await;
    }
}

// Covers: R162
#[tokio::test]
async fn a_lost_link_puts_the_row_back_with_a_reason_and_a_pause() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure(SLOW);
    alice.start().await;
    let mut client = fake.link(&alice).await;
    let id = alice.send("bob", "x").await;
    client.expect("send").await;
    let row = alice.outbox_status(&id, "inflight").await;
    assert_eq!(row["last_error"], Value::Null, "{row}");
    let caused = keys::now_ms();
    client.drop_link();
    let row = alice.outbox_status(&id, "pending").await;
    let (least, most) = planned(&row, caused, keys::now_ms());
    assert!(most >= 45_000 && least <= 75_000, "{row} waits between {least} and {most} ms");
    assert!(row["last_error"].as_str().is_some_and(|text| text.contains("link")), "{row}");
    assert_eq!(row["attempts"], 1, "{row}");
}

#[tokio::test]
async fn the_brokers_own_pause_is_kept() {
    let (_fake, alice, mut client) = connected().await;
    alice.send("bob", "x").await;
    let send = client.expect("send").await;
    let since = Instant::now();
    client.send(&refusal(&send, "rate_limit", true, Some(1500))).await;
    client.expect("send").await;
    let pause = since.elapsed();
    assert!((Duration::from_millis(1400)..Duration::from_secs(6)).contains(&pause), "{pause:?}");
}

#[tokio::test]
async fn a_final_refusal_ends_the_row_and_no_other() {
    let (_fake, alice, mut client) = connected().await;
    let id = alice.send("bob", "x").await;
    let send = client.expect("send").await;
    client.send(&refusal(&send, "recipient_revoked", false, None)).await;
    let row = alice.outbox_status(&id, "dead").await;
    assert!(row["last_error"].as_str().is_some_and(|text| text.contains("recipient_revoked")), "{row}");
    let next = alice.send("bob", "y").await;
    let send = client.expect("send").await;
    assert_eq!(send["client_message_id"], next.as_str());
}

// Covers: R147, R162
#[tokio::test]
async fn a_lost_link_sends_the_same_id_again() {
    let (fake, alice, mut client) = connected().await;
    let id = alice.send("bob", "x").await;
    for _ in 0..3 {
        let send = client.expect("send").await;
        assert_eq!(send["client_message_id"], id.as_str());
        client.drop_link();
        client = fake.connect().await;
    }
    let send = client.expect("send").await;
    assert_eq!(send["client_message_id"], id.as_str());
    client.ack(&send, "broker-1").await;
    alice.outbox_status(&id, "done").await;
}

#[tokio::test]
async fn sends_leave_in_the_order_of_accept() {
    let (_fake, alice, mut client) = connected().await;
    let mut ids = Vec::new();
    for number in 0..50 {
        ids.push(alice.send("bob", &format!("message {number}")).await);
    }
    let mut left = Vec::new();
    while left.len() < ids.len() {
        let send = client.expect("send").await;
        left.push(send["client_message_id"].as_str().expect("an id").to_owned());
        client.ack(&send, &format!("broker-{}", left.len())).await;
    }
    assert_eq!(left, ids);
}

// Covers: R335, R415
#[tokio::test]
async fn what_leaves_the_host_is_sealed() {
    let (fake, alice, mut client) = connected().await;
    let text = crate::support::daemon::unique("a secret");
    let body = json!({"to": "bob", "message": text, "meta": {"note": text}, "reply_to_id": "earlier"});
    alice.post_send(&body).await.expect(202);
    let send = client.expect("send").await;
    let frame = send.to_string();
    assert!(!frame.contains(&text) && !frame.contains(&crate::support::keys::base64(text.as_bytes())), "{frame}");
    let field = |name: &str| crate::support::keys::from_base64(send[name].as_str().expect("base64"));
    let (nonce, ciphertext) = (field("nonce"), field("ciphertext"));
    assert_eq!(nonce.len(), 24);
    assert!(!ciphertext.windows(text.len()).any(|part| part == text.as_bytes()));
    let opened = crate::support::keys::open(&fake.bob, &alice.public(), &nonce, &ciphertext).expect("bob can open it");
    assert!(opened.windows(text.len()).any(|part| part == text.as_bytes()), "{opened:?}");
    let eve = crate::support::keys::Key::random();
    assert_eq!(crate::support::keys::open(&eve, &alice.public(), &nonce, &ciphertext), None);
}
