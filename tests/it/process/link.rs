//! The link to the broker as the daemon keeps it: how it says hello, what it
//! does when the link dies, and which closes end it.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::broker::Broker;
use crate::support::daemon::{Daemon, unique};
use crate::support::fake_broker::{ALL_BITS, FakeBroker};
use crate::support::mesh::Mesh;
use crate::support::process::{self, Process};
use crate::support::proxy::Proxy;
use crate::support::{keys, wait};

/// A daemon whose way to the broker leads over a proxy.
struct Behind {
    broker: Broker,
    proxy: Proxy,
    alice: Daemon,
    bob: Daemon,
}

async fn behind_a_proxy() -> Behind {
    let broker = Broker::start().await;
    let proxy = Proxy::to(broker.address()).await;
    let mesh = Mesh { url: proxy.url(), ..Mesh::create(&broker, "demo").await };
    let alice = Daemon::join(&broker, &mesh, "alice").await;
    let direct = Mesh { url: broker.url(), ..mesh };
    let bob = Daemon::join(&broker, &direct, "bob").await;
    alice.connected().await;
    bob.connected().await;
    alice.knows("bob").await;
    Behind { broker, proxy, alice, bob }
}

// Covers: R4, R402
#[tokio::test]
async fn the_member_key_is_the_only_credential_and_negotiation_comes_first() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    let command = alice.command();
    alice.spawn(command);
    let mut client = fake.accept().await;
    for header in ["authorization", "cookie", "x-api-key", "sec-websocket-protocol"] {
        assert!(client.headers.iter().all(|(name, _)| name != header), "{:?}", client.headers);
    }
    let hello = client.hello.clone();
    assert_eq!(hello["type"], "hello");
    let public = hello["pubkey"].as_str().expect("pubkey");
    assert_eq!(public, alice.public());
    let signed = format!("FakeMesh|member-alice|{public}|{}", hello["timestamp"]);
    assert!(keys::verifies(public, &signed, hello["signature"].as_str().expect("signature")), "{hello}");
    assert!((hello["timestamp"].as_i64().expect("a time") - keys::now_ms()).abs() < 10_000);
    let text = hello.to_string();
    let secret = alice.config_member()["secretKey"].as_str().expect("a secret").to_owned();
    assert!(!text.contains(&secret) && !text.contains(&secret[..64]) && !text.contains(&alice.token()));

    // Nothing is said before the broker greets.
    assert_eq!(client.frames_within(Duration::from_millis(200)).await, Vec::<Value>::new());
    client.welcome().await;
    let first = client.next().await.expect("a frame");
    assert_eq!(first["type"], "feature_negotiation_request", "{first}");
    assert_eq!(first["require"], json!(["client_message_id_dedupe", "concurrent_connection_policy"]));
    assert!(first["optional"].is_array(), "{first}");
    // And nothing but it before the broker agrees.
    assert_eq!(client.frames_within(Duration::from_millis(200)).await, Vec::<Value>::new());
}

// Covers: R404, R370, R410
#[tokio::test]
async fn a_broker_without_a_required_bit_ends_the_daemon() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    let command = alice.command();
    alice.spawn(command);
    let mut client = fake.accept().await;
    client.welcome().await;
    client.negotiate(&["concurrent_connection_policy"]).await;
    let (code, reason) = client.closed().await;
    assert_eq!((code, reason.as_str()), (4010, "feature_unavailable"), "{:?}", client.received);
    assert_eq!(alice.ended().await, 15, "{}", alice.output());
    let log = alice.log();
    assert!(log.iter().any(|line| line.to_string().contains("client_message_id_dedupe")), "the missing bit is logged");
}

// Covers: R405
#[tokio::test]
async fn a_missing_optional_bit_is_not_fatal() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    let command = alice.command();
    alice.spawn(command);
    let mut client = fake.accept().await;
    client.welcome().await;
    client.negotiate(&["client_message_id_dedupe", "concurrent_connection_policy"]).await;
    client.roster().await;
    alice.connected().await;
}

// Covers: R67, R69
#[tokio::test]
async fn closes_that_are_final_end_the_daemon_each_with_its_code() {
    for (close, reason, exit, word) in [
        (4003, "replaced_by_newer_connection", 12, "replaced"),
        (4004, "member_already_connected", 13, "already_connected"),
        (4005, "member_revoked", 14, "revoked"),
        (4002, "banned", 14, "banned"),
    ] {
        let fake = FakeBroker::start().await;
        let mut alice = fake.member("alice");
        alice.start().await;
        let client = fake.connect().await;
        client.close(close, reason).await;
        assert_eq!(alice.ended().await, exit, "after {close}: {}", alice.output());
        let log = alice.log();
        assert!(log.iter().any(|line| line.to_string().contains(word)), "{close} is in the log: {log:?}");
        let again = tokio::time::timeout(Duration::from_secs(1), fake.accept()).await;
        assert!(again.is_err(), "no reconnect after {close}");
        for file in ["pid", "sock", "http.port"] {
            assert!(!alice.file(file).exists(), "{file} after {close}");
        }
    }
}

// Covers: R5, R354
#[tokio::test]
async fn other_closes_are_followed_by_a_reconnect_with_a_pause() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    // Each of the many short connections counts as a failure; without a limit
    // the pauses would grow to half a minute.
    alice.configure("[reconnect]\nmax_backoff_ms = 600\n");
    alice.start().await;
    for (close, reason) in [(1001, "shutting down"), (1000, "disconnected"), (4001, "kicked"), (1008, "capacity")] {
        let client = fake.connect().await;
        let ended = Instant::now();
        client.close(close, reason).await;
        let next = fake.accept().await;
        let pause = ended.elapsed();
        assert!(pause >= Duration::from_millis(300), "{pause:?} after {close}: the first pause is 500 ms less jitter");
        assert_ne!(next.hello["timestamp"], json!(0));
        next.drop_link();
        alice.process().assert_running();
    }
}

/// The pauses of `[reconnect]` begin at half a second and end at thirty.
#[tokio::test]
async fn a_broker_that_restarts_says_when_to_come_back() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    for (said, pauses) in [(6_000, 5_000..=7_500), (10, 375..=625), (86_400_000, 29_000..=37_500)] {
        let told = alice.log().len();
        let mut client = fake.connect().await;
        client.send(&json!({"type": "drain", "reconnectAfterMs": said})).await;
        client.close(1001, "shutting down").await;
        let pause = wait::until("the pause to be in the log", async || {
            alice.log()[told..].iter().find_map(|line| line["pause_ms"].as_u64())
        })
        .await;
        assert!(pauses.contains(&pause), "{pause} ms after {said}");
        // Sooner than it comes by itself.
        alice.stop().await;
        alice.start().await;
    }
}

// Covers: R355, R356
#[tokio::test]
async fn the_pauses_grow_while_nobody_answers() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    let command = alice.command();
    alice.spawn(command);
    let mut pauses = Vec::new();
    fake.accept().await.drop_link();
    for _ in 0..4 {
        let since = Instant::now();
        fake.accept().await.drop_link();
        pauses.push(since.elapsed().as_secs_f64());
    }
    for (pause, planned) in pauses.iter().zip([0.5, 1.0, 2.0, 4.0]) {
        let low = planned * 0.75 - 0.05;
        let high = planned * 1.25 + 1.0;
        assert!((low..high).contains(pause), "{pauses:?}");
    }
}

// Covers: R5, R280
#[tokio::test]
async fn a_cut_link_delays_and_loses_nothing() {
    let Behind { broker: _broker, proxy, alice, bob } = behind_a_proxy().await;
    let before = unique("before");
    alice.send("bob", &before).await;
    bob.received(&before).await;
    proxy.cut();
    wait::until("the loss to be noticed", async || {
        let health = alice.http().get("/v1/health").send().await.json();
        (health["connected"] == false).then_some(())
    })
    .await;
    let mut texts = Vec::new();
    for number in 0..20 {
        let text = unique(&format!("while away {number}"));
        alice.send("bob", &text).await;
        texts.push(text);
    }
    let health = alice.http().get("/v1/health").send().await.json();
    assert_eq!(health["queue_depth"], 20, "{health}");
    proxy.restore();
    for text in &texts {
        bob.received(text).await;
    }
    let arrived: Vec<Value> = bob.inbox("").await.iter().map(|row| row["body"].clone()).collect();
    let expected: Vec<Value> = std::iter::once(&before).chain(&texts).map(|text| json!(text)).collect();
    assert_eq!(arrived, expected, "in the order of accept, each once");
}

// Covers: R5
#[tokio::test]
async fn a_daemon_starts_without_any_network_and_drains_later() {
    let Behind { mut broker, proxy: _proxy, mut alice, bob } = behind_a_proxy().await;
    alice.stop().await;
    broker.stop().await;
    alice.start().await;
    let health = alice.http().get("/v1/health").send().await.expect(200).json();
    assert_eq!(health["connected"], false, "{health}");
    let text = unique("queued without a network");
    let id = alice.send("bob", &text).await;
    alice.outbox_status(&id, "pending").await;
    broker.restart().await;
    bob.received(&text).await;
    alice.outbox_status(&id, "done").await;
}

#[tokio::test]
async fn a_broker_that_says_nothing_is_left_and_tried_again() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    // No hello_ack: 5 s, then another try.
    let mut silent = fake.accept().await;
    let since = Instant::now();
    let closed = silent.closed().await;
    let waited = since.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(10)).contains(&waited), "{waited:?}: {closed:?}");
    let mut next = fake.accept().await;
    next.welcome().await;
    next.negotiate(ALL_BITS).await;
    next.roster().await;
    alice.connected().await;
}

// Covers: R94, R95, R301, R302
#[tokio::test]
async fn losing_the_link_is_told_to_who_listens() {
    let Behind { broker: _broker, proxy, alice, .. } = behind_a_proxy().await;
    let mut events = alice.http().get("/v1/events").stream().await;
    assert_eq!(events.status, 200);
    let metric = async |name: &str| {
        let text = alice.http().get("/v1/metrics").send().await.expect(200).text();
        let lines = text.lines().filter(|line| line.starts_with(name) && !line.starts_with('#'));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>()
    };
    assert_eq!(metric("cm_daemon_connected").await, 1.0);
    let reconnects = metric("cm_daemon_reconnects_total").await;
    proxy.cut();
    let lost = events.next_of("daemon_disconnect").await;
    assert!(lost.json().to_string().contains("reason"), "{lost:?}");
    assert_eq!(lost.id, None, "a live event has no place in the inbox");
    assert_eq!(metric("cm_daemon_connected").await, 0.0);
    proxy.restore();
    events.next_of("daemon_reconnect").await;
    assert_eq!(metric("cm_daemon_connected").await, 1.0);
    assert_eq!(metric("cm_daemon_reconnects_total").await, reconnects + 1.0);
    assert_eq!(metric("cm_daemon_reconnects_total{mesh=\"demo\",reason=\"broken\"}").await, 1.0);
}

/// A queue of connections that is full and stays so, as a route that swallows packets.
const SWALLOWS: &str = "import socket, sys, time\n\
    at = ('::1', int(sys.argv[1])); s = socket.socket(socket.AF_INET6)\n\
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1); s.bind(at); s.listen(0); full = []\n\
    for _ in range(8):\n    c = socket.socket(socket.AF_INET6); c.setblocking(False); c.connect_ex(at); full.append(c)\n\
    print('full', flush=True); time.sleep(600)\n";

/// A name with an address that is dead, which comes first, and one that answers: for
/// commands and for the daemon.
#[tokio::test]
async fn a_dead_address_of_one_family_does_not_hold_up_the_other() {
    let broker = Broker::start().await;
    let mut alice = Daemon::unjoined("demo", "alice");
    let hosts = alice.home().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 localhost\n::1 dual.test\n127.0.0.1 dual.test\n").expect("a file");
    let mut command = process::with_program(Path::new("python3"), alice.home());
    let port = broker.address().port();
    command.args(["-c", SWALLOWS, &port.to_string()]);
    let dead = Process::spawn("the dead address", command, &alice.home().join("dead"), Vec::new());
    wait::until("a full queue", async || dead.output().contains("full").then_some(())).await;

    let mut command = process::with_program(Path::new("unshare"), alice.home());
    let script = r#"mount --bind "$1" /etc/hosts && "$2" mesh create demo --broker "$3" --admin-token-file "$4" \
        --allow-insecure && exec "$2" daemon up --foreground --mesh demo"#;
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(&hosts).arg(process::binary());
    command.arg(format!("ws://dual.test:{port}/ws")).arg(broker.admin_token_file());
    alice.start_as(command).await;
    alice.connected().await;
}
