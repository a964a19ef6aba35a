//! A disk that is full for a while: the system refuses writes to one file, as it
//! does for a full disk, and takes them again later.

use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::fake_broker::{Client, FakeBroker};
use crate::support::process::{self, binary};
use crate::support::{tools, wait};

/// Starts the daemon so that its writes number `first` to `last` to the log of
/// this database find no room.
async fn start(alice: &mut Daemon, strace: &Path, database: &str, first: u32, last: u32) {
    let mut command = process::with_program(strace, alice.home());
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64", "-e"]);
    command.arg(format!("inject=pwrite64:error=ENOSPC:when={first}..{last}"));
    command.arg("-P").arg(alice.file(&format!("{database}-wal")));
    command.arg(binary()).args(["daemon", "up", "--foreground", "--mesh", "demo"]);
    alice.start_as(command).await;
}

async fn degraded(alice: &Daemon) -> Vec<String> {
    let said = alice.cli(&["daemon", "status", "--mesh", "demo", "--json"]).await.ok().json();
    let reasons = said["degraded_reasons"].as_array().expect("degraded_reasons").clone();
    reasons.iter().map(|reason| reason.as_str().unwrap_or_default().to_owned()).collect()
}

/// Each caller of a batch that failed is told the truth about its own send, with
/// the id to repeat it with.
// Covers: R136, D-C12
#[tokio::test]
async fn every_send_of_a_failed_batch_is_answered_from_what_is_stored() {
    let Some(strace) = tools::system("strace") else { return };
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    fake.link(&alice).await.drop_link();
    alice.stop().await;
    drop(fake);
    start(&mut alice, &strace, "outbox.db", 120, 180).await;
    let (mut stored, mut refused) = (Vec::new(), Vec::new());
    // Until the disk was full and has room again.
    for round in 0..400 {
        let bodies: Vec<Value> = (0..8)
            .map(|number| {
                let id = format!("send-{round}-{number}");
                json!({"to": "bob", "message": format!("text of {id}"), "client_message_id": id})
            })
            .collect();
        let answers = futures_util::future::join_all(bodies.iter().map(|body| alice.post_send(body))).await;
        for (body, answer) in bodies.into_iter().zip(answers) {
            match answer.status {
                202 => stored.push(body),
                status => {
                    let problem = answer.json();
                    assert_eq!(status, 507, "{problem}");
                    assert_eq!(problem["code"], "insufficient_storage", "{problem}");
                    assert_eq!(problem["metadata"]["client_message_id"], body["client_message_id"], "{problem}");
                    refused.push(body);
                }
            }
        }
        if let Some(first) = refused.first()
            && alice.post_send(first).await.status == 202
        {
            break;
        }
    }
    assert!(!refused.is_empty() && stored.len() > 8, "{} refused, {} stored", refused.len(), stored.len());
    stored.push(refused.remove(0));
    let db = alice.outbox_db().await;
    let ids = db.texts("SELECT client_message_id FROM outbox").await;
    for body in &stored {
        let id = body["client_message_id"].as_str().expect("an id");
        assert!(ids.iter().any(|own| own == id), "{id} was answered and is not there");
    }
    for body in &refused {
        let id = body["client_message_id"].as_str().expect("an id");
        assert!(!ids.iter().any(|own| own == id), "{id} was refused and is there");
    }
    assert_eq!(db.texts("PRAGMA integrity_check").await, ["ok"]);
    db.close().await;
    // The tracer keeps signals to itself.
    alice.cli(&["daemon", "down", "--mesh", "demo"]).await.ok();
    alice.ended().await;
    // What was refused is taken under its id, and what was stored is known.
    alice.start().await;
    for body in refused.iter().take(5).chain(stored.iter().take(5)) {
        alice.post_send(body).await.expect(202);
    }
}

/// The same with a link, where one commit writes new sends and what became of others:
/// what is refused has not left, and no answer of the broker is lost.
// Covers: D-C12, D-J1
#[tokio::test]
async fn a_failed_batch_of_sends_and_outcomes_is_none_of_both() {
    let Some(strace) = tools::system("strace") else { return };
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    start(&mut alice, &strace, "outbox.db", 400, 460).await;
    let mut client: Client = fake.link(&alice).await;
    alice.knows("bob").await;
    let left: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&left);
    let broker = tokio::spawn(async move {
        while let Some(frame) = client.next().await {
            if frame["type"] == "send" {
                let id = frame["client_message_id"].as_str().expect("an id").to_owned();
                client.ack(&frame, &format!("broker-{id}")).await;
                noted.lock().expect("no panic").push(id);
            } else {
                client.answer_lists(&frame).await;
            }
        }
    });
    let (mut stored, mut refused) = (Vec::new(), Vec::new());
    let full = async |body: &Value| alice.post_send(body).await.status;
    for round in 0..400 {
        let ids: Vec<String> = (0..8).map(|number| format!("send-{round}-{number}")).collect();
        let bodies: Vec<Value> = ids
            .iter()
            .map(|id| json!({"to": "bob", "message": format!("text of {id}"), "client_message_id": id}))
            .collect();
        let answers = futures_util::future::join_all(bodies.iter().map(full)).await;
        for (id, status) in ids.into_iter().zip(answers) {
            if status == 202 { stored.push(id) } else { refused.push((id, status)) }
        }
        if !refused.is_empty() && refused.last().is_some_and(|(id, _)| !id.starts_with(&format!("send-{round}-"))) {
            break;
        }
    }
    assert!(refused.iter().all(|(_, status)| *status == 507) && !refused.is_empty(), "{refused:?}");
    for id in &stored {
        let row = alice.outbox_status(id, "done").await;
        assert_eq!(row["broker_message_id"], format!("broker-{id}"));
    }
    let db = alice.outbox_db().await;
    assert_eq!(db.number("SELECT count(*) FROM outbox").await, i64::try_from(stored.len()).expect("a small number"));
    db.close().await;
    alice.cli(&["daemon", "down", "--mesh", "demo"]).await.ok();
    alice.ended().await;
    broker.await.expect("the broker");
    let mut left = left.lock().expect("no panic").clone();
    left.sort();
    left.dedup();
    stored.sort();
    assert_eq!(left, stored, "nothing that was refused has left");
}

/// Notes to oneself need no broker, neither to fail nor to be stored again.
#[tokio::test]
async fn own_notes_find_room_again_without_a_link() {
    let Some(strace) = tools::system("strace") else { return };
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    alice.stop().await;
    start(&mut alice, &strace, "inbox.db", 60, 61).await;
    let mut sent = 0;
    while degraded(&alice).await.is_empty() {
        sent += 1;
        assert!(sent < 60, "the disk was never full");
        alice.send("alice", &format!("note {sent}")).await;
        wait::until("it to be stored or refused", async || {
            (!degraded(&alice).await.is_empty() || alice.inbox("").await.len() == sent).then_some(())
        })
        .await;
    }
    assert_eq!(degraded(&alice).await, ["inbox_disk_full"]);
    wait::until("the notes to be stored", async || (alice.inbox("").await.len() == sent).then_some(())).await;
    wait::until("it to be ready", async || degraded(&alice).await.is_empty().then_some(())).await;
    alice.cli(&["daemon", "down", "--mesh", "demo"]).await.ok();
    alice.ended().await;
}

/// A message is acknowledged when it is stored, and not before: a full disk
/// leaves it at the broker.
// Covers: D-C12
#[tokio::test]
async fn a_full_disk_acknowledges_nothing_and_loses_nothing() {
    let Some(strace) = tools::system("strace") else { return };
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    fake.link(&alice).await.drop_link();
    alice.stop().await;
    start(&mut alice, &strace, "inbox.db", 60, 63).await;
    let mut client: Client = fake.connect().await;
    alice.knows("bob").await;
    let mut sent = 0;
    let reasons = loop {
        sent += 1;
        let id = format!("c-{sent}");
        client.push_from(&fake.bob, &format!("m-{sent}"), Some(&id), &format!("message {sent}")).await;
        let stored = async || alice.inbox("").await.len() == sent;
        let reasons = wait::until("it to be stored or refused", async || {
            let reasons = degraded(&alice).await;
            (!reasons.is_empty() || stored().await).then_some(reasons)
        })
        .await;
        if !reasons.is_empty() {
            break reasons;
        }
        let ack = client.expect("client_ack").await;
        assert_eq!(ack["deliveryId"], format!("m-{sent}"), "{ack}");
        assert!(sent < 60, "the disk was never full");
    };
    assert_eq!(reasons, ["inbox_disk_full"]);
    // More comes while it is full; nothing is acknowledged before it is stored.
    for _ in 0..3 {
        sent += 1;
        let id = format!("c-{sent}");
        client.push_from(&fake.bob, &format!("m-{sent}"), Some(&id), &format!("message {sent}")).await;
    }
    let first = sent - 3;
    for number in first..=sent {
        let ack = client.expect("client_ack").await;
        assert_eq!(ack["deliveryId"], format!("m-{number}"), "in order: {ack}");
        let stored = alice.inbox("").await;
        assert!(stored.iter().any(|row| row["client_message_id"] == format!("c-{number}")), "acknowledged, not stored");
    }
    wait::until("it to be ready", async || degraded(&alice).await.is_empty().then_some(())).await;
    let stored = alice.inbox("").await;
    assert_eq!(stored.len(), sent, "each once");
    alice.cli(&["daemon", "down", "--mesh", "demo"]).await.ok();
    alice.ended().await;
}
