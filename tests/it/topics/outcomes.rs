//! What an author hears of the subscribers of a topic.

use serde_json::{Value, json};

use super::{Trio, subscribe, try_post};
use crate::support::daemon::Daemon;
use crate::support::http::EventStream;
use crate::support::wait;

async fn member_id(of: &Daemon) -> Value {
    of.config_member()["memberId"].clone()
}

/// The next delivery that an author hears of: who has it.
async fn delivered(events: &mut EventStream) -> Value {
    loop {
        let status = events.next_of("delivery_status").await.json()["delivery_status"].clone();
        if status["status"] == "delivered" {
            return status;
        }
        assert_eq!(status["status"], "accepted", "{status}");
    }
}

/// Counts who has stored a post, names them, and counts nobody who cannot read it.
#[tokio::test]
async fn an_author_hears_of_each_subscriber_once_it_can_read_the_post() {
    let mut trio = Trio::with_ops().await;
    subscribe(&trio.carol, "ops").await;
    let mut events = trio.alice.http().get("/v1/events?types=delivery_status").stream().await;
    let body = json!({"topic": "ops", "message": "who has it?", "client_message_id": "p1"});
    let first = try_post(&trio.alice, &body).await.expect(202).json();
    assert_eq!(first["delivered_count"], Value::Null, "{first}");
    let status = delivered(&mut events).await;
    let recipient = &status["recipient"];
    assert_eq!((&recipient["kind"], &recipient["name"]), (&json!("topic"), &json!("bob")), "{status}");
    assert_eq!(
        (&recipient["member_id"], &recipient["pubkey"]),
        (&member_id(&trio.bob).await, &json!(trio.bob.public()))
    );
    assert_eq!(recipient["topic_id"], first["recipient"]["topic_id"], "{status}");
    let db = trio.carol.inbox_db().await;
    wait::until("it to wait", async || (db.number("SELECT count(*) FROM inbox_waiting").await == 1).then_some(()))
        .await;
    db.close().await;
    let again = try_post(&trio.alice, &body).await.expect(200).json();
    assert_eq!((&again["duplicate"], &again["delivered_count"]), (&json!(true), &json!(1)), "{again}");

    trio.alice.cli(&["topic", "admit", "ops", "carol"]).await.ok();
    let status = delivered(&mut events).await;
    assert_eq!(status["recipient"]["member_id"], member_id(&trio.carol).await, "{status}");
    trio.alice.kill9();
    trio.alice.start().await;
    let again = try_post(&trio.alice, &body).await.expect(200).json();
    assert_eq!(again["delivered_count"], 2, "it is on disk: {again}");
    let sent = trio.alice.http().get("/v1/send/p1").send().await.expect(200).json();
    assert_eq!((&sent["delivered_count"], &sent["status"]), (&json!(2), &json!("accepted")), "{sent}");
}
