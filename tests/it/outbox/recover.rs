//! Starting again after a crash, with whole and with damaged files.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use serde_json::json;

use crate::support::broker::Broker;
use crate::support::daemon::{Daemon, Pair, unique};
use crate::support::fake_broker::FakeBroker;
use crate::support::mesh::Mesh;
use crate::support::proxy::Proxy;
use crate::support::sqlite::Db;
use crate::support::{keys, wait};

// Covers: R184
#[tokio::test]
async fn what_was_in_flight_is_pending_again_after_a_pause() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let mut client = fake.link(&alice).await;
    let id = alice.send("bob", "x").await;
    client.expect("send").await;
    let inflight = alice.outbox_status(&id, "inflight").await;
    alice.kill9();
    drop(client);
    drop(fake);
    let before = keys::now_ms();
    alice.start().await;
    let after = keys::now_ms();
    let row = alice.outbox_status(&id, "pending").await;
    assert_eq!(
        row["attempts"].as_i64(),
        inflight["attempts"].as_i64().map(|attempts| attempts + 1),
        "{inflight} {row}"
    );
    let next = row["next_attempt_at"].as_i64().expect("a time");
    assert!((before + 500..=after + 500).contains(&next), "{next} is not the minimum pause of 500 ms after the start");
    assert!(row["last_error"].as_str().is_some_and(|text| !text.is_empty()), "{row}");
}

// Covers: R185, R137
#[tokio::test]
async fn a_send_that_the_broker_had_already_is_not_sent_twice() {
    let mut broker = Broker::start().await;
    let proxy = Proxy::to(broker.address()).await;
    let mesh = Mesh::create(&broker, "demo").await;
    let bob = Daemon::join(&broker, &mesh, "bob").await;
    let over = Mesh { url: proxy.url(), ..mesh };
    let mut alice = Daemon::join(&broker, &over, "alice").await;
    alice.knows("bob").await;
    bob.connected().await;
    proxy.drop_acks(1);
    let text = unique("accepted before the crash");
    let id = alice.send("bob", &text).await;
    wait::until("the ack to be lost", async || (proxy.acks_dropped() == 1).then_some(())).await;
    alice.kill9();
    // The broker too: what recognises the repeat is on its disk.
    broker.kill9();
    let db = Db::open(&broker.database()).await;
    let count = format!("SELECT count(*) FROM message_queue WHERE client_message_id = '{id}'");
    assert_eq!(db.number(&count).await, 1, "the broker has it");
    broker.restart().await;
    alice.start().await;
    let row = alice.outbox_status(&id, "done").await;
    let stored = db.texts(&format!("SELECT id FROM message_queue WHERE client_message_id = '{id}'")).await;
    assert_eq!(stored, [row["broker_message_id"].as_str().expect("an id")]);
    db.close().await;
    bob.received(&text).await;
    assert_eq!(bob.inbox("").await.len(), 1);
    let sent = proxy.client_frames("send");
    let own: Vec<_> = sent.iter().filter(|frame| frame["client_message_id"] == id.as_str()).collect();
    assert_eq!(own.len(), 2, "two transmits, one id");
}

/// Some retries are made by the process that sent first, some by one that reads
/// the row from its disk, to a broker that reads the id from its own.
// Covers: R137, R147
#[tokio::test]
async fn five_lost_acks_make_one_message() {
    let mut broker = Broker::start().await;
    let proxy = Proxy::to(broker.address()).await;
    let mesh = Mesh::create(&broker, "demo").await;
    let bob = Daemon::join(&broker, &mesh, "bob").await;
    let over = Mesh { url: proxy.url(), ..mesh };
    let mut alice = Daemon::joined(&broker, &over, "alice").await;
    alice.configure("[reconnect]\ninitial_backoff_ms = 50\nmax_backoff_ms = 200\n");
    alice.start().await;
    alice.knows("bob").await;
    proxy.cut_at("ack");
    let text = unique("retried");
    let id = alice.send("bob", &text).await;
    for lost in 1..=5 {
        wait::until(&format!("ack {lost} to be lost"), async || (proxy.cuts() == lost).then_some(())).await;
        if lost % 2 == 0 {
            alice.kill9();
            broker.kill9();
            broker.restart().await;
            alice.start().await;
        }
        if lost < 5 {
            proxy.cut_at("ack");
        }
        proxy.restore();
    }
    alice.outbox_status(&id, "done").await;
    let frames = proxy.client_frames("send");
    assert_eq!(frames.len(), 6, "one transmit for each lost ack, and the last one");
    for frame in &frames {
        assert_eq!(frame["client_message_id"], id.as_str());
        assert_eq!(frame["request_fingerprint"], frames[0]["request_fingerprint"]);
    }
    let db = Db::open(&broker.database()).await;
    assert_eq!(db.number("SELECT count(*) FROM message_queue").await, 1);
    assert_eq!(db.number("SELECT count(*) FROM client_message_dedupe").await, 1);
    db.close().await;
    bob.received(&text).await;
    assert_eq!(bob.inbox("").await.len(), 1);
}

/// Overwrites the middle of the file, where pages of tables lie.
fn damage(path: &Path) {
    let mut file = std::fs::File::options().read(true).write(true).open(path).expect("the database file");
    let length = file.metadata().expect("a length").len();
    assert!(length >= 8192, "{} has only {length} bytes", path.display());
    for page in 1..length / 4096 {
        let mut bytes = [0; 256];
        file.seek(SeekFrom::Start(page * 4096)).expect("seek");
        file.read_exact(&mut bytes).expect("read");
        bytes.iter_mut().for_each(|byte| *byte ^= 0xa5);
        file.seek(SeekFrom::Start(page * 4096)).expect("seek");
        file.write_all(&bytes).expect("write");
    }
}

// Covers: R186
#[tokio::test]
async fn a_damaged_outbox_stops_the_start() {
    let Pair { broker: _broker, mut alice, bob, .. } = Pair::start().await;
    let text = unique("before the damage");
    alice.send("bob", &text).await;
    bob.received(&text).await;
    alice.stop().await;
    damage(&alice.file("outbox.db"));
    let before = std::fs::read(alice.file("outbox.db")).expect("outbox.db");
    let (code, said) = alice.refused().await;
    assert_eq!(code, 16, "{said}");
    assert!(said.contains("daemon recover") && said.contains("outbox.db"), "{said}");
    assert_eq!(std::fs::read(alice.file("outbox.db")).expect("outbox.db"), before, "the file is left as it was");
    assert!(!alice.socket().exists());
}

// Covers: R187
#[tokio::test]
async fn a_damaged_inbox_is_set_aside_and_the_daemon_starts() {
    let Pair { broker: _broker, mut alice, mut bob, .. } = Pair::start().await;
    let first = unique("before the damage");
    alice.send("bob", &first).await;
    bob.received(&first).await;
    bob.stop().await;
    damage(&bob.file("inbox.db"));
    let damaged = std::fs::read(bob.file("inbox.db")).expect("inbox.db");
    bob.start().await;
    let aside: Vec<_> = std::fs::read_dir(bob.dir())
        .expect("the state directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("inbox.db.corrupt-")))
        .filter(|path| !path.to_string_lossy().ends_with("-wal") && !path.to_string_lossy().ends_with("-shm"))
        .collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert_eq!(std::fs::read(&aside[0]).expect("the damaged file"), damaged, "kept as it was");
    let logged = bob.log().iter().any(|line| line.to_string().contains("inbox_corruption_recovered"));
    assert!(logged, "{:?}", bob.log());
    bob.connected().await;
    let second = unique("after the damage");
    alice.send("bob", &second).await;
    bob.received(&second).await;
    alice.stop().await;
}

// Covers: R164, R165
#[tokio::test]
async fn a_send_older_than_23_hours_is_given_up() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    fake.link(&alice).await.drop_link();
    drop(fake);
    let (old, young) = (alice.send("bob", "old").await, alice.send("bob", "young").await);
    alice.stop().await;
    let minute = 60_000;
    let db = alice.outbox_db().await;
    for (id, age) in [(&old, 23 * 60 + 1), (&young, 23 * 60 - 5)] {
        let at = keys::now_ms() - age * minute;
        db.run(&format!("UPDATE outbox SET enqueued_at = {at} WHERE client_message_id = '{id}'")).await;
    }
    db.close().await;
    alice.start().await;
    alice.outbox_status(&old, "dead").await;
    let db = alice.outbox_db().await;
    let rows = db.objects("client_message_id, status, dead_reason", "FROM outbox ORDER BY id").await;
    assert_eq!(rows[0]["dead_reason"], "max_age", "{rows:?}");
    assert_eq!(rows[1]["status"], "pending", "{rows:?}");
    db.close().await;
    let answer = alice.post_send(&json!({"to": "bob", "message": "old", "client_message_id": old})).await;
    assert_eq!(answer.expect(409).json()["code"], "outbox_dead_fingerprint_match");
}
