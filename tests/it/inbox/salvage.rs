//! An inbox that was damaged: what its successor still knows.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use claudemesh::crypto::envelope::{Destination, Envelope};
use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::fake_broker::{Client, FakeBroker, push_frame};
use crate::support::{keys, wait};

const DAY: i64 = 86_400_000;

/// Damages the one page that holds this text, and no other.
fn damage_page_of(path: &Path, text: &str) {
    let mut bytes = Vec::new();
    let mut file = std::fs::File::options().read(true).write(true).open(path).expect("the database file");
    file.read_to_end(&mut bytes).expect("read");
    let at = bytes.windows(text.len()).position(|part| part == text.as_bytes()).expect("the text is in the file");
    let page = at / 4096 * 4096;
    assert!(page > 0);
    file.seek(SeekFrom::Start(page as u64)).expect("seek");
    file.write_all(&[0xa5; 64]).expect("write");
}

/// A push of bob's with an envelope of our own kind.
fn sealed(fake: &FakeBroker, client: &Client, id: &str, text: &str, sent_at_ms: i64) -> Value {
    let own = client.hello["pubkey"].as_str().expect("pubkey").to_owned();
    let envelope = Envelope {
        mesh_id: client.hello["meshId"].as_str().expect("meshId").to_owned(),
        client_message_id: id.to_owned(),
        sender_key: hex::decode(fake.bob.public()).expect("hex"),
        destination: Some(Destination::Member(hex::decode(&own).expect("hex"))),
        sent_at_ms,
        reply_to: String::new(),
        mentions: Vec::new(),
        meta: String::new(),
        auto_hops: 0,
        body: text.to_owned(),
        author_signature: Vec::new(),
    };
    let (nonce, ciphertext) = keys::seal(&fake.bob, &own, &envelope.encode().expect("an envelope"));
    push_frame(&client.hello, &fake.bob, &format!("broker-{id}"), Some(id), &nonce, &ciphertext)
}

async fn stored(alice: &Daemon) -> Vec<String> {
    alice.inbox("").await.iter().map(|row| row["client_message_id"].as_str().unwrap_or_default().to_owned()).collect()
}

// Covers: R187, D-C13
#[tokio::test]
async fn ids_are_salvaged_and_older_messages_are_marked() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let mut client = fake.link(&alice).await;
    let mut pushes = Vec::new();
    for number in 0..30 {
        let text = format!("message number {number} {}", "x".repeat(600));
        let push = sealed(&fake, &client, &format!("id-{number}"), &text, keys::now_ms());
        client.send(&push).await;
        client.expect("client_ack").await;
        pushes.push(push);
    }
    // One that was on its way when the inbox was lost.
    let late = sealed(&fake, &client, "late", "written before, received after", keys::now_ms());
    alice.stop().await;
    drop(client);
    damage_page_of(&alice.file("inbox.db"), "message number 15");
    let before = keys::now_ms();
    alice.start().await;
    assert!(alice.log().iter().any(|line| line.to_string().contains("inbox_corruption_recovered")));
    assert_eq!(stored(&alice).await, Vec::<String>::new(), "a new inbox");
    // The ids are on disk: the process that has salvaged them is not asked.
    let client = fake.link(&alice).await;
    let mut client = alice.anew(&fake, client).await;
    // Nothing that was stored once is stored again.
    for push in &pushes {
        client.send(push).await;
        client.expect("client_ack").await;
    }
    client.send(&late).await;
    client.send(&sealed(&fake, &client, "new", "written and received after", keys::now_ms() + 1000)).await;
    alice.received("written and received after").await;
    assert_eq!(stored(&alice).await, ["late", "new"]);
    let db = alice.inbox_db().await;
    let marks = db.objects("client_message_id, before_recovery", "FROM inbox ORDER BY seq").await;
    assert_eq!(
        marks,
        [
            json!({"client_message_id": "late", "before_recovery": 1}),
            json!({"client_message_id": "new", "before_recovery": 0}),
        ]
    );
    db.close().await;
    let status = alice.cli(&["daemon", "status", "--mesh", "demo", "--json"]).await.ok().json();
    let recovered = status["inbox"]["recovered_at"].as_str().expect("recovered_at");
    let recovered = chrono::DateTime::parse_from_rfc3339(recovered).expect("a time").timestamp_millis();
    assert!((before - 1000..=keys::now_ms()).contains(&recovered), "{status}");
    // The mark stays over a restart.
    alice.stop().await;
    drop(client);
    alice.start().await;
    let mut client = fake.link(&alice).await;
    client.send(&sealed(&fake, &client, "later", "another old one", before - DAY)).await;
    alice.received("another old one").await;
    let db = alice.inbox_db().await;
    let mark = "SELECT before_recovery FROM inbox WHERE client_message_id = 'later'";
    wait::until("the mark", async || (db.number(mark).await == 1).then_some(())).await;
    db.close().await;
}

// Covers: D-C13
#[tokio::test]
async fn what_is_older_than_the_memory_is_stale() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let mut client = fake.link(&alice).await;
    // The broker remembers 365 days, and so does the inbox.
    for (id, days) in [("young", 364), ("old", 366)] {
        client.send(&sealed(&fake, &client, id, id, keys::now_ms() - days * DAY)).await;
        alice.received(id).await;
    }
    let marks: Vec<Value> = alice.inbox("").await.iter().map(|row| row["stale"].clone()).collect();
    assert_eq!(marks, [json!(false), json!(true)]);
}

/// A box opens in both directions. What this daemon has sealed itself comes back
/// under the receiver's name, and is refused.
// Covers: D-C4
#[tokio::test]
async fn a_reflected_envelope_is_refused() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let mut client = fake.link(&alice).await;
    let id = alice.send("bob", "my own words").await;
    let send = client.expect("send").await;
    client.ack(&send, "broker-1").await;
    let field = |name: &str| keys::from_base64(send[name].as_str().expect("base64"));
    let (nonce, ciphertext) = (field("nonce"), field("ciphertext"));
    // As it left, as bob's; and what alice would have sealed in envelope form.
    client.send(&push_frame(&client.hello, &fake.bob, "m-1", Some(&id), &nonce, &ciphertext)).await;
    let own = client.hello["pubkey"].as_str().expect("pubkey").to_owned();
    let mut reflected = sealed(&fake, &client, "reflected", "turned round", keys::now_ms());
    let envelope = Envelope {
        mesh_id: client.hello["meshId"].as_str().expect("meshId").to_owned(),
        client_message_id: "reflected".to_owned(),
        sender_key: hex::decode(&own).expect("hex"),
        destination: Some(Destination::Member(hex::decode(fake.bob.public()).expect("hex"))),
        sent_at_ms: keys::now_ms(),
        reply_to: String::new(),
        mentions: Vec::new(),
        meta: String::new(),
        auto_hops: 0,
        body: "turned round".to_owned(),
        author_signature: Vec::new(),
    };
    let (nonce, ciphertext) = keys::seal(&fake.bob, &own, &envelope.encode().expect("an envelope"));
    reflected["nonce"] = json!(keys::base64(&nonce));
    reflected["ciphertext"] = json!(keys::base64(&ciphertext));
    client.send(&reflected).await;
    client.push_from(&fake.bob, "m-3", Some("c-3"), "marker").await;
    alice.received("marker").await;
    assert_eq!(stored(&alice).await, ["c-3"]);
    let db = alice.inbox_db().await;
    let reasons = db.texts("SELECT reason FROM inbox_quarantine ORDER BY id").await;
    assert_eq!(reasons, ["reflected", "envelope_refused"]);
    db.close().await;
}
