//! What cannot be taken back is asked about on a terminal, and not elsewhere.

use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;

use crate::support::broker::Broker;
use crate::support::daemon::Daemon;
use crate::support::mesh::Mesh;
use crate::support::{process, tools, wait};

/// Runs the command on a terminal where this is typed: its exit code and what it showed.
async fn typed(daemon: &Daemon, arguments: &str, typed: &str) -> Option<(i32, String)> {
    let script = tools::system("script")?;
    let mut command = process::with_program(&script, daemon.home());
    command.args(["--quiet", "--return", "--command"]).arg(format!("{} {arguments}", process::binary()));
    command.arg("/dev/null").env("TERM", "dumb").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().expect("script runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(typed.as_bytes()).await.expect("it is read");
    let output = wait::soon("the command", child.wait_with_output()).await.expect("script runs");
    drop(stdin);
    Some((output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stdout).into_owned()))
}

fn is_joined(daemon: &Daemon) -> bool {
    let text = std::fs::read_to_string(daemon.home().join("config.json")).expect("config.json");
    let config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    config["meshes"].as_array().is_some_and(|meshes| !meshes.is_empty())
}

#[tokio::test]
async fn a_terminal_is_asked_before_a_mesh_is_left() {
    let broker = Broker::start().await;
    let mesh = Mesh::create(&broker, "demo").await;
    let bob = Daemon::joined(&broker, &mesh, "bob").await;
    let Some((code, said)) = typed(&bob, "mesh leave demo", "n\n").await else { return };
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("Go on? [y/N]") && said.contains("nothing was changed"), "{said}");
    assert!(is_joined(&bob));
    let (code, said) = typed(&bob, "mesh leave demo", "y\n").await.expect("script is there");
    assert_eq!(code, 0, "{said}");
    assert!(!is_joined(&bob), "{said}");
    // Scripts say it on the command line, or have no terminal.
    let carol = Daemon::joined(&broker, &mesh, "carol").await;
    let (code, said) = typed(&carol, "mesh leave demo --yes", "").await.expect("script is there");
    assert_eq!((code, said.contains("Go on?")), (0, false), "{said}");
    let dave = Daemon::joined(&broker, &mesh, "dave").await;
    dave.cli(&["mesh", "leave", "demo"]).await.ok();
}

#[tokio::test]
async fn a_terminal_is_asked_before_a_key_is_replaced_or_confirmed() {
    let broker = Broker::start().await;
    let mesh = Mesh::create(&broker, "demo").await;
    let mut alice = Daemon::join(&broker, &mesh, "alice").await;
    let _bob = Daemon::join(&broker, &mesh, "bob").await;
    alice.connected().await;
    alice.knows("bob").await;
    let before = alice.public();
    let Some((code, said)) = typed(&alice, "daemon rotate-keypair", "\n").await else { return };
    assert_eq!((code, said.contains("Go on?")), (2, true), "{said}");
    assert_eq!(alice.public(), before);
    let (code, said) = typed(&alice, "verify bob --confirm", "no\n").await.expect("script is there");
    assert_eq!((code, said.contains("is marked as verified, if")), (2, true), "{said}");
    assert!(alice.cli(&["verify", "bob"]).await.ok().stdout.contains("not verified"));
    let (code, said) = typed(&alice, "verify bob --confirm", "yes\n").await.expect("script is there");
    assert_eq!((code, said.contains("verified on")), (0, true), "{said}");
    alice.stop().await;
}
