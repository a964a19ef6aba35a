//! Hooks and topics.

use serde_json::{Value, json};

use super::{answered, configure, curl, ended, runs, script, written};
use crate::topics::Trio;

// Covers: R200, R201, R203
#[tokio::test]
async fn a_post_runs_the_hooks_of_its_topic_and_is_answered_there() {
    let Trio { broker: _broker, alice, bob, carol: _carol } = Trio::with_ops().await;
    configure(&bob, "[on-topic-ops]\nallow_reply = true\n[on-topic-dev]\n[on-message]\n[on-dm]\n");
    script(&bob, "on-topic-ops", "keep ops; echo '{\"reply\": \"seen\"}'");
    for name in ["on-topic-dev", "on-message", "on-dm"] {
        script(&bob, name, "cat > /dev/null");
    }
    bob.cli(&["hook", "reload"]).await.ok();
    let post = json!({"topic": "ops", "message": "a post"});
    let posted = alice.http().post("/v1/topic/post", &post).send().await.expect(202).json();
    let reply = alice.received("seen").await;
    assert_eq!((&reply["kind"], &reply["topic"]), (&json!("topic"), &json!("ops")), "{reply}");
    assert_eq!(
        (&reply["reply_to_id"], &reply["provenance"]["hops"]),
        (&posted["client_message_id"], &json!(1)),
        "{reply}"
    );
    let input: Value = serde_json::from_str(&written(&bob, "ops").await).expect("JSON");
    assert_eq!((&input["kind"], &input["topic"], &input["body"]), (&json!("topic"), &json!("ops"), &json!("a post")));
    ended(&bob, "on-message", 1).await;
    alice.send("bob", "direct").await;
    ended(&bob, "on-dm", 1).await;
    ended(&bob, "on-message", 2).await;
    assert_eq!(runs(&bob, "hook=on-topic-ops").await.len(), 1, "not for the direct message");
    assert_eq!(runs(&bob, "hook=on-dm").await.len(), 1, "not for the post");
    assert!(runs(&bob, "hook=on-topic-dev").await.is_empty(), "not for another topic");
}

// Covers: R238, R240
#[tokio::test]
async fn a_topic_scope_posts_to_the_topic_that_fired() {
    let Trio { broker: _broker, alice, bob, carol: _carol } = Trio::with_ops().await;
    for daemon in [&alice, &bob] {
        let verb = if std::ptr::eq(daemon, &alice) { "create" } else { "subscribe" };
        daemon.cli(&["topic", verb, "dev"]).await.ok();
    }
    let post = |topic: &str, reply_to: &str, text: &str| {
        format!(
            "{{\\\"topic\\\":\\\"{topic}\\\",\\\"reply_to_id\\\":\\\"{reply_to}\\\",\\\"message\\\":\\\"{text}\\\"}}"
        )
    };
    let id = "keep input; ID=$(sed -n 's/.*\"client_message_id\":\"\\([^\"]*\\)\".*/\\1/p' OUT/input);\n";
    let scoped = id.to_owned()
        + &curl("/v1/topic/post", &post("ops", "", "by scope"), "right")
        + &curl("/v1/topic/post", &post("dev", "", "no"), "other");
    let reply = id.to_owned()
        + &curl("/v1/topic/post", &post("ops", "$ID", "by reply"), "reply")
        + &curl("/v1/topic/post", &post("ops", "another", "no"), "no_reply");
    let settings = "[on-topic-ops]\ncapability_token_scope = [\"topic:ops:post\", \"topic:dev:post\"]\n[on-message]\n\
                    capability_token_scope = [\"reply:event\"]\n";
    configure(&bob, settings);
    script(&bob, "on-topic-ops", &scoped);
    script(&bob, "on-message", &reply.replace("OUT/input", "OUT/input2").replace("keep input", "keep input2"));
    bob.cli(&["hook", "reload"]).await.ok();
    let posted = json!({"topic": "ops", "message": "a post"});
    alice.http().post("/v1/topic/post", &posted).send().await.expect(202);
    for text in ["by scope", "by reply"] {
        let row = alice.received(text).await;
        assert_eq!((&row["topic"], &row["provenance"]["hops"]), (&json!("ops"), &json!(1)), "{row}");
    }
    assert_eq!((answered(&bob, "right").await.0, answered(&bob, "reply").await.0), ("202".into(), "202".into()));
    for file in ["other", "no_reply"] {
        let (status, answer) = answered(&bob, file).await;
        assert_eq!((status.as_str(), &answer["code"]), ("403", &json!("hook_call_denied")), "{file}: {answer}");
    }
}

// Covers: R208
#[tokio::test]
async fn posts_pass_the_gate_too() {
    let Trio { broker: _broker, alice, bob, carol: _carol } = Trio::with_ops().await;
    configure(&alice, "[pre-send]\n");
    let body = "case $(cat) in *secret*) echo '{\"drop\": true}';; *) echo '{\"message\": \"changed\"}';; esac";
    script(&alice, "pre-send", body);
    alice.cli(&["hook", "reload"]).await.ok();
    let post = async |text: &str| {
        let response = alice.http().post("/v1/topic/post", &json!({"topic": "ops", "message": text})).send().await;
        (response.status, response.json()["code"].clone())
    };
    assert_eq!(post("a secret").await, (403, json!("pre_send_dropped")));
    assert_eq!(post("fine").await.0, 202);
    assert_eq!(bob.received("changed").await["topic"], "ops");
    assert_eq!(bob.inbox("").await.len(), 1);
}
