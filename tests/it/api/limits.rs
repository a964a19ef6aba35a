//! How much is taken at once.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::support::daemon::Daemon;
use crate::support::fake_broker::FakeBroker;
use crate::support::wait;

async fn daemon(config: &str) -> (FakeBroker, Daemon) {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure(config);
    alice.start().await;
    fake.link(&alice).await.drop_link();
    (fake, alice)
}

// Covers: R131
#[tokio::test]
async fn a_megabyte_is_taken_and_a_byte_more_is_not() {
    let (_fake, alice) = daemon("").await;
    let refused = alice.post_send(&json!({"to": "bob", "message": "x".repeat(1_048_577)})).await.expect(413);
    let problem = refused.json();
    assert_eq!(problem["code"], "payload_too_large", "{problem}");
    assert!(problem["detail"].as_str().is_some_and(|text| text.bytes().any(|byte| byte.is_ascii_digit())), "{problem}");
    // The largest message in the longest spelling of JSON: six bytes a character.
    let escaped = "\\u0078".repeat(1_000_000);
    let body = format!("{{\"to\": \"bob\", \"message\": \"{escaped}\"}}");
    let request = alice.http().request("POST", "/v1/send").header("Content-Type", "application/json").body(body);
    request.send().await.expect(202);
    // A body beyond every spelling is refused without being read to its end.
    let huge = alice.http().request("POST", "/v1/send").header("Content-Type", "application/json");
    assert_eq!(huge.body(vec![b' '; 32 << 20]).send().await.status, 413);
    alice.send("bob", "still there").await;
}

// Covers: R33, R35, R133
#[tokio::test]
async fn one_request_too_many_in_flight_is_refused() {
    const FIRST: &str = "{\"to\":";
    const REST: &str = "\"bob\",\"message\":\"slow but complete\"}";
    for (config, limit) in [("", 64), ("[limits]\nin_flight_requests = 5\n", 5)] {
        let (_fake, alice) = daemon(config).await;
        let mut held = Vec::new();
        for _ in 0..limit {
            let mut stream = UnixStream::connect(alice.socket()).await.expect("the socket");
            let head = format!(
                "POST /v1/send HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{FIRST}",
                FIRST.len() + REST.len()
            );
            stream.write_all(head.as_bytes()).await.expect("the head is taken");
            held.push(stream);
        }
        let refused = wait::until("a refusal", async || {
            let answer = alice.http().get("/v1/version").send().await;
            (answer.status == 429).then_some(answer)
        })
        .await;
        assert_eq!(refused.json()["code"], "daemon_busy");
        assert!(refused.header("retry-after").is_some(), "{:?}", refused.headers);
        // The held ones end as they would have.
        let mut first = held.remove(0);
        first.write_all(REST.as_bytes()).await.expect("the rest is taken");
        let mut answer = [0; 12];
        wait::soon("the held request's answer", first.read_exact(&mut answer)).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 202");
        drop(held);
        wait::until("room again", async || (alice.http().get("/v1/version").send().await.status == 200).then_some(()))
            .await;
    }
}

// Covers: R31
#[tokio::test]
async fn a_full_house_stays_below_1024_descriptors() {
    let (_fake, mut alice) = daemon("").await;
    let mut streams = Vec::new();
    for _ in 0..32 {
        streams.push(alice.http().get("/v1/events").stream().await);
    }
    let mut held = Vec::new();
    for _ in 0..64 {
        held.push(UnixStream::connect(alice.socket()).await.expect("the socket"));
    }
    alice.send("bob", "x").await;
    let pid = alice.process().pid();
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("/proc").count();
    assert!((96..1024).contains(&open), "{open} descriptors");
}

#[tokio::test]
async fn half_a_request_holds_nothing_up() {
    let (_fake, alice) = daemon("").await;
    let mut halves = Vec::new();
    for begin in ["", "G", "GET /v1/health HTTP/1.1\r\n", "PRI * HTTP/2.0\r\n", "\0\0\0\0", "GET / HTTP/9.9\r\n\r\n"] {
        let mut stream = UnixStream::connect(alice.socket()).await.expect("the socket");
        let _ = stream.write_all(begin.as_bytes()).await;
        halves.push(stream);
    }
    alice.send("bob", "on the side").await;
}

/// As a program does that gives up a screen full of calls at once.
#[tokio::test]
async fn many_cancelled_calls_do_not_end_the_connection() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let socket = tokio::net::UnixStream::connect(alice.socket()).await.expect("the socket");
    let (mut client, connection) = h2::client::handshake(socket).await.expect("HTTP/2");
    tokio::spawn(connection);
    let request = || http::Request::get("http://localhost/v1/health").body(()).expect("a request");
    for _ in 0..50 {
        let mut under_way = Vec::new();
        for _ in 0..40 {
            client = client.ready().await.expect("a stream");
            under_way.push(client.send_request(request(), false).expect("a request"));
        }
        for (_, stream) in &mut under_way {
            stream.send_reset(h2::Reason::CANCEL);
        }
    }
    // Refused while the cancelled ones are still cleared away.
    wait::until("an answer", async || {
        client = client.clone().ready().await.expect("the connection lives");
        let (answer, _) = client.send_request(request(), true).expect("a request");
        Some(answer.await.ok()?.status()).filter(|status| *status == 200)
    })
    .await;
}
