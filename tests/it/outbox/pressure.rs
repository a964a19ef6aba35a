//! An outbox that fills up: what is told, what is refused, what goes on.

use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::fake_broker::{Client, FakeBroker};
use crate::support::http::EventStream;
use crate::support::wait;

const QUICK: &str = "[reconnect]\ninitial_backoff_ms = 50\nmax_backoff_ms = 200\n";

async fn follow(alice: &Daemon) -> EventStream {
    let stream = alice.http().get("/v1/events").header("Accept", "text/event-stream").stream().await;
    assert_eq!(stream.status, 200);
    stream
}

async fn status(alice: &Daemon) -> Value {
    alice.cli(&["daemon", "status", "--mesh", "demo", "--json"]).await.ok().json()
}

async fn gauge(alice: &Daemon) -> f64 {
    let text = alice.http().get("/v1/metrics").send().await.expect(200).text();
    let name = r#"cm_daemon_disk_pct{mesh="demo",kind="outbox"} "#;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{text}"));
    line.parse().expect("a number")
}

async fn drain(client: &mut Client, count: usize) {
    for number in 0..count {
        let send = client.expect("send").await;
        client.ack(&send, &format!("broker-{number}-{}", send["client_message_id"])).await;
    }
}

async fn accepts_again(alice: &Daemon, text: &str) {
    wait::until("sends to be taken again", async || {
        let answer = alice.post_send(&json!({"to": "bob", "message": text})).await;
        (answer.status == 202).then_some(())
    })
    .await;
}

// Covers: R194, R195, R198
#[tokio::test]
async fn at_80_percent_it_is_told_and_at_95_sends_are_refused_while_the_rest_drains() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure(&format!("[outbox]\nmax_queue_size = 20\n{QUICK}"));
    alice.start().await;
    fake.link(&alice).await.drop_link();
    let mut events = follow(&alice).await;
    let kept = json!({"to": "bob", "message": "message 0", "client_message_id": "kept"});
    alice.post_send(&kept).await.expect(202);
    for number in 1..16 {
        alice.send("bob", &format!("message {number}")).await;
    }
    let high = events.next_of("outbox_pressure_high").await.json();
    assert_eq!(high["outbox_pressure_high"]["level"], "high", "{high}");
    assert_eq!(high["outbox_pressure_high"]["measure"], "rows", "{high}");
    assert_eq!(high["outbox_pressure_high"]["used_pct"], 80.0, "{high}");
    assert_eq!(gauge(&alice).await, 80.0);
    // Still taken, up to 95 %.
    for number in 16..19 {
        alice.send("bob", &format!("message {number}")).await;
    }
    let id = "refused-1";
    let body = json!({"to": "bob", "message": "one too many", "client_message_id": id});
    let refused = alice.post_send(&body).await.expect(507).json();
    assert_eq!(refused["code"], "insufficient_storage", "{refused}");
    assert_eq!(refused["metadata"]["client_message_id"], id, "{refused}");
    // The next rise is told as well, and nothing in between.
    let critical = events.next_of("outbox_pressure_high").await.json();
    assert_eq!(critical["outbox_pressure_high"]["level"], "critical", "{critical}");
    let said = status(&alice).await;
    assert_eq!(said["outbox"]["pressure"], "critical", "{said}");
    assert_eq!(said["state"], "ready", "not degraded yet: {said}");
    // A repeat of what is there is answered all the same, and so is another
    // request under its id.
    let again = alice.post_send(&kept).await.expect(202).json();
    assert_eq!((&again["client_message_id"], &again["status"]), (&json!("kept"), &json!("queued")), "{again}");
    let other = json!({"to": "bob", "message": "another text", "client_message_id": "kept"});
    let conflict = alice.post_send(&other).await.expect(409).json();
    assert_eq!(conflict["code"], "outbox_pending_fingerprint_mismatch", "{conflict}");
    // What was accepted drains, then there is room.
    let mut client = fake.connect().await;
    drain(&mut client, 19).await;
    events.next_of("outbox_pressure_cleared").await;
    alice.post_send(&body).await.expect(202);
}

// Covers: R196, R197, R198
#[tokio::test]
async fn at_100_percent_it_is_degraded_and_still_receives() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure(&format!("[outbox]\nmax_queue_size = 100\n{QUICK}"));
    alice.start().await;
    fake.link(&alice).await.drop_link();
    for number in 0..12 {
        alice.send("bob", &format!("message {number}")).await;
    }
    alice.stop().await;
    alice.configure(&format!("[outbox]\nmax_queue_size = 10\n{QUICK}"));
    alice.start().await;
    let refused = alice.post_send(&json!({"to": "bob", "message": "x"})).await.expect(507).json();
    assert_eq!(refused["code"], "insufficient_storage", "{refused}");
    let stream = alice.http().get("/v1/events").send().await.expect(507).json();
    assert_eq!(stream["code"], "insufficient_storage", "{stream}");
    let table = alice.cli(&["daemon", "status", "--mesh", "demo"]).await.ok();
    assert!(table.stdout.contains("degraded") && table.stderr.contains("outbox_full"), "{table:?}");
    let said = status(&alice).await;
    assert_eq!((&said["state"], &said["degraded_reasons"]), (&json!("degraded"), &json!(["outbox_full"])), "{said}");
    assert_eq!(alice.http().get("/v1/health").send().await.expect(200).json()["state"], "degraded");
    alice.http().get("/readyz").send().await.expect(507);
    // The link stays for what comes in.
    let mut client = fake.connect().await;
    client.push_from(&fake.bob, "m-1", Some("c-1"), "received while full").await;
    alice.received("received while full").await;
    let ack = client.expect("client_ack").await;
    assert_eq!(ack["deliveryId"], "m-1", "{ack}");
    // And for what was accepted before.
    drain(&mut client, 12).await;
    accepts_again(&alice, "after the drain").await;
    wait::until("it to be ready", async || (status(&alice).await["state"] == "ready").then_some(())).await;
    follow(&alice).await;
}

/// Fills the outbox with accepted texts; the database is measured, not the rows.
async fn filled(settings: &str) -> (FakeBroker, Daemon, Client) {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure(&format!("{settings}{QUICK}"));
    alice.start().await;
    let mut client = fake.link(&alice).await;
    let text = "x".repeat(700_000);
    for number in 0..3 {
        let id = alice.send("bob", &format!("{number}{text}")).await;
        let send = client.expect("send").await;
        client.ack(&send, &format!("broker-{number}")).await;
        alice.outbox_status(&id, "done").await;
    }
    (fake, alice, client)
}

// Covers: R194, R198, R199
#[tokio::test]
async fn a_prune_makes_room() {
    for (setting, measure) in [("reserved_bytes", "reserved_bytes"), ("outbox_max_bytes", "database_bytes")] {
        let (_fake, alice, _client) = filled(&format!("[disk]\n{setting} = 2200000\n")).await;
        let refused = wait::until("a refusal", async || {
            let answer = alice.post_send(&json!({"to": "bob", "message": "x"})).await;
            (answer.status == 507).then(|| answer.json())
        })
        .await;
        assert_eq!(refused["metadata"]["measure"], measure, "{refused}");
        let warned = alice.log().iter().any(|line| line["level"] == "WARN" && line.to_string().contains("95 % on"));
        assert!(warned, "{:?}", alice.log());
        let would = alice.cli(&["outbox", "prune"]).await.ok();
        assert!(would.stdout.contains("would prune"), "{would:?}");
        alice.post_send(&json!({"to": "bob", "message": "x"})).await.expect(507);
        alice.cli(&["outbox", "prune", "--confirm"]).await.ok();
        accepts_again(&alice, "after the prune").await;
    }
}

// Covers: R198
#[tokio::test]
async fn accepted_sends_older_than_their_retention_make_room_by_themselves() {
    const TWO_HOURS: i64 = 2 * 3_600_000;
    let (_fake, alice, _client) =
        filled("[outbox]\ndone_retention_hours = 1\n[disk]\noutbox_max_bytes = 2200000\n").await;
    let refused = async || alice.post_send(&json!({"to": "bob", "message": "x"})).await.status == 507;
    wait::until("a refusal", async || refused().await.then_some(())).await;
    let db = alice.outbox_db().await;
    let held = "SELECT count(*) FROM outbox WHERE status = 'done' AND length(payload) > 1000";
    assert_eq!(db.number(held).await, 3, "what is young is kept, whatever the pressure");
    assert!(refused().await, "and room is not made by itself");
    db.run(&format!("UPDATE outbox SET accepted_at = accepted_at - {TWO_HOURS} WHERE status = 'done'")).await;
    accepts_again(&alice, "after the clearing").await;
    assert_eq!(db.number(held).await, 0, "the texts are cleared");
    db.close().await;
}

/// Lines of the log with these words.
fn told(alice: &Daemon, words: &str) -> Vec<String> {
    alice.log().iter().map(Value::to_string).filter(|line| line.contains(words)).collect()
}

// Covers: R194, R195, R199
#[tokio::test]
async fn at_90_percent_the_log_warns_once_and_not_before() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure(QUICK);
    alice.start().await;
    fake.link(&alice).await.drop_link();
    for number in 0..89 {
        alice.send("bob", &format!("message {number}")).await;
    }
    alice.stop().await;
    alice.configure(&format!("[outbox]\nmax_queue_size = 100\n{QUICK}"));
    alice.start().await;
    // The look that finds 89 % writes both lines, the warning first.
    let warning = "95 % on sends are refused";
    wait::until("the pressure to be told", async || {
        (!told(&alice, "the outbox is 89 % full").is_empty()).then_some(())
    })
    .await;
    assert_eq!(told(&alice, warning), Vec::<String>::new(), "not below 90 %");
    alice.send("bob", "message 89").await;
    let warned =
        wait::until("the warning", async || Some(told(&alice, warning)).filter(|lines| !lines.is_empty())).await;
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert!(warned[0].contains("90 % full") && warned[0].contains("WARN"), "{warned:?}");
    // Sends are taken up to 95 %, which is a step of its own and no second warning.
    for number in 90..95 {
        alice.send("bob", &format!("message {number}")).await;
    }
    wait::until("the next step to be told", async || {
        (!told(&alice, "outbox_pressure_high: the outbox is 95 % full").is_empty()).then_some(())
    })
    .await;
    assert_eq!(told(&alice, warning), warned);
    alice.post_send(&json!({"to": "bob", "message": "one too many"})).await.expect(507);
}
