//! What is done to members, and what is answered to nonsense.

use std::path::Path;

use serde_json::json;

use super::{Dev, Member};
use crate::support::broker::read_trimmed;
use crate::support::daemon::unique;
use crate::support::http::Target;

#[tokio::test]
async fn a_killed_daemon_comes_back_with_all_that_it_had() {
    let mut dev = Dev::ready(&[]).await;
    let (alice, bob) = (dev.member("alice"), dev.member("bob"));
    dev.act("cut", "bob").await;
    bob.connected(false).await;
    let queued = unique("accepted before the kill");
    bob.send("alice", &queued).await;
    dev.act("kill", "bob").await;
    assert!(!super::mentions(&bob.pid(), "daemon"), "answered when it has ended");
    let sent = unique("sent meanwhile");
    alice.send("bob", &sent).await;
    dev.refused(json!({ "do": "kill", "member": "bob" }), "daemon_not_running").await;
    dev.act("mend", "bob").await;
    let again = Member(dev.act("start", "bob").await["member"].clone());
    dev.refused(json!({ "do": "start", "member": "bob" }), "already_running").await;
    for field in ["name", "home", "sock", "token_file", "pubkey", "member_id", "log"] {
        assert_eq!(again.text(field), bob.text(field), "{field}");
    }
    let token = read_trimmed(Path::new(again.text("token_file")));
    Target::tcp(again.text("address")).get("/v1/health").bearer(&token).send().await.expect(200);
    again.received(&sent).await;
    alice.received(&queued).await;
}

#[tokio::test]
async fn an_orderly_stop_is_one() {
    let mut dev = Dev::ready(&[]).await;
    let bob = dev.member("bob");
    let last_exit = Path::new(bob.text("home")).join("daemon/dev/pid");
    assert!(last_exit.exists());
    dev.act("stop", "bob").await;
    assert!(!last_exit.exists(), "it has tidied up");
    dev.refused(json!({ "do": "restart", "member": "bob" }), "daemon_not_running").await;
    dev.act("start", "bob").await;
    let again = Member(dev.act("restart", "bob").await["member"].clone());
    assert_ne!(again.pid(), bob.pid());
    // One that is paused is woken up for it.
    dev.act("pause", "bob").await;
    dev.act("stop", "bob").await;
    assert!(!last_exit.exists(), "it has tidied up");
}

#[tokio::test]
async fn a_paused_daemon_stands_still_until_it_is_resumed() {
    let mut dev = Dev::ready(&[]).await;
    let (alice, bob) = (dev.member("alice"), dev.member("bob"));
    dev.act("pause", "bob").await;
    assert_eq!(bob.state(), 'T');
    let text = unique("while it slept");
    alice.send("bob", &text).await;
    dev.act("resume", "bob").await;
    assert_ne!(bob.state(), 'T');
    bob.received(&text).await;
}

#[tokio::test]
async fn an_added_member_is_seen_by_all_who_can() {
    let mut dev = Dev::ready(&[]).await;
    let (alice, bob) = (dev.member("alice"), dev.member("bob"));
    // Nobody waits for who cannot see it.
    dev.act("pause", "bob").await;
    let carol = Member(dev.ok(json!({ "do": "add", "member": "carol" })).await["member"].clone());
    assert!(alice.online().await.contains(&"carol".to_owned()));
    dev.act("resume", "bob").await;
    let text = unique("to the new one");
    bob.send("carol", &text).await;
    carol.received(&text).await;
    // It is a member like the others.
    dev.act("restart", "carol").await;
    for name in ["carol", "Carol", "../x", "_broker", ""] {
        dev.refused(json!({ "do": "add", "member": name }), "invalid_argument").await;
    }
}

#[tokio::test]
async fn a_wrong_command_is_answered_and_changes_nothing() {
    let mut dev = Dev::ready(&[]).await;
    let said = dev.refused(json!({ "do": "kill", "member": "mallory" }), "unknown_peer").await;
    assert!(said.contains("alice, bob"), "{said}");
    let said = dev.refused(json!({ "do": "explode", "member": "bob" }), "invalid_argument").await;
    assert!(said.contains("restart"), "{said}");
    for command in
        [json!({}), json!({ "do": 1 }), json!({ "do": "kill" }), json!({ "do": "kill", "member": "bob", "now": true })]
    {
        dev.refused(command, "invalid_argument").await;
    }
    let long = format!("{{\"do\":\"kill\",\"member\":\"bob\",\"id\":\"{}\"}}", "x".repeat(70_000));
    for line in ["", "kill bob", "[1]", "\"kill\"", "null", "{\"do\":\"kill\",\"member\":\"bob\"", &long] {
        let answer = dev.line(line).await;
        assert_eq!((&answer["id"], &answer["ok"]), (&json!(null), &json!(false)), "{line}: {answer}");
        assert_eq!(answer["error"]["code"], "invalid_argument", "{line}: {answer}");
    }
    let answer = dev.line("[]").await;
    let said = answer["error"]["message"].as_str().unwrap_or_default();
    assert!(said.contains("a command is a JSON object, such as"), "{answer}");
    // Any id comes back as it was.
    let answer = dev.line(r#"{"id":{"a":["b"]},"do":"cut","member":"alice"}"#).await;
    assert_eq!(answer, json!({ "id": { "a": ["b"] }, "ok": true }));
    assert_eq!(dev.member("bob").health().await["connected"], true);
}

#[tokio::test]
async fn commands_are_answered_in_order_before_the_end() {
    use tokio::io::AsyncWriteExt as _;
    let mut dev = Dev::ready(&[]).await;
    let lines = "{\"id\":1,\"do\":\"restart\",\"member\":\"bob\"}\n{\"id\":2,\"do\":\"cut\",\"member\":\"bob\"}\n{\"id\":3,\"do\":\"kill\",\"member\":\"bob\"}";
    let mut stdin = dev.stdin.take().expect("standard input is open");
    stdin.write_all(lines.as_bytes()).await.expect("it reads");
    drop(stdin);
    let mut ids = Vec::new();
    while let Some(line) = dev.lines.next_line().await.expect("the pipe is read") {
        let answer: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(answer["ok"], true, "{answer}");
        ids.push(answer["id"].as_i64().expect("a number"));
    }
    assert_eq!(ids, [1, 2, 3]);
}
