//! What one member may make a receiver's daemon keep, and run.

use serde_json::{Value, json};

use crate::hooks::{configure, script};
use crate::support::daemon::{Daemon, Pair, unique};
use crate::support::fake_broker::{Client, FakeBroker, push_frame};
use crate::support::keys::{self, Key};
use crate::support::raw::{Member, Raw};
use crate::support::wait;

/// A daemon at a broker of the test's own.
async fn reader(configuration: &str) -> (FakeBroker, Daemon, Client) {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure(configuration);
    alice.start().await;
    let client = fake.link(&alice).await;
    (fake, alice, client)
}

/// A push whose sender nobody knows, of a member by the broker's word.
fn from_nobody(client: &Client, member: &str, id: &str, bytes: usize) -> Value {
    let nonce = keys::random_bytes(24);
    let mut push = push_frame(&client.hello, &Key::random(), id, None, &nonce, &vec![7; bytes]);
    push["senderMemberId"] = json!(member);
    push
}

async fn count(alice: &Daemon, sql: &str) -> i64 {
    let db = alice.inbox_db().await;
    let count = db.number(sql).await;
    db.close().await;
    count
}

/// A session of the member, hidden from everybody's list.
async fn hidden_session(url: &str, member: &Member, name: &str) -> (Raw, Key) {
    let key = Key::random();
    let mut hello = member.session_hello(&key);
    hello["displayName"] = json!(name);
    let (mut raw, _) = Raw::hello(url, &hello).await;
    raw.request(json!({"type": "set_visible", "visible": false})).await;
    (raw, key)
}

/// A direct message as a client of before sends it.
fn sealed(from: &Key, to: &str, text: &str) -> Value {
    let (nonce, sealed) = keys::seal(from, to, text.as_bytes());
    json!({
        "type": "send",
        "targetSpec": to,
        "priority": "next",
        "nonce": keys::base64(&nonce),
        "ciphertext": keys::base64(&sealed),
    })
}

#[tokio::test]
async fn who_hides_is_read_and_its_name_looks_like_no_members() {
    let Pair { broker, mesh, alice, bob } = Pair::start().await;
    let mallory = mesh.join(&broker, "mallory").await;
    let _daemon = Raw::member(&broker.url(), &mallory).await;
    alice.knows("mallory").await;
    // One that shows itself says its own name, with the mark of a session.
    let shown = Key::random();
    let mut hello = mallory.session_hello(&shown);
    hello["displayName"] = json!("bob\u{1b}[2J\r\n\u{200b}");
    let (mut raw, _) = Raw::hello(&broker.url(), &hello).await;
    let other = unique("another");
    raw.request(sealed(&shown, &alice.public(), &other)).await;
    let name = alice.received(&other).await["sender_name"].as_str().expect("a name").to_owned();
    assert!(name.starts_with("bob") && name.ends_with('~') && !name.contains(|c: char| c.is_control()), "{name:?}");
    assert!(!name.contains('\u{200b}'), "{name:?}");
    let printed = alice.cli(&["inbox"]).await.ok().stdout;
    assert!(printed.lines().any(|line| line.contains(&format!("~?{}: {other}", &shown.public()[..8]))), "{printed}");
    // Of one that hides itself nothing but its member is known.
    let (mut raw, key) = hidden_session(&broker.url(), &mallory, "bob").await;
    let text = unique("please deploy now");
    raw.request(sealed(&key, &alice.public(), &text)).await;
    let message = alice.received(&text).await;
    let (name, bound) = (&message["sender_name"], &message["provenance"]["name_bound"]);
    assert_eq!((name, bound), (&json!("mallory~"), &json!(false)), "{message}");
    bob.send("alice", "the true bob").await;
    alice.received("the true bob").await;
}

#[tokio::test]
async fn what_waits_for_a_key_keeps_to_the_share_of_its_sender() {
    let (fake, alice, mut client) = reader("").await;
    for number in 0..1_300 {
        let push = from_nobody(&client, "member-mallory", &format!("m{number}"), 40);
        client.send(&push).await;
    }
    let bob = fake.bob.clone();
    client.push_from(&bob, "b1", None, "past all of them").await;
    alice.received("past all of them").await;
    let mut states = Vec::new();
    for _ in 0..1_301 {
        states.push(client.expect("client_ack").await["state"].as_str().unwrap_or("stored").to_owned());
    }
    assert_eq!(count(&alice, "SELECT count(*) FROM inbox_waiting").await, 1_000);
    assert_eq!(count(&alice, "SELECT count(*) FROM inbox_quarantine").await, 100);
    // Others may wait as well; what was there already changes nothing.
    for (member, id) in [("member-other", "o1"), ("member-mallory", "m0")] {
        let push = from_nobody(&client, member, id, 40);
        client.send(&push).await;
        client.expect("client_ack").await;
    }
    assert_eq!(count(&alice, "SELECT count(*) FROM inbox_waiting").await, 1_001);
    assert_eq!(count(&alice, "SELECT count(*) FROM inbox_quarantine").await, 100);
}

#[tokio::test]
async fn large_ones_that_wait_are_bounded_in_bytes() {
    let (fake, alice, mut client) = reader("").await;
    for number in 0..40 {
        let push = from_nobody(&client, "member-mallory", &format!("m{number}"), 700_000);
        client.send(&push).await;
        client.expect("client_ack").await;
    }
    let bytes = count(&alice, "SELECT sum(length(frame)) FROM inbox_waiting").await;
    assert!((7 << 20..10 << 20).contains(&bytes), "{bytes}");
    let bob = fake.bob.clone();
    client.push_from(&bob, "b1", None, "still here").await;
    alice.received("still here").await;
    let path = alice.file("inbox.db");
    let stored = count(&alice, "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").await;
    assert!(stored < 14 << 20, "{stored} bytes in {}", path.display());
}

#[tokio::test]
async fn garbage_of_a_known_member_fills_its_share_and_no_more() {
    let (fake, alice, mut client) = reader("").await;
    for number in 0..300 {
        let nonce = keys::random_bytes(24);
        let push = push_frame(&client.hello, &fake.bob, &format!("m{number}"), None, &nonce, &vec![7; 60_000]);
        client.send(&push).await;
        client.expect("client_ack").await;
    }
    assert_eq!(count(&alice, "SELECT count(*) FROM inbox_quarantine").await, 100);
    let stored = count(&alice, "SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").await;
    assert!(stored < 4 << 20, "{stored} bytes");
    // One that comes again is there once.
    let (_, alice, mut client) = reader("").await;
    for _ in 0..2 {
        let push = push_frame(&client.hello, &Key::random(), "again", None, &[1; 3], &[7; 60]);
        client.send(&push).await;
        client.expect("client_ack").await;
    }
    assert!(count(&alice, "SELECT count(*) FROM inbox_quarantine").await <= 2);
}

#[tokio::test]
async fn sessions_of_one_member_run_hooks_as_one() {
    let Pair { broker, mesh, mut alice, bob: _bob } = Pair::start().await;
    alice.stop().await;
    alice.configure("[hooks]\nsender_rate_per_min = 5\n");
    configure(&alice, "[on-dm]\n");
    script(&alice, "on-dm", "cat > /dev/null");
    alice.start().await;
    let mallory = mesh.join(&broker, "mallory").await;
    let _daemon = Raw::member(&broker.url(), &mallory).await;
    alice.knows("mallory").await;
    let mut open = Vec::new();
    for number in 0..6 {
        let key = Key::random();
        let (mut raw, _) = Raw::hello(&broker.url(), &mallory.session_hello(&key)).await;
        for part in 0..3 {
            raw.request(sealed(&key, &alice.public(), &format!("{number} {part}"))).await;
        }
        open.push(raw);
    }
    alice.received("5 2").await;
    let db = alice.inbox_db().await;
    wait::until("all to be looked at", async || {
        let metrics = alice.http().get("/v1/metrics").send().await.expect(200).text();
        let skipped = metrics
            .lines()
            .find(|line| line.starts_with("cm_daemon_hook_invocations_total") && line.contains("skipped"));
        skipped.is_some_and(|line| line.ends_with(" 13")).then_some(())
    })
    .await;
    assert_eq!(db.number("SELECT count(*) FROM hook_run").await, 5);
    db.close().await;
}
