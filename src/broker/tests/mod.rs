//! A broker in this process, and raw frames against it.

mod delivery;
mod membership;
mod policy;
#[allow(dead_code, clippy::disallowed_methods, clippy::print_stderr, reason = "shared with the integration tests")]
#[path = "../../../tests/it/support/postgres.rs"]
mod postgres;
#[allow(dead_code, clippy::disallowed_methods, clippy::print_stderr, reason = "shared with the integration tests")]
#[path = "../../../tests/it/support/tools.rs"]
mod tools;

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use tokio_util::sync::CancellationToken;

use self::postgres::{Backend, Database, on_both_databases};
use super::Broker;
use super::error::Error;
use crate::config::broker::{self, BrokerConfig};
use crate::crypto::keys::MemberSecret;
use crate::crypto::sign::Statement;
use crate::domain::time::UnixMillis;
use crate::runtime::clock::Clock;
use crate::runtime::supervisor::Supervisor;
use crate::runtime::task_kind::TaskKind;
use crate::wire::join::InviteV1;

/// How long anything may take before the test fails.
const LIMIT: Duration = Duration::from_secs(10);

/// A running broker.
struct TestBroker {
    addr: SocketAddr,
    stop: CancellationToken,
    run: oneshot::Receiver<Result<(), Error>>,
    clock: Clock,
    home: Home,
}

/// What a broker keeps over a restart.
struct Home {
    dir: tempfile::TempDir,
    postgres: Option<Database>,
}

/// A member with its key.
#[derive(Clone)]
struct Member {
    id: String,
    mesh_id: String,
    seed: u8,
}

/// A connection to the broker.
struct Client(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl TestBroker {
    async fn start(backend: Backend) -> Self {
        Self::start_with(backend, |_| {}).await
    }

    async fn start_with(backend: Backend, change: impl FnOnce(&mut BrokerConfig)) -> Self {
        let home = Home { dir: tempfile::tempdir().expect("a directory"), postgres: backend.database() };
        Self::start_in(home, change).await
    }

    async fn start_in(home: Home, change: impl FnOnce(&mut BrokerConfig)) -> Self {
        let mut config = BrokerConfig::new(home.dir.path());
        config.listen.set_port(0);
        if let Some(database) = &home.postgres {
            config.database = broker::Database::Postgres(database.url());
        }
        change(&mut config);
        let clock = Clock::system();
        let prepared = Broker::prepare(config, clock.clone()).await.expect("prepares");
        let (addr, stop) = (prepared.addr(), CancellationToken::new());
        let (ended, run) = oneshot::channel();
        let serve = prepared.run(stop.clone(), |_| {});
        Supervisor::new().spawn(TaskKind::Connection, "test broker", async move {
            // A test that has ended no longer asks how its broker did.
            let _ = ended.send(Box::pin(serve).await);
        });
        Self { addr, stop, run, clock, home }
    }

    async fn shut_down(self) -> Home {
        self.stop.cancel();
        tokio::time::timeout(LIMIT, self.run).await.expect("stops in time").expect("no panic").expect("a clean stop");
        self.home
    }

    fn now(&self) -> i64 {
        self.clock.now().0
    }

    fn path(&self) -> &Path {
        self.home.dir.path()
    }

    /// One HTTP/1.1 exchange: status and body.
    async fn http(&self, method: &str, path: &str, token: Option<&str>, body: &str) -> (u16, String) {
        let mut socket = TcpStream::connect(self.addr).await.expect("connects");
        let auth = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{auth}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        socket.write_all(request.as_bytes()).await.expect("writes");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("reads");
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
    }

    async fn create_mesh(&self, slug: &str, policy: &str) -> String {
        let token = std::fs::read_to_string(self.path().join("admin_token")).expect("the token");
        let owner = secret(3).public().to_hex();
        let body = json!({"slug": slug, "owner_pubkey": owner, "concurrency_policy": policy}).to_string();
        let (status, body) = self.http("POST", "/v1/meshes", Some(&token), &body).await;
        assert_eq!(status, 201, "{body}");
        text(&serde_json::from_str(&body).expect("JSON"), "mesh_id")
    }

    /// A token with its payload, registered for that many joins.
    async fn invite(&self, mesh_id: &str, uses: u32) -> (String, InviteV1) {
        let mut payload = InviteV1 {
            v: 1,
            mesh_id: mesh_id.to_owned(),
            mesh_slug: "demo".to_owned(),
            broker_url: format!("ws://{}/ws", self.addr),
            expires_at: self.now() / 1000 + 3600,
            mesh_root_key: "AAAA".to_owned(),
            role: "member".to_owned(),
            owner_pubkey: secret(3).public().to_hex(),
            signature: String::new(),
            nonce: None,
        };
        payload.signature = hex::encode(crate::crypto::sign::sign(&secret(3), payload.signed_text().as_bytes()));
        let token = payload.to_token().expect("a token");
        let ts = self.now();
        let statement = Statement::invite_registration(mesh_id, &token, uses, UnixMillis(ts)).expect("a statement");
        let signature = hex::encode(statement.sign(&secret(3)));
        let body = json!({"token": token, "payload": payload, "max_uses": uses, "ts": ts, "signature": signature});
        let (status, body) = self.http("POST", &format!("/v1/meshes/{mesh_id}/invites"), None, &body.to_string()).await;
        assert_eq!(status, 201, "{body}");
        (token, payload)
    }

    async fn join(&self, invite: &(String, InviteV1), seed: u8) -> (u16, Value) {
        let body = json!({
            "invite_token": invite.0, "invite_payload": invite.1,
            "peer_pubkey": secret(seed).public().to_hex(), "display_name": format!("m{seed}"),
        });
        let (status, body) = self.http("POST", "/join", None, &body.to_string()).await;
        (status, serde_json::from_str(&body).expect("JSON"))
    }

    /// A mesh with members of these seeds.
    async fn mesh(&self, policy: &str, seeds: &[u8]) -> Vec<Member> {
        let mesh_id = self.create_mesh("demo", policy).await;
        let invite = self.invite(&mesh_id, 100).await;
        let mut members = Vec::new();
        for seed in seeds {
            let (status, body) = self.join(&invite, *seed).await;
            assert_eq!(status, 200, "{body}");
            members.push(Member { id: text(&body, "memberId"), mesh_id: mesh_id.clone(), seed: *seed });
        }
        members
    }

    async fn connect(&self) -> Client {
        let url = format!("ws://{}/ws", self.addr);
        Client(tokio_tungstenite::connect_async(url).await.expect("upgrades").0)
    }

    /// An old client: a hello and nothing more.
    async fn legacy(&self, member: &Member, session_id: &str) -> Client {
        let mut client = self.connect().await;
        client.send(self.hello(member, json!({"sessionId": session_id}))).await;
        client.expect("hello_ack").await;
        client
    }

    /// One of our daemons, after negotiation.
    async fn daemon(&self, member: &Member, instance: &str) -> Client {
        let mut client = self.connect().await;
        let (_, answer) = self.negotiate(&mut client, member, json!({"instanceId": instance})).await;
        assert_eq!(answer["type"], "feature_negotiation_response", "{answer}");
        client
    }

    /// Hello and negotiation: the hello_ack and the first frame after the request.
    async fn negotiate(&self, client: &mut Client, member: &Member, extra: Value) -> (Value, Value) {
        let mut hello = self.hello(member, extra);
        let unique = format!("{}-{}", hello["instanceId"], self.clock.monotonic().as_nanos());
        let given = hello.as_object_mut().expect("an object");
        given.entry("bootId").or_insert_with(|| json!(unique.clone()));
        given.insert("sessionId".to_owned(), json!(unique));
        client.send(hello).await;
        let ack = client.expect("hello_ack").await;
        let bits = ["client_message_id_dedupe", "concurrent_connection_policy", "max_payload"];
        let request = json!({"type": "feature_negotiation_request", "require": bits, "optional": ["delivery_ack"]});
        client.send(request).await;
        (ack, client.next_but_events().await)
    }

    fn hello(&self, member: &Member, extra: Value) -> Value {
        let (ts, key) = (self.now(), secret(member.seed));
        let statement = Statement::hello(&member.mesh_id, &member.id, key.public(), UnixMillis(ts)).expect("fields");
        let mut hello = json!({
            "type": "hello", "meshId": member.mesh_id, "memberId": member.id, "pubkey": key.public().to_hex(),
            "timestamp": ts, "signature": hex::encode(statement.sign(&key)), "sessionId": "s", "pid": 1, "cwd": "/",
        });
        for (name, value) in extra.as_object().expect("an object") {
            hello[name] = value.clone();
        }
        hello
    }
}

impl Client {
    async fn send(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.expect("writes");
    }

    async fn raw(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.expect("writes");
    }

    /// The next frame, whatever it is.
    async fn next(&mut self) -> Value {
        loop {
            let frame = tokio::time::timeout(LIMIT, self.0.next()).await.expect("a frame in time");
            match frame {
                Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).expect("JSON"),
                Some(Ok(Message::Close(Some(close)))) => {
                    return json!({"type": "CLOSE", "code": u16::from(close.code), "reason": close.reason.as_str()});
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return json!({"type": "CUT"}),
            }
        }
    }

    async fn next_but_events(&mut self) -> Value {
        loop {
            let frame = self.next().await;
            if frame["subtype"] != "system" {
                return frame;
            }
        }
    }

    /// The next frame of that type; the test fails on another one, except
    /// events.
    async fn expect(&mut self, kind: &str) -> Value {
        let frame = self.next_but_events().await;
        assert_eq!(frame["type"], kind, "{frame}");
        frame
    }

    /// Waits for an event of that name.
    async fn event(&mut self, name: &str) -> Value {
        loop {
            let frame = self.next().await;
            assert_ne!(frame["type"], "CUT", "waiting for {name}");
            if frame["event"] == name {
                return frame;
            }
        }
    }

    /// Reads until the close and gives it.
    async fn close(&mut self) -> Value {
        loop {
            let frame = self.next().await;
            if frame["type"] == "CLOSE" || frame["type"] == "CUT" {
                return frame;
            }
        }
    }

    /// Sends a direct message and gives its ack.
    async fn message(&mut self, to: &Member, id: &str, fingerprint: &str) -> Value {
        self.send(message(&to.key(), id, fingerprint)).await;
        self.expect("ack").await
    }

    /// True if nothing but events comes for a while that covers several scans.
    async fn is_quiet(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(150), self.next_but_events()).await.is_err()
    }
}

impl Member {
    fn key(&self) -> String {
        secret(self.seed).public().to_hex()
    }
}

fn secret(seed: u8) -> MemberSecret {
    MemberSecret::from_seed(&[seed; 32])
}

fn message(to: &str, id: &str, fingerprint: &str) -> Value {
    json!({
        "type": "send", "targetSpec": to, "priority": "next", "nonce": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH",
        "ciphertext": "c2VhbGVk", "id": id, "client_message_id": id, "request_fingerprint": fingerprint,
    })
}

fn text(value: &Value, field: &str) -> String {
    value[field].as_str().unwrap_or_default().to_owned()
}

/// A socket that is gone without a closing handshake.
async fn cut(client: Client) {
    let Client(socket) = client;
    let mut stream = socket;
    if let MaybeTlsStream::Plain(tcp) = stream.get_mut() {
        let _ = tcp.shutdown().await;
    }
    drop(stream);
}

fn is_http_error(error: &tungstenite::Error) -> bool {
    matches!(error, tungstenite::Error::Http(_))
}
