//! The state directory: every file, its mode and its content.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::Path;

use base64::Engine as _;
use serde_json::Value;

use crate::support::broker::read_trimmed;
use crate::support::cli::Ran;
use crate::support::daemon::{Daemon, Pair, unique};
use crate::support::fake_broker::FakeBroker;
use crate::support::process::{self, binary};
use crate::support::{tools, wait};

/// Every entry below `folder` by its path there, with its mode.
fn modes(folder: &Path) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).expect("a directory can be listed") {
            let entry = entry.expect("an entry");
            let data = std::fs::symlink_metadata(entry.path()).expect("an entry has metadata");
            let name = entry.path().strip_prefix(folder).expect("below the folder").display().to_string();
            found.insert(name, data.permissions().mode() & 0o7777);
            if data.is_dir() {
                open.push(entry.path());
            }
        }
    }
    found
}

/// Starts a daemon under umask 000, so that only its own care protects it.
async fn start_with_open_umask(daemon: &mut Daemon) {
    let mut command = process::with_program(Path::new("/bin/sh"), daemon.home());
    let script = format!("umask 000; exec {} daemon up --foreground --mesh demo", binary());
    command.args(["-c", &script]);
    daemon.start_as(command).await;
}

// Covers: R10-R21, R23, R26, R336
#[tokio::test]
async fn every_file_has_its_place_and_its_mode() {
    let Pair { broker, mesh, .. } = Pair::start().await;
    let mut carol = Daemon::joined(&broker, &mesh, "carol").await;
    let before = modes(carol.home());
    start_with_open_umask(&mut carol).await;
    carol.connected().await;
    let bob = unique("hello");
    carol.send("bob", &bob).await;

    let found = modes(&carol.dir());
    for (file, mode) in [
        ("pid", 0o600),
        ("sock", 0o600),
        ("http.port", 0o644),
        ("local_token", 0o600),
        ("keypair.json", 0o600),
        ("host_fingerprint.json", 0o600),
        ("config.toml", 0o644),
        ("outbox.db", 0o600),
        ("outbox.db-wal", 0o600),
        ("outbox.db-shm", 0o600),
        ("inbox.db", 0o600),
        ("inbox.db-wal", 0o600),
        ("inbox.db-shm", 0o600),
        ("schema_version", 0o644),
        ("daemon.log", 0o644),
        ("hooks", 0o700),
        ("lock", 0o600),
        ("instance", 0o600),
    ] {
        assert_eq!(found.get(file).map(|mode| format!("{mode:o}")), Some(format!("{mode:o}")), "{file} of {found:?}");
    }
    for (file, mode) in &found {
        assert!([0o600, 0o644, 0o700].contains(mode), "{file} has mode {mode:o}");
    }

    // The start wrote nothing elsewhere below the root.
    let mut new: Vec<String> = modes(carol.home()).into_keys().filter(|name| !before.contains_key(name)).collect();
    new.retain(|name| name != "daemon" && name != "daemon.out" && !name.starts_with("daemon/demo"));
    assert_eq!(new, Vec::<String>::new());
    assert_eq!(modes(carol.home())["config.json"], 0o600);
}

// Covers: R12
#[tokio::test]
async fn another_user_cannot_reach_the_socket() {
    let Pair { broker: _broker, alice, .. } = Pair::start().await;
    let socket = alice.socket();
    assert!(std::fs::metadata(&socket).expect("the socket").file_type().is_socket());
    let Some(curl) = tools::system("curl") else { return };
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: only root can become another user");
    }
    let home = alice.home().parent().expect("/tmp");
    let path = socket.to_str().expect("UTF-8");
    let mut as_nobody = std::process::Command::new("setpriv");
    as_nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&curl);
    as_nobody.args(["-sS", "-m", "5", "--unix-socket", path, "http://localhost/v1/health"]).current_dir(home);
    let output = as_nobody.output().expect("setpriv runs");
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));

    // Even where the directories above it are open, the socket itself is not.
    for folder in [alice.home().to_path_buf(), alice.home().join("daemon"), alice.dir()] {
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).expect("chmod");
    }
    let output = as_nobody.output().expect("setpriv runs");
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

// Covers: R13, R14, R110, R112
#[tokio::test]
async fn port_and_token_are_each_daemons_own() {
    let Pair { broker: _broker, alice, bob, .. } = Pair::start().await;
    let ports: Vec<u16> =
        [&alice, &bob].iter().map(|daemon| read_trimmed(&daemon.file("http.port")).parse().expect("a port")).collect();
    assert_ne!(ports[0], ports[1]);
    assert_ne!(alice.token(), bob.token());
    for daemon in [&alice, &bob] {
        let bytes =
            base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(daemon.token()).expect("base64url without padding");
        assert_eq!(bytes.len(), 32);
        assert_eq!(std::fs::read_to_string(daemon.file("local_token")).expect("the token").trim_end(), daemon.token());
        daemon.tcp().get("/v1/health").bearer(&daemon.token()).send().await.expect(200);
    }
    // Only loopback listens on the port.
    let Some(ss) = tools::system("ss") else { return };
    let output = std::process::Command::new(ss).args(["-ltnH"]).output().expect("ss runs");
    let listing = String::from_utf8_lossy(&output.stdout).into_owned();
    let own: Vec<&str> = listing.lines().filter(|line| line.contains(&format!(":{} ", ports[0]))).collect();
    assert!(!own.is_empty() && own.iter().all(|line| line.contains("127.0.0.1:")), "{own:?}");
}

// Covers: R11, R13, R15, R36
#[tokio::test]
async fn a_clean_stop_removes_what_points_to_the_process_and_keeps_the_identity() {
    let Pair { broker: _broker, mut alice, .. } = Pair::start().await;
    let key = std::fs::read(alice.file("keypair.json")).expect("keypair.json");
    let pair: Value = serde_json::from_slice(&key).expect("keypair.json is JSON");
    let text = pair.to_string();
    assert!(text.contains(&alice.public()), "the ed25519 key of config.json is in keypair.json");
    assert!(text.contains("x25519"), "both kinds of key are there");
    let pid: u32 = read_trimmed(&alice.file("pid")).parse().expect("a process id");
    assert_eq!(pid, alice.process().pid());
    for _ in 0..2 {
        let status = alice.stop().await;
        assert_eq!(status.code(), Some(0), "{}", alice.output());
        for file in ["pid", "sock", "http.port"] {
            assert!(!alice.file(file).exists(), "{file} outlived the daemon");
        }
        alice.start().await;
        assert_eq!(std::fs::read(alice.file("keypair.json")).expect("keypair.json"), key, "the same key");
    }
    let health = alice.http().get("/v1/health").send().await.expect(200).json();
    assert_eq!(health["member_pubkey"], alice.public().as_str());
}

// Covers: R20, R21
#[tokio::test]
async fn the_small_files_are_what_a_script_expects() {
    let Pair { broker: _broker, alice, bob, .. } = Pair::start().await;
    let text = unique("log me not");
    alice.send("bob", &text).await;
    bob.received(&text).await;
    for daemon in [&alice, &bob] {
        let version: u32 = read_trimmed(&daemon.file("schema_version")).parse().expect("a bare integer");
        let served = daemon.http().get("/v1/version").send().await.expect(200).json();
        assert_eq!(served["schema_version"], version);
        let lines = daemon.log();
        assert!(!lines.is_empty() && lines.iter().all(Value::is_object));
        let log = std::fs::read_to_string(daemon.file("daemon.log")).expect("daemon.log");
        for secret in [&text, &daemon.token(), &daemon.config_member()["secretKey"].as_str().expect("a key").to_owned()]
        {
            assert!(!log.contains(secret.as_str()), "a secret is in the log");
            assert!(!daemon.output().contains(secret.as_str()), "a secret is in the output");
        }
    }
}

/// A lock that the caller holds, a pipe that somebody reads to its end.
#[tokio::test]
async fn what_the_caller_has_open_stays_with_the_caller() {
    let fake = FakeBroker::start().await;
    let alice = fake.member("alice");
    std::fs::write(alice.home().join("secret"), "for the caller").expect("a file");
    let mut command = process::with_program(Path::new("sh"), alice.home());
    command.args(["-c", "exec 7<secret 9>job.lock; exec \"$0\" daemon up --mesh demo --json", binary()]);
    let ran = tokio::process::Command::from(command).output();
    let ran = Ran::of(&wait::soon("the command", ran).await.expect("a shell")).ok();
    let open: Vec<String> = std::fs::read_dir(format!("/proc/{}/fd", ran.json()["pid"]))
        .expect("the daemon's descriptors")
        .filter_map(|entry| Some(std::fs::read_link(entry.ok()?.path()).ok()?.display().to_string()))
        .collect();
    alice.cli(&["daemon", "down", "--mesh", "demo"]).await.ok();
    assert!(open.iter().any(|path| path.ends_with("/outbox.db")), "{open:?}");
    assert!(!open.iter().any(|path| path.ends_with("/secret") || path.ends_with("/job.lock")), "{open:?}");
}

/// As a program does that clears what is old.
#[tokio::test]
async fn a_deleted_socket_is_made_again() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    std::fs::remove_file(alice.socket()).expect("the socket's file");
    wait::until("an answer over the socket", async || {
        let answer = alice.http().get("/v1/health").try_send().await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
    let mode = std::fs::metadata(alice.socket()).expect("the socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(alice.log().iter().any(|line| line["message"].as_str().is_some_and(|said| said.contains("was deleted"))));
    alice.cli(&["daemon", "down", "--mesh", "demo"]).await.ok();
    assert_eq!(alice.ended().await, 0);
    assert!(!alice.socket().exists());
}

#[tokio::test]
async fn a_large_log_is_moved_away_and_shown_all_the_same() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    std::fs::create_dir_all(alice.dir()).expect("a directory");
    let line = format!("{{\"level\":\"INFO\",\"message\":\"{}\"}}\n", "old ".repeat(240));
    std::fs::write(alice.file("daemon.log"), line.repeat(10_500_000 / line.len())).expect("a log");
    alice.start().await;
    let size = |name: &str| std::fs::metadata(alice.file(name)).map(|found| found.len()).unwrap_or_default();
    assert!(size("daemon.log.1") > 10_000_000 && (1..100_000).contains(&size("daemon.log")), "{}", size("daemon.log"));
    let printed = alice.cli(&["daemon", "logs", "-n", "40"]).await.ok().stdout;
    assert_eq!(printed.lines().count(), 40);
    assert!(printed.contains("old old") && printed.contains("The daemon is ready"), "{printed}");
}

/// Whoever may write into the directory is not to say which file grows.
#[tokio::test]
async fn a_log_that_leads_elsewhere_is_refused() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    std::fs::create_dir_all(alice.dir()).expect("a directory");
    let other = alice.home().join("other");
    std::fs::write(&other, "kept").expect("a file");
    std::fs::set_permissions(&other, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    std::os::unix::fs::symlink(&other, alice.file("daemon.log")).expect("a link");
    let (code, output) = alice.refused().await;
    assert!(code != 0 && output.contains("daemon.log"), "{code}: {output}");
    assert_eq!(std::fs::read_to_string(&other).expect("a file"), "kept");
    assert_eq!(std::fs::metadata(&other).expect("a file").permissions().mode() & 0o777, 0o600);
}
