//! `config.toml`, the environment and what a start refuses.

use serde_json::json;

use crate::support::broker::Broker;
use crate::support::daemon::{Daemon, Pair, unique};
use crate::support::fake_broker::FakeBroker;
use crate::support::mesh::Mesh;
use crate::support::wait;

#[tokio::test]
async fn a_wrong_setting_is_refused_by_name_and_leaves_nothing_running() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    for (toml, named) in [
        ("[outbox]\nmax_agee_hours = 3\n", "max_agee_hours"),
        ("[nonsense]\n", "nonsense"),
        ("[reconnect]\ninitial_backoff_ms = \"soon\"\n", "initial_backoff_ms"),
        ("[ipc]\nhttp_bind = \"0.0.0.0\"\n", "http_bind"),
        ("not toml at all", "config.toml"),
    ] {
        alice.configure(toml);
        let (code, said) = alice.refused().await;
        assert_eq!(code, 10, "{toml}: {said}");
        assert!(said.contains(named) && said.contains("config.toml"), "{toml}: {said}");
        for file in ["sock", "http.port", "pid"] {
            assert!(!alice.file(file).exists(), "{file} after a refused start");
        }
    }
    alice.configure("[daemon]\nlog_level = \"debug\"\n");
    alice.start().await;
}

/// A daemon is not stopped for one that would not start.
#[tokio::test]
async fn a_restart_looks_before_it_stops_anything() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its address").port();
    let restart = ["daemon", "restart", "--mesh", "demo", "--json"];
    for (toml, code, exit) in [
        ("[outbox]\nmax_agee_hours = 3\n".to_owned(), "config_invalid", 10),
        (format!("[ipc]\nhttp_port = {port}\n"), "listen_failed", 10),
    ] {
        alice.configure(&toml);
        let ran = alice.cli(&restart).await.exits(exit);
        assert_eq!(ran.error()["code"], code, "{}", ran.stderr);
    }
    alice.configure("");
    let dir = alice.dir();
    std::os::unix::fs::chown(&dir, Some(65_534), None).expect("only root can give a directory away");
    let ran = alice.cli(&restart).await.exits(5);
    assert_eq!(ran.error()["code"], "permission_denied", "{}", ran.stderr);
    std::os::unix::fs::chown(&dir, Some(rustix::process::geteuid().as_raw()), None).expect("the owner");
    alice.process().assert_running();
    alice.http().get("/v1/health").send().await.expect(200);
}

// Covers: R17, R340, R372
#[tokio::test]
async fn a_reload_takes_effect_without_dropping_the_link() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure("[daemon]\nlog_level = \"info\"\n");
    alice.start().await;
    let mut client = fake.link(&alice).await;
    let debug_lines = |daemon: &Daemon| daemon.log().iter().filter(|line| line["level"] == "DEBUG").count();
    assert_eq!(debug_lines(&alice), 0);
    alice.configure("[daemon]\nlog_level = \"debug\"\n");
    alice.cli(&["daemon", "reload", "--mesh", "demo"]).await.ok();
    wait::until("a debug line", async || {
        alice.http().get("/v1/peers").send().await;
        (debug_lines(&alice) > 0).then_some(())
    })
    .await;

    // A broken file keeps the settings that worked.
    alice.configure("[daemon]\nlog_level = \"loud\"\n");
    let refused = alice.cli(&["daemon", "reload", "--mesh", "demo"]).await;
    assert_ne!(refused.code, 0);
    assert!(refused.all().contains("log_level"), "{refused:?}");
    let before = debug_lines(&alice);
    wait::until("still debug", async || {
        alice.http().get("/v1/peers").send().await;
        (debug_lines(&alice) > before).then_some(())
    })
    .await;

    // The link was never dropped: the first connection still carries a send.
    alice.post_send(&json!({"to": "bob", "message": "hi"})).await.expect(202);
    client.expect("send").await;
}

#[tokio::test]
async fn an_unknown_mesh_is_refused() {
    let fake = FakeBroker::start().await;
    let alice = fake.member("alice");
    let refused = alice.cli(&["daemon", "up", "--foreground", "--mesh", "nowhere"]).await.exits(10);
    assert!(refused.stderr.contains("nowhere"), "{}", refused.stderr);
    assert!(!alice.home().join("daemon/nowhere").exists());
}

// Covers: R335
#[tokio::test]
async fn an_unprotected_link_goes_to_this_host_only() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    let path = alice.home().join("config.json");
    let text = std::fs::read_to_string(&path).expect("config.json");
    let remote = text.replace(&fake.address().to_string(), "broker.example:7900");
    assert_ne!(remote, text);
    std::fs::write(&path, remote).expect("config.json");
    let (code, said) = alice.refused().await;
    assert_eq!(code, 10, "{said}");
    assert!(said.contains("ws://") && said.contains("allow_insecure"), "{said}");
}

// Covers: R426
#[tokio::test]
async fn config_json_is_read_and_not_rewritten() {
    let Pair { broker: _broker, mut alice, bob, .. } = Pair::start().await;
    alice.stop().await;
    let path = alice.home().join("config.json");
    // As another program may have written it: other spacing, unknown keys.
    let mut config: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(&path).expect("config.json")).expect("JSON");
    config["futureKey"] = json!({"kept": true});
    let text = serde_json::to_string_pretty(&config).expect("JSON") + "\n\n";
    std::fs::write(&path, &text).expect("config.json");
    alice.start().await;
    let message = unique("hello");
    alice.send("bob", &message).await;
    bob.received(&message).await;
    alice.stop().await;
    assert_eq!(std::fs::read_to_string(&path).expect("config.json"), text);
}

#[tokio::test]
async fn a_key_that_cannot_be_read_is_named() {
    let broker = Broker::start().await;
    let mesh = Mesh::create(&broker, "demo").await;
    let mut alice = Daemon::join(&broker, &mesh, "alice").await;
    alice.stop().await;
    std::fs::write(alice.file("keypair.json"), "{\"broken\":").expect("keypair.json");
    let (code, said) = alice.refused().await;
    assert_eq!(code, 18, "{said}");
    assert!(said.contains("keypair.json"), "{said}");
}

// Covers: R191
#[tokio::test]
async fn a_newer_schema_is_refused() {
    let broker = Broker::start().await;
    let mesh = Mesh::create(&broker, "demo").await;
    let mut alice = Daemon::join(&broker, &mesh, "alice").await;
    alice.stop().await;
    std::fs::write(alice.file("schema_version"), "999").expect("schema_version");
    let (code, said) = alice.refused().await;
    assert_eq!(code, 17, "{said}");
    assert!(said.contains("999"), "{said}");
}
