//! Which event runs which hook, once, with what input.

use serde_json::{Value, json};

use super::{Rig, configure, ended, runs, script, written};
use crate::support::daemon::{Pair, unique};
use crate::support::fake_broker::push_frame;
use crate::support::keys::{self, Key};
use crate::support::wait;

const ALL: &str = "[on-message]\n[on-dm]\n[on-mention]\n[on-topic-ops]\n[on-file-share]\n[on-disconnect]\n[on-reconnect]\n[on-startup]\n";

// Covers: R142, R200-R203, R211, R232
#[tokio::test]
async fn a_direct_message_runs_its_hooks_with_the_whole_event() {
    let Pair { broker: _broker, mesh: _mesh, alice, bob } = Pair::start().await;
    configure(&bob, ALL);
    for name in ["on-message", "on-dm", "on-mention", "on-topic-ops", "on-file-share"] {
        script(
            &bob,
            name,
            "echo \"$CLAUDEMESH_EVENT_ID\" > OUT/$CLAUDEMESH_HOOK_NAME.id; keep $CLAUDEMESH_HOOK_NAME.json",
        );
    }
    bob.cli(&["hook", "reload"]).await.ok();
    let text = unique("nothing to see");
    let body = json!({"to": "bob", "message": text, "client_message_id": "own-id", "meta": {"a": [1, {"b": "c"}]}, "priority": "now", "reply_to_id": "before"});
    alice.post_send(&body).await.expect(202);
    let row = bob.received(&text).await;
    for hook in ["on-message", "on-dm"] {
        let input: Value = serde_json::from_str(&written(&bob, &format!("{hook}.json")).await).expect("JSON");
        let id = written(&bob, &format!("{hook}.id")).await;
        assert_eq!(input["message_id"], id.trim(), "{input}");
        assert_eq!(input["message_id"], row["id"], "the row's own id");
        assert_eq!(input["event_id"], row["event_id"]);
        assert_eq!(input["event"], "message");
        for field in [
            "client_message_id",
            "broker_message_id",
            "mesh",
            "kind",
            "sender_pubkey",
            "sender_name",
            "sender_member_id",
            "body",
            "meta",
            "priority",
            "reply_to_id",
            "unencrypted",
            "provenance",
            "mentions",
        ] {
            assert_eq!(input[field], row[field], "{field}: {input}");
        }
        assert_eq!(input["client_message_id"], "own-id");
    }
    alice.send("bob", "hey @BOB, look").await;
    ended(&bob, "on-mention", 1).await;
    ended(&bob, "on-message", 2).await;
    assert_eq!(runs(&bob, "hook=on-mention").await.len(), 1, "not for the first message");
    for other in ["on-topic-ops", "on-file-share"] {
        assert!(runs(&bob, &format!("hook={other}")).await.is_empty(), "{other}");
    }
}

// Covers: R205-R207
#[tokio::test]
async fn the_life_of_the_daemon_and_its_link_runs_hooks() {
    let keep = "keep $CLAUDEMESH_HOOK_NAME";
    let all = [("on-startup", keep), ("on-disconnect", keep), ("on-reconnect", keep), ("on-message", keep)];
    let rig = Rig::start(ALL, &all).await;
    let startup: Value = serde_json::from_str(&rig.written("on-startup").await).expect("JSON");
    assert_eq!((&startup["event"], &startup["mesh"]), (&json!("daemon_startup"), &json!("demo")));
    assert!(runs(&rig.alice, "hook=on-disconnect").await.is_empty());
    let Rig { fake, alice, client, .. } = rig;
    client.drop_link();
    let lost: Value = serde_json::from_str(&written(&alice, "on-disconnect").await).expect("JSON");
    assert_eq!(lost["event"], "daemon_disconnect");
    assert!(lost["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{lost}");
    assert!(runs(&alice, "hook=on-reconnect").await.is_empty());
    let _client = fake.link(&alice).await;
    let back: Value = serde_json::from_str(&written(&alice, "on-reconnect").await).expect("JSON");
    assert_eq!(back["event"], "daemon_reconnect");
    assert!(back["away_ms"].is_u64(), "{back}");
    assert!(runs(&alice, "hook=on-message").await.is_empty());
}

/// The hook finds its message in the database; a repeat on the way runs nothing.
// Covers: R176, R177
#[tokio::test]
async fn a_row_is_stored_before_its_hook_and_runs_it_once() {
    let body = "sqlite3 \"file:OUT/daemon/demo/inbox.db?mode=ro\" \"SELECT body FROM inbox WHERE id = '$CLAUDEMESH_EVENT_ID'\" | keep found";
    let mut rig = Rig::start("[on-dm]\n", &[("on-dm", body)]).await;
    let own = rig.client.hello["pubkey"].as_str().expect("pubkey").to_owned();
    let (nonce, sealed) = keys::seal(&rig.fake.bob, &own, b"stored first");
    for delivery in ["d1", "d2"] {
        let mut push = push_frame(&rig.client.hello, &rig.fake.bob, "m1", Some("same"), &nonce, &sealed);
        push["deliveryId"] = json!(delivery);
        rig.client.send(&push).await;
        rig.client.expect("client_ack").await;
    }
    assert_eq!(rig.written("found").await.trim(), "stored first");
    rig.push("another").await;
    ended(&rig.alice, "on-dm", 2).await;
    assert_eq!(runs(&rig.alice, "").await.len(), 2);
}

// Covers: R96, R258
#[tokio::test]
async fn each_run_is_an_event() {
    let mut rig = Rig::start("[on-dm]\n", &[("on-dm", "cat > /dev/null; echo out; echo error >&2; exit 3")]).await;
    let mut events = rig.alice.http().get("/v1/events").stream().await;
    rig.push("hi").await;
    let event = events.next_of("hook_executed").await;
    let run = &event.json()["hook_executed"];
    assert_eq!((&run["hook"], &run["exit_code"]), (&json!("on-dm"), &json!(3)), "{run}");
    assert_eq!((&run["stdout_bytes"], &run["stderr_bytes"]), (&json!(4), &json!(6)), "{run}");
    assert_eq!(runs(&rig.alice, "").await, std::slice::from_ref(run), "the list has the same facts");
}

/// What was there before the hooks, or came while there were none, runs none; what
/// waited for its sender's key runs them when it is opened.
// Covers: R200
#[tokio::test]
async fn only_what_comes_after_the_hooks_runs_them() {
    let mut rig = Rig::start("", &[("on-dm", "keep $CLAUDEMESH_EVENT_ID")]).await;
    rig.push("before the section").await;
    configure(&rig.alice, "[on-dm]\n");
    rig.alice.cli(&["hook", "reload"]).await.ok();
    rig.push("one").await;
    ended(&rig.alice, "on-dm", 1).await;
    configure(&rig.alice, "[on-dm]\nenabled = false\n");
    rig.alice.cli(&["hook", "reload"]).await.ok();
    rig.push("while it is off").await;
    configure(&rig.alice, "[on-dm]\n");
    rig.alice.cli(&["hook", "reload"]).await.ok();
    rig.push("two").await;
    ended(&rig.alice, "on-dm", 2).await;

    let carol = Key::random();
    rig.client.push_from(&carol, "m-carol", Some("c-carol"), "from a stranger").await;
    // The daemon looks for the sender before it lets the message wait.
    rig.client.roster().await;
    rig.client.expect("client_ack").await;
    assert_eq!(runs(&rig.alice, "").await.len(), 2, "sealed, so no hook");
    rig.fake.carol = Some(carol);
    let Rig { fake, mut alice, client, .. } = rig;
    let _client = alice.anew(&fake, client).await;
    ended(&alice, "on-dm", 3).await;
    let bodies: Vec<Value> = alice.inbox("").await.into_iter().map(|row| row["body"].clone()).collect();
    assert_eq!(bodies, ["before the section", "one", "while it is off", "two", "from a stranger"]);
    let rows = alice.inbox("").await;
    let mut ran: Vec<Value> = runs(&alice, "").await.into_iter().map(|run| run["message_id"].clone()).collect();
    ran.reverse();
    assert_eq!(ran, [rows[1]["id"].clone(), rows[3]["id"].clone(), rows[4]["id"].clone()]);
    wait::until("nothing to wait", async || {
        let status = alice.cli(&["daemon", "status", "--mesh", "demo", "--json"]).await.ok().json();
        (status["hooks"]["queued"] == 0 && status["hooks"]["active"] == 1).then_some(())
    })
    .await;
}
