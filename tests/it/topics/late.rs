//! A key that arrives late: at the receiver, and at the sender.

use serde_json::json;

use super::{Trio, count, has_key, post, subscribe, topic};
use crate::support::daemon::unique;
use crate::support::wait;

/// What came before its key waits sealed, through a restart, and is told once.
#[tokio::test]
async fn what_came_before_its_key_opens_when_the_key_comes() {
    let mut trio = Trio::with_ops().await;
    subscribe(&trio.carol, "ops").await;
    let texts: Vec<String> = (0..3).map(|number| unique(&format!("sealed {number}"))).collect();
    for text in &texts {
        post(&trio.alice, "ops", text).await;
    }
    trio.bob.received(&texts[2]).await;
    let db = trio.carol.inbox_db().await;
    wait::until("three that wait", async || (db.number("SELECT count(*) FROM inbox_waiting").await == 3).then_some(()))
        .await;
    db.close().await;
    // They are at carol, and the broker is told so: it has not to bring them again, nor
    // may it say that they are delivered.
    let broker = trio.broker.tables().await;
    let open = "SELECT count(*) FROM delivery WHERE delivered_at IS NULL AND waiting_at IS NULL";
    wait::until("all to be acknowledged", async || (broker.number(open).await == 0).then_some(())).await;
    let waiting = "SELECT count(*) FROM delivery WHERE delivered_at IS NULL AND waiting_at IS NOT NULL";
    assert_eq!(broker.number(waiting).await, 3);
    trio.carol.kill9();
    trio.carol.start().await;
    trio.carol.connected().await;
    let mut events = trio.carol.http().get("/v1/events?types=message").stream().await;
    let direct = unique("a direct one meanwhile");
    trio.alice.send("carol", &direct).await;
    trio.carol.received(&direct).await;
    assert_eq!(events.next_of("message").await.json()["message"]["body"], direct.as_str());

    trio.alice.cli(&["topic", "admit", "ops", "carol"]).await.ok();
    for text in &texts {
        let event = events.next_of("message").await.json();
        assert_eq!(event["message"]["body"], text.as_str(), "in the order of arrival: {event}");
    }
    wait::until("all to be delivered", async || (broker.number(waiting).await == 0).then_some(())).await;
    broker.close().await;
    let after = unique("after it");
    post(&trio.alice, "ops", &after).await;
    assert_eq!(events.next_of("message").await.json()["message"]["body"], after.as_str(), "each is told once");
    for text in &texts {
        assert_eq!(count(&trio.carol, text).await, 1);
    }
    let db = trio.carol.inbox_db().await;
    assert_eq!(db.number("SELECT count(*) FROM inbox_waiting").await, 0);
    assert_eq!(db.number("SELECT count(*) FROM inbox_quarantine").await, 0);
    db.close().await;
}

/// Posts wait in the outbox until their key comes, in order, and hold up nothing
/// else.
#[tokio::test]
async fn posts_wait_in_the_outbox_until_their_key_comes() {
    let mut trio = Trio::with_ops().await;
    subscribe(&trio.carol, "ops").await;
    let texts: Vec<String> = (0..3).map(|number| unique(&format!("waits {number}"))).collect();
    let mut ids = Vec::new();
    for text in &texts {
        ids.push(post(&trio.carol, "ops", text).await);
    }
    let direct = unique("goes ahead");
    trio.carol.send("alice", &direct).await;
    trio.alice.received(&direct).await;
    let row = trio.carol.outbox_status(&ids[0], "pending").await;
    assert!(row["last_error"].as_str().is_some_and(|text| text.contains("key")), "{row}");
    trio.carol.kill9();
    trio.carol.start().await;
    assert_eq!(topic(&trio.carol, "ops").await.expect("ops")["waiting_for_key"], true);
    trio.alice.cli(&["topic", "admit", "ops", "carol"]).await.ok();
    trio.alice.received(&texts[2]).await;
    trio.bob.received(&texts[2]).await;
    let got: Vec<_> = trio.bob.inbox("topic=ops").await.into_iter().map(|row| row["body"].clone()).collect();
    assert_eq!(got, texts.iter().map(|text| json!(text)).collect::<Vec<_>>(), "once, in order");
}

/// A subscriber whose topic's readers are all away gets its key when one is back.
#[tokio::test]
async fn a_key_comes_when_somebody_who_holds_it_is_back() {
    let mut trio = Trio::start().await;
    super::create(&trio.alice, "ops").await;
    let first = unique("posted alone");
    let id = post(&trio.alice, "ops", &first).await;
    trio.alice.outbox_status(&id, "done").await;
    trio.alice.kill9();
    let asked = subscribe(&trio.bob, "ops").await;
    assert_eq!(asked["topic"]["waiting_for_key"], true, "{asked}");
    let text = unique("as soon as it can");
    post(&trio.bob, "ops", &text).await;
    trio.bob.kill9();
    trio.alice.start().await;
    trio.bob.start().await;
    has_key(&trio.bob, "ops").await;
    trio.alice.received(&text).await;
    assert_eq!(count(&trio.bob, &first).await, 0, "it was posted before bob was there");
}

/// Nobody is left who could give the key: who waits for it makes the next one.
#[tokio::test]
async fn a_topic_whose_holders_have_all_left_gets_a_new_key() {
    let trio = Trio::start().await;
    super::create(&trio.alice, "ops").await;
    subscribe(&trio.carol, "ops").await;
    let text = unique("waits for a key");
    let id = post(&trio.carol, "ops", &text).await;
    trio.carol.outbox_status(&id, "pending").await;
    trio.alice.cli(&["topic", "unsubscribe", "ops"]).await.ok();
    trio.carol.outbox_status(&id, "done").await;
    let topic = topic(&trio.carol, "ops").await.expect("ops");
    assert_eq!((&topic["epoch"], &topic["waiting_for_key"]), (&json!(2), &json!(false)), "{topic}");
}
