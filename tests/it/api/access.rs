//! Who may call: token, host, origin, preflight.

use std::path::Path;

use serde_json::json;

use crate::support::broker::read_trimmed;
use crate::support::daemon::Daemon;
use crate::support::fake_broker::FakeBroker;
use crate::support::http::{Request, Target};

/// Every route that is served, with a request that it takes.
fn requests(target: &Target) -> Vec<(&'static str, Request)> {
    let get = |path: &'static str| (path, target.get(path));
    vec![
        get("/v1/health"),
        get("/v1/version"),
        get("/v1/compat"),
        get("/v1/metrics"),
        get("/v1/peers"),
        get("/v1/inbox"),
        ("/v1/heartbeat", target.post("/v1/heartbeat", &json!({}))),
        ("/v1/send", target.post("/v1/send", &json!({"to": "bob", "message": "x"}))),
    ]
}

async fn daemon() -> (FakeBroker, Daemon) {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    fake.link(&alice).await.drop_link();
    (fake, alice)
}

// Covers: R107-R109, R118
#[tokio::test]
async fn over_tcp_every_route_needs_the_token_and_over_the_socket_none() {
    let (_fake, alice) = daemon().await;
    let tcp = alice.tcp();
    let token = alice.token();
    for (path, request) in requests(&tcp) {
        let refused = request.send().await.expect(401);
        assert_eq!(refused.json()["code"], "unauthenticated", "{path}");
        assert!(refused.header("www-authenticate").is_some_and(|scheme| scheme.starts_with("Bearer")), "{path}");
    }
    for wrong in ["", "x", &token[1..], &format!("{token}x"), &token.to_lowercase().to_uppercase()] {
        if wrong != token {
            tcp.get("/v1/health").bearer(wrong).send().await.expect(401);
        }
    }
    let basic = tcp.get("/v1/health").header("Authorization", format!("Basic {token}"));
    basic.send().await.expect(401);
    for (path, request) in requests(&tcp) {
        let answer = request.bearer(&token).send().await;
        assert!((200..300).contains(&answer.status), "{path}: {}", answer.text());
    }
    let events = tcp.get("/v1/events").send().await.expect(401);
    assert_eq!(events.json()["code"], "unauthenticated");
    assert_eq!(tcp.get("/v1/events").bearer(&token).stream().await.status, 200);
    for (path, request) in requests(&alice.http()) {
        let answer = request.send().await;
        assert!((200..300).contains(&answer.status), "{path}: {}", answer.text());
    }
}

// Covers: R114, R115
#[tokio::test]
async fn a_token_in_the_query_is_refused_everywhere_and_never_logged() {
    let (_fake, alice) = daemon().await;
    let token = alice.token();
    for target in [alice.tcp(), alice.http()] {
        for path in ["/v1/health", "/v1/events", "/v1/send", "/v1/metrics", "/v1/inbox"] {
            for query in [format!("token={token}"), "a=1&token=".to_owned(), "%74oken=x".to_owned()] {
                let method = if path == "/v1/send" { "POST" } else { "GET" };
                let request = target.request(method, &format!("{path}?{query}")).bearer(&token);
                let refused = request.send().await.expect(400);
                assert_eq!(refused.json()["code"], "token_in_query", "{path}?{query}");
            }
        }
    }
    let log = std::fs::read_to_string(alice.file("daemon.log")).expect("daemon.log");
    assert!(log.contains("token_in_query"), "it is a security event");
    assert!(!log.contains(&token), "the token itself is never written");
    assert!(!alice.output().contains(&token));
}

// Covers: R120
#[tokio::test]
async fn a_foreign_host_is_refused_over_tcp() {
    let (_fake, alice) = daemon().await;
    let (tcp, token) = (alice.tcp(), alice.token());
    for good in
        [Some("localhost"), Some("127.0.0.1"), Some("[::1]"), Some("[::1]:1234"), Some("LocalHost:80"), Some("")]
    {
        tcp.get("/v1/health").bearer(&token).host(good).send().await.expect(200);
    }
    for evil in ["evil.example", "127.0.0.1.evil.example", "localhost.evil", "169.254.169.254", "localhost@evil", "::1"]
    {
        let refused = tcp.get("/v1/health").bearer(&token).host(Some(evil)).send().await;
        assert_eq!(refused.status, 403, "{evil}: {}", refused.text());
        assert_eq!(refused.json()["code"], "host_not_allowed", "{evil}");
    }
    // Over the socket the name means nothing; clients send what they like.
    for odd in ["tonic", "localhost:80", "127.0.0.1:50051", "anything.example"] {
        alice.http().get("/v1/health").host(Some(odd)).send().await.expect(200);
    }
}

// Covers: R121-R124, R412
#[tokio::test]
async fn a_web_page_gets_nothing() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure("[ipc]\nallowed_origins = [\"https://app.example\"]\n");
    alice.start().await;
    let _client = fake.link(&alice).await;
    let token = alice.token();
    for target in [alice.tcp(), alice.http()] {
        for origin in ["http://localhost", "null", "https://evil.example", "https://app.example.evil", ""] {
            let refused = target.get("/v1/health").bearer(&token).header("Origin", origin).send().await;
            assert_eq!(refused.status, 403, "{origin:?}: {}", refused.text());
            assert_eq!(refused.header("access-control-allow-origin"), None);
        }
        let allowed = target.get("/v1/health").bearer(&token).header("Origin", "https://app.example");
        let allowed = allowed.send().await.expect(200);
        assert_eq!(allowed.header("access-control-allow-origin"), None, "never, not even then");
        for path in ["/v1/health", "/v1/send", "/nothing"] {
            let preflight = target
                .request("OPTIONS", path)
                .bearer(&token)
                .header("Origin", "https://app.example")
                .header("Access-Control-Request-Method", "POST");
            let refused = preflight.send().await.expect(403);
            assert_eq!(refused.header("access-control-allow-origin"), None);
        }
    }
    // No browser, no user agent: the requests of this file send none.
    alice.tcp().get("/v1/health").bearer(&token).send().await.expect(200);
}

// Covers: R119, R346
#[tokio::test]
async fn the_health_check_can_be_made_public_and_nothing_else() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure("[ipc]\npublic_health_check = true\n");
    alice.start().await;
    let tcp = alice.tcp();
    tcp.get("/v1/health").send().await.expect(200);
    for (path, request) in requests(&tcp).into_iter().filter(|(path, _)| *path != "/v1/health") {
        assert_eq!(request.send().await.status, 401, "{path}");
    }
    tcp.get("/v1/health").host(Some("evil.example")).send().await.expect(403);
}

// Covers: R125, R341, R345
#[tokio::test]
async fn the_port_is_chosen_by_the_system_or_by_the_operator_or_absent() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let chosen: u16 = read_trimmed(&alice.file("http.port")).parse().expect("a port");
    assert!(chosen > 1023);
    let mut bob = fake.member("bob");
    bob.start().await;
    assert_ne!(read_trimmed(&bob.file("http.port")), chosen.to_string(), "two daemons, two ports");
    alice.stop().await;
    alice.configure(&format!("[ipc]\nhttp_port = {chosen}\n"));
    alice.start().await;
    assert_eq!(read_trimmed(&alice.file("http.port")), chosen.to_string());
    alice.stop().await;
    alice.configure("[ipc]\ntcp_enabled = false\n");
    alice.start().await;
    assert!(!alice.file("http.port").exists());
    let pid = alice.process().pid();
    assert_eq!(listening_ports(pid), Vec::<String>::new());
}

/// Local addresses of the TCP sockets on which the process listens.
fn listening_ports(pid: u32) -> Vec<String> {
    let table = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("net/tcp")).expect("/proc");
    let own: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("/proc")
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()?.to_str().map(str::to_owned))
        .collect();
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let listens = fields.get(3) == Some(&"0A");
            let inode = format!("socket:[{}]", fields.get(9)?);
            (listens && own.contains(&inode)).then(|| fields[1].to_owned())
        })
        .collect()
}
