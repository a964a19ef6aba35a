//! One daemon per user and mesh; what a crashed one leaves does not hinder the
//! next.

use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::broker::{Broker, read_trimmed};
use crate::support::daemon::{Daemon, Pair, unique};
use crate::support::fake_broker::FakeBroker;
use crate::support::mesh::Mesh;
use crate::support::process::binary;
use crate::support::{cli, tools};

// Covers: R7
#[tokio::test]
async fn a_second_daemon_of_the_same_mesh_is_refused() {
    let Pair { broker: _broker, alice, .. } = Pair::start().await;
    let before = read_trimmed(&alice.file("pid"));
    let second = alice.cli(&["daemon", "up", "--foreground", "--mesh", "demo"]).await.exits(4);
    assert!(second.stderr.contains("demo") || second.stderr.contains("lock"), "{}", second.stderr);
    assert_eq!(read_trimmed(&alice.file("pid")), before);
    alice.http().get("/v1/health").send().await.expect(200);
}

// Covers: R6, R7, R259
#[tokio::test]
async fn two_meshes_run_two_processes_with_nothing_in_common() {
    let broker = Broker::start().await;
    let (first, second) = (Mesh::create(&broker, "red").await, Mesh::create(&broker, "blue").await);
    let mut red = Daemon::join(&broker, &first, "alice").await;
    let link = second.invite(&broker, 1).await.link();
    cli::run(red.home(), &["join", &link, "--display-name", "alice"]).await.ok();
    let mut command = crate::support::process::command(red.home());
    command.args(["daemon", "up", "--foreground", "--mesh", "blue"]);
    let output = red.home().join("blue.out");
    let mut blue = crate::support::process::Process::spawn("blue", command, &output, Vec::new());
    let dir = red.home().join("daemon/blue");
    let http = crate::support::http::Target::unix(&dir.join("sock"));
    let health = crate::support::wait::until("the second daemon", async || {
        blue.assert_running();
        http.get("/v1/health").try_send().await.ok().filter(|answer| answer.status == 200)
    })
    .await
    .json();
    let other = red.http().get("/v1/health").send().await.expect(200).json();
    assert_eq!((&health["mesh"], &other["mesh"]), (&json!("blue"), &json!("red")));
    assert_ne!(health["member_pubkey"], other["member_pubkey"], "a key per mesh");
    assert_ne!(read_trimmed(&dir.join("pid")), read_trimmed(&red.file("pid")));
    for file in ["keypair.json", "local_token", "http.port", "instance"] {
        assert_ne!(read_trimmed(&dir.join(file)), read_trimmed(&red.file(file)), "{file}");
    }
    // The crash of one leaves the other untouched.
    blue.kill9();
    red.http().get("/v1/health").send().await.expect(200);
    red.process().assert_running();
}

// Covers: R188
#[tokio::test]
async fn what_a_killed_daemon_leaves_does_not_block_the_next() {
    let Pair { broker: _broker, mut alice, bob, .. } = Pair::start().await;
    for _ in 0..3 {
        alice.kill9();
        assert!(alice.file("sock").exists() && alice.file("pid").exists(), "a killed process cleans nothing up");
        alice.start().await;
        alice.connected().await;
        assert_eq!(read_trimmed(&alice.file("pid")), alice.process().pid().to_string());
    }
    let text = unique("after the kill");
    alice.send("bob", &text).await;
    bob.received(&text).await;
}

// Covers: R188
#[tokio::test]
async fn a_foreign_pid_and_a_dead_socket_do_not_block_a_start() {
    let Pair { broker: _broker, mut alice, .. } = Pair::start().await;
    alice.stop().await;
    // The pid of a live process that is no daemon: this test.
    std::fs::write(alice.file("pid"), std::process::id().to_string()).expect("a pid file");
    drop(std::os::unix::net::UnixListener::bind(alice.socket()).expect("a socket nobody serves"));
    alice.start().await;
}

// Covers: R9
#[tokio::test]
async fn twenty_programs_use_one_daemon_at_once() {
    let Pair { broker: _broker, alice, bob, .. } = Pair::start().await;
    let run = unique("run");
    let sends = (0..20).map(|caller| {
        let (alice, run) = (&alice, &run);
        async move {
            for number in 0..10 {
                alice.send("bob", &format!("{run} {caller}-{number}")).await;
            }
        }
    });
    futures_util::future::join_all(sends).await;
    let mut bodies = crate::support::wait::until("200 messages", async || {
        let rows = bob.inbox("").await;
        (rows.len() >= 200).then_some(rows)
    })
    .await
    .iter()
    .map(|row| row["body"].as_str().expect("a body").to_owned())
    .collect::<Vec<_>>();
    bodies.sort();
    bodies.dedup();
    assert_eq!(bodies.len(), 200, "each message once");
}

/// The binary alone in an empty root: no shell, no files of the system but the
/// C library that it is linked with.
// Covers: R1
#[tokio::test]
async fn the_one_binary_is_all_a_daemon_needs() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: only root can change the root directory");
    }
    let Some(chroot) = tools::system("chroot") else { return };
    let fake = FakeBroker::start().await;
    let mut daemon = fake.member("alice");
    let root = daemon.home().to_path_buf();
    for library in libraries() {
        let target = root.join(library.strip_prefix("/").expect("an absolute path"));
        std::fs::create_dir_all(target.parent().expect("a folder")).expect("a folder");
        std::fs::copy(&library, target).expect("a library");
    }
    std::fs::copy(binary(), root.join("claudemesh")).expect("the binary");
    let mut command = std::process::Command::new(chroot);
    command.env_clear().env("CLAUDEMESH_HOME", "/").arg(&root);
    command.args(["/claudemesh", "daemon", "up", "--foreground", "--mesh", "demo"]);
    daemon.start_as(command).await;
    let _client = fake.connect().await;
}

/// The shared objects that the binary is linked with.
fn libraries() -> Vec<PathBuf> {
    let output = std::process::Command::new("ldd").arg(binary()).output().expect("ldd runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let paths: Vec<PathBuf> = text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect();
    assert!(paths.iter().all(|path| Path::new("/lib64").exists() || path.exists()), "{text}");
    paths
}

#[tokio::test]
async fn status_tells_what_runs() {
    let Pair { broker: _broker, alice, mut bob, .. } = Pair::start().await;
    let status = alice.cli(&["daemon", "status", "--json"]).await.ok().json();
    let rows = status["daemons"].as_array().expect("daemons");
    assert_eq!(rows.len(), 1, "{status}");
    let row = &rows[0];
    assert_eq!((&row["mesh"], &row["running"]), (&json!("demo"), &json!(true)), "{row}");
    assert_eq!(row["status"]["link"]["state"], "connected", "{row}");
    let pid: u32 = read_trimmed(&alice.file("pid")).parse().expect("a pid");
    assert_eq!(row["status"]["process"]["pid"], pid, "{row}");
    bob.stop().await;
    let stopped = bob.cli(&["daemon", "status", "--mesh", "demo", "--json"]).await;
    assert_eq!(stopped.code, 3, "{stopped:?}");
    assert!(!stopped.stdout.contains("\"running\": true"), "{stopped:?}");
}

#[tokio::test]
async fn up_detaches_and_down_ends_it() {
    let broker = Broker::start().await;
    let mesh = Mesh::create(&broker, "demo").await;
    let alice = Daemon::joined(&broker, &mesh, "alice").await;
    let up = alice.cli(&["daemon", "up", "--mesh", "demo"]).await.ok();
    // It answered before the command returned: no waiting here.
    alice.http().get("/v1/health").send().await.expect(200);
    assert!(up.stdout.contains(&read_trimmed(&alice.file("pid"))), "{}", up.stdout);
    alice.cli(&["daemon", "up", "--mesh", "demo"]).await.exits(4);
    alice.cli(&["daemon", "down", "--mesh", "demo"]).await.ok();
    assert!(!alice.file("pid").exists() && !alice.socket().exists());
    assert_eq!(alice.cli(&["daemon", "down", "--mesh", "demo"]).await.code, 3);
}
