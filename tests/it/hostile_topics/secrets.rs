//! What the broker can learn of a topic, and who reads it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::broker::Broker;
use crate::support::daemon::{Daemon, unique};
use crate::support::keys::base64;
use crate::support::proxy::Proxy;
use crate::support::wait;

/// The creator of a mesh, connected through the proxy.
async fn creator(broker: &Broker, url: &str) -> Daemon {
    let mut alice = Daemon::unjoined("demo", "alice");
    let token = broker.admin_token_file().display().to_string();
    let create = ["mesh", "create", "demo", "--broker", url, "--admin-token-file", &token, "--display-name", "alice"];
    alice.cli(&create).await.ok();
    alice.start().await;
    alice
}

/// One who joined by a link of the creator's; a plain one certifies nobody.
async fn joined(alice: &Daemon, name: &str, more: &[&str]) -> Daemon {
    let link = alice.cli(&[&["mesh", "invite", "demo"], more].concat()).await.ok().stdout;
    let mut daemon = Daemon::joined_by(link.trim(), "demo", name).await;
    daemon.start().await;
    daemon.connected().await;
    alice.knows(name).await;
    daemon.knows("alice").await;
    daemon
}

/// The topic as this daemon lists it, once it waits for its key or no more.
async fn until_waiting(daemon: &Daemon, is_waiting: bool) {
    wait::until("the topic's key", async || {
        let answer = daemon.http().get("/v1/topic/list").send().await.expect(200).json();
        (answer["topics"][0]["waiting_for_key"] == is_waiting).then_some(())
    })
    .await;
}

async fn topic_post(daemon: &Daemon, text: &str) {
    let body = json!({"topic": "ops", "message": text});
    daemon.http().post("/v1/topic/post", &body).send().await.expect(202);
}

fn holds(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

/// Every file below a directory.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => files(&path),
            false => std::fs::read(&path).map(|bytes| vec![(path, bytes)]).unwrap_or_default(),
        })
        .collect()
}

/// The keys that a daemon has, by epoch.
fn topic_keys(daemon: &Daemon) -> Vec<Vec<u8>> {
    let file: Value =
        serde_json::from_slice(&std::fs::read(daemon.file("topic_keys.json")).expect("keys")).expect("JSON");
    let keys = file["topics"][0]["keys"].as_object().expect("keys by epoch").clone();
    keys.into_iter().map(|(_, key)| hex::decode(key.as_str().expect("hex")).expect("hex")).collect()
}

// Covers: R335, R415
#[tokio::test]
async fn neither_what_is_posted_nor_a_key_reaches_the_broker() {
    let mut broker = Broker::start().await;
    let proxy = Proxy::to(broker.address()).await;
    let alice = creator(&broker, &proxy.url()).await;
    let bob = joined(&alice, "bob", &[]).await;
    let carol = joined(&alice, "carol", &[]).await;
    let description = "what runs and what does not";
    alice.cli(&["topic", "create", "ops", "--description", description]).await.ok();
    for daemon in [&bob, &carol] {
        daemon.cli(&["topic", "subscribe", "ops"]).await.ok();
        until_waiting(daemon, false).await;
    }
    let (first, second) = (unique("first marker"), unique("second marker"));
    topic_post(&alice, &first).await;
    bob.received(&first).await;
    carol.received(&first).await;
    // Bob goes, and the others have a key that he never had.
    bob.cli(&["topic", "unsubscribe", "ops"]).await.ok();
    wait::until("the second key", async || (topic_keys(&carol).len() == 2).then_some(())).await;
    topic_post(&alice, &second).await;
    let row = carol.received(&second).await;
    assert_eq!((&row["topic"], &row["unencrypted"]), (&json!("ops"), &json!(false)), "{row}");
    let keys = topic_keys(&alice);
    assert_eq!((keys.len(), topic_keys(&bob).len()), (2, 1));
    assert!(bob.inbox("").await.iter().all(|row| row["body"] != second.as_str()));

    let heard = proxy.heard();
    assert!(holds(&heard, b"topic_create") && holds(&heard, b"topic_epoch_new") && holds(&heard, b"topic_key_put"));
    assert!(holds(&heard, b"#") && holds(&heard, b"\"push\""));
    broker.stop().await;
    let mut places = files(&broker.dir());
    let names: Vec<&PathBuf> = places.iter().map(|(path, _)| path).collect();
    assert!(names.iter().any(|path| path.ends_with("broker.db")), "{names:?}");
    // What is public is found, so a secret would be as well.
    assert!(places.iter().any(|(_, bytes)| holds(bytes, description.as_bytes())));
    assert!(holds(&heard, description.as_bytes()));
    places.push(("the connections".into(), heard));
    places.push(("the output".into(), broker.output().into_bytes()));
    let mut secrets: Vec<Vec<u8>> = Vec::new();
    for text in [&first, &second] {
        secrets.extend([text.as_bytes().to_vec(), base64(text.as_bytes()).into_bytes()]);
    }
    for key in &keys {
        // Without the last digit of base64, which what follows changes.
        secrets.extend([key.clone(), hex::encode(key).into_bytes(), base64(key).as_bytes()[..42].to_vec()]);
    }
    for (place, bytes) in &places {
        for secret in &secrets {
            assert!(!holds(bytes, secret), "{}: {}", place.display(), String::from_utf8_lossy(secret));
        }
    }
    // A member's own files hold them, and nobody else may read those.
    assert!(files(alice.home()).iter().any(|(_, bytes)| holds(bytes, hex::encode(&keys[0]).as_bytes())));
    let mode = std::fs::metadata(alice.file("topic_keys.json")).expect("the keys").permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
}

#[tokio::test]
async fn who_is_not_certified_gets_no_key_until_it_is_admitted() {
    let broker = Broker::start().await;
    let alice = creator(&broker, &broker.url()).await;
    let bob = joined(&alice, "bob", &[]).await;
    let carol = joined(&alice, "carol", &["--plain"]).await;
    alice.cli(&["topic", "create", "ops"]).await.ok();
    for daemon in [&carol, &bob] {
        daemon.cli(&["topic", "subscribe", "ops"]).await.ok();
    }
    // Bob came later and has it.
    until_waiting(&bob, false).await;
    until_waiting(&carol, true).await;
    let text = unique("not for everybody");
    topic_post(&alice, &text).await;
    bob.received(&text).await;
    let db = carol.inbox_db().await;
    wait::until("the post to wait at carol's", async || {
        (db.number("SELECT count(*) FROM inbox_waiting").await == 1).then_some(())
    })
    .await;
    db.close().await;
    assert_eq!(carol.inbox("").await, Vec::<Value>::new());
    let copies_of = async |wanted: i64| {
        let db = broker.tables().await;
        assert_eq!(db.number("SELECT count(*) FROM topic_key").await, wanted);
        db.close().await;
    };
    copies_of(2).await;
    let waiting = alice.cli(&["topic", "admissions", "ops", "--json"]).await.ok().json();
    assert!(waiting.to_string().contains("carol"), "{waiting}");
    // Carol's own word does not help her; bob's and alice's do.
    carol.cli(&["topic", "admit", "ops", "carol"]).await.exits(1);
    copies_of(2).await;
    alice.cli(&["topic", "admit", "ops", "carol"]).await.ok();
    let row = carol.received(&text).await;
    assert_eq!((&row["topic"], &row["sender_name"]), (&json!("ops"), &json!("alice")), "{row}");
    copies_of(3).await;
    // An uncertified member cannot begin a topic that the others use, either.
    carol.cli(&["topic", "create", "dev"]).await.ok();
    alice.cli(&["topic", "subscribe", "dev"]).await.ok();
    let body = json!({"topic": "dev", "message": "a secret"});
    let id = alice.http().post("/v1/topic/post", &body).send().await.expect(202).json()["client_message_id"].clone();
    let db = alice.outbox_db().await;
    wait::until("the post to be held back", async || {
        let rest = format!("FROM outbox WHERE client_message_id = {}", id.to_string().replace('"', "'"));
        let row = db.objects("status, last_error", &rest).await.pop()?;
        (row["status"] == "pending" && row["last_error"].as_str()?.contains("without the owner's certificate"))
            .then_some(())
    })
    .await;
    db.close().await;
}
