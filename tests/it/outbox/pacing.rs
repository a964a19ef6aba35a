//! How fast sends leave, whom a full receiver holds up, and what one frame that
//! is too large does.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::fake_broker::{ALL_BITS, Client, FakeBroker, RATE};
use crate::support::keys::Key;

const QUICK: &str = "[reconnect]\ninitial_backoff_ms = 50\nmax_backoff_ms = 200\n";

fn refusal(send: &Value, code: &str, retry_after_ms: Option<u64>) -> Value {
    let mut ack = json!({
        "type": "ack", "id": send["id"], "messageId": "", "queued": false, "error": code, "code": code, "retryable": true,
    });
    if let Some(ms) = retry_after_ms {
        ack["retryAfterMs"] = json!(ms);
    }
    ack
}

/// A daemon that knows bob and carol; its link is down and sends wait.
async fn alone_with_backlog(texts: &[(&str, &str)]) -> (FakeBroker, Daemon, Vec<String>) {
    let mut fake = FakeBroker::start().await;
    fake.carol = Some(Key::random());
    let mut alice = fake.member("alice");
    alice.configure(QUICK);
    alice.start().await;
    fake.link(&alice).await.drop_link();
    let mut ids = Vec::new();
    for (to, text) in texts {
        ids.push(alice.send(to, text).await);
    }
    (fake, alice, ids)
}

async fn attempts(alice: &Daemon, id: &str) -> i64 {
    let db = alice.outbox_db().await;
    let attempts = db.number(&format!("SELECT attempts FROM outbox WHERE client_message_id = '{id}'")).await;
    db.close().await;
    attempts
}

async fn next_id(client: &mut Client) -> (Value, String) {
    let send = client.expect("send").await;
    let id = send["client_message_id"].as_str().expect("an id").to_owned();
    (send, id)
}

/// Each of them waits for a while of its own; once all may go, the oldest go first.
#[tokio::test]
async fn what_was_under_way_when_the_link_was_lost_leaves_before_what_came_since() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure(&format!("{QUICK}[outbox]\nwindow = 4\n"));
    alice.start().await;
    let mut client = fake.link(&alice).await;
    let mut ids = Vec::new();
    for text in ["1", "2", "3", "4"] {
        ids.push(alice.send("bob", text).await);
        assert_eq!(Some(&next_id(&mut client).await.1), ids.last());
    }
    for text in ["5", "6", "7", "8"] {
        ids.push(alice.send("bob", text).await);
    }
    // Longer than any of their pauses.
    client.send(&json!({"type": "drain", "reconnectAfterMs": 150})).await;
    client.close(1001, "shutting down").await;
    for id in &ids {
        alice.outbox_status(id, "pending").await;
    }
    let mut client = fake.link(&alice).await;
    for id in &ids {
        let (send, left) = next_id(&mut client).await;
        assert_eq!(left, *id);
        client.ack(&send, &format!("broker-{left}")).await;
    }
}

#[tokio::test]
async fn a_backlog_leaves_at_the_advertised_rate() {
    let backlog: Vec<(&str, &str)> = (0..25).map(|_| ("bob", "x")).collect();
    let (fake, alice, ids) = alone_with_backlog(&backlog).await;
    let mut client = fake.accept().await;
    client.welcome().await;
    let bits: Vec<&str> = ALL_BITS.iter().copied().chain(["rate_limit"]).collect();
    client.negotiate(&bits).await;
    let begin = Instant::now();
    client.roster().await;
    leave_at_the_rate(&mut client, begin, &ids).await;
    alice.outbox_status(&ids[24], "done").await;
}

/// What is accepted while nothing waits leaves without a claim, and no faster.
#[tokio::test]
async fn new_sends_leave_at_the_advertised_rate() {
    let (fake, alice, before) = alone_with_backlog(&[("bob", "before")]).await;
    let mut client = fake.accept().await;
    client.welcome().await;
    let bits: Vec<&str> = ALL_BITS.iter().copied().chain(["rate_limit"]).collect();
    client.negotiate(&bits).await;
    let begin = Instant::now();
    client.roster().await;
    leave_at_the_rate(&mut client, begin, &before).await;
    alice.outbox_status(&before[0], "done").await;
    let mut ids = Vec::new();
    for _ in 0..25 {
        ids.push(alice.send("bob", "x").await);
    }
    leave_at_the_rate(&mut client, begin, &ids).await;
    alice.outbox_status(&ids[24], "done").await;
}

/// Acknowledges sends as they come.
async fn leave_at_the_rate(client: &mut Client, begin: Instant, ids: &[String]) {
    let mut left = Vec::new();
    while left.len() < ids.len() {
        let (send, id) = next_id(client).await;
        left.push(id);
        client.ack(&send, &format!("broker-{}", left[left.len() - 1])).await;
        let allowed = f64::from(RATE.1) + begin.elapsed().as_secs_f64() * f64::from(RATE.0) + 1.0;
        assert!(left.len() as f64 <= allowed, "{} sends within {:?}", left.len(), begin.elapsed());
    }
    assert_eq!(left, ids, "in the order of accept");
}

#[tokio::test]
async fn a_limiter_costs_no_attempt_and_pauses_everything() {
    let (fake, alice, ids) = alone_with_backlog(&[("bob", "one")]).await;
    let mut client = fake.connect().await;
    let (send, _) = next_id(&mut client).await;
    let since = Instant::now();
    client.send(&refusal(&send, "rate_limit", Some(1200))).await;
    alice.outbox_status(&ids[0], "pending").await;
    assert_eq!(attempts(&alice, &ids[0]).await, 0);
    // What comes meanwhile waits as well: the limit is the member's.
    let other = alice.send("carol", "two").await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let (send, id) = next_id(&mut client).await;
        assert!(since.elapsed() >= Duration::from_millis(1200), "{id} left after {:?}", since.elapsed());
        client.ack(&send, &format!("broker-{id}")).await;
        seen.push(id);
    }
    seen.sort();
    let mut expected = vec![ids[0].clone(), other];
    expected.sort();
    assert_eq!(seen, expected);
    alice.outbox_status(&ids[0], "done").await;
    assert_eq!(attempts(&alice, &ids[0]).await, 1);
}

/// A limiter is never final, whatever else the broker says of it.
#[tokio::test]
async fn neither_a_limiter_nor_a_full_receiver_ends_a_send() {
    let (fake, alice, ids) = alone_with_backlog(&[("bob", "one")]).await;
    let mut client = fake.connect().await;
    for code in ["rate_limit", "recipient_queue_full"] {
        let (send, _) = next_id(&mut client).await;
        let mut ack = refusal(&send, code, Some(50));
        ack["retryable"] = json!(false);
        client.send(&ack).await;
    }
    let (send, _) = next_id(&mut client).await;
    client.ack(&send, "broker-1").await;
    alice.outbox_status(&ids[0], "done").await;
}

#[tokio::test]
async fn a_full_receiver_holds_up_nobody_else_and_keeps_its_order() {
    let backlog = [("bob", "bob 1"), ("bob", "bob 2"), ("carol", "carol 1")];
    let (fake, alice, ids) = alone_with_backlog(&backlog).await;
    let mut client = fake.connect().await;
    let mut carols = 0;
    for _ in 0..3 {
        let (send, id) = next_id(&mut client).await;
        if id == ids[2] {
            client.ack(&send, "broker-carol").await;
            carols += 1;
        } else {
            client.send(&refusal(&send, "recipient_queue_full", Some(1500))).await;
        }
    }
    assert_eq!(carols, 1);
    let held = Instant::now();
    // Both answers have arrived.
    for id in &ids[..2] {
        alice.outbox_status(id, "pending").await;
    }
    let third = alice.send("bob", "bob 3").await;
    // Carol's go out while bob is held.
    for number in 0..3 {
        let expected = alice.send("carol", &format!("carol {number}")).await;
        let (send, id) = next_id(&mut client).await;
        assert_eq!(id, expected, "only carol's leave");
        client.ack(&send, &format!("broker-{id}")).await;
    }
    assert!(held.elapsed() < Duration::from_millis(1500), "nobody waited for bob");
    // Then one goes ahead; the rest follows when it was taken, in order.
    let (send, id) = next_id(&mut client).await;
    assert_eq!(id, ids[0], "the oldest goes ahead");
    assert!(held.elapsed() >= Duration::from_millis(1300), "{:?}", held.elapsed());
    let more = client.frames_within(Duration::from_millis(600)).await;
    assert!(more.iter().all(|frame| frame["type"] != "send"), "it goes alone: {more:?}");
    client.ack(&send, "broker-1").await;
    for expected in [&ids[1], &third] {
        let (send, id) = next_id(&mut client).await;
        assert_eq!(&id, expected);
        client.ack(&send, &format!("broker-{id}")).await;
    }
    alice.outbox_status(&third, "done").await;
}

/// One at a time, so that each is a claim of its own.
#[tokio::test]
async fn receivers_whose_sends_wait_have_turns() {
    let mut fake = FakeBroker::start().await;
    fake.carol = Some(Key::random());
    let mut alice = fake.member("alice");
    alice.configure(&format!("{QUICK}[outbox]\nwindow = 1\n"));
    alice.start().await;
    fake.link(&alice).await.drop_link();
    let (mut bobs, mut carols) = (Vec::new(), Vec::new());
    for (to, ids) in [("bob", &mut bobs), ("carol", &mut carols)] {
        for number in 0..4 {
            ids.push(alice.send(to, &format!("{to} {number}")).await);
        }
    }
    let mut client = fake.connect().await;
    let mut left = Vec::new();
    for _ in 0..8 {
        let (send, id) = next_id(&mut client).await;
        client.ack(&send, &format!("broker-{id}")).await;
        left.push(id);
    }
    let expected: Vec<String> = bobs.into_iter().zip(carols).flat_map(|(bob, carol)| [bob, carol]).collect();
    assert_eq!(left, expected, "of each in the order of accept");
}

/// The claim that goes ahead for a held receiver is followed by one that fails.
#[tokio::test]
async fn what_was_claimed_leaves_although_the_next_claim_fails() {
    let (fake, alice, ids) = alone_with_backlog(&[("bob", "to bob")]).await;
    let mut client = fake.connect().await;
    let (send, _) = next_id(&mut client).await;
    client.send(&refusal(&send, "recipient_queue_full", Some(1500))).await;
    alice.outbox_status(&ids[0], "pending").await;
    let db = alice.outbox_db().await;
    let target = db.texts("SELECT target_id FROM outbox").await;
    db.run(&format!(
        "CREATE TRIGGER refuse BEFORE UPDATE OF status ON outbox \
         WHEN NEW.status = 'inflight' AND NEW.target_id <> '{}' BEGIN SELECT RAISE(ABORT, 'no'); END",
        target[0]
    ))
    .await;
    let carols = alice.send("carol", "to carol").await;
    let (send, id) = next_id(&mut client).await;
    assert_eq!(id, ids[0], "only bob's can be claimed");
    client.ack(&send, "broker-bob").await;
    alice.outbox_status(&ids[0], "done").await;
    db.run("DROP TRIGGER refuse").await;
    db.close().await;
    let (send, id) = next_id(&mut client).await;
    assert_eq!(id, carols);
    client.ack(&send, "broker-carol").await;
    alice.outbox_status(&carols, "done").await;
}

// Covers: D-B15
#[tokio::test]
async fn the_one_that_is_too_large_dies_and_no_other() {
    let (fake, alice, ids) = alone_with_backlog(&[("bob", "one"), ("bob", "large"), ("bob", "three")]).await;
    let mut client = fake.connect().await;
    // All three are in flight when the broker closes because of one of them.
    for _ in 0..3 {
        client.expect("send").await;
    }
    client.close(1009, "").await;
    let mut closes = 0;
    let mut done = Vec::new();
    while done.len() < 2 || closes == 0 {
        let mut client = fake.connect().await;
        loop {
            let (send, id) = next_id(&mut client).await;
            let others = client.frames_within(Duration::from_millis(200)).await;
            assert!(others.iter().all(|frame| frame["type"] != "send"), "one at a time: {others:?}");
            if id == ids[1] {
                closes += 1;
                client.close(1009, "").await;
                break;
            }
            client.ack(&send, &format!("broker-{id}")).await;
            done.push(id);
            if done.len() == 2 && closes > 0 {
                break;
            }
        }
    }
    assert_eq!(closes, 1, "alone at the second close, it is given up");
    let row = alice.outbox_status(&ids[1], "dead").await;
    assert!(row["last_error"].as_str().is_some_and(|text| text.contains("payload_too_large")), "{row}");
    alice.outbox_status(&ids[0], "done").await;
    alice.outbox_status(&ids[2], "done").await;
}

/// An answer that nobody waits for, and one that is late.
#[tokio::test]
async fn an_ack_with_a_foreign_id_settles_nothing() {
    let (fake, alice, ids) = alone_with_backlog(&[("bob", "one"), ("bob", "two")]).await;
    let mut client = fake.connect().await;
    let (first, _) = next_id(&mut client).await;
    let (second, _) = next_id(&mut client).await;
    for id in ["nobody", "", "*", "%"] {
        let mut foreign = first.clone();
        foreign["id"] = json!(id);
        client.ack(&foreign, "broker-x").await;
    }
    client.ack(&second, "broker-2").await;
    alice.outbox_status(&ids[1], "done").await;
    // The same answer again is nobody's any more.
    client.ack(&second, "broker-again").await;
    let marker = alice.send("bob", "marker").await;
    let (send, _) = next_id(&mut client).await;
    client.ack(&send, "broker-3").await;
    alice.outbox_status(&marker, "done").await;
    assert_eq!(alice.outbox_status(&ids[1], "done").await["broker_message_id"], "broker-2");
    let row = alice.outbox_status(&ids[0], "inflight").await;
    assert_eq!(row["broker_message_id"], Value::Null, "{row}");
    client.ack(&first, "broker-1").await;
    assert_eq!(alice.outbox_status(&ids[0], "done").await["broker_message_id"], "broker-1");
}

/// The negotiation is given five seconds. A broker that is slower is no reason to
/// end: the daemon comes back.
// Covers: D-B29
#[tokio::test]
async fn a_broker_that_stalls_six_seconds_is_tried_again() {
    let (fake, mut alice, ids) = alone_with_backlog(&[("bob", "one")]).await;
    let mut stalled = fake.accept().await;
    stalled.welcome().await;
    stalled.expect("feature_negotiation_request").await;
    let since = Instant::now();
    let (code, _) = stalled.closed().await;
    assert!(since.elapsed() >= Duration::from_millis(4500), "{code} after {:?}", since.elapsed());
    let mut client = fake.connect().await;
    alice.process().assert_running();
    // Nor does a slow ack send anything twice.
    let (send, _) = next_id(&mut client).await;
    let more = client.frames_within(Duration::from_secs(6)).await;
    assert!(more.iter().all(|frame| frame["type"] != "send"), "{more:?}");
    client.ack(&send, "broker-1").await;
    alice.outbox_status(&ids[0], "done").await;
    assert_eq!(attempts(&alice, &ids[0]).await, 1);
}

/// A slow line to one receiver is not to fill the window.
#[tokio::test]
async fn much_that_is_under_way_to_one_receiver_holds_up_nobody_else() {
    let mut fake = FakeBroker::start().await;
    fake.carol = Some(Key::random());
    let mut alice = fake.member("alice");
    alice.configure("[outbox]\nwindow = 4\n");
    alice.start().await;
    let mut client = fake.link(&alice).await;
    let large = "x".repeat(600_000);
    let mut bobs = Vec::new();
    for _ in 0..5 {
        bobs.push(alice.send("bob", &large).await);
    }
    let carols = alice.send("carol", "small").await;
    let mut left = Vec::new();
    // Two of them are more than may be under way.
    for _ in 0..3 {
        left.push(next_id(&mut client).await);
    }
    let (sends, ids): (Vec<Value>, Vec<String>) = left.into_iter().unzip();
    assert_eq!(ids, [bobs[0].as_str(), bobs[1].as_str(), carols.as_str()]);
    for send in &sends {
        client.ack(send, &format!("broker-{}", send["client_message_id"])).await;
    }
    for expected in &bobs[2..] {
        let (send, id) = next_id(&mut client).await;
        assert_eq!(&id, expected, "in order");
        client.ack(&send, &format!("broker-{id}")).await;
    }
    alice.outbox_status(&bobs[4], "done").await;
}

/// What another connection has refused is tried over the new one, whatever the pause.
#[tokio::test]
async fn a_new_link_ends_the_pause_of_a_full_receiver() {
    let (fake, alice, ids) = alone_with_backlog(&[("bob", "one")]).await;
    let mut client = fake.connect().await;
    let (send, _) = next_id(&mut client).await;
    client.send(&refusal(&send, "recipient_queue_full", Some(3_600_000))).await;
    alice.outbox_status(&ids[0], "pending").await;
    client.drop_link();
    let mut client = fake.connect().await;
    let (send, id) = next_id(&mut client).await;
    assert_eq!(id, ids[0]);
    client.ack(&send, "broker-1").await;
    alice.outbox_status(&id, "done").await;
}
