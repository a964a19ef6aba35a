//! What becomes of hooks when the daemon ends in between.

use serde_json::{Value, json};

use super::{Rig, configure, ended, log_lines, runs, script, written};
use crate::support::daemon::{Daemon, Pair};
use crate::support::wait;

/// The run that the crash cut off is repeated; its reply goes out under the same id.
// Covers: R213
#[tokio::test]
async fn a_run_that_a_crash_cut_off_runs_again_and_replies_once() {
    let Pair { broker: _broker, mesh: _mesh, alice, mut bob } = Pair::start().await;
    configure(&bob, "[on-dm]\nallow_reply = true\n");
    let body = "cat > /dev/null; echo \"$CLAUDEMESH_EVENT_ID\" >> OUT/began; [ -e OUT/go ] || exec sleep 300; echo '{\"reply\": \"done\"}'";
    script(&bob, "on-dm", body);
    bob.cli(&["hook", "reload"]).await.ok();
    alice.send("bob", "work").await;
    let event = written(&bob, "began").await;
    bob.kill9();
    std::fs::write(bob.home().join("go"), "").expect("the sign");
    bob.start().await;
    let run = ended(&bob, "on-dm", 1).await.remove(0);
    assert_eq!(run["message_id"], event.trim());
    assert_eq!(written(&bob, "began").await, event.repeat(2));
    let reply = alice.received("done").await;
    assert_eq!(reply["client_message_id"], format!("hook:{}:on-dm:0", event.trim()));
    bob.stop().await;
    bob.start().await;
    alice.send("bob", "more").await;
    ended(&bob, "on-dm", 2).await;
    assert_eq!(written(&bob, "began").await.lines().count(), 3, "what has ended is not repeated");
}

/// What came while the hook was busy runs after the restart, in order.
#[tokio::test]
async fn what_waits_is_kept_over_a_restart_and_ends_with_the_daemon() {
    let body = "cat > /dev/null; trap 'exit 7' TERM; echo $$ > OUT/pid; until [ -e OUT/go ]; do sleep 0.05; done; echo x >> OUT/log";
    let config = "[hooks]\nconcurrency = 1\n";
    let rig = Rig::with_config(config, "[on-dm]\n", &[("on-dm", body)]).await;
    let mut rig = rig;
    for text in ["one", "two", "three"] {
        rig.push(text).await;
    }
    let pid = rig.written("pid").await;
    let alive = || std::path::Path::new(&format!("/proc/{}", pid.trim())).exists();
    assert!(alive());
    let Rig { mut alice, .. } = rig;
    alice.stop().await;
    wait::until("the hook to end with the daemon", async || (!alive()).then_some(())).await;
    std::fs::write(alice.home().join("go"), "").expect("the sign");
    alice.start().await;
    let ran = ended(&alice, "on-dm", 3).await;
    let rows = alice.inbox("").await;
    let order: Vec<Value> = ran.iter().rev().map(|run| run["message_id"].clone()).collect();
    assert_eq!(order, rows.iter().map(|row| row["id"].clone()).collect::<Vec<_>>());
    assert!(ran.iter().all(|run| run["exit_code"] == 0), "{ran:?}");
    assert_eq!(written(&alice, "log").await.lines().count(), 3);
}

/// An inbox that was begun anew after damage: what was written before runs no hook,
/// unless it is wanted.
async fn after_recovery(config: &str) -> usize {
    let Pair { broker: _broker, mesh: _mesh, alice, mut bob } = Pair::start().await;
    bob.stop().await;
    let id = alice.send("bob", "written before").await;
    alice.outbox_status(&id, "done").await;
    std::fs::write(bob.file("inbox.db"), "no database").expect("the damage");
    for side in ["inbox.db-wal", "inbox.db-shm"] {
        let _ = std::fs::remove_file(bob.file(side));
    }
    bob.configure(config);
    configure(&bob, "[on-dm]\n");
    script(&bob, "on-dm", "cat > /dev/null");
    bob.start().await;
    bob.received("written before").await;
    alice.send("bob", "written after").await;
    bob.received("written after").await;
    let rows: Vec<Value> = bob.inbox("").await;
    wait::until("the newer one to run its hook", async || {
        let ran = runs(&bob, "").await;
        ran.iter().any(|run| run["message_id"] == rows[1]["id"]).then_some(())
    })
    .await;
    runs(&bob, "").await.len()
}

#[tokio::test]
async fn a_new_inbox_runs_no_hooks_for_what_is_old() {
    assert_eq!(after_recovery("").await, 1);
    assert_eq!(after_recovery("[hooks]\nrun_after_recovery = true\n").await, 2);
}

/// A file that is missing for a while takes nothing away from what waits.
#[tokio::test]
async fn what_waits_for_a_missing_file_runs_when_it_is_back() {
    let body = "cat > /dev/null; echo x >> OUT/began; until [ -e OUT/go ]; do sleep 0.05; done";
    let config = "[hooks]\nconcurrency = 1\n";
    let mut rig = Rig::with_config(config, "[on-dm]\n", &[("on-dm", body)]).await;
    for text in ["one", "two"] {
        rig.push(text).await;
    }
    rig.written("began").await;
    std::fs::remove_file(rig.alice.file("hooks").join("on-dm.sh")).expect("the hook");
    rig.alice.cli(&["hook", "reload"]).await.ok();
    std::fs::write(rig.out("go"), "").expect("the sign");
    ended(&rig.alice, "on-dm", 1).await;
    let Rig { fake, mut alice, client, .. } = rig;
    let _client = alice.anew(&fake, client).await;
    assert_eq!(runs(&alice, "hook=on-dm").await.len(), 1);
    script(&alice, "on-dm", body);
    alice.cli(&["hook", "reload"]).await.ok();
    ended(&alice, "on-dm", 2).await;
    assert_eq!(events_of(&alice).await, json!(["one", "two"]));
}

/// A database that takes no ends for a while, as on a full disk, holds hooks up only
/// for that while, and makes none run twice.
#[tokio::test]
async fn an_end_that_could_not_be_written_is_written_later() {
    let body = "cat > /dev/null; echo x >> OUT/began";
    let config = "[hooks]\nconcurrency = 1\n";
    let mut rig = Rig::with_config(config, "[on-dm]\n", &[("on-dm", body)]).await;
    let db = rig.alice.inbox_db().await;
    db.run(
        "CREATE TRIGGER full BEFORE UPDATE ON hook_run WHEN NEW.state = 'ended' BEGIN SELECT RAISE(ABORT, 'full'); END",
    )
    .await;
    for text in ["one", "two", "three"] {
        rig.push(text).await;
    }
    wait::until("the failure", async || (!log_lines(&rig.alice, "was not written").is_empty()).then_some(())).await;
    assert!(runs(&rig.alice, "").await.is_empty());
    db.run("DROP TRIGGER full").await;
    db.close().await;
    ended(&rig.alice, "on-dm", 3).await;
    assert_eq!(rig.written("began").await.lines().count(), 3);
}

/// Messages that run no hook move the place all the same.
#[tokio::test]
async fn the_place_is_written_without_a_run() {
    let mut rig = Rig::start("[on-topic-ops]\n", &[("on-topic-ops", "cat > /dev/null")]).await;
    let place = async |rig: &Rig| {
        let db = rig.alice.inbox_db().await;
        let found = db.texts("SELECT value FROM meta WHERE key = 'hook_cursor'").await;
        db.close().await;
        found
    };
    let before = place(&rig).await;
    rig.push("one").await;
    wait::until("the place to be written", async || (place(&rig).await != before).then_some(())).await;
}

/// Hooks that are gone at the next start leave nothing to be done later.
#[tokio::test]
async fn what_came_while_there_were_no_hooks_runs_none_later() {
    let mut rig = Rig::start("[on-dm]\n", &[("on-dm", "cat > /dev/null")]).await;
    rig.push("one").await;
    ended(&rig.alice, "on-dm", 1).await;
    let settings = rig.alice.file("hooks").join("hooks.toml");
    let Rig { fake, mut alice, client, .. } = rig;
    std::fs::remove_file(&settings).expect("hooks.toml");
    let mut client = alice.anew(&fake, client).await;
    client.push_from(&fake.bob, "m-two", Some("c-two"), "two").await;
    client.expect("client_ack").await;
    configure(&alice, "[on-dm]\n");
    let mut client = alice.anew(&fake, client).await;
    client.push_from(&fake.bob, "m-three", Some("c-three"), "three").await;
    client.expect("client_ack").await;
    ended(&alice, "on-dm", 2).await;
    assert_eq!(events_of(&alice).await, json!(["one", "three"]));
}

/// The texts of the messages whose hooks ran, in order.
async fn events_of(daemon: &Daemon) -> Value {
    let rows = daemon.inbox("").await;
    let ran = runs(daemon, "").await;
    let text = |run: &Value| rows.iter().find(|row| row["id"] == run["message_id"]).map(|row| row["body"].clone());
    ran.iter().rev().filter_map(text).collect()
}
