//! What leaves a daemon opens with libsodium under the right key, and under no
//! other; what libsodium seals, a daemon opens.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::daemon::{Daemon, Pair, unique};
use crate::support::raw::{Raw, plain_send};
use crate::support::sqlite::Db;
use crate::support::{keys, tools};

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/interop").join(name)
}

/// Standard output of a script, which must succeed.
fn python(python: &Path, name: &str, arguments: &[&str]) -> String {
    let output = std::process::Command::new(python).arg(script(name)).args(arguments).output().expect("Python runs");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

fn secret(daemon: &Daemon) -> String {
    daemon.config_member()["secretKey"].as_str().expect("a key").to_owned()
}

/// The first bytes of our envelope; no UTF-8 text begins with them.
const ENVELOPE: &str = "ff434d33";

// Covers: R335, R415
#[tokio::test]
async fn what_the_broker_holds_opens_for_the_receiver_alone() {
    let Some(interpreter) = tools::python() else { return };
    let Pair { broker, mesh, alice, bob } = Pair::start().await;
    let carol = Daemon::joined(&broker, &mesh, "carol").await;
    let text = unique("between alice and bob");
    let id = alice.send("bob", &text).await;
    bob.received(&text).await;
    let db = Db::open(&broker.database()).await;
    let rest = format!("FROM message_queue WHERE client_message_id = '{id}'");
    let row = &db.objects("hex(nonce), hex(ciphertext), sender_pubkey", &rest).await[0];
    db.close().await;
    assert_eq!(row["sender_pubkey"], alice.public().as_str());
    let bytes = |name: &str| keys::base64(&hex::decode(row[name].as_str().expect("hex")).expect("hex"));
    let (nonce, ciphertext) = (bytes("hex(nonce)"), bytes("hex(ciphertext)"));
    let open = |secret: &str, public: &str| python(&interpreter, "open_box.py", &[secret, public, &nonce, &ciphertext]);
    let opened = open(&secret(&bob), &alice.public());
    assert!(opened.starts_with(ENVELOPE), "{opened}");
    assert!(opened.contains(&hex::encode(&text)), "the text is inside");
    // A box opens from both ends; from no third one.
    assert_eq!(open(&secret(&alice), &bob.public()), opened);
    for third in [(&carol, &alice), (&carol, &bob), (&bob, &carol)] {
        assert_eq!(open(&secret(third.0), &third.1.public()), "closed");
    }

    // The text is nowhere in the broker's directory, in no spelling.
    for entry in std::fs::read_dir(broker.dir()).expect("the broker's directory") {
        let path = entry.expect("an entry").path();
        let Ok(bytes) = std::fs::read(&path) else { continue };
        for needle in [text.clone(), keys::base64(text.as_bytes()), hex::encode(&text)] {
            let found = bytes.windows(needle.len()).any(|part| part == needle.as_bytes());
            assert!(!found, "{needle:?} is in {}", path.display());
        }
    }
}

#[tokio::test]
async fn raw_text_goes_to_a_client_without_envelopes_and_comes_back() {
    let Some(interpreter) = tools::python() else { return };
    let Pair { broker, mesh, alice, bob: _bob } = Pair::start().await;
    let legacy = mesh.join(&broker, "legacy").await;
    let stranger = mesh.join(&broker, "stranger").await;
    let mut raw = Raw::member(&broker.url(), &legacy).await;
    alice.knows("legacy").await;
    let text = unique("für alte Clients");
    alice.send("legacy", &text).await;
    let push = raw.message().await;
    let field = |name: &str| push[name].as_str().expect("base64").to_owned();
    let open = |secret: &str| {
        python(&interpreter, "open_box.py", &[secret, &alice.public(), &field("nonce"), &field("ciphertext")])
    };
    assert_eq!(open(&legacy.key.secret()), hex::encode(&text), "the bare text, nothing around it");
    assert_eq!(open(&stranger.key.secret()), "closed");

    let back = unique("zurück");
    let sealed = python(&interpreter, "seal_box.py", &[&legacy.key.secret(), &alice.public(), &back]);
    let (nonce, ciphertext) = sealed.split_once('\n').expect("two lines");
    let mut frame = plain_send(&alice.public());
    frame["nonce"] = json!(nonce.trim());
    frame["ciphertext"] = json!(ciphertext.trim());
    raw.request(frame).await;
    assert_eq!(alice.received(&back).await["sender_name"], "legacy");
}
