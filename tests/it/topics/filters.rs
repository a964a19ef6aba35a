//! Lists and streams of one topic.

use serde_json::{Value, json};

use super::{Trio, has_key};
use crate::support::daemon::unique;

#[tokio::test]
async fn a_filter_by_an_unknown_topic_is_not_an_empty_list() {
    let Trio { broker: _broker, alice, bob, carol } = Trio::start().await;
    for daemon in [&alice, &carol] {
        for path in ["/v1/inbox?topic=nothing", "/v1/events?topic=%23nothing"] {
            let answer = daemon.http().get(path).send().await.expect(404).json();
            assert_eq!(answer["code"], "topic_not_found", "{path}: {answer}");
        }
        let nameless = daemon.http().get("/v1/inbox?topic=%23").send().await.expect(400).json();
        assert_eq!(nameless["errors"][0]["field"], "topic", "{nameless}");
    }
    let messages = async |path: &str| -> Vec<Value> {
        let answer = bob.http().get(path).send().await.expect(200).json();
        answer["messages"].as_array().expect("messages").clone()
    };
    let topic = json!({"topic": "ops"});
    // One that exists, but not for bob.
    alice.http().post("/v1/topic/create", &topic).send().await.expect(200);
    assert_eq!(bob.http().get("/v1/inbox?topic=ops").send().await.expect(404).json()["code"], "topic_not_found");
    // Subscribed, it is known before it has a message; and it stays known for what is stored.
    bob.http().post("/v1/topic/subscribe", &topic).send().await.expect(200);
    has_key(&bob, "ops").await;
    assert_eq!(messages("/v1/inbox?topic=ops").await, Vec::<Value>::new());
    assert_eq!(bob.http().get("/v1/events?topic=ops").stream().await.status, 200);
    let text = unique("a post");
    alice.http().post("/v1/topic/post", &json!({"topic": "ops", "message": text})).send().await.expect(202);
    bob.received(&text).await;
    bob.http().post("/v1/topic/unsubscribe", &topic).send().await.expect(200);
    assert_eq!(messages("/v1/inbox?topic=%23ops").await[0]["body"], text.as_str());
    assert_eq!(bob.http().get("/v1/events?topic=ops").stream().await.status, 200);
}
