//! Whom the mesh's owner let in, as each daemon finds out for itself.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{pinned, rotation};
use crate::support::broker::Broker;
use crate::support::daemon::Daemon;
use crate::support::fake_broker::FakeBroker;
use crate::support::keys::{self, Key};
use crate::support::mesh::certificate;
use crate::support::process;
use crate::support::wait;

/// The creator of a mesh on the broker, whose daemon does not run yet.
async fn creator(broker: &Broker, url: &str) -> Daemon {
    let alice = Daemon::unjoined("demo", "alice");
    let token = broker.admin_token_file().display().to_string();
    let create = ["mesh", "create", "demo", "--broker", url, "--admin-token-file", &token, "--display-name", "alice"];
    alice.cli(&create).await.ok();
    alice
}

async fn link(owner: &Daemon, more: &[&str]) -> String {
    let made = owner.cli(&[&["mesh", "invite", "demo"], more].concat()).await.ok();
    assert!(made.stderr.contains("the link is a secret"), "{}", made.stderr);
    made.stdout.trim().to_owned()
}

async fn certified(daemon: &Daemon, name: &str) -> bool {
    pinned(daemon, name).await["certified"].as_bool().expect("a yes or no")
}

async fn becomes_certified(daemon: &Daemon, name: &str) {
    daemon.knows(name).await;
    wait::until(&format!("{name} to be certified"), async || certified(daemon, name).await.then_some(())).await;
}

// Covers: R335
#[tokio::test]
async fn who_joined_by_a_whole_link_is_certified_at_every_other_daemon() {
    let broker = Broker::start().await;
    let mut alice = creator(&broker, &broker.url()).await;
    let plain = link(&alice, &["--plain"]).await;
    assert!(!plain.contains('#'), "{plain}");
    let mut bob = Daemon::joined_by(&link(&alice, &[]).await, "demo", "bob").await;
    let mut carol = Daemon::joined_by(&plain, "demo", "carol").await;
    for daemon in [&mut alice, &mut bob, &mut carol] {
        daemon.start().await;
    }
    for daemon in [&alice, &bob, &carol] {
        for name in ["alice", "bob", "carol"] {
            daemon.knows(name).await;
            assert_eq!(certified(daemon, name).await, name != "carol", "{name}");
        }
    }
    let seen = carol.cli(&["verify", "bob"]).await.ok();
    assert!(seen.stdout.contains("by the mesh's owner"), "{}", seen.stdout);
    let seen = bob.cli(&["verify", "carol"]).await.ok();
    assert!(seen.stdout.contains("nothing shows that the owner did"), "{}", seen.stdout);

    // A member of before gets one with a link that it is given later, and brings
    // it to the broker by itself.
    let again = carol.cli(&["join", &link(&alice, &[]).await]).await.ok();
    assert!(again.stdout.starts_with("already joined"), "{}", again.stdout);
    carol.stop().await;
    carol.start().await;
    becomes_certified(&carol, "carol").await;
    let db = broker.tables().await;
    wait::until("the broker to have all three", async || {
        (db.number("SELECT count(*) FROM member WHERE certificate IS NOT NULL").await == 3).then_some(())
    })
    .await;
    db.close().await;
    alice.stop().await;
    alice.start().await;
    becomes_certified(&alice, "carol").await;
}

#[tokio::test]
async fn a_new_key_takes_the_certificate_along() {
    let broker = Broker::start().await;
    let mut alice = creator(&broker, &broker.url()).await;
    let mut bob = Daemon::joined_by(&link(&alice, &[]).await, "demo", "bob").await;
    alice.start().await;
    bob.start().await;
    bob.connected().await;
    alice.knows("bob").await;
    for _ in 0..2 {
        let old = bob.public();
        bob.cli(&["daemon", "rotate-keypair"]).await.ok();
        wait::until("the new key", async || (pinned(&alice, "bob").await["pubkey"] != old).then_some(())).await;
        assert!(certified(&alice, "bob").await);
        becomes_certified(&bob, "bob").await;
    }
    // Also for a daemon that reads all of it anew, and one that never saw the old key.
    alice.stop().await;
    alice.start().await;
    becomes_certified(&alice, "bob").await;
    let mut dora = Daemon::joined_by(&link(&alice, &[]).await, "demo", "dora").await;
    dora.start().await;
    becomes_certified(&dora, "bob").await;
}

/// A daemon of the fake broker's mesh whose invite was this owner's.
async fn invited_by(fake: &FakeBroker, owner: &Key) -> Daemon {
    let alice = fake.member("alice");
    let path = alice.home().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).expect("config.json")).expect("JSON");
    config["meshes"][0]["ownerPubkey"] = json!(owner.public());
    std::fs::write(&path, config.to_string()).expect("config.json");
    alice
}

// Covers: R335
#[tokio::test]
async fn a_broker_that_forges_or_swaps_certificates_is_not_believed() {
    let (owner, fake) = (Key::random(), FakeBroker::start().await);
    let mut alice = invited_by(&fake, &owner).await;
    alice.start().await;
    let mut client = fake.link(&alice).await;
    let bob = fake.bob.public();
    let good = certificate("FakeMesh", &owner, &bob, "member");
    let mut risen = good.clone();
    risen["role"] = json!("admin");
    let mut renamed = certificate("FakeMesh", &owner, &Key::random().public(), "member");
    renamed["memberPubkey"] = json!(bob);
    let lies = [
        certificate("FakeMesh", &Key::random(), &bob, "member"),
        certificate("OtherMesh", &owner, &bob, "member"),
        // Of somebody who was let in indeed.
        certificate("FakeMesh", &owner, &Key::random().public(), "member"),
        risen,
        renamed,
        json!({}),
    ];
    for (number, lie) in lies.iter().enumerate() {
        // The name tells that this roster has been read.
        let name = format!("bob-{number}");
        client.bob_row = json!({"displayName": name, "certificate": lie});
        client.tell_roster().await;
        alice.knows(&name).await;
        assert!(!certified(&alice, &name).await, "{lie}");
    }
    client.bob_row = json!({"certificate": good});
    client.tell_roster().await;
    becomes_certified(&alice, "bob").await;

    // It follows a signed change of the key, and hiding it takes nothing away.
    let next = Key::random();
    let chain = [rotation("member-bob", 1, &fake.bob, &next)];
    client.bob_row = json!({"displayName": "rotated", "pubkey": next.public(), "rotations": chain});
    client.tell_roster().await;
    alice.knows("rotated").await;
    assert!(certified(&alice, "rotated").await);
    // Not to a key that is shown without one, also when the operator accepts it.
    let swapped = Key::random();
    client.bob_row = json!({"displayName": "swapped", "pubkey": swapped.public(), "certificate": good});
    client.tell_roster().await;
    alice.knows("swapped").await;
    alice.cli(&["verify", "member-bob", "--accept"]).await.ok();
    assert!(!certified(&alice, "swapped").await);
}

#[tokio::test]
async fn a_daemon_without_an_owners_key_certifies_nobody() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let mut client = fake.link(&alice).await;
    // Whoever the broker calls the owner.
    let good = certificate("FakeMesh", &Key::random(), &fake.bob.public(), "admin");
    client.bob_row = json!({"displayName": "bob-1", "certificate": good, "ownerPubkey": Key::random().public()});
    client.tell_roster().await;
    alice.knows("bob-1").await;
    assert!(!certified(&alice, "bob-1").await);
}

/// Passes everything on and keeps what goes to the broker.
struct Tee {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Tee {
    async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a bound port");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&heard);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(target).await.expect("the broker");
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let heard = Arc::clone(&shared);
                tokio::spawn(async move {
                    let mut buffer = vec![0; 16 * 1024];
                    while let Ok(length @ 1..) = from_client.read(&mut buffer).await {
                        heard.lock().expect("no holder panicked").extend_from_slice(&buffer[..length]);
                        if to_server.write_all(&buffer[..length]).await.is_err() {
                            return;
                        }
                    }
                });
                tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
            }
        });
        Self { address, heard }
    }

    fn heard(&self) -> Vec<u8> {
        self.heard.lock().expect("no holder panicked").clone()
    }
}

fn holds(bytes: &[u8], what: &[u8]) -> bool {
    bytes.windows(what.len()).any(|window| window == what)
}

/// Every file below a directory.
fn files(dir: &std::path::Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let entries = std::fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => files(&path),
            false => std::fs::read(&path).map(|bytes| vec![(path, bytes)]).unwrap_or_default(),
        })
        .collect()
}

#[tokio::test]
async fn what_stands_behind_the_token_never_leaves_the_hosts() {
    let broker = Broker::start().await;
    let tee = Tee::to(broker.address()).await;
    let mut alice = creator(&broker, &format!("ws://{}/ws", tee.address)).await;
    let link = link(&alice, &["--uses", "3"]).await;
    let mut bob = Daemon::joined_by(&link, "demo", "bob").await;
    alice.start().await;
    bob.start().await;
    alice.knows("bob").await;
    bob.knows("alice").await;
    assert!(certified(&alice, "bob").await);
    // As it stands in the link, as bytes, as digits; and without its last bits, which
    // base64 mixes with what follows.
    let (token, fragment) = link.rsplit_once('/').expect("a link").1.split_once('#').expect("a key");
    let bytes = base64_url(fragment);
    assert_eq!(bytes.len(), 96, "seed and signature");
    let seed = &bytes[..32];
    let forms = [fragment[..42].as_bytes().to_vec(), seed.to_vec(), hex::encode(seed).into_bytes()];
    let heard = tee.heard();
    assert!(holds(&heard, b"POST /join") && holds(&heard, b"/invites") && holds(&heard, token.as_bytes()));
    // Only the owner's signature of it may be known: it is part of the certificate.
    assert!(holds(&heard, hex::encode(&bytes[32..]).as_bytes()), "the certificate came along");
    let mut places = vec![("the connections".into(), heard)];
    for dir in [broker.dir().as_path(), alice.home(), bob.home()] {
        places.extend(files(dir));
    }
    assert!(places.iter().any(|(path, _)| path.ends_with("broker.db")), "the broker's database");
    for (place, bytes) in &places {
        assert!(forms.iter().all(|form| !holds(bytes, form)), "{}", place.display());
    }
    assert!(!broker.output().contains(fragment));
    // The whole link is refused when it was damaged on the way, and costs nothing.
    let home = process::directory();
    let cut = &link[..link.len() - 20];
    let refused = crate::support::cli::run(home.path(), &["join", cut]).await.exits(1);
    assert!(refused.stderr.contains("invite_invalid") && refused.stderr.contains('#'), "{}", refused.stderr);
    assert!(!refused.stderr.contains(&fragment[..20]), "{}", refused.stderr);
}

fn base64_url(text: &str) -> Vec<u8> {
    let standard: String = text.replace('-', "+").replace('_', "/");
    keys::from_base64(&standard)
}
