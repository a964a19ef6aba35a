//! Which message a `reply_to_id` means.

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Pair, unique};
use crate::support::wait;

/// Sends an answer; the `reply_to_id` that its receiver sees.
async fn answered(from: &Daemon, to: &Daemon, name: &str, reply_to_id: &Value) -> Value {
    let text = unique("an answer");
    from.post_send(&json!({"to": name, "message": text, "reply_to_id": reply_to_id})).await.expect(202);
    to.received(&text).await["reply_to_id"].clone()
}

#[tokio::test]
async fn a_message_is_answered_by_any_of_its_ids_and_both_sides_know_it() {
    let Pair { broker: _broker, alice, bob, .. } = Pair::start().await;
    let text = unique("a question");
    alice.post_send(&json!({"to": "bob", "message": text, "client_message_id": "q1"})).await.expect(202);
    let row = bob.received(&text).await;
    for id in ["id", "broker_message_id", "client_message_id"] {
        assert_eq!(answered(&bob, &alice, "alice", &row[id]).await, "q1", "{id}: {row}");
    }
    // One's own send is answered too, by its own id and by the broker's.
    assert_eq!(answered(&alice, &bob, "bob", &json!("q1")).await, "q1");
    let sent = wait::until("the broker's id", async || {
        let sent = alice.http().get("/v1/send/q1").send().await.expect(200).json();
        (sent["broker_message_id"] != "").then_some(sent)
    })
    .await;
    assert_eq!(answered(&alice, &bob, "bob", &sent["broker_message_id"]).await, "q1");
    // What nothing here is called by goes out as it is written.
    assert_eq!(answered(&bob, &alice, "alice", &json!("from-elsewhere")).await, "from-elsewhere");
}

#[tokio::test]
async fn an_id_that_means_two_messages_is_refused_with_their_senders() {
    let Pair { broker: _broker, alice, bob, .. } = Pair::start().await;
    let text = unique("from alice");
    alice.post_send(&json!({"to": "bob", "message": text, "client_message_id": "same"})).await.expect(202);
    let row = bob.received(&text).await;
    bob.post_send(&json!({"to": "alice", "message": "from bob", "client_message_id": "same"})).await.expect(202);
    let answer = json!({"to": "alice", "message": "which?", "reply_to_id": "same", "client_message_id": "a1"});
    let refused = bob.post_send(&answer).await.expect(400).json();
    assert_eq!(refused["code"], "ambiguous_reply", "{refused}");
    let names = refused["candidates"].as_array().expect("a list").iter().map(|one| one["name"].clone());
    let mut names: Vec<Value> = names.collect();
    names.sort_by_key(Value::to_string);
    assert_eq!(names, [json!("alice"), json!("bob")], "{refused}");
    // The id of the refused answer is free, and the row's own id is never ambiguous.
    let by_row = json!({"to": "alice", "message": "this one", "reply_to_id": row["id"], "client_message_id": "a1"});
    bob.post_send(&by_row).await.expect(202);
    // To somebody else the id is unknown, and no business of this conversation.
    assert_eq!(answered(&bob, &bob, "bob", &json!("same")).await, "same");
}
