//! Posts: to whom they go, with what, and once.

use serde_json::json;

use super::{Trio, count, create, has_key, post, subscribe, topic, try_post};
use crate::support::broker::Broker;
use crate::support::daemon::unique;
use crate::support::proxy::Proxy;
use crate::support::wait;

// Covers: R77, R81, R138
#[tokio::test]
async fn a_post_reaches_every_subscriber_with_all_its_fields_and_nobody_else() {
    let trio = Trio::with_ops().await;
    let mut events = trio.bob.http().get("/v1/events?types=message&topic=ops").stream().await;
    let text = unique("deploying");
    let body = json!({
        "topic": "#ops", "message": text, "priority": "now", "mentions": ["bob", "carol"],
        "meta": {"ticket": 42}, "reply_to_id": "an-earlier-one", "client_message_id": "post-1",
    });
    let answer = try_post(&trio.alice, &body).await.expect(202).json();
    assert_eq!((&answer["client_message_id"], &answer["status"]), (&json!("post-1"), &json!("queued")), "{answer}");
    assert_eq!(
        (&answer["recipient"]["kind"], &answer["recipient"]["name"]),
        (&json!("topic"), &json!("ops")),
        "{answer}"
    );
    assert_eq!(answer["degraded"], json!([]), "{answer}");

    let row = trio.bob.received(&text).await;
    for (field, value) in [
        ("kind", json!("topic")),
        ("topic", json!("ops")),
        ("client_message_id", json!("post-1")),
        ("priority", json!("now")),
        ("meta", json!({"ticket": 42})),
        ("reply_to_id", json!("an-earlier-one")),
        ("sender_name", json!("alice")),
        ("unencrypted", json!(false)),
    ] {
        assert_eq!(row[field], value, "{field}: {row}");
    }
    let members = [trio.bob.config_member(), trio.carol.config_member()];
    let mentioned: Vec<_> = members.iter().map(|member| member["memberId"].clone()).collect();
    assert_eq!(row["mentions"], json!(mentioned), "{row}");
    let event = events.next_of("message").await.json();
    assert_eq!(event["message"]["client_message_id"], "post-1", "{event}");

    // To the topic and not to a member; the poster does not get its own.
    let direct = unique("direct");
    trio.alice.send("bob", &direct).await;
    trio.bob.received(&direct).await;
    assert_eq!(trio.bob.inbox("topic=ops").await.len(), 1);
    assert_eq!((count(&trio.alice, &text).await, count(&trio.carol, &text).await), (0, 0));

    let row = trio.alice.outbox_status("post-1", "done").await;
    assert!(row["broker_message_id"].is_string(), "{row}");
}

/// A send to `#topic` is a post.
#[tokio::test]
async fn a_send_to_a_topic_is_a_post_under_the_same_id() {
    let trio = Trio::with_ops().await;
    let text = unique("by send");
    let body = json!({"to": "#ops", "message": text, "client_message_id": "either"});
    trio.alice.post_send(&body).await.expect(202);
    trio.bob.received(&text).await;
    trio.alice.outbox_status("either", "done").await;
    let again = try_post(&trio.alice, &json!({"topic": "ops", "message": text, "client_message_id": "either"})).await;
    assert_eq!(again.expect(200).json()["duplicate"], true);
}

// Covers: R143, R144, R145, R146, R151
#[tokio::test]
async fn the_id_of_a_post_comes_from_the_header_then_the_body_then_the_daemon() {
    let trio = Trio::with_ops().await;
    let text = unique("once");
    let body = json!({"topic": "ops", "message": text, "client_message_id": "from-body"});
    let keyed = trio.alice.http().post("/v1/topic/post", &body).header("Idempotency-Key", "from-header");
    assert_eq!(keyed.send().await.expect(202).json()["client_message_id"], "from-header");
    assert_eq!(try_post(&trio.alice, &body).await.expect(202).json()["client_message_id"], "from-body");
    let minted = post(&trio.alice, "ops", &text).await;
    assert!(minted.len() == 26 && minted.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{minted}");

    // The same id again: one row, whatever the state, and a conflict for another
    // request.
    trio.alice.outbox_status("from-body", "done").await;
    let again = try_post(&trio.alice, &body).await.expect(200).json();
    assert_eq!(again["duplicate"], true, "{again}");
    let other = json!({"topic": "ops", "message": "another", "client_message_id": "from-body"});
    let refused = try_post(&trio.alice, &other).await.expect(409).json();
    assert_eq!(refused["code"], "outbox_done_fingerprint_mismatch", "{refused}");
    let mentions = json!({"topic": "ops", "message": text, "client_message_id": "from-body", "mentions": ["bob"]});
    assert_eq!(try_post(&trio.alice, &mentions).await.expect(409).json()["code"], refused["code"]);
    let db = trio.alice.outbox_db().await;
    assert_eq!(db.number("SELECT count(*) FROM outbox WHERE client_message_id = 'from-body'").await, 1);
    db.close().await;
    wait::until("three copies", async || (count(&trio.bob, &text).await == 3).then_some(())).await;
}

// Covers: R137, R139, R147, R149
#[tokio::test]
async fn a_post_whose_answers_are_lost_is_stored_once_on_every_side() {
    let broker = Broker::start().await;
    let proxy = Proxy::to(broker.address()).await;
    let mut trio = Trio::through(broker, &proxy.url()).await;
    create(&trio.alice, "ops").await;
    subscribe(&trio.bob, "ops").await;
    has_key(&trio.bob, "ops").await;
    proxy.drop_acks(3);
    let text = unique("lost answers");
    let id = post(&trio.alice, "ops", &text).await;
    wait::until("lost answers", async || (proxy.acks_dropped() > 0).then_some(())).await;
    // Both sides come back as others.
    trio.alice.kill9();
    trio.bob.kill9();
    trio.bob.start().await;
    trio.alice.start().await;
    trio.alice.outbox_status(&id, "done").await;
    trio.bob.received(&text).await;
    let sent = proxy.client_frames("send");
    let posts: Vec<_> = sent.iter().filter(|frame| frame["client_message_id"] == id.as_str()).collect();
    assert!(posts.len() > 1, "it was transmitted again: {posts:?}");
    let db = trio.broker.tables().await;
    let of = format!("WHERE client_message_id = '{id}'");
    assert_eq!(db.number(&format!("SELECT count(*) FROM topic_message {of}")).await, 1);
    assert_eq!(
        db.number(&format!("SELECT count(*) FROM client_message_dedupe {of} AND destination_kind = 'topic'")).await,
        1
    );
    db.close().await;
    let marker = unique("after it");
    post(&trio.alice, "ops", &marker).await;
    trio.bob.received(&marker).await;
    assert_eq!(count(&trio.bob, &text).await, 1);
}

// Covers: R136, R160
#[tokio::test]
async fn a_post_is_durable_without_a_broker_and_goes_out_after_a_kill() {
    let mut trio = Trio::with_ops().await;
    trio.broker.kill9();
    let texts: Vec<String> = (0..5).map(|number| unique(&format!("post {number}"))).collect();
    for text in &texts {
        post(&trio.alice, "ops", text).await;
    }
    trio.alice.kill9();
    trio.bob.kill9();
    // Without a link the topic is known all the same.
    trio.alice.start().await;
    let known = topic(&trio.alice, "ops").await.expect("a topic that is known without a link");
    assert_eq!((&known["subscribed"], &known["waiting_for_key"]), (&json!(true), &json!(false)), "{known}");
    let text = unique("while away");
    post(&trio.alice, "ops", &text).await;
    trio.broker.restart().await;
    trio.bob.start().await;
    trio.bob.received(&text).await;
    let got: Vec<_> = trio.bob.inbox("topic=ops").await.into_iter().map(|row| row["body"].clone()).collect();
    assert_eq!(got, texts.iter().chain([&text]).map(|text| json!(text)).collect::<Vec<_>>(), "once, in order");
}

// Covers: R335, R415
#[tokio::test]
async fn neither_the_text_nor_the_key_of_a_topic_reaches_the_broker() {
    let broker = Broker::start().await;
    let proxy = Proxy::to(broker.address()).await;
    let trio = Trio::through(broker, &proxy.url()).await;
    create(&trio.alice, "ops").await;
    subscribe(&trio.bob, "ops").await;
    has_key(&trio.bob, "ops").await;
    let text = unique("for readers only");
    post(&trio.alice, "ops", &text).await;
    trio.bob.received(&text).await;
    let keys: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(trio.alice.file("topic_keys.json")).expect("topic_keys.json"))
            .expect("JSON");
    let key = keys["topics"][0]["keys"]["1"].as_str().expect("the key of epoch 1").to_owned();
    let secrets = [text.into_bytes(), hex::decode(&key).expect("hex"), key.into_bytes()];
    let frames = ["send", "topic_create", "topic_key_put", "topic_epoch_new"].map(|kind| proxy.client_frames(kind));
    let frames = frames.concat().iter().map(ToString::to_string).collect::<String>().into_bytes();
    assert!(frames.len() > 1000, "frames were seen");
    let mut seen = vec![frames];
    for entry in std::fs::read_dir(trio.broker.dir()).expect("the broker's directory") {
        let path = entry.expect("an entry").path();
        if path.is_file() {
            seen.push(std::fs::read(path).expect("a file of the broker"));
        }
    }
    for secret in &secrets {
        let base64 = {
            use base64::Engine as _;
            base64::prelude::BASE64_STANDARD.encode(secret).trim_end_matches('=').as_bytes().to_vec()
        };
        for haystack in &seen {
            for needle in [secret, &base64] {
                assert!(!haystack.windows(needle.len()).any(|window| window == needle), "a secret is at the broker");
            }
        }
    }
}
