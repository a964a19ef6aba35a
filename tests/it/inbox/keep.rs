//! How long messages are kept, what is remembered of them, and what the file
//! gives back.

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Pair, unique};
use crate::support::fake_broker::{FakeBroker, push_frame};
use crate::support::{keys, wait};

const DAY: i64 = 86_400_000;
const QUICK: &str = "[reconnect]\ninitial_backoff_ms = 50\nmax_backoff_ms = 200\n";

/// Lets the daemon, which is stopped, wake up so many days later: everything
/// that it has stored was so many days earlier.
async fn days_pass(alice: &Daemon, days: i64) {
    let by = days * DAY;
    let db = alice.inbox_db().await;
    for set in ["inbox SET received_at = received_at -", "inbox_seen SET seen_at = seen_at -"] {
        db.run(&format!("UPDATE {set} {by}")).await;
    }
    db.run(&format!("UPDATE meta SET value = CAST(value - {by} AS TEXT) WHERE key = 'last_vacuum'")).await;
    db.close().await;
    let db = alice.outbox_db().await;
    db.run(&format!("UPDATE meta SET value = CAST(value - {by} AS TEXT) WHERE key IN ('last_tick', 'last_vacuum')"))
        .await;
    db.close().await;
}

async fn bodies(daemon: &Daemon) -> Vec<String> {
    daemon.inbox("").await.iter().map(|row| row["body"].as_str().unwrap_or_default().to_owned()).collect()
}

// Covers: R179
#[tokio::test]
async fn messages_are_kept_as_long_as_configured() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure(QUICK);
    alice.start().await;
    let mut client = fake.link(&alice).await;
    client.push_from(&fake.bob, "m-1", Some("c-1"), "a month ago").await;
    alice.received("a month ago").await;
    client.expect("client_ack").await;
    alice.stop().await;
    drop(client);
    days_pass(&alice, 31).await;
    // With a longer retention it is still there.
    alice.configure(&format!("[inbox]\nretention_days = 40\n{QUICK}"));
    alice.start().await;
    let client = fake.link(&alice).await;
    assert_eq!(bodies(&alice).await, ["a month ago"]);
    alice.stop().await;
    drop(client);
    alice.configure(QUICK);
    alice.start().await;
    wait::until("it to be removed", async || bodies(&alice).await.is_empty().then_some(())).await;
}

/// 31 days off after a commit that was not acknowledged: the row is gone, and its
/// second push is recognised all the same, by a process that never saw the row.
// Covers: R139, R179
#[tokio::test]
async fn what_was_removed_is_not_stored_again() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure(QUICK);
    alice.start().await;
    let mut client = fake.link(&alice).await;
    let own = client.hello["pubkey"].as_str().expect("pubkey").to_owned();
    let (nonce, sealed) = keys::seal(&fake.bob, &own, b"before the pause");
    let push = push_frame(&client.hello, &fake.bob, "m-1", Some("c-1"), &nonce, &sealed);
    client.send(&push).await;
    alice.received("before the pause").await;
    // The link is lost with the acknowledgement on it.
    client.drop_link();
    alice.kill9();
    days_pass(&alice, 31).await;
    alice.start().await;
    let client = fake.link(&alice).await;
    wait::until("it to be removed", async || bodies(&alice).await.is_empty().then_some(())).await;
    let mut client = alice.anew(&fake, client).await;
    let mut again = push.clone();
    again["redelivery"] = json!(true);
    client.send(&again).await;
    let ack = client.expect("client_ack").await;
    assert_eq!((&ack["deliveryId"], &ack["state"]), (&json!("m-1"), &json!("stored")), "{ack}");
    client.push_from(&fake.bob, "m-2", Some("c-2"), "marker").await;
    alice.received("marker").await;
    assert_eq!(bodies(&alice).await, ["marker"]);
}

/// Nothing is removed while the clock is in doubt.
// Covers: D-C14
#[tokio::test]
async fn a_clock_in_doubt_removes_nothing() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure(QUICK);
    alice.start().await;
    let mut client = fake.link(&alice).await;
    client.push_from(&fake.bob, "m-1", Some("c-1"), "old by this clock").await;
    alice.received("old by this clock").await;
    alice.stop().await;
    drop(client);
    days_pass(&alice, 31).await;
    let db = alice.outbox_db().await;
    db.run(&format!("UPDATE meta SET value = '{}' WHERE key = 'last_tick'", keys::now_ms() + 31 * DAY)).await;
    db.close().await;
    alice.start().await;
    let gone = wait::until("it to be removed", async || bodies(&alice).await.is_empty().then_some(()));
    tokio::time::timeout(std::time::Duration::from_secs(4), gone).await.expect_err("nothing is removed in doubt");
    let _client = fake.connect().await;
    wait::until("it to be removed", async || bodies(&alice).await.is_empty().then_some(())).await;
}

async fn event_ids(alice: &Daemon) -> Vec<String> {
    alice.inbox("").await.iter().map(|row| row["event_id"].as_str().expect("event_id").to_owned()).collect()
}

fn split(event_id: &str) -> (&str, u64) {
    let (generation, seq) = event_id.rsplit_once('-').expect("<generation>-<seq>");
    (generation, seq.parse().expect("a number"))
}

// Covers: D-C13
#[tokio::test]
async fn a_place_is_never_used_twice_and_a_removed_one_is_a_gap() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure(QUICK);
    alice.start().await;
    let mut client = fake.link(&alice).await;
    for number in 1..=3 {
        client
            .push_from(&fake.bob, &format!("m-{number}"), Some(&format!("c-{number}")), &format!("old {number}"))
            .await;
        client.expect("client_ack").await;
    }
    let old = event_ids(&alice).await;
    assert_eq!(old.len(), 3);
    alice.stop().await;
    drop(client);
    days_pass(&alice, 31).await;
    alice.start().await;
    let client = fake.link(&alice).await;
    wait::until("them to be removed", async || bodies(&alice).await.is_empty().then_some(())).await;
    // Once more: with an empty table nothing but the note knows the last place.
    alice.stop().await;
    drop(client);
    alice.start().await;
    let mut client = fake.link(&alice).await;
    client.push_from(&fake.bob, "m-4", Some("c-4"), "new").await;
    alice.received("new").await;
    let new = event_ids(&alice).await;
    assert_eq!(new.len(), 1);
    assert_eq!(split(&new[0]).0, split(&old[0]).0, "the same life of the file");
    assert!(split(&new[0]).1 > split(&old[2]).1, "{new:?} after {old:?}");
    for (after, reason) in [(old[0].as_str(), "pruned"), ("01H00000000000000000000000-1", "unknown_position")] {
        let request = alice.http().get("/v1/events").header("Last-Event-ID", after);
        let mut stream = request.stream().await;
        assert_eq!(stream.status, 200);
        let gap = stream.next().await.expect("an event");
        assert_eq!(gap.kind.as_deref(), Some("gap"), "{gap:?}");
        assert_eq!(gap.json()["gap"]["reason"], reason, "{gap:?}");
        let message = stream.next().await.expect("an event");
        assert_eq!(message.id.as_deref(), Some(new[0].as_str()), "then the oldest: {message:?}");
    }
}

// Covers: R177
#[tokio::test]
async fn the_row_is_there_when_the_event_comes() {
    let Pair { broker: _broker, mesh: _mesh, alice, bob } = Pair::start().await;
    let mut stream = bob.http().get("/v1/events").stream().await;
    let db = bob.inbox_db().await;
    for number in 0..20 {
        let text = unique(&format!("message {number}"));
        alice.send("bob", &text).await;
        let event = stream.next_of("message").await.json();
        let rows = db
            .texts(&format!("SELECT body FROM inbox WHERE id = '{}'", event["message"]["id"].as_str().expect("an id")))
            .await;
        assert_eq!(rows, [text]);
    }
    db.close().await;
}

/// When the inbox and the outbox were vacuumed last.
async fn noted(alice: &Daemon) -> Option<(i64, i64)> {
    let (inbox, outbox) = (alice.inbox_db().await, alice.outbox_db().await);
    let sql = "SELECT value FROM meta WHERE key = 'last_vacuum'";
    let texts = (inbox.texts(sql).await, outbox.texts(sql).await);
    inbox.close().await;
    outbox.close().await;
    let number = |texts: Vec<String>| texts.first().and_then(|text| text.parse::<i64>().ok());
    Some((number(texts.0)?, number(texts.1)?))
}

fn vacuums(alice: &Daemon) -> Vec<String> {
    let lines = alice.log();
    let of = |line: &Value| line["fields"]["database"].as_str().or(line["database"].as_str()).map(str::to_owned);
    lines.iter().filter(|line| line.to_string().contains("database_vacuumed")).filter_map(of).collect()
}

/// Pages of both files that hold nothing.
async fn free_pages(alice: &Daemon) -> [i64; 2] {
    let (inbox, outbox) = (alice.inbox_db().await, alice.outbox_db().await);
    let sql = "SELECT freelist_count FROM pragma_freelist_count";
    let pages = [inbox.number(sql).await, outbox.number(sql).await];
    inbox.close().await;
    outbox.close().await;
    pages
}

/// Leaves many free pages in both files, as a large backlog does that was cleared.
async fn leave_holes(alice: &Daemon) {
    for db in [alice.inbox_db().await, alice.outbox_db().await] {
        db.run("CREATE TABLE backlog (text BLOB)").await;
        db.run("INSERT INTO backlog VALUES (zeroblob(4000000))").await;
        db.run("DROP TABLE backlog").await;
        db.close().await;
    }
}

// Covers: R180
#[tokio::test]
async fn both_databases_are_vacuumed_once_a_week_and_not_under_load() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    let settings = format!("[disk]\nvacuum_after_idle_s = 3\n{QUICK}");
    alice.configure(&settings);
    alice.start().await;
    let client = fake.link(&alice).await;
    wait::until("the week to begin", async || noted(&alice).await).await;
    assert_eq!(vacuums(&alice), Vec::<String>::new(), "a new database has nothing to give back");
    alice.stop().await;
    drop(client);
    days_pass(&alice, 8).await;
    leave_holes(&alice).await;
    alice.start().await;
    let mut client = fake.link(&alice).await;
    // Load for longer than the idle time and the looks.
    let end = std::time::Instant::now() + std::time::Duration::from_secs(9);
    let mut number = 0;
    while std::time::Instant::now() < end {
        number += 1;
        client.push_from(&fake.bob, &format!("m-{number}"), Some(&format!("c-{number}")), "load").await;
        client.expect("client_ack").await;
        alice.send("bob", "load").await;
        let send = client.expect("send").await;
        client.ack(&send, &format!("broker-{number}")).await;
    }
    assert_eq!(vacuums(&alice), Vec::<String>::new(), "not under load");
    let holes = free_pages(&alice).await;
    assert!(holes.iter().all(|pages| *pages > 500), "{holes:?}");
    let both = wait::until("both to be vacuumed", async || {
        let mut found = vacuums(&alice);
        found.sort();
        (found.len() >= 2).then_some(found)
    })
    .await;
    assert_eq!(both, ["inbox", "outbox"]);
    let holes = free_pages(&alice).await;
    assert!(holes.iter().all(|pages| *pages < 50), "the pages are given back: {holes:?}");
    let (inbox, outbox) = wait::until("the time to be noted", async || noted(&alice).await).await;
    assert!(inbox > keys::now_ms() - DAY && outbox > keys::now_ms() - DAY);
    // Not again before a week has passed.
    alice.stop().await;
    drop(client);
    days_pass(&alice, 6).await;
    alice.start().await;
    let _client = fake.link(&alice).await;
    let third = wait::until("a third one", async || (vacuums(&alice).len() > 2).then_some(()));
    tokio::time::timeout(std::time::Duration::from_secs(9), third).await.expect_err("a week has not passed");
}
