//! What a successful answer means: the row is on disk.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::daemon::unique;
use crate::support::fake_broker::FakeBroker;
use crate::support::process::{self, binary};
use crate::support::tools;

// Covers: R136, R160
#[tokio::test]
async fn an_answered_send_is_in_the_file_after_a_kill() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    fake.link(&alice).await.drop_link();
    drop(fake);
    let mut expected = Vec::new();
    for round in 0..10 {
        let text = unique("durable");
        let id = alice.send("bob", &text).await;
        alice.kill9();
        expected.push((id, text));
        let db = alice.outbox_db().await;
        for (id, text) in &expected {
            let rows = db
                .objects("status, CAST(payload AS TEXT)", &format!("FROM outbox WHERE client_message_id = '{id}'"))
                .await;
            assert_eq!(rows.len(), 1, "round {round}: {id}");
            assert_eq!(rows[0]["status"], "pending", "{rows:?}");
            assert!(rows[0].to_string().contains(text), "{rows:?}");
        }
        db.close().await;
        alice.start().await;
    }
}

/// One system call of a trace.
struct Call {
    name: String,
    path: String,
    text: String,
}

/// Calls in the order in which they ended. `strace -y` names the file of each
/// descriptor; an unfinished call is joined with its end.
fn calls(trace: &str) -> Vec<Call> {
    let mut open: std::collections::HashMap<&str, String> = std::collections::HashMap::new();
    let mut found = Vec::new();
    for line in trace.lines() {
        let Some((pid, rest)) = line.trim_start().split_once(' ') else { continue };
        let rest = rest.trim_start();
        let whole = if let Some(begin) = rest.strip_suffix("<unfinished ...>") {
            open.insert(pid, begin.to_owned());
            continue;
        } else if let Some((_, end)) = rest.strip_prefix("<... ").and_then(|rest| rest.split_once("resumed>")) {
            open.remove(pid).unwrap_or_default() + end
        } else {
            rest.to_owned()
        };
        let Some((name, arguments)) = whole.split_once('(') else { continue };
        let path = arguments.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(path, _)| path);
        found.push(Call { name: name.to_owned(), path: path.unwrap_or_default().to_owned(), text: whole.clone() });
    }
    found
}

/// The order in one trace of system calls: the payload is written to the
/// write-ahead log, that file is synced, and only then the answer goes to the
/// caller's socket.
// Covers: R136
#[tokio::test]
async fn the_log_is_synced_before_the_answer_is_written() {
    let Some(strace) = tools::system("strace") else { return };
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    let trace: PathBuf = alice.home().join("trace");
    let mut command = process::with_program(&strace, alice.home());
    command.args(["-f", "-y", "-s", "4096", "-e"]);
    command.arg("trace=write,writev,pwrite64,pwritev,sendto,sendmsg,fsync,fdatasync,sync_file_range");
    command.args(["-o"]).arg(&trace).arg(binary()).args(["daemon", "up", "--foreground", "--mesh", "demo"]);
    alice.start_as(command).await;
    let _client = fake.link(&alice).await;
    for round in 0..5 {
        let marker = format!("fsyncmarker{round}");
        let body = json!({"to": "bob", "message": marker, "client_message_id": format!("trace-{round}")});
        alice.post_send(&body).await.expect(202);
    }
    // The tracer keeps signals to itself.
    alice.cli(&["daemon", "down", "--mesh", "demo"]).await.ok();
    alice.ended().await;
    let trace = std::fs::read_to_string(&trace).expect("the trace");
    let calls = calls(&trace);
    let is_log = |call: &&Call| Path::new(&call.path).file_name().is_some_and(|name| name == "outbox.db-wal");
    for round in 0..5 {
        let position = |what: &str, from: usize, test: &dyn Fn(&Call) -> bool| {
            calls[from..]
                .iter()
                .position(test)
                .map(|at| from + at)
                .unwrap_or_else(|| panic!("round {round}: no {what}"))
        };
        let marker = format!("fsyncmarker{round}");
        let written = position("write of the row", 0, &|call| is_log(&call) && call.text.contains(&marker));
        let synced = position("sync after it", written, &|call| {
            is_log(&call) && ["fsync", "fdatasync"].contains(&call.name.as_str()) && call.text.contains("= 0")
        });
        let answered = position("answer", 0, &|call| {
            call.text.contains(&format!("trace-{round}")) && call.text.contains("HTTP/1.1 202")
                || call.path.contains("socket:")
                    && call.text.contains(&format!("trace-{round}"))
                    && call.text.contains("queued")
        });
        assert!(synced < answered, "round {round}: the answer left before the sync: {}", calls[answered].text);
    }
}

#[tokio::test]
async fn a_daemon_that_does_not_sync_says_so() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure("[outbox]\nfsync_mode = \"off\"\n");
    alice.start().await;
    let warned = alice.log().iter().any(|line| line["level"] == "WARN" && line.to_string().contains("fsync_mode"));
    assert!(warned, "{:?}", alice.log());
}

// Covers: R351
#[tokio::test]
async fn each_sync_mode_takes_sends() {
    for mode in ["strict", "batched_50ms", "off"] {
        let fake = FakeBroker::start().await;
        let mut alice = fake.member("alice");
        alice.configure(&format!("[outbox]\nfsync_mode = \"{mode}\"\n"));
        alice.start().await;
        let mut client = fake.link(&alice).await;
        let id = alice.send("bob", "x").await;
        let send = client.expect("send").await;
        assert_eq!(send["client_message_id"], id.as_str(), "{mode}");
    }
}
