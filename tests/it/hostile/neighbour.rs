//! Other users of the host, who can open TCP connections and have no token.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::daemon::{Daemon, Pair, unique};
use crate::support::fake_broker::FakeBroker;
use crate::support::http::Target;

/// More than a daemon has places.
const STRANGERS: usize = 700;

/// A connection whose caller has no token, after its first answer.
async fn stranger(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let request = format!("GET /v1/peers HTTP/1.1\r\nHost: {address}\r\n\r\n");
    // It may have been closed for the next one.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = [0; 4096];
    let read = stream.read(&mut answer).await.unwrap_or_default();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 401"), "{answer}");
    stream
}

#[tokio::test]
async fn connections_without_a_token_keep_out_nobody_who_has_one() {
    let Pair { broker: _broker, mesh: _mesh, alice, bob } = Pair::start().await;
    let token = alice.token();
    let Target::Tcp(address) = alice.tcp() else { panic!("no TCP") };
    let address = address.to_string();
    let mut events = alice.tcp().get("/v1/events?types=message").bearer(&token).stream().await;
    let mut held = Vec::new();
    for number in 0..STRANGERS {
        held.push(stranger(&address).await);
        if number % 70 == 0 {
            let answer = alice.tcp().get("/v1/peers").bearer(&token).send().await.expect(200).json();
            assert!(answer["peers"].is_array(), "{answer}");
        }
    }
    let text = unique("past them");
    bob.send("alice", &text).await;
    assert_eq!(events.next_of("message").await.json()["message"]["body"], json!(text), "what was open stays open");
    // Those that came first had to go.
    let mut first = held.swap_remove(0);
    assert_eq!(first.read(&mut [0; 16]).await.unwrap_or_default(), 0, "closed");
}

/// Bytes that one cause may add to a log within a test.
const LOG_BYTES: u64 = 512 * 1024;

fn log_bytes(daemon: &Daemon) -> u64 {
    std::fs::metadata(daemon.dir().join("daemon.log")).expect("a log").len()
}

#[tokio::test]
async fn calls_without_a_token_do_not_fill_the_log() {
    let Pair { broker: _broker, mesh: _mesh, alice, bob: _bob } = Pair::start().await;
    let Target::Tcp(address) = alice.tcp() else { panic!("no TCP") };
    let before = log_bytes(&alice);
    let path = "x".repeat(13_000);
    let mut stream = TcpStream::connect(&address).await.expect("a connection");
    let mut answer = vec![0; 16 * 1024];
    for _ in 0..2_000 {
        let request = format!("GET /{path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("a request");
        let mut seen = Vec::new();
        while !seen.windows(12).any(|window| window == b"unauthorized") && !seen.ends_with(b"}") {
            let read = stream.read(&mut answer).await.expect("an answer");
            assert_ne!(read, 0, "closed after {}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&answer[..read]);
        }
    }
    let grown = log_bytes(&alice) - before;
    assert!((1_000..LOG_BYTES).contains(&grown), "{grown} bytes");
}

#[tokio::test]
async fn what_a_broker_says_does_not_fill_the_log_nor_steer_a_terminal() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let mut client = fake.link(&alice).await;
    let before = log_bytes(&alice);
    let message = format!("{}\u{1b}[2J\r\n\u{202e}", "x".repeat(50_000));
    for _ in 0..1_000 {
        client.send(&json!({"type": "error", "code": "\u{1b}]0;x", "message": message})).await;
    }
    let bob = fake.bob.clone();
    client.push_from(&bob, "m1", None, "behind all of them").await;
    alice.received("behind all of them").await;
    let grown = log_bytes(&alice) - before;
    assert!((1_000..LOG_BYTES).contains(&grown), "{grown} bytes");
    let log = std::fs::read_to_string(alice.dir().join("daemon.log")).expect("a log");
    assert!(!log.contains(['\u{1b}', '\u{202e}', '\r']), "nothing steers a terminal");
    let printed = alice.cli(&["daemon", "logs", "-n", "5"]).await.ok().all();
    assert!(printed.contains("bytes more") && !printed.contains(['\u{1b}', '\u{202e}']), "{printed}");
}
