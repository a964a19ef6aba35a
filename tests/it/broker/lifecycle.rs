//! The broker as a process: its files, its health, its settings, its end.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::json;

use crate::support::broker::Broker;
use crate::support::mesh::RawMesh;
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::process::Process;
use crate::support::raw::Raw;
use crate::support::{cli, process, wait};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o777
}

#[tokio::test]
async fn its_files_are_private_and_it_says_where_it_listens() {
    let broker = Broker::start().await;
    assert_eq!(mode(&broker.dir()), 0o700);
    for file in ["admin_token", "addr", "broker.db"] {
        assert_eq!(mode(&broker.dir().join(file)), 0o600, "{file}");
    }
    let token = broker.admin_token();
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(&token).expect("base64url without padding");
    assert_eq!(bytes.len(), 32);
    let said = broker.output();
    let line = said.lines().find(|line| line.contains("listens on")).expect("one line says where it listens");
    assert!(line.contains(&broker.url()) && line.contains("broker.db"), "{line}");
    assert!(!said.contains(&token), "the admin token is no part of the output");
}

async fn health_for_people_probes_and_legacy_clients(backend: Backend) {
    let broker = Broker::on(backend).await;
    for path in ["/healthz", "/readyz"] {
        broker.http().get(path).send().await.expect(200);
        let probe = broker.http().request("HEAD", path).send().await.expect(200);
        assert!(probe.text().is_empty(), "{}", probe.text());
    }
    let legacy = broker.http().get("/health").send().await.expect(200).json();
    assert_eq!(legacy["status"], "ok", "{legacy}");
    assert_eq!(legacy["db"], "up", "{legacy}");
    assert!(legacy["version"].is_string() && legacy["uptime"].is_number(), "{legacy}");
    assert!(legacy.get("gitSha").is_some(), "{legacy}");
    let metrics = broker.http().get("/metrics").send().await.expect(200);
    assert!(metrics.header("content-type").is_some_and(|kind| kind.contains("text")), "{:?}", metrics.headers);
    assert!(metrics.text().contains("# TYPE "), "{}", metrics.text());
    assert_eq!(broker.http().get("/nothing").send().await.status, 404);
}

async fn a_clean_stop_tells_its_connections_and_exits_with_0(backend: Backend) {
    let mut mesh = RawMesh::start(backend).await;
    let (_, mut raw) = mesh.connected("alice").await;
    mesh.broker.process().terminate();
    raw.expect_close(1001, "shutting down").await;
    let status = mesh.broker.process().wait().await;
    assert_eq!(status.code(), Some(0), "{}", mesh.broker.output());
    assert!(!mesh.broker.dir().join("addr").exists(), "the address is gone with the listener");
}

async fn a_stop_tells_daemons_when_to_come_back(backend: Backend) {
    let mut mesh = RawMesh::start(backend).await;
    let alice = mesh.member("alice").await;
    let (mut daemon, _) =
        Raw::daemon(&mesh.url(), &alice, "01J0000000000000000000000A", "01J00000000000000000000001").await;
    let (_, mut legacy) = mesh.connected("bob").await;
    mesh.broker.process().terminate();
    let frames = daemon.expect_close(1001, "shutting down").await;
    let drain = frames.last().unwrap_or_else(|| panic!("no frame before the close"));
    assert_eq!(drain["type"], "drain", "{frames:?}");
    assert!(drain["reconnectAfterMs"].as_u64().is_some_and(|ms| (1..=30_000).contains(&ms)), "{drain}");
    let frames = legacy.expect_close(1001, "shutting down").await;
    assert!(frames.iter().all(|frame| frame["type"] != "drain"), "old clients know no drain: {frames:?}");
}

async fn state_survives_a_stop_and_a_kill(backend: Backend) {
    let mut mesh = RawMesh::start(backend).await;
    let alice = mesh.member("alice").await;
    let token = mesh.broker.admin_token();
    mesh.broker.stop().await;
    mesh.broker.restart().await;
    Raw::member(&mesh.url(), &alice).await;
    mesh.broker.kill9();
    mesh.broker.restart().await;
    Raw::member(&mesh.url(), &alice).await;
    assert_eq!(mesh.broker.admin_token(), token);
}

#[tokio::test]
async fn one_directory_has_one_broker() {
    let broker = Broker::start().await;
    let home = process::directory();
    let dir = broker.dir();
    let arguments = ["broker", "serve", "--listen", "127.0.0.1:0", "--dir", dir.to_str().expect("UTF-8")];
    let second = cli::run(home.path(), &arguments).await.exits(4);
    assert!(second.stderr.contains(dir.to_str().expect("UTF-8")), "{}", second.stderr);
    broker.http().get("/readyz").send().await.expect(200);
    assert_eq!(broker.address().to_string(), crate::support::broker::read_trimmed(&dir.join("addr")));
}

#[tokio::test]
async fn a_setting_that_is_wrong_is_named() {
    let home = process::directory();
    let dir = home.path().join("broker");
    std::fs::create_dir(&dir).expect("a directory");
    for (toml, named) in [
        ("lissten = \"127.0.0.1:0\"\n", "lissten"),
        ("listen = 7\n", "listen"),
        ("dedupe_retention_days = 1\n", "dedupe_retention_days"),
    ] {
        std::fs::write(dir.join("broker.toml"), toml).expect("broker.toml");
        let arguments = ["broker", "serve", "--dir", dir.to_str().expect("UTF-8")];
        let refused = cli::run(home.path(), &arguments).await.exits(10);
        assert!(refused.stderr.contains(named) && refused.stderr.contains("broker.toml"), "{}", refused.stderr);
    }
}

async fn a_silent_connection_does_not_hinder_others(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(tokio::net::TcpStream::connect(mesh.broker.address()).await.expect("a connection"));
    }
    let (_, mut raw) = wait::soon("a member", mesh.connected("alice")).await;
    let (answer, _) = raw.request(json!({"type": "list_peers"})).await;
    assert_eq!(answer["type"], "peers_list");
}

on_both_databases! {
    a_stop_tells_daemons_when_to_come_back,
    health_for_people_probes_and_legacy_clients,
    a_clean_stop_tells_its_connections_and_exits_with_0,
    state_survives_a_stop_and_a_kill,
    a_silent_connection_does_not_hinder_others,
}

/// Each member holds a connection; shells and service managers often start a
/// program with 1,024 open files.
#[tokio::test]
async fn a_broker_may_open_as_many_files_as_the_system_allows() {
    let root = process::directory();
    let directory = root.path().join("broker");
    let mut command = process::with_program(Path::new("/bin/sh"), root.path());
    let script = r#"ulimit -S -n 64 && exec "$0" "$@""#;
    command.args(["-c", script, process::binary(), "broker", "serve", "--listen", "127.0.0.1:0", "--dir"]);
    command.arg(&directory);
    let mut broker = Process::spawn("broker", command, &root.path().join("output"), Vec::new());
    wait::until("its address", async || {
        broker.assert_running();
        directory.join("addr").is_file().then_some(())
    })
    .await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", broker.pid())).expect("its limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
    let [soft, hard] = [3, 4].map(|column| line.split_whitespace().nth(column).expect("a number"));
    assert!(soft == hard && soft != "64", "{line}");
}
