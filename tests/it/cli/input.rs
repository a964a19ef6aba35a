//! `send -`: what standard input may hold.

use crate::support::cli::{Ran, run, run_with_input};
use crate::support::daemon::Daemon;
use crate::support::fake_broker::FakeBroker;
use crate::support::process;

async fn send(input: Vec<u8>) -> crate::support::cli::Ran {
    let home = process::directory();
    run_with_input(home.path(), &["send", "bob", "-", "--json", "--mesh", "demo"], input).await
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_before_any_daemon_is_asked() {
    let empty = send(Vec::new()).await.exits(2);
    assert!(empty.error()["message"].as_str().is_some_and(|text| text.contains("empty")), "{}", empty.stderr);
    let binary = send(b"ab\xff\xfe".to_vec()).await.exits(2);
    assert!(binary.error()["message"].as_str().is_some_and(|text| text.contains("byte 2")), "{}", binary.stderr);
    let large = send(vec![b'a'; 3 << 20]).await.exits(2);
    assert_eq!(large.error()["code"], "payload_too_large");
    assert!(large.stderr.contains("1048576 bytes"), "{}", large.stderr);
    // An input that is fine comes as far as the daemon, which is not there.
    assert_eq!(send(b"hi".to_vec()).await.error()["code"], "mesh_not_joined");
}

#[tokio::test]
async fn a_text_arrives_as_it_is() {
    let fake = FakeBroker::start().await;
    let mut alice: Daemon = fake.member("alice");
    alice.start().await;
    let _client = fake.link(&alice).await;
    let text = "line one\n\u{1F980} \"quoted\" \\ \t and no end of line";
    let ran = run_with_input(alice.home(), &["send", "bob", "-", "--json"], text.into()).await.ok();
    let db = alice.outbox_db().await;
    let rows = db.objects("CAST(payload AS TEXT), client_message_id", "FROM outbox").await;
    db.close().await;
    let stored = rows[0].as_object().expect("a row");
    assert!(stored.values().any(|value| value == text), "{rows:?}");
    assert!(stored.values().any(|value| *value == ran.json()["client_message_id"]), "{rows:?}");
    let empty = run(alice.home(), &["send", "bob", ""]).await.exits(2);
    assert!(empty.stderr.contains("invalid_argument"), "{}", empty.stderr);
}

/// A value that cannot be read is not taken for one that is not set.
#[tokio::test]
async fn a_variable_that_is_no_text_is_named() {
    use std::os::unix::ffi::OsStrExt as _;
    let home = process::directory();
    let wrong = std::ffi::OsStr::from_bytes(b"/tmp/x\xff");
    for name in ["CLAUDEMESH_DAEMON_SOCK", "CLAUDEMESH_MESH", "CLAUDEMESH_BROKER_LISTEN", "HOME", "https_proxy"] {
        let mut command = process::command(home.path());
        let output = command.args(["peer", "list", "--json"]).env(name, wrong).output().expect("the binary runs");
        let ran = Ran::of(&output).exits(10);
        assert!(ran.error()["code"] == "config_invalid" && ran.stderr.contains(name), "{name}: {}", ran.stderr);
    }
    // Nor is one that has no end read for ever.
    let mut command = process::command(home.path());
    command.env("CLAUDEMESH_ADDR", "127.0.0.1:9").env("CLAUDEMESH_TOKEN_FILE", "/dev/zero");
    let output = command.args(["peer", "list", "--json"]).output().expect("the binary runs");
    assert!(Ran::of(&output).stderr.contains("/dev/zero"), "{}", String::from_utf8_lossy(&output.stderr));
}
