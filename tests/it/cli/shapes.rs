//! What each verb prints with `--json`: names and types, as a contract.

use serde_json::{Map, Value, json};

use crate::support::broker::Broker;
use crate::support::cli::{Running, run};
use crate::support::daemon::{Daemon, Pair};
use crate::support::{process, wait};

/// Values as the names of their types; of a list its first entry.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null => json!("null"),
        Value::Bool(_) => json!("bool"),
        Value::Number(_) => json!("number"),
        Value::String(_) => json!("string"),
        Value::Array(items) => items.first().map_or_else(|| json!([]), |first| json!([shape(first)])),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), shape(value))).collect::<Map<_, _>>())
        }
    }
}

#[track_caller]
fn same(name: &str, value: &Value) {
    insta::assert_json_snapshot!(name, shape(value));
}

#[tokio::test]
async fn of_verbs_that_talk_to_a_daemon() {
    let Pair { broker: _broker, mesh: _mesh, alice, bob } = Pair::start().await;
    let of = async |daemon: &Daemon, line: &str| {
        let mut arguments: Vec<&str> = line.split(' ').collect();
        arguments.push("--json");
        daemon.cli(&arguments).await.ok().json()
    };
    wait::until("alice to see bob", async || {
        let peers = of(&alice, "peer list --online").await;
        (peers["peers"].as_array()?.len() == 2).then_some(())
    })
    .await;
    same("send", &of(&alice, "send bob hi").await);
    same("send_wait", &of(&alice, "send bob hi --wait delivered --id one --meta {\"a\":1}").await);
    same("send_duplicate", &of(&alice, "send bob hi --id one --meta {\"a\":1}").await);
    same("inbox", &of(&bob, "inbox").await);
    assert_eq!(of(&bob, "inbox").await, of(&bob, "daemon inbox").await);
    let mut followed = Running::start(bob.home(), &["inbox", "-f", "-n", "1", "--json"]);
    same("inbox_follow", &followed.json().await);
    let mut followed = Running::start(bob.home(), &["events", "-f", "--after", "none", "--type", "message", "--json"]);
    let gap = followed.json().await;
    same("events_gap", &gap);
    same("events_message", &followed.json().await);
    let mut peers = of(&alice, "peer list").await;
    // Its own row comes first, by name; of the other one more is known.
    peers["peers"].as_array_mut().expect("peers").rotate_left(1);
    same("peer_list", &peers);
    same("profile", &of(&alice, "profile").await);
    same("daemon_status", &of(&alice, "daemon status").await);
    same("daemon_status_of_one", &of(&alice, "daemon status --mesh demo").await);
    same("daemon_reload", &of(&alice, "daemon reload").await);
}

#[tokio::test]
async fn of_verbs_that_start_and_stop() {
    let broker = Broker::start().await;
    let home = process::directory();
    let token = broker.admin_token_file();
    let of = async |line: &str| {
        let mut arguments: Vec<&str> = line.split(' ').collect();
        arguments.push("--json");
        run(home.path(), &arguments).await.ok().json()
    };
    let create = format!("mesh create demo --broker {} --admin-token-file {}", broker.url(), token.display());
    same("mesh_create", &of(&create).await);
    let invite = of("mesh invite demo").await;
    same("mesh_invite", &invite);
    same("mesh_list", &of("mesh list").await);
    let other = process::directory();
    let link = invite["link"].as_str().expect("a link");
    let first = run(other.path(), &["join", link, "--json"]).await.ok().json();
    same("join", &first);
    let again = run(other.path(), &["join", link, "--json"]).await.ok().json();
    assert_eq!((&first["already_joined"], &again["already_joined"]), (&json!(false), &json!(true)));
    same("daemon_up", &of("daemon up").await);
    same("daemon_restart", &of("daemon restart").await);
    same("daemon_down", &of("daemon down").await);
    same("daemon_recover", &of("daemon recover").await);
    same("explain", &of("explain unknown_peer").await);
    let stopped = run(home.path(), &["daemon", "status", "--mesh", "demo", "--json"]).await.exits(3);
    same("daemon_status_of_a_stopped_one", &stopped.json());
    same("error", &stopped.error());
}
