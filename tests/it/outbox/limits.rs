//! The age limit against the broker's memory, and a clock that is wrong.

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::fake_broker::FakeBroker;
use crate::support::{keys, wait};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

fn with_age(hours: u32, risk: bool) -> String {
    format!(
        "[outbox]\nmax_age_hours = {hours}\naccept_redelivery_risk = {risk}\n\
         [reconnect]\ninitial_backoff_ms = 50\nmax_backoff_ms = 200\n"
    )
}

async fn status(alice: &Daemon) -> Value {
    alice.cli(&["daemon", "status", "--mesh", "demo", "--json"]).await.ok().json()
}

/// A daemon that has heard from its broker that it remembers 365 days. It is
/// stopped.
async fn informed() -> (FakeBroker, Daemon) {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure(&with_age(100, false));
    alice.start().await;
    let client = fake.link(&alice).await;
    let db = alice.outbox_db().await;
    wait::until("the window to be noted", async || {
        (db.texts("SELECT value FROM meta WHERE key = 'dedupe_window'").await == ["365"]).then_some(())
    })
    .await;
    db.close().await;
    alice.stop().await;
    drop(client);
    (fake, alice)
}

// Covers: R166
#[tokio::test]
async fn a_longer_age_is_taken_up_to_what_the_broker_remembers() {
    let (_fake, mut alice) = informed().await;
    alice.configure(&with_age(7884, false));
    alice.start().await;
    alice.stop().await;
    alice.configure(&with_age(7885, false));
    let (code, said) = alice.refused().await;
    assert_eq!(code, 10, "{said}");
    for text in ["outbox_max_age_above_dedupe_window", "7884", "accept_redelivery_risk"] {
        assert!(said.contains(text), "{text} in {said}");
    }
    alice.configure(&with_age(7885, true));
    alice.start().await;
    let warned = alice
        .log()
        .iter()
        .any(|line| line["level"] == "WARN" && line.to_string().contains("outbox_max_age_above_dedupe_window"));
    assert!(warned, "{:?}", alice.log());
    let status = status(&alice).await;
    let warnings = status["warnings"].as_array().expect("warnings");
    assert!(warnings.iter().any(|warning| warning["code"] == "redelivery_risk"), "{status}");
}

// Covers: R164, R166
#[tokio::test]
async fn the_longer_age_is_in_force_only_once_the_broker_has_spoken() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure(&with_age(100, false));
    alice.start().await;
    fake.link(&alice).await.drop_link();
    let (young, old) = (alice.send("bob", "24 hours").await, alice.send("bob", "101 hours").await);
    alice.stop().await;
    let db = alice.outbox_db().await;
    for (id, hours) in [(&young, 24), (&old, 101)] {
        let at = keys::now_ms() - hours * HOUR;
        db.run(&format!("UPDATE outbox SET enqueued_at = {at} WHERE client_message_id = '{id}'")).await;
    }
    assert_eq!(db.texts("SELECT value FROM meta WHERE key = 'dedupe_window'").await, ["365"]);
    alice.start().await;
    alice.outbox_status(&old, "dead").await;
    alice.outbox_status(&young, "pending").await;
    alice.stop().await;
    // The same with a broker that has never said anything.
    db.run("DELETE FROM meta WHERE key = 'dedupe_window'").await;
    db.close().await;
    alice.start().await;
    alice.outbox_status(&young, "dead").await;
}

/// A row that waited too long for the link is not sent when the link comes.
#[tokio::test]
async fn what_is_too_old_does_not_leave_when_the_link_comes_back() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure(&with_age(23, false));
    alice.start().await;
    fake.link(&alice).await.drop_link();
    let (old, young) = (alice.send("bob", "old").await, alice.send("bob", "young").await);
    let db = alice.outbox_db().await;
    let at = keys::now_ms() - 24 * HOUR;
    db.run(&format!("UPDATE outbox SET enqueued_at = {at} WHERE client_message_id = '{old}'")).await;
    db.close().await;
    let mut client = fake.connect().await;
    let send = client.expect("send").await;
    assert_eq!(send["client_message_id"], young.as_str());
    client.ack(&send, "broker-1").await;
    alice.outbox_status(&young, "done").await;
    alice.outbox_status(&old, "dead").await;
}

/// Moves what the daemon has stored of the time, as if its clock had been wrong.
async fn last_tick(alice: &Daemon, at: i64) {
    let db = alice.outbox_db().await;
    db.run(&format!("INSERT OR REPLACE INTO meta (key, value) VALUES ('last_tick', '{at}')")).await;
    db.close().await;
}

// Covers: R164, D-C14
#[tokio::test]
async fn a_clock_that_runs_behind_gives_nothing_up_until_the_broker_confirms_it() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure(&with_age(23, false));
    alice.start().await;
    fake.link(&alice).await.drop_link();
    let id = alice.send("bob", "old by this clock").await;
    alice.stop().await;
    let db = alice.outbox_db().await;
    let at = keys::now_ms() - 40 * HOUR;
    let later = keys::now_ms() + 40 * HOUR;
    db.run(&format!("UPDATE outbox SET enqueued_at = {at}, next_attempt_at = {later}")).await;
    db.close().await;
    // The last time that was noted lies 31 days ahead: the clock was set back, or
    // starts at 1970 each time.
    last_tick(&alice, keys::now_ms() + 31 * DAY).await;
    alice.start().await;
    let said = status(&alice).await;
    assert_eq!(said["clock"]["trusted"], false, "{said}");
    let warnings = said["warnings"].as_array().expect("warnings");
    assert!(warnings.iter().any(|warning| warning["code"] == "clock_not_believed"), "{said}");
    let dies = alice.outbox_status(&id, "dead");
    tokio::time::timeout(std::time::Duration::from_secs(6), dies).await.expect_err("nothing dies in doubt");
    let row = alice.outbox_status(&id, "pending").await;
    let next = row["next_attempt_at"].as_i64().expect("a time");
    assert!(next <= keys::now_ms() + 30_000, "a stored pause is at most 30 s at a start: {row}");
    // The broker's time confirms the clock: now it is known to be old.
    let mut client = fake.connect().await;
    alice.outbox_status(&id, "dead").await;
    let frames = client.frames_within(std::time::Duration::from_millis(300)).await;
    assert!(frames.iter().all(|frame| frame["type"] != "send"), "{frames:?}");
    let said = status(&alice).await;
    assert_eq!(said["clock"]["trusted"], true, "{said}");
    let db = alice.outbox_db().await;
    let tick = wait::until("the time to be noted", async || {
        let text = db.texts("SELECT value FROM meta WHERE key = 'last_tick'").await;
        text[0].parse::<i64>().ok().filter(|tick| *tick < keys::now_ms() + HOUR)
    })
    .await;
    assert!(tick > keys::now_ms() - HOUR);
    db.close().await;
}

/// A send that was accepted while the clock was wrong is not old when the clock
/// is right again.
// Covers: D-C14
#[tokio::test]
async fn what_a_wrong_clock_dated_is_dated_anew() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure(&with_age(23, false));
    alice.start().await;
    fake.link(&alice).await.drop_link();
    alice.stop().await;
    last_tick(&alice, keys::now_ms() + 31 * DAY).await;
    alice.start().await;
    let id = alice.send("bob", "accepted in doubt").await;
    let mut client = fake.connect().await;
    let send = client.expect("send").await;
    assert_eq!(send["client_message_id"], id.as_str());
    let refused = json!({
        "type": "ack", "id": send["id"], "messageId": "", "queued": false, "error": "busy", "code": "busy",
        "retryable": true, "retryAfterMs": 60_000,
    });
    client.send(&refused).await;
    let db = alice.outbox_db().await;
    wait::until("it to be dated anew", async || {
        let rest = format!("FROM outbox WHERE client_message_id = '{id}' AND status = 'pending'");
        let row = db.objects("requeued_at", &rest).await.into_iter().next()?;
        row["requeued_at"].as_i64().filter(|at| *at > keys::now_ms() - HOUR)
    })
    .await;
    db.close().await;
}
