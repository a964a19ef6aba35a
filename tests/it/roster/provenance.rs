//! What a daemon knows about who wrote a message, and where it says so.

use claudemesh::proto::pb::{ListMessagesRequest, PinState};
use serde_json::{Value, json};

use super::{peer, pinned};
use crate::support::broker::Broker;
use crate::support::daemon::{Daemon, Pair, unique};
use crate::support::grpc;
use crate::support::keys;
use crate::support::raw::{Raw, plain_send};
use crate::support::wait;

/// Of a message of a member that joined by a plain link and has its name to itself.
fn plain() -> Value {
    json!({
        "pin_state": "pinned",
        "certified": false,
        "verified": false,
        "name_bound": true,
        "hops": 0,
        "by_hook": false,
    })
}

fn with(field: &str, value: impl Into<Value>) -> Value {
    let mut provenance = plain();
    provenance[field] = value.into();
    provenance
}

async fn known(daemon: &Daemon, name: &str) -> Value {
    peer(daemon, name).await.expect("the peer")["provenance"].clone()
}

async fn row(daemon: &Daemon, text: &str) -> Value {
    daemon.received(text).await["provenance"].clone()
}

#[tokio::test]
async fn it_is_judged_when_it_is_read() {
    let Pair { broker: _broker, mesh: _mesh, alice, bob } = Pair::start().await;
    let text = unique("hello");
    bob.send("alice", &text).await;
    assert_eq!(row(&alice, &text).await, plain());
    assert_eq!(known(&alice, "bob").await, plain());

    alice.cli(&["verify", "bob", "--confirm"]).await.ok();
    let mut verified = with("pin_state", "verified");
    verified["verified"] = json!(true);
    assert_eq!(row(&alice, &text).await, verified, "the stored message, as of now");
    assert_eq!(known(&alice, "bob").await, verified);
    let mut inbox = grpc::inbox(&alice.socket()).await;
    let page = inbox.list_messages(ListMessagesRequest::default()).await.expect("a page").into_inner();
    let over_grpc = page.messages[0].provenance.expect("provenance");
    assert_eq!((over_grpc.pin_state(), over_grpc.verified), (PinState::Verified, true));
    let mut events = alice.http().get("/v1/events?from_start=true&types=message").stream().await;
    assert_eq!(events.next_of("message").await.json()["message"]["provenance"], verified);

    // The old key was compared and the new one was not: each message by its own.
    let old = bob.public();
    bob.cli(&["daemon", "rotate-keypair"]).await.ok();
    wait::until("the new key", async || (pinned(&alice, "bob").await["pubkey"] != old).then_some(())).await;
    let later = unique("by the new key");
    bob.send("alice", &later).await;
    assert_eq!(row(&alice, &later).await, plain());
    assert_eq!(row(&alice, &text).await, with("verified", true));
    assert_eq!(known(&alice, "bob").await, plain());
}

#[tokio::test]
async fn a_name_that_means_another_is_marked_wherever_it_is_printed() {
    let Pair { broker, mesh, alice, bob } = Pair::start().await;
    let thief = Daemon::join(&broker, &mesh, "Bob").await;
    thief.knows("alice").await;
    let (true_text, false_text) = (unique("the true bob"), unique("the other bob"));
    bob.send("alice", &true_text).await;
    thief.send("alice", &false_text).await;
    // Which is which is not known yet.
    assert_eq!(row(&alice, &true_text).await["name_bound"], false);
    assert_eq!(row(&alice, &false_text).await, with("name_bound", false));
    let key = bob.public();
    alice.cli(&["verify", &key[..16], "--accept"]).await.ok();
    assert_eq!(row(&alice, &true_text).await, plain());
    assert_eq!((known(&alice, "bob").await, known(&alice, "Bob").await), (plain(), with("name_bound", false)));

    let marked = format!("Bob?{}", &thief.public()[..8]);
    for verb in [&["inbox"][..], &["events"], &["daemon", "inbox"]] {
        let printed = alice.cli(verb).await.ok().stdout;
        assert!(printed.contains(&format!("  {marked}: {false_text}")), "{verb:?}: {printed}");
        assert!(printed.contains(&format!("  bob: {true_text}")), "{verb:?}: {printed}");
    }
    let list = alice.cli(&["peer", "list"]).await.ok().stdout;
    assert!(list.lines().any(|line| line.starts_with(&format!("{marked} "))), "{list}");
    assert!(list.lines().any(|line| line.starts_with("bob ")), "{list}");
    let sent = alice.cli(&["send", &marked, "by its mark", "--id", "marked-1"]).await.ok().stdout;
    assert!(sent.contains(&format!("to {marked}")), "{sent}");
    let status = alice.cli(&["outbox", "status", "marked-1"]).await.ok().stdout;
    assert!(status.contains(&format!("to {marked}")), "{status}");
    let verified = alice.cli(&["verify", &marked]).await.ok();
    assert!(verified.stdout.contains(&format!("peer           {marked}")), "{}", verified.all());
    // Each knows that its own name does not lead to it.
    for daemon in [&bob, &thief] {
        let told = daemon.cli(&["daemon", "status"]).await.ok().all();
        assert!(told.contains("name_not_unique"), "{told}");
    }
    assert!(!alice.cli(&["daemon", "status"]).await.ok().all().contains("name_not_unique"));

    // The operator gives it the name: what is stored is read with other eyes.
    alice.cli(&["verify", &thief.public(), "--accept"]).await.ok();
    assert_eq!(row(&alice, &false_text).await["name_bound"], true);
    assert_eq!(row(&alice, &true_text).await["name_bound"], false);
}

#[tokio::test]
async fn whom_the_owner_let_in_is_certified() {
    let broker = Broker::start().await;
    let mut alice = Daemon::unjoined("demo", "alice");
    let (url, token) = (broker.url(), broker.admin_token_file().display().to_string());
    let create = ["mesh", "create", "demo", "--broker", &url, "--admin-token-file", &token, "--display-name", "alice"];
    alice.cli(&create).await.ok();
    let link = async |more: &[&str]| {
        let made = alice.cli(&[&["mesh", "invite", "demo"], more].concat()).await.ok();
        made.stdout.trim().to_owned()
    };
    let mut bob = Daemon::joined_by(&link(&[]).await, "demo", "bob").await;
    let mut carol = Daemon::joined_by(&link(&["--plain"]).await, "demo", "carol").await;
    for daemon in [&mut alice, &mut bob, &mut carol] {
        daemon.start().await;
    }
    for (daemon, certified) in [(&bob, true), (&carol, false)] {
        daemon.knows("alice").await;
        let text = unique("let in?");
        daemon.send("alice", &text).await;
        alice.received(&text).await;
        wait::until("the certificate", async || (row(&alice, &text).await["certified"] == certified).then_some(()))
            .await;
    }
    assert_eq!(
        (&known(&alice, "bob").await["certified"], &known(&alice, "carol").await["certified"]),
        (&json!(true), &json!(false))
    );
}

/// Clear text names its sender by the broker's word alone, and the broker may lie.
#[tokio::test]
async fn clear_text_proves_nobody_whatever_its_key_is_worth() {
    let Pair { broker, mesh, alice, bob: _bob } = Pair::start().await;
    let carol = mesh.join(&broker, "carol").await;
    let mut raw = Raw::member(&broker.url(), &carol).await;
    alice.knows("carol").await;
    let text = unique("to all");
    let mut frame = plain_send("*");
    frame["ciphertext"] = json!(keys::base64(text.as_bytes()));
    let (ack, _) = raw.request(frame).await;
    assert_eq!(ack["queued"], true, "{ack}");
    let row = alice.received(&text).await;
    assert_eq!(row["unencrypted"], true);
    let mut nothing = with("pin_state", "unspecified");
    nothing["name_bound"] = json!(false);
    assert_eq!(row["provenance"], nothing);
    let printed = alice.cli(&["inbox"]).await.ok().stdout;
    assert!(
        printed.contains(&format!("carol?{} to everyone (unencrypted): {text}", &carol.public()[..8])),
        "{printed}"
    );
    // The same member, known all the same.
    assert_eq!(known(&alice, "carol").await, plain());
}

#[tokio::test]
async fn a_removed_member_is_marked_in_what_it_wrote() {
    let Pair { broker: _broker, mesh: _mesh, alice, bob } = Pair::start().await;
    let text = unique("before I go");
    bob.send("alice", &text).await;
    alice.received(&text).await;
    bob.cli(&["mesh", "leave", "demo"]).await;
    wait::until("bob to be removed", async || (row(&alice, &text).await["pin_state"] == "revoked").then_some(())).await;
}
