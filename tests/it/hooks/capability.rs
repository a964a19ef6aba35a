//! What a hook's token opens, and what stays shut.

use serde_json::{Value, json};

use super::{Rig, answered, configure, curl, ended, metric, script, written};
use crate::support::daemon::Pair;
use crate::support::http::Target;
use crate::support::{tools, wait};

/// Fields of the input, as shell variables.
const READ: &str = "keep input; field() { sed -n \"s/.*\\\"$1\\\":\\\"\\([^\\\"]*\\)\\\".*/\\1/p\" OUT/input; }; \
                    FROM=$(field sender_pubkey); ID=$(field client_message_id);\n";

fn json_send(to: &str, reply_to: &str, text: &str) -> String {
    format!("{{\\\"to\\\":\\\"{to}\\\",\\\"reply_to_id\\\":\\\"{reply_to}\\\",\\\"message\\\":\\\"{text}\\\"}}")
}

// Covers: R238, R244, R312, R334, R414
#[tokio::test]
async fn a_reply_scope_answers_the_event_and_does_nothing_else() {
    let other = "f".repeat(64);
    let mut body = READ.to_owned();
    let calls = [
        ("right", json_send("$FROM", "$ID", "an answer")),
        ("other_event", json_send("$FROM", "someone-elses-id", "no")),
        ("no_event", json_send("$FROM", "", "no")),
        ("other_member", json_send(&other, "$ID", "no")),
        ("by_name", json_send("alice", "$ID", "no")),
        ("everyone", json_send("*", "$ID", "no")),
        ("topic", json_send("#ops", "$ID", "no")),
    ];
    for (file, data) in &calls {
        body += &curl("/v1/send", data, file);
    }
    body += &curl("/v1/topic/post", "{\\\"topic\\\":\\\"ops\\\",\\\"message\\\":\\\"no\\\"}", "post");
    let Pair { broker: _broker, mesh: _mesh, alice, bob } = Pair::start().await;
    configure(&bob, "[on-dm]\ncapability_token_scope = [\"reply:event\"]\n");
    script(&bob, "on-dm", &body);
    bob.cli(&["hook", "reload"]).await.ok();
    let id = alice.send("bob", "hello").await;
    let reply = alice.received("an answer").await;
    assert_eq!((&reply["reply_to_id"], &reply["provenance"]["hops"]), (&json!(id), &json!(1)), "{reply}");
    let event = &ended(&bob, "on-dm", 1).await[0];
    assert_eq!(reply["client_message_id"], format!("hook:{}:on-dm:1", event["message_id"].as_str().expect("an id")));
    assert_eq!(event["capability_calls"], 8, "{event}");
    assert_eq!(answered(&bob, "right").await.0, "202");
    for (file, _) in calls.iter().skip(1).chain([&("post", String::new())]) {
        let (status, answer) = answered(&bob, file).await;
        assert_eq!((status.as_str(), &answer["code"]), ("403", &json!("hook_call_denied")), "{file}: {answer}");
    }
    assert_eq!(alice.inbox("").await.len(), 1);
    let count = async |scope: &str| {
        let labels = ["hook=\"on-dm\"".to_owned(), format!("scope=\"{scope}\"")];
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        metric(&bob, "cm_daemon_hook_capability_calls_total", &labels).await as u64
    };
    assert_eq!((count("reply:event").await, count("none").await), (1, 7));
}

// Covers: R239, R240
#[tokio::test]
async fn a_direct_scope_writes_to_the_sender_alone_and_a_topic_scope_to_its_topic() {
    let other = "f".repeat(64);
    let mut body = READ.to_owned();
    body += &curl("/v1/send", &json_send("$FROM", "", "to the sender"), "sender");
    body += &curl("/v1/send", &json_send(&other, "", "no"), "other");
    let post = |topic: &str| format!("{{\\\"topic\\\":\\\"{topic}\\\",\\\"message\\\":\\\"no\\\"}}");
    body += &curl("/v1/topic/post", &post("ops"), "not_from_there");
    body += &curl("/v1/topic/post", &post("dev"), "other_topic");
    let settings = "[on-dm]\ncapability_token_scope = [\"dm:send:<sender_pubkey>\", \"topic:ops:post\"]\n";
    let Pair { broker: _broker, mesh: _mesh, alice, bob } = Pair::start().await;
    configure(&bob, settings);
    script(&bob, "on-dm", &body);
    bob.cli(&["hook", "reload"]).await.ok();
    alice.send("bob", "hello").await;
    alice.received("to the sender").await;
    ended(&bob, "on-dm", 1).await;
    assert_eq!(answered(&bob, "sender").await.0, "202");
    for file in ["other", "not_from_there", "other_topic"] {
        let (status, answer) = answered(&bob, file).await;
        assert_eq!((status.as_str(), &answer["code"]), ("403", &json!("hook_call_denied")), "{file}: {answer}");
    }
}

// Covers: R242, R334, R414
#[tokio::test]
async fn no_scope_reads_anything() {
    let reads = [
        "/v1/inbox",
        "/v1/peers",
        "/v1/events",
        "/v1/state/get",
        "/v1/health",
        "/v1/metrics",
        "/v1/version",
        "/v1/outbox",
        "/v1/keys/pinned",
        "/v1/hooks",
        "/v1/topic/list",
        "/nothing",
    ];
    let mut body = READ.to_owned();
    for (number, path) in reads.iter().enumerate() {
        body += &curl(path, "", &format!("read{number}"));
    }
    let settings =
        "[on-dm]\ncapability_token_scope = [\"reply:event\", \"dm:send:<sender_pubkey>\", \"topic:ops:post\"]\n";
    let mut rig = Rig::start(settings, &[("on-dm", &body)]).await;
    rig.push("hello").await;
    for (number, path) in reads.iter().enumerate() {
        let (status, answer) = answered(&rig.alice, &format!("read{number}")).await;
        assert_eq!((status.as_str(), &answer["code"]), ("403", &json!("hook_call_denied")), "{path}: {answer}");
    }
}

/// Two runs at once: neither token opens the other's socket, and none opens anything
/// after its run.
// Covers: R236, R237
#[tokio::test]
async fn a_token_is_good_at_its_own_socket_while_its_run_lasts() {
    let body = "cat > /dev/null; printf '%s\\n%s\\n' \"$CLAUDEMESH_DAEMON_SOCK\" \"$CLAUDEMESH_CAPABILITY_TOKEN\" | keep $CLAUDEMESH_HOOK_NAME; \
                until [ -e OUT/go ]; do sleep 0.05; done";
    let settings = "[on-dm]\ncapability_token_scope = [\"reply:event\"]\n[on-message]\ncapability_token_scope = [\"reply:event\"]\n";
    let Pair { broker, mesh: _mesh, alice, bob } = Pair::start().await;
    configure(&bob, settings);
    for name in ["on-dm", "on-message"] {
        script(&bob, name, body);
    }
    bob.cli(&["hook", "reload"]).await.ok();
    let id = alice.send("bob", "hello").await;
    let mut access = Vec::new();
    for name in ["on-dm", "on-message"] {
        let text = written(&bob, name).await;
        let (socket, token) = text.trim().split_once('\n').expect("two lines");
        access.push((Target::unix(socket.as_ref()), token.to_owned()));
    }
    let send = json!({"to": alice.public(), "reply_to_id": id, "message": "hi"});
    let call = async |target: &Target, token: Option<&str>| {
        let request = target.post("/v1/send", &send);
        let request = if let Some(token) = token { request.bearer(token) } else { request };
        request.try_send().await.map(|response| response.status)
    };
    for (own, other) in [(0, 1), (1, 0)] {
        let (target, token) = &access[own];
        assert_eq!(call(target, Some(&access[other].1)).await.expect("an answer"), 401);
        assert_eq!(call(target, None).await.expect("an answer"), 401);
        assert_eq!(call(target, Some(token)).await.expect("an answer"), 202);
    }
    let token = &access[0].1;
    assert_eq!(bob.tcp().get("/v1/inbox").bearer(token).send().await.status, 401, "it opens nothing over TCP");
    let body = json!({"targetSpec": alice.public(), "priority": "next", "nonce": "", "ciphertext": "", "client_message_id": "x"});
    let refused = broker.http().post("/v1/messages", &body).bearer(token).send().await;
    assert_eq!(refused.status, 401, "nor the broker's API: {}", refused.text());
    std::fs::write(bob.home().join("go"), "").expect("the sign");
    ended(&bob, "on-dm", 1).await;
    wait::until("the socket to be gone", async || call(&access[0].0, Some(token)).await.is_err().then_some(())).await;
}

/// The main socket refuses what a hook starts, unless its section says otherwise.
// Covers: R243
#[tokio::test]
async fn the_main_socket_is_for_hooks_that_are_trusted_with_it() {
    let main = "curl -s -o OUT/$CLAUDEMESH_HOOK_NAME.body -w '%{http_code}' --unix-socket OUT/daemon/demo/sock http://localhost/v1/inbox";
    let body = format!("cat > /dev/null; (sh -c \"{main}\") | keep $CLAUDEMESH_HOOK_NAME; ");
    let verb = "\"$CLAUDEMESH_BIN\" peer list --json > OUT/$CLAUDEMESH_HOOK_NAME.peers 2> OUT/$CLAUDEMESH_HOOK_NAME.error; \
                echo $? | keep $CLAUDEMESH_HOOK_NAME.exit";
    let body = body.replace("\\\"", "\"").replace("'%{http_code}'", "%{http_code}") + verb;
    let settings = "[on-dm]\n[on-message]\nuser_cli = true\n";
    let mut rig = Rig::start(settings, &[("on-dm", &body), ("on-message", &body)]).await;
    rig.push("hello").await;
    let (status, answer) = answered(&rig.alice, "on-dm").await;
    assert_eq!((status.as_str(), &answer["code"]), ("403", &json!("hook_process_refused")), "{answer}");
    assert_eq!(answered(&rig.alice, "on-message").await.0, "200");
    assert_eq!(written(&rig.alice, "on-dm.exit").await.trim(), "5", "no HOME, no verbs");
    let said = written(&rig.alice, "on-dm.error").await;
    assert!(said.contains("hook_without_home") && said.contains("user_cli"), "{said}");
    assert_eq!(written(&rig.alice, "on-message.exit").await.trim(), "0");
    let peers: Value = serde_json::from_str(&written(&rig.alice, "on-message.peers").await).expect("JSON");
    assert_eq!(peers["peers"].as_array().map(Vec::len), Some(2), "{peers}");
    assert_eq!(rig.alice.http().get("/v1/inbox").send().await.status, 200, "everybody else is served");
}

/// The same rules over gRPC.
#[tokio::test]
async fn a_token_works_over_grpc_too() {
    let Some(grpcurl) = tools::grpcurl() else { return };
    let call = |method: &str, data: &str, file: &str| {
        format!(
            "{} -plaintext -H \"Authorization: Bearer $CLAUDEMESH_CAPABILITY_TOKEN\" -import-path {}/proto -proto \
             claudemesh/v1/messaging.proto -proto claudemesh/v1/inbox.proto -d \"{data}\" \"unix://$CLAUDEMESH_DAEMON_SOCK\" {method} > OUT/{file}.out 2>&1; \
             echo $? | keep {file}\n",
            grpcurl.display(),
            env!("CARGO_MANIFEST_DIR")
        )
    };
    let mut body = READ.to_owned();
    body += &call("claudemesh.v1.MessagingService/Send", &json_send("$FROM", "$ID", "over gRPC"), "right");
    body += &call("claudemesh.v1.MessagingService/Send", &json_send("$FROM", "", "no"), "wrong");
    body += &call("claudemesh.v1.InboxService/ListMessages", "{}", "read");
    let Pair { broker: _broker, mesh: _mesh, alice, bob } = Pair::start().await;
    configure(&bob, "[on-dm]\ncapability_token_scope = [\"reply:event\"]\n");
    script(&bob, "on-dm", &body);
    bob.cli(&["hook", "reload"]).await.ok();
    alice.send("bob", "hello").await;
    ended(&bob, "on-dm", 1).await;
    assert_eq!(written(&bob, "right").await.trim(), "0", "{}", written(&bob, "right.out").await);
    alice.received("over gRPC").await;
    for file in ["wrong", "read"] {
        assert_ne!(written(&bob, file).await.trim(), "0");
        let said = written(&bob, &format!("{file}.out")).await;
        // Without the type at hand grpcurl shows the detail as base64, and this is how it
        // begins then.
        let code = ["hook_call_denied", "ChBob29rX2NhbGxfZGVuaWVk"].iter().any(|code| said.contains(code));
        assert!(said.contains("PermissionDenied") && code, "{file}: {said}");
    }
}
