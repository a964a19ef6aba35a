//! Topics beside older clients, whose topics the broker can read.

use serde_json::json;

use super::{subscribe, topic, try_post};
use crate::support::daemon::{Pair, unique};
use crate::support::keys;
use crate::support::raw::Raw;

/// What an older client makes is marked, and takes nothing that was not allowed.
#[tokio::test]
async fn a_topic_of_an_older_client_is_called_unencrypted_and_needs_consent() {
    let Pair { broker, mesh, alice, bob } = Pair::start().await;
    let dave = mesh.join(&broker, "dave").await;
    let mut raw = Raw::member(&broker.url(), &dave).await;
    let (made, _) = raw.request(json!({"type": "topic_create", "name": "old"})).await;
    assert_eq!(made["created"], true, "{made}");
    let id = made["topic"]["id"].as_str().expect("an id").to_owned();

    let subscribed = subscribe(&bob, "old").await;
    assert_eq!((&subscribed["topic"]["unencrypted"], &subscribed["topic"]["epoch"]), (&json!(true), &json!(0)));
    let refused = try_post(&bob, &json!({"topic": "old", "message": "hi"})).await.expect(403).json();
    assert_eq!(refused["code"], "unencrypted_not_allowed", "{refused}");
    let text = unique("in the open");
    let allowed =
        json!({"topic": "old", "message": text, "allow_unencrypted": true, "meta": {"a": 1}, "mentions": ["alice"]});
    let answer = try_post(&bob, &allowed).await.expect(202).json();
    assert_eq!(answer["degraded"], json!(["meta", "mentions"]), "{answer}");
    let push = raw.message().await;
    assert_eq!((&push["topic"], &push["topicId"]), (&json!("old"), &json!(id)), "{push}");
    assert_eq!(keys::from_base64(push["ciphertext"].as_str().expect("a text")), text.as_bytes());

    let plain = unique("by the old one");
    let send = json!({
        "type": "send", "targetSpec": format!("#{id}"), "priority": "next",
        "nonce": keys::base64(&[0; 24]), "ciphertext": keys::base64(plain.as_bytes()), "id": "m1",
    });
    raw.send(&send).await;
    let row = bob.received(&plain).await;
    assert_eq!(
        (&row["unencrypted"], &row["topic"], &row["kind"]),
        (&json!(true), &json!("old"), &json!("topic")),
        "{row}"
    );
    assert_eq!(topic(&alice, "old").await.expect("old")["unencrypted"], true);
}
