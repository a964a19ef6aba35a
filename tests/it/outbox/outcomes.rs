//! What the sender's daemon makes of the broker's word on its receivers.

use serde_json::{Value, json};

use crate::support::broker::Broker;
use crate::support::daemon::{Daemon, unique};
use crate::support::fake_broker::FakeBroker;
use crate::support::keys::now_ms;
use crate::support::mesh::Mesh;
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::raw::{Member, Raw};
use crate::support::wait;

/// Alice's daemon and bob, whose every word is the test's.
struct Rig {
    broker: Broker,
    alice: Daemon,
    bob: Member,
    bob_raw: Raw,
}

impl Rig {
    async fn start(backend: Backend) -> Self {
        let broker = Broker::on(backend).await;
        let mesh = Mesh::create(&broker, "demo").await;
        let mut alice = Daemon::joined(&broker, &mesh, "alice").await;
        alice.configure("[reconnect]\ninitial_backoff_ms = 50\nmax_backoff_ms = 200\n");
        alice.start().await;
        let bob = mesh.join(&broker, "bob").await;
        let bob_raw = connect(&broker, &bob).await;
        alice.connected().await;
        alice.knows("bob").await;
        Self { broker, alice, bob, bob_raw }
    }

    async fn send(&mut self, id: &str) -> Value {
        let body = json!({"to": "bob", "message": unique("hello"), "client_message_id": id});
        self.alice.post_send(&body).await.expect(202);
        loop {
            let push = self.bob_raw.message().await;
            if push["client_message_id"] == id {
                return push;
            }
        }
    }

    async fn set_aside(&mut self, push: &Value) {
        let ack = json!({"type": "client_ack", "deliveryId": push["deliveryId"], "state": "quarantined",
                         "reason": "unreadable"});
        self.bob_raw.send(&ack).await;
    }
}

async fn connect(broker: &Broker, bob: &Member) -> Raw {
    let mut raw = Raw::member(&broker.url(), bob).await;
    raw.negotiate(&[], &["delivery_ack", "delivery_outcome"]).await;
    raw
}

/// The entry of a send, once it says that its receiver set it aside.
async fn rejected_entry(alice: &Daemon, id: &str) -> Value {
    wait::until("the entry to be rejected", async || {
        let all = alice.cli(&["outbox", "list", "--all", "--json"]).await.ok().json();
        let entries = all["entries"].as_array()?.clone();
        entries.into_iter().find(|entry| entry["client_message_id"] == id && entry["rejected_at"].is_string())
    })
    .await
}

async fn a_rejection_is_noted_told_and_ends_what_waits_for_it(backend: Backend) {
    let mut rig = Rig::start(backend).await;
    let mut events = rig.alice.http().get("/v1/events?types=delivery_status").stream().await;
    let push = rig.send("m1").await;
    let accepted = events.next_of("delivery_status").await.json()["delivery_status"].clone();
    assert_eq!((&accepted["status"], &accepted["error"]), (&json!("accepted"), &Value::Null), "{accepted}");
    assert_eq!(accepted["history_id"], push["historyId"], "{accepted}");
    rig.set_aside(&push).await;
    let status = events.next_of("delivery_status").await.json()["delivery_status"].clone();
    assert_eq!((&status["client_message_id"], &status["status"]), (&json!("m1"), &json!("rejected")), "{status}");
    assert_eq!((&status["broker_message_id"], &status["history_id"]), (&push["messageId"], &push["historyId"]));
    let recipient = &status["recipient"];
    assert_eq!((&recipient["kind"], &recipient["name"]), (&json!("direct"), &json!("bob")), "{status}");
    assert_eq!((&recipient["member_id"], &recipient["pubkey"]), (&json!(rig.bob.member_id), &json!(rig.bob.public())));
    let error = &status["error"];
    assert_eq!((&error["code"], &error["retryable"]), (&json!("message_rejected"), &json!(false)), "{status}");
    assert_eq!(error["metadata"]["reason"], "unreadable", "{status}");
    assert_eq!(error["metadata"]["client_message_id"], "m1", "{status}");
    assert!(error["message"].as_str().is_some_and(|text| text.contains("set it aside")), "{status}");

    let entry = rejected_entry(&rig.alice, "m1").await;
    assert_eq!((&entry["status"], &entry["reject_reason"]), (&json!("done"), &json!("unreadable")), "{entry}");
    assert_eq!(entry["delivered_at"], Value::Null, "{entry}");
    let shown = rig.alice.cli(&["outbox", "list", "--all"]).await.ok().stdout;
    assert!(shown.contains("set aside by its receiver: unreadable"), "{shown}");
    let sent = rig.alice.http().get("/v1/send/m1").send().await.expect(200).json();
    assert_eq!((&sent["status"], &sent["error"]["code"]), (&json!("rejected"), &json!("message_rejected")), "{sent}");
    assert_eq!(sent["error"]["metadata"]["reason"], "unreadable", "{sent}");
    let shown = rig.alice.cli(&["outbox", "inspect", "m1"]).await.ok().stdout;
    assert!(shown.contains("set aside") && shown.contains("unreadable"), "{shown}");

    // Who waits for a delivery is not left waiting, also when it asks too late.
    let text = unique("waited for");
    let arguments = ["send", "bob", &text, "--id", "m2", "--wait", "delivered", "--timeout", "25s", "--json"];
    let waits = async { rig.alice.cli(&arguments).await.exits(1) };
    let receiver = async {
        let push = rig.bob_raw.message().await;
        let ack = json!({"type": "client_ack", "deliveryId": push["deliveryId"], "state": "quarantined",
                         "reason": "invalid"});
        rig.bob_raw.send(&ack).await;
    };
    let (ran, ()) = tokio::join!(waits, receiver);
    assert_eq!(ran.error()["code"], "message_rejected", "{}", ran.all());
    assert_eq!(ran.error()["metadata"]["reason"], "invalid", "{}", ran.all());
    rejected_entry(&rig.alice, "m2").await;
    let ran = rig.alice.cli(&arguments).await.exits(1);
    assert_eq!(ran.error()["code"], "message_rejected", "{}", ran.all());
}

async fn a_rejection_while_the_sender_was_dead_is_told_at_its_return(backend: Backend) {
    let mut rig = Rig::start(backend).await;
    let push = rig.send("m1").await;
    rig.alice.outbox_status("m1", "done").await;
    rig.alice.kill9();
    rig.set_aside(&push).await;
    let db = rig.broker.tables().await;
    wait::until("the broker to have written it", async || {
        let written = db.number("SELECT count(*) FROM delivery WHERE reject_reason IS NOT NULL").await;
        (written == 1).then_some(())
    })
    .await;
    db.close().await;
    rig.broker.kill9();
    rig.broker.restart().await;
    rig.alice.start().await;
    let entry = rejected_entry(&rig.alice, "m1").await;
    assert_eq!(entry["reject_reason"], "unreadable", "{entry}");
}

#[tokio::test]
async fn what_was_not_taken_in_time_is_shown() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let mut client = fake.link(&alice).await;
    alice.post_send(&json!({"to": "bob", "message": "hi", "client_message_id": "m1"})).await.expect(202);
    let send = client.expect("send").await;
    client.ack(&send, "broker-m1").await;
    alice.outbox_status("m1", "done").await;
    client
        .send(&json!({"type": "delivery_status", "client_message_id": "m1", "state": "expired", "at": now_ms()}))
        .await;
    let entry = wait::until("the entry to say so", async || {
        let entry = alice.cli(&["outbox", "inspect", "m1", "--json"]).await.ok().json()["entry"].clone();
        entry["expired_at"].is_string().then_some(entry)
    })
    .await;
    assert!(entry["queued_at"].is_string() && entry["status"] == "done", "{entry}");
    let shown = alice.cli(&["outbox", "inspect", "m1"]).await.ok().stdout;
    assert!(shown.contains("not taken"), "{shown}");
    let listed = alice.cli(&["outbox", "list", "--all"]).await.ok().stdout;
    assert!(listed.contains("not taken by its receiver in time"), "{listed}");
    let status = alice.cli(&["outbox", "status", "m1"]).await.ok();
    assert!(
        status.stdout.starts_with("expired  m1  to bob") && status.stderr.contains("delivery_expired"),
        "{status:?}"
    );
}

on_both_databases! {
    a_rejection_is_noted_told_and_ends_what_waits_for_it,
    a_rejection_while_the_sender_was_dead_is_told_at_its_return,
}
