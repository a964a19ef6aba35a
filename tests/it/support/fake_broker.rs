//! A broker whose every answer is the test's: for what the real one never does.

use std::collections::VecDeque;
use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::daemon::Daemon;
use super::keys::{self, Key, now_ms};
use super::wait;

/// The bits of a complete broker.
pub(crate) const ALL_BITS: &[&str] = &[
    "client_message_id_dedupe",
    "concurrent_connection_policy",
    "member_keypair_rotated_event",
    "max_payload",
    "delivery_ack",
];

/// What it says of its limiter, to whom `rate_limit` is granted: sends per second,
/// and at once.
pub(crate) const RATE: (u32, u32) = (20, 5);

/// Listens; the test accepts each connection itself. Its mesh has the member
/// under test and `bob`, who is never connected.
pub(crate) struct FakeBroker {
    listener: TcpListener,
    pub(crate) bob: Key,
    /// A further member, with the id `member-carol`.
    pub(crate) carol: Option<Key>,
}

/// One connection of a client, after its hello. Dropping it drops the link.
#[must_use = "a link that is dropped is dead"]
pub(crate) struct Client {
    socket: WebSocketStream<TcpStream>,
    /// The hello that opened it.
    pub(crate) hello: Value,
    /// Every frame after the hello, in order.
    pub(crate) received: Vec<Value>,
    /// Frames that were read while another one was waited for.
    passed: VecDeque<Value>,
    /// Headers of the upgrade request, names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    bob: String,
    /// The key of a further member, once it is in the list.
    pub(crate) carol: Option<String>,
    /// Fields of bob's row in the list of members that are another's than the
    /// truth.
    pub(crate) bob_row: Value,
    /// The same of the member under test.
    pub(crate) own_row: Value,
    /// The list of peers.
    pub(crate) peers: Value,
}

impl FakeBroker {
    pub(crate) async fn start() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.expect("a port"), bob: Key::random(), carol: None }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("a bound port")
    }

    /// A home whose `config.json` names a member of this broker. No invite is
    /// needed: the file is what a join leaves behind.
    pub(crate) fn member(&self, name: &str) -> Daemon {
        let daemon = Daemon::unjoined("demo", name);
        let key = Key::random();
        let config = json!({
            "version": 1,
            "meshes": [{
                "meshId": "FakeMesh",
                "memberId": format!("member-{name}"),
                "slug": "demo",
                "name": "demo",
                "pubkey": key.public(),
                "secretKey": key.secret(),
                "brokerUrl": format!("ws://{}/ws", self.address()),
                "joinedAt": "2026-01-01T00:00:00.000Z",
            }],
            "displayName": name,
        });
        let path = daemon.home().join("config.json");
        std::fs::write(&path, config.to_string()).expect("config.json");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, mode).expect("config.json is private");
        daemon
    }

    /// The next connection, up to its hello.
    #[expect(clippy::result_large_err, reason = "the library decides what a refused upgrade is")]
    pub(crate) async fn accept(&self) -> Client {
        wait::soon("a client to say hello", async {
            loop {
                let (stream, _) = self.listener.accept().await.expect("a connection");
                let mut headers = Vec::new();
                let note = |request: &Request, response: Response| {
                    headers.extend(request.headers().iter().map(|(name, value)| {
                        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
                    }));
                    Ok(response)
                };
                let Ok(socket) = tokio_tungstenite::accept_hdr_async(stream, note).await else { continue };
                let mut client = Client {
                    socket,
                    hello: Value::Null,
                    received: Vec::new(),
                    passed: VecDeque::new(),
                    headers,
                    bob: self.bob.public(),
                    carol: self.carol.as_ref().map(Key::public),
                    bob_row: json!({}),
                    own_row: json!({}),
                    peers: json!([]),
                };
                if let Some(hello) = client.read().await {
                    client.hello = hello;
                    return client;
                }
            }
        })
        .await
    }

    /// The connection of this daemon, which is up and knows bob.
    pub(crate) async fn link(&self, daemon: &Daemon) -> Client {
        let client = self.connect().await;
        daemon.connected().await;
        daemon.knows("bob").await;
        client
    }

    /// The next connection: greeted, negotiated with all bits, members told.
    pub(crate) async fn connect(&self) -> Client {
        let mut client = self.accept().await;
        client.welcome().await;
        client.negotiate(ALL_BITS).await;
        client.roster().await;
        client
    }
}

impl Client {
    pub(crate) async fn read(&mut self) -> Option<Value> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    return Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")));
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                _ => return None,
            }
        }
    }

    /// The next frame; `None` when the client closed.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        let frame = wait::soon("a frame of the client", self.read()).await;
        self.received.extend(frame.clone());
        frame
    }

    /// The next frame of that type; others are kept for later.
    pub(crate) async fn expect(&mut self, kind: &str) -> Value {
        if let Some(at) = self.passed.iter().position(|frame| frame["type"] == kind) {
            return self.passed.remove(at).expect("a position that was just found");
        }
        loop {
            let Some(frame) = self.next().await else { panic!("closed before {kind}; got {:?}", self.received) };
            if frame["type"] == kind {
                return frame;
            }
            self.answer_lists(&frame).await;
            self.passed.push_back(frame);
        }
    }

    /// Frames that arrive within a pause long enough for a local socket.
    pub(crate) async fn frames_within(&mut self, limit: std::time::Duration) -> Vec<Value> {
        let mut frames = Vec::from(std::mem::take(&mut self.passed));
        let end = tokio::time::Instant::now() + limit;
        while let Ok(Some(frame)) = tokio::time::timeout_at(end, self.read()).await {
            self.answer_lists(&frame).await;
            frames.push(frame);
        }
        frames
    }

    /// A daemon asks who is there before it does anything else.
    pub(crate) async fn answer_lists(&mut self, frame: &Value) {
        let row = |id: &Value, key: &Value, name: &str| json!({"memberId": id, "pubkey": key, "displayName": name, "role": "member", "joinedAt": now_ms()});
        let answer = match frame["type"].as_str() {
            Some("list_peers") => json!({"type": "peers_list", "peers": self.peers}),
            Some("member_list") => {
                let mut bob = row(&json!("member-bob"), &json!(self.bob), "bob");
                let mut own = row(&self.hello["memberId"], &self.hello["pubkey"], "own");
                for (row, fields) in [(&mut bob, &self.bob_row), (&mut own, &self.own_row)] {
                    for (field, value) in fields.as_object().expect("fields") {
                        row[field] = value.clone();
                    }
                }
                let mut members = vec![own, bob];
                members.extend(self.carol.as_ref().map(|key| row(&json!("member-carol"), &json!(key), "carol")));
                json!({"type": "members_list", "members": members})
            }
            _ => return,
        };
        let mut answer = answer;
        answer["_reqId"] = frame["_reqId"].clone();
        self.send(&answer).await;
    }

    /// Answers the daemon's questions until it knows the members.
    pub(crate) async fn roster(&mut self) {
        let asked = self.expect("member_list").await;
        self.answer_lists(&asked).await;
    }

    /// Lets the daemon ask for the members again, and answers.
    pub(crate) async fn tell_roster(&mut self) {
        let news = self.news("something_new");
        self.send(&news).await;
        self.roster().await;
    }

    /// A system event without data.
    fn news(&self, event: &str) -> Value {
        json!({
            "type": "push",
            "messageId": keys::base64url(&keys::random_bytes(9)),
            "meshId": self.hello["meshId"],
            "senderPubkey": "system",
            "priority": "low",
            "nonce": "",
            "ciphertext": "",
            "createdAt": "2026-01-01T00:00:00.000Z",
            "subtype": "system",
            "event": event,
            "eventData": {},
        })
    }

    /// Answers the negotiation with exactly this.
    pub(crate) async fn answer_features(&mut self, supported: &[&str], params: &Value) {
        let request = self.expect("feature_negotiation_request").await;
        let answer = json!({
            "type": "feature_negotiation_response",
            "supported": supported,
            "params": params,
            "missing_required": [],
            "_reqId": request["_reqId"],
        });
        self.send(&answer).await;
    }

    /// Pushes a direct message of bob's, as a legacy client sends it. The
    /// message id is also the delivery's.
    pub(crate) async fn push_from(&mut self, bob: &Key, message_id: &str, client_id: Option<&str>, text: &str) {
        let own = self.hello["pubkey"].as_str().expect("pubkey").to_owned();
        let (nonce, sealed) = keys::seal(bob, &own, text.as_bytes());
        self.send(&push_frame(&self.hello, bob, message_id, client_id, &nonce, &sealed)).await;
    }

    pub(crate) async fn send(&mut self, frame: &Value) {
        self.socket.send(Message::text(frame.to_string())).await.expect("the client takes a frame");
    }

    /// To a client that may have closed.
    pub(crate) async fn try_send(&mut self, frame: &Value) {
        let _ = self.socket.send(Message::text(frame.to_string())).await;
    }

    /// `hello_ack`.
    pub(crate) async fn welcome(&mut self) {
        self.welcome_at(now_ms()).await;
    }

    /// `hello_ack` of a broker whose clock shows this.
    pub(crate) async fn welcome_at(&mut self, broker_time: i64) {
        let ack = json!({
            "type": "hello_ack",
            "presenceId": keys::base64url(&keys::random_bytes(9)),
            "memberDisplayName": "fake",
            "memberProfile": {"roleTag": null, "groups": [], "messageMode": "push"},
            "brokerVersion": "0.9.0",
            "brokerTime": broker_time,
            "memberId": self.hello["memberId"],
            "generation": 1,
        });
        self.send(&ack).await;
    }

    /// Answers the negotiation with these bits; the request.
    pub(crate) async fn negotiate(&mut self, supported: &[&str]) -> Value {
        let request = self.expect("feature_negotiation_request").await;
        let required = request["require"].as_array().cloned().unwrap_or_default();
        let missing: Vec<&Value> =
            required.iter().filter(|bit| !supported.contains(&bit.as_str().unwrap_or_default())).collect();
        let params = json!({
            "client_message_id_dedupe": {"version": 1, "mode": "retention_scoped", "dedupe_retention_days": 365},
            "concurrent_connection_policy": {"version": 1, "default_policy": "prefer_newest"},
            "member_keypair_rotated_event": {"version": 1},
            "max_payload": {"version": 1, "inline_bytes": 1_572_864, "blob_bytes": 0},
            "delivery_ack": {"version": 1},
            "delivery_outcome": {"version": 1},
            "rate_limit": {"version": 1, "per_s": RATE.0, "burst": RATE.1},
            "key_epoch": {"version": 1, "max_concurrent_epochs": 2},
            "topic_e2e": {"version": 1},
        });
        let answer = json!({
            "type": "feature_negotiation_response",
            "supported": supported,
            "params": params,
            "missing_required": missing,
            "_reqId": request["_reqId"],
        });
        self.send(&answer).await;
        request
    }

    /// The ack of a `send`.
    pub(crate) async fn ack(&mut self, send: &Value, message_id: &str) {
        let ack = json!({
            "type": "ack",
            "id": send["id"],
            "messageId": message_id,
            "historyId": message_id,
            "queued": true,
            "duplicate": false,
            "_reqId": send["_reqId"],
        });
        self.send(&ack).await;
    }

    /// Closes with a code and a reason.
    pub(crate) async fn close(mut self, code: u16, reason: &str) {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.to_owned().into() };
        let _ = self.socket.close(Some(frame)).await;
        // The client's own close frame ends the socket in order.
        while let Some(Ok(_)) = self.socket.next().await {}
    }

    /// Drops the TCP connection without a word.
    pub(crate) fn drop_link(self) {
        drop(self);
    }

    /// Waits for the client's close frame: code and reason.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        wait::soon("the client to close", async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(Some(close)))) => return (close.code.into(), close.reason.to_string()),
                    Some(Ok(Message::Text(text))) => {
                        self.received.push(serde_json::from_str(&text).expect("a JSON frame"));
                    }
                    Some(Ok(Message::Close(None))) => return (1005, String::new()),
                    Some(Ok(_)) => {}
                    _ => return (1006, String::new()),
                }
            }
        })
        .await
    }
}

/// A push of a sealed direct message.
pub(crate) fn push_frame(
    hello: &Value,
    from: &Key,
    message_id: &str,
    client_id: Option<&str>,
    nonce: &[u8],
    sealed: &[u8],
) -> Value {
    let mut push = json!({
        "type": "push",
        "messageId": message_id,
        "deliveryId": message_id,
        "meshId": hello["meshId"],
        "senderPubkey": from.public(),
        "senderMemberPubkey": from.public(),
        "senderMemberId": "member-bob",
        "senderName": "bob",
        "priority": "next",
        "nonce": keys::base64(nonce),
        "ciphertext": keys::base64(sealed),
        "createdAt": "2026-01-01T00:00:00.000Z",
        "redelivery": false,
    });
    if let Some(id) = client_id {
        push["client_message_id"] = json!(id);
    }
    push
}
