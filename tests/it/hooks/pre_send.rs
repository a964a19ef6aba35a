//! The gate before sends.

use serde_json::{Value, json};

use super::{Rig, configure, ended, runs, script, written};
use crate::support::daemon::{Daemon, Pair};
use crate::support::wait;

async fn answers(daemon: &Daemon, body: &Value) -> (u16, Value) {
    let response = daemon.post_send(body).await;
    (response.status, response.json())
}

// Covers: R208
#[tokio::test]
async fn a_message_is_dropped_changed_or_let_through() {
    let Pair { broker: _broker, mesh: _mesh, alice, bob } = Pair::start().await;
    let body = "cat > OUT/input; case $(cat OUT/input) in *secret*) echo '{\"drop\": true, \"reason\": \"it holds a secret\"}';; \
                *draft*) echo '{\"message\": \"final\", \"meta\": {\"by\": \"hook\"}, \"priority\": \"low\"}';; esac; cp OUT/input OUT/last";
    configure(&alice, "[pre-send]\n");
    script(&alice, "pre-send", body);
    alice.cli(&["hook", "reload"]).await.ok();

    let dropped = json!({"to": "bob", "message": "a secret", "client_message_id": "one"});
    let (status, answer) = answers(&alice, &dropped).await;
    assert_eq!((status, &answer["code"]), (403, &json!("pre_send_dropped")), "{answer}");
    assert!(answer["detail"].as_str().is_some_and(|text| text.contains("it holds a secret")), "{answer}");
    assert_eq!(answer["metadata"]["client_message_id"], "one", "{answer}");
    let waiting = alice.cli(&["daemon", "outbox", "list", "--json"]).await.ok().json();
    assert_eq!(waiting["entries"], json!([]), "nothing is stored");
    // The id is still free, for other words too.
    alice
        .post_send(&json!({"to": "bob", "message": "plain", "client_message_id": "one", "meta": {"a": 1}}))
        .await
        .expect(202);
    let plain = bob.received("plain").await;
    assert_eq!(plain["meta"], json!({"a": 1}));
    let input: Value = serde_json::from_str(&written(&alice, "last").await).expect("JSON");
    for (field, value) in
        [("event", "pre_send"), ("to", "bob"), ("message", "plain"), ("client_message_id", "one"), ("priority", "next")]
    {
        assert_eq!(input[field], value, "{input}");
    }

    let draft = json!({"to": "bob", "message": "a draft", "client_message_id": "two"});
    assert_eq!(answers(&alice, &draft).await.0, 202);
    let changed = bob.received("final").await;
    assert_eq!((&changed["meta"], &changed["priority"]), (&json!({"by": "hook"}), &json!("low")), "{changed}");
    alice.outbox_status("two", "done").await;
    // A retry of what the caller wrote is the same request, and asks nobody.
    let ran = runs(&alice, "hook=pre-send").await.len();
    let (status, retry) = answers(&alice, &draft).await;
    assert_eq!((status, &retry["duplicate"]), (200, &json!(true)), "{retry}");
    let (status, other) = answers(&alice, &json!({"to": "bob", "message": "final", "client_message_id": "two"})).await;
    assert_eq!((status, &other["code"]), (409, &json!("outbox_done_fingerprint_mismatch")), "{other}");
    assert_eq!(runs(&alice, "hook=pre-send").await.len(), ran);
    assert_eq!(bob.inbox("").await.len(), 2);
}

/// Many sends of one id at once: the hook is asked once, and one row comes of it.
// Covers: R208
#[tokio::test]
async fn an_id_is_asked_about_once() {
    let body = "cat > /dev/null; echo x >> OUT/asked; until [ -e OUT/go ]; do sleep 0.05; done";
    let rig = Rig::start("[pre-send]\n", &[("pre-send", body)]).await;
    let send = json!({"to": "bob", "message": "hi", "client_message_id": "same"});
    let calls = futures_util::future::join_all((0..6).map(|_| rig.alice.post_send(&send)));
    let sign = async {
        rig.written("asked").await;
        std::fs::write(rig.out("go"), "").expect("the sign");
    };
    let (answers, ()) = tokio::join!(calls, sign);
    assert!(answers.iter().all(|answer| answer.status == 202), "{answers:?}");
    assert_eq!(rig.written("asked").await.lines().count(), 1);
    let db = rig.alice.outbox_db().await;
    assert_eq!(db.number("SELECT count(*) FROM outbox").await, 1);
    db.close().await;
}

/// The caller goes away while the hook is asked: it is asked to the end, its run is
/// recorded, the message goes out, and the repeat asks nobody.
// Covers: R208
#[tokio::test]
async fn a_caller_that_goes_away_takes_nothing_with_it() {
    let body = "cat > OUT/input; echo x >> OUT/asked; until [ -e OUT/go ]; do sleep 0.05; done; \
                case $(cat OUT/input) in *bad*) echo '{\"drop\": true}';; esac";
    let rig = Rig::start("[pre-send]\n", &[("pre-send", body)]).await;
    for (text, status) in [("good", 200), ("bad", 403)] {
        for file in ["asked", "go"] {
            let _ = std::fs::remove_file(rig.out(file));
        }
        let send = json!({"to": "bob", "message": text, "client_message_id": text});
        tokio::select! {
            answer = rig.alice.post_send(&send) => panic!("answered too early: {answer:?}"),
            _ = rig.written("asked") => {}
        }
        // The repeat comes while the hook is still asked.
        let sign = async {
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            std::fs::write(rig.out("go"), "").expect("the sign");
        };
        let (repeat, ()) = tokio::join!(answers(&rig.alice, &send), sign);
        assert!(repeat.0 == status || (text == "good" && repeat.0 == 202), "{text}: {repeat:?}");
        assert_eq!(rig.written("asked").await.lines().count(), 1, "{text}");
    }
    let ran = ended(&rig.alice, "pre-send", 2).await;
    assert!(ran.len() == 2 && ran.iter().all(|run| run["exit_code"] == 0), "{ran:?}");
    let db = rig.alice.outbox_db().await;
    assert_eq!(db.number("SELECT count(*) FROM outbox").await, 1);
    db.close().await;
}

/// A send does not wait long for a place.
#[tokio::test]
async fn a_gate_that_is_busy_says_so() {
    let body = "cat > /dev/null; echo x >> OUT/asked; until [ -e OUT/go ]; do sleep 0.05; done";
    let rig = Rig::with_config("[hooks]\nconcurrency = 1\n", "[pre-send]\n", &[("pre-send", body)]).await;
    let first = json!({"to": "bob", "message": "first"});
    let second = async {
        rig.written("asked").await;
        let busy = answers(&rig.alice, &json!({"to": "bob", "message": "second"})).await;
        std::fs::write(rig.out("go"), "").expect("the sign");
        busy
    };
    let (first, (status, busy)) = tokio::join!(answers(&rig.alice, &first), second);
    assert_eq!(first.0, 202, "{first:?}");
    assert_eq!((status, &busy["code"]), (429, &json!("daemon_busy")), "{busy}");
}

// Covers: R208
#[tokio::test]
async fn a_gate_that_does_not_decide_lets_nothing_through() {
    let body = "cat > OUT/input; case $(cat OUT/input) in *failing*) exit 1;; *slow*) exec sleep 60;; *late*) trap 'exit 0' TERM; sleep 60 & wait;; *words*) echo fine;; \
                *elsewhere*) echo '{\"to\": \"eve\"}';; esac";
    let rig = Rig::start("[pre-send]\ntimeout_s = 1\n", &[("pre-send", body)]).await;
    for text in ["failing", "slow", "late", "words", "elsewhere"] {
        let (status, answer) =
            answers(&rig.alice, &json!({"to": "bob", "message": text, "client_message_id": text})).await;
        assert_eq!((status, &answer["code"]), (503, &json!("pre_send_failed")), "{text}: {answer}");
    }
    assert_eq!(runs(&rig.alice, "hook=pre-send&failed_only=true").await.len(), 3, "those that ended badly or too late");
    std::fs::remove_file(rig.alice.file("hooks").join("pre-send.sh")).expect("the hook");
    let (_, answer) = answers(&rig.alice, &json!({"to": "bob", "message": "fine"})).await;
    assert_eq!(answer["code"], "pre_send_failed", "{answer}");
    rig.alice.cli(&["hook", "reload"]).await.ok();
    let (_, answer) = answers(&rig.alice, &json!({"to": "bob", "message": "fine"})).await;
    assert_eq!(answer["code"], "pre_send_failed", "a gate that is gone is no open one: {answer}");
    configure(&rig.alice, "[pre-send]\nenabled = false\n");
    rig.alice.cli(&["hook", "reload"]).await.ok();
    assert_eq!(answers(&rig.alice, &json!({"to": "bob", "message": "fine"})).await.0, 202);
}

/// What a hook answers is not asked about again.
// Covers: R208
#[tokio::test]
async fn replies_of_hooks_do_not_pass_the_gate() {
    let settings = "[pre-send]\n[on-dm]\nallow_reply = true\n";
    let reply = "cat > /dev/null; echo '{\"reply\": \"hi\"}'";
    let mut rig = Rig::start(settings, &[("pre-send", "echo '{\"drop\": true}'"), ("on-dm", reply)]).await;
    rig.push("hello").await;
    assert_eq!(ended(&rig.alice, "on-dm", 1).await[0]["replied"], true);
    wait::until("the reply to leave", async || {
        let db = rig.alice.outbox_db().await;
        let found = db.number("SELECT count(*) FROM outbox WHERE auto_hops = 1").await;
        db.close().await;
        (found == 1).then_some(())
    })
    .await;
    assert!(runs(&rig.alice, "hook=pre-send").await.is_empty());
}
