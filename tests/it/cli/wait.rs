//! `send --wait`: how far a message came, and what is said when it did not.

use serde_json::json;

use crate::support::cli::{Ran, run};
use crate::support::daemon::{Daemon, Pair, unique};
use crate::support::fake_broker::FakeBroker;
use crate::support::wait;

fn words(ran: &Ran) -> Vec<&str> {
    ran.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect()
}

async fn without_a_link(alice: &Daemon) {
    wait::until("the loss to be noticed", async || {
        let health = alice.http().get("/v1/health").send().await.json();
        (health["connected"] == false).then_some(())
    })
    .await;
}

#[tokio::test]
async fn it_ends_when_the_state_is_reached() {
    let Pair { broker: _broker, mesh: _mesh, alice, bob } = Pair::start().await;
    let accepted = alice.cli(&["send", "bob", "one", "--wait", "accepted"]).await.ok();
    let said = words(&accepted);
    assert!(said.first() == Some(&"queued"), "{}", accepted.stdout);
    assert!(["accepted", "delivered"].contains(said.last().expect("a line")), "{}", accepted.stdout);
    let forever = ["send", "bob", "for ever", "--wait", "accepted", "--timeout", "500000000000y"];
    alice.cli(&forever).await.ok();
    let text = unique("two");
    let delivered = alice.cli(&["send", "bob", &text, "--wait", "delivered", "--id", "two"]).await.ok();
    assert_eq!(words(&delivered).last(), Some(&"delivered"), "{}", delivered.stdout);
    assert!(!delivered.all().contains("sent"), "{}", delivered.all());
    let stored = bob.inbox("").await;
    assert!(stored.iter().any(|row| row["body"] == text.as_str()), "delivered means stored: {stored:?}");

    // Done already: answered at once, in both forms. The report was written before
    // it was told.
    let again = alice.cli(&["send", "bob", &text, "--wait", "delivered", "--id", "two"]).await.ok();
    assert_eq!(words(&again), ["delivered"], "{}", again.stdout);
    let json = alice.cli(&["send", "bob", &text, "--wait", "delivered", "--id", "two", "--json"]).await.ok().json();
    assert_eq!((&json["status"], &json["duplicate"]), (&json!("delivered"), &json!(true)), "{json}");
    assert!(json["delivered_at"].is_string(), "{json}");
    let fresh = alice.cli(&["send", "bob", "three", "--wait", "delivered", "--json"]).await.ok().json();
    assert_eq!((&fresh["status"], &fresh["duplicate"]), (&json!("delivered"), &json!(false)), "{fresh}");
    assert_ne!(fresh["broker_message_id"], "", "{fresh}");
    assert!(fresh["delivered_at"].is_string(), "{fresh}");
    assert_eq!(bob.inbox("").await.iter().filter(|row| row["body"] == text.as_str()).count(), 1);
}

#[tokio::test]
async fn without_a_broker_the_time_ends_and_the_message_stays() {
    let Pair { mut broker, mesh: _mesh, alice, bob } = Pair::start().await;
    broker.stop().await;
    without_a_link(&alice).await;
    let text = unique("patience");
    let line = ["send", "bob", &text, "--wait", "accepted", "--timeout", "300ms", "--id", "patience"];
    let late = alice.cli(&line).await.exits(6);
    assert_eq!(words(&late), ["queued"], "{}", late.stdout);
    for part in [
        "not accepted by the broker within 300ms",
        "(wait_timeout)",
        "no link to the broker since",
        "--id patience",
        "claudemesh events -f",
    ] {
        assert!(late.stderr.contains(part), "{part:?} is missing in {}", late.stderr);
    }
    let mut arguments = line.to_vec();
    arguments.push("--json");
    let late = alice.cli(&arguments).await.exits(6);
    assert!(late.stdout.is_empty(), "{}", late.stdout);
    let error = late.error();
    assert_eq!((&error["code"], &error["exit_code"]), (&json!("wait_timeout"), &json!(6)), "{error}");
    assert_eq!(error["metadata"], json!({"client_message_id": "patience", "status": "queued"}), "{error}");

    // It goes on by itself, and can be waited for once more.
    broker.restart().await;
    let line = ["send", "bob", &text, "--wait", "delivered", "--id", "patience"];
    let done = run(alice.home(), &line).await.ok();
    assert_eq!(words(&done).last(), Some(&"delivered"), "{}", done.stdout);
    assert_eq!(bob.inbox("").await.iter().filter(|row| row["body"] == text.as_str()).count(), 1);
}

#[tokio::test]
async fn the_wait_goes_on_over_a_killed_daemon() {
    let Pair { mut broker, mesh: _mesh, mut alice, bob } = Pair::start().await;
    broker.stop().await;
    without_a_link(&alice).await;
    let text = unique("twice killed");
    let home = alice.home().to_owned();
    let waiting = async {
        run(&home, &["send", "bob", &text, "--wait", "delivered", "--timeout", "1min", "--id", "kill"]).await.ok()
    };
    let killing = async {
        alice.outbox_status("kill", "pending").await;
        alice.kill9();
        alice.start().await;
        broker.restart().await;
        bob.received(&text).await;
    };
    let (done, ()) = tokio::join!(waiting, killing);
    assert_eq!(words(&done).last(), Some(&"delivered"), "{}", done.stdout);
    assert_eq!(bob.inbox("").await.iter().filter(|row| row["body"] == text.as_str()).count(), 1);
}

#[tokio::test]
async fn what_is_given_up_is_told_with_its_reason() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let mut client = fake.link(&alice).await;
    let line = ["send", "bob", "no", "--wait", "accepted", "--id", "no"];
    let refusing = async {
        let send = client.expect("send").await;
        let ack = json!({
            "type": "ack", "id": send["id"], "messageId": "", "queued": false,
            "error": "forbidden: not allowed here", "code": "forbidden", "retryable": false,
        });
        client.send(&ack).await;
    };
    let (dead, ()) = tokio::join!(alice.cli(&line), refusing);
    let dead = dead.exits(1);
    for part in ["was given up", "not allowed here", "(outbox_dead_fingerprint_match)"] {
        assert!(dead.stderr.contains(part), "{part:?} is missing in {}", dead.stderr);
    }
    // Asked again, the row tells the same.
    let again = alice.cli(&line).await.exits(1);
    assert!(again.stderr.contains("not allowed here") && again.stderr.contains("outbox_dead"), "{}", again.stderr);
}
