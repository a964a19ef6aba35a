//! A client of the broker link written from the protocol alone: frames are JSON
//! values, signatures are made by hand.

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::keys::{self, Key, now_ms};
use super::wait;

/// What makes somebody a member.
#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) mesh_id: String,
    pub(crate) member_id: String,
    pub(crate) key: Key,
    pub(crate) name: String,
}

impl Member {
    pub(crate) fn public(&self) -> String {
        self.key.public()
    }

    /// A correct `hello` of this moment, as a legacy daemon sends it.
    pub(crate) fn hello(&self) -> Value {
        self.hello_at(now_ms())
    }

    /// A correct `hello` of another moment.
    pub(crate) fn hello_at(&self, timestamp: i64) -> Value {
        let pubkey = self.public();
        let signed = format!("{}|{}|{pubkey}|{timestamp}", self.mesh_id, self.member_id);
        json!({
            "type": "hello",
            "meshId": self.mesh_id,
            "memberId": self.member_id,
            "pubkey": pubkey,
            "timestamp": timestamp,
            "signature": self.key.sign(&signed),
            "sessionId": format!("raw-{}", hex::encode(keys::random_bytes(6))),
            "pid": std::process::id(),
            "cwd": "/tmp",
            "channel": "claudemesh-daemon",
        })
    }

    /// The attestation that lets `session` speak for this member.
    pub(crate) fn attestation(&self, session: &Key, expires_at: i64) -> Value {
        let (parent, own) = (self.public(), session.public());
        let signed = format!("claudemesh-session-attest|{parent}|{own}|{expires_at}");
        json!({
            "sessionPubkey": own,
            "parentMemberPubkey": parent,
            "expiresAt": expires_at,
            "signature": self.key.sign(&signed),
        })
    }

    /// A correct `session_hello` of this moment.
    pub(crate) fn session_hello(&self, session: &Key) -> Value {
        let (parent, own, now) = (self.public(), session.public(), now_ms());
        let signed = format!("claudemesh-session-hello|{}|{parent}|{own}|{now}", self.mesh_id);
        json!({
            "type": "session_hello",
            "meshId": self.mesh_id,
            "parentMemberId": self.member_id,
            "parentMemberPubkey": parent,
            "sessionPubkey": own,
            "parentAttestation": self.attestation(session, now + 12 * 3_600_000),
            "sessionId": format!("session-{}", hex::encode(keys::random_bytes(6))),
            "pid": std::process::id(),
            "cwd": "/tmp",
            "timestamp": now,
            "signature": session.sign(&signed),
            "channel": "claudemesh-session",
            "displayName": format!("{}-session", self.name),
        })
    }
}

/// What came from the broker.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Seen {
    Frame(Value),
    /// Close code and reason; 1006 when the socket just ended.
    Closed(u16, String),
}

/// One WebSocket. A task of its own reads it, so that pings are answered while
/// the test looks elsewhere.
pub(crate) struct Raw {
    sink: SplitSink<Socket, Message>,
    seen: mpsc::Receiver<Seen>,
    reader: tokio::task::JoinHandle<()>,
    requests: u32,
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Dropping it ends the TCP connection without a close frame.
impl Drop for Raw {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read(mut socket: SplitStream<Socket>, seen: mpsc::Sender<Seen>) {
    loop {
        let next = match socket.next().await {
            Some(Ok(Message::Text(text))) => match serde_json::from_str(&text) {
                Ok(frame) => Seen::Frame(frame),
                Err(error) => Seen::Closed(0, format!("the broker sent no JSON: {error}: {text}")),
            },
            Some(Ok(Message::Close(Some(close)))) => Seen::Closed(close.code.into(), close.reason.to_string()),
            Some(Ok(Message::Close(None))) => Seen::Closed(1005, String::new()),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            Some(Ok(other)) => Seen::Closed(0, format!("the broker sent {other:?}")),
            Some(Err(_)) | None => Seen::Closed(1006, String::new()),
        };
        let ended = matches!(next, Seen::Closed(..));
        if seen.send(next).await.is_err() || ended {
            // The other side's close frame is answered by reading on.
            while let Some(Ok(_)) = socket.next().await {}
            return;
        }
    }
}

impl Raw {
    /// Connects; says nothing yet.
    pub(crate) async fn connect(url: &str) -> Self {
        Self::try_connect(url).await.unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    pub(crate) async fn try_connect(url: &str) -> Result<Self, tokio_tungstenite::tungstenite::Error> {
        let (socket, _) = wait::soon("the WebSocket", tokio_tungstenite::connect_async(url)).await?;
        let (sink, stream) = socket.split();
        let (sender, seen) = mpsc::channel(100_000);
        let reader = tokio::spawn(read(stream, sender));
        Ok(Self { sink, seen, reader, requests: 0 })
    }

    /// Connects and says this hello; the `hello_ack` is the second value.
    pub(crate) async fn hello(url: &str, hello: &Value) -> (Self, Value) {
        let mut raw = Self::connect(url).await;
        raw.send(hello).await;
        let ack = raw.expect("hello_ack").await;
        (raw, ack)
    }

    /// Connects as a member, the legacy way.
    pub(crate) async fn member(url: &str, member: &Member) -> Self {
        Self::hello(url, &member.hello()).await.0
    }

    /// Connects as our own daemons do: with an instance, a boot id and a
    /// negotiation. The answer to it is the second value.
    pub(crate) async fn daemon(url: &str, member: &Member, instance: &str, boot: &str) -> (Self, Value) {
        let mut hello = member.hello();
        hello["instanceId"] = json!(instance);
        hello["bootId"] = json!(boot);
        hello["daemonVersion"] = json!("0.9.0");
        let (mut raw, _) = Self::hello(url, &hello).await;
        let answer = raw
            .negotiate(&["client_message_id_dedupe", "concurrent_connection_policy"], &["delivery_ack", "max_payload"])
            .await;
        (raw, answer)
    }

    /// Asks for features; the answer.
    pub(crate) async fn negotiate(&mut self, require: &[&str], optional: &[&str]) -> Value {
        self.send(&json!({"type": "feature_negotiation_request", "require": require, "optional": optional})).await;
        self.expect_past_events("feature_negotiation_response").await
    }

    pub(crate) async fn send(&mut self, frame: &Value) {
        self.send_text(&frame.to_string()).await;
    }

    /// Of a socket that the broker may have closed.
    pub(crate) async fn try_send(&mut self, frame: &Value) {
        let _ = self.sink.send(Message::text(frame.to_string())).await;
    }

    pub(crate) async fn send_text(&mut self, text: &str) {
        self.sink.send(Message::text(text)).await.expect("the socket takes a frame");
    }

    /// The next frame, or the end.
    pub(crate) async fn next(&mut self) -> Seen {
        let next = wait::soon("a frame", self.seen.recv()).await;
        next.unwrap_or_else(|| Seen::Closed(1006, "it had ended before".into()))
    }

    /// The next frame, which must exist.
    #[track_caller]
    pub(crate) fn frame(&mut self) -> impl Future<Output = Value> {
        let caller = std::panic::Location::caller();
        async move {
            match self.next().await {
                Seen::Frame(frame) => frame,
                Seen::Closed(code, reason) => panic!("{caller}: closed with {code} {reason:?} instead of a frame"),
            }
        }
    }

    /// The next frame, which must be of that type.
    #[track_caller]
    pub(crate) fn expect(&mut self, kind: &str) -> impl Future<Output = Value> {
        let caller = std::panic::Location::caller();
        async move {
            let frame = self.frame().await;
            assert_eq!(frame["type"], kind, "{caller}: {frame}");
            frame
        }
    }

    /// The next frame of that type; system events are passed over.
    #[track_caller]
    pub(crate) fn expect_past_events(&mut self, kind: &str) -> impl Future<Output = Value> {
        let caller = std::panic::Location::caller();
        async move {
            loop {
                let frame = self.frame().await;
                if frame["type"] == "push" && frame["subtype"] == "system" {
                    continue;
                }
                assert_eq!(frame["type"], kind, "{caller}: {frame}");
                return frame;
            }
        }
    }

    /// The next message; system events are passed over.
    pub(crate) async fn message(&mut self) -> Value {
        self.expect_past_events("push").await
    }

    /// The next system event of that name; everything else is passed over.
    pub(crate) async fn event(&mut self, name: &str) -> Value {
        loop {
            let frame = self.frame().await;
            if frame["subtype"] == "system" && frame["event"] == name {
                return frame;
            }
        }
    }

    /// The end, which must come next, after any frames; returns those.
    #[track_caller]
    pub(crate) fn expect_close(&mut self, code: u16, reason: &str) -> impl Future<Output = Vec<Value>> {
        let caller = std::panic::Location::caller();
        let expected = Seen::Closed(code, reason.to_owned());
        async move {
            let mut frames = Vec::new();
            loop {
                match self.next().await {
                    Seen::Frame(frame) => frames.push(frame),
                    closed => {
                        assert_eq!(closed, expected, "{caller}: after {frames:?}");
                        return frames;
                    }
                }
            }
        }
    }

    /// Sends a request with a fresh `_reqId` and returns the frame that echoes
    /// it, with everything that came before it. The broker handles the frames
    /// of a socket in order, so this is also how to see that an earlier frame
    /// had no answer.
    pub(crate) async fn request(&mut self, mut frame: Value) -> (Value, Vec<Value>) {
        self.requests += 1;
        let id = format!("r{}", self.requests);
        frame["_reqId"] = json!(id);
        self.send(&frame).await;
        let mut before = Vec::new();
        loop {
            let answer = self.frame().await;
            if answer["_reqId"] == id.as_str() {
                return (answer, before);
            }
            before.push(answer);
        }
    }

    /// Everything that the broker answered to the frames sent so far, system
    /// events left out.
    pub(crate) async fn answers_so_far(&mut self) -> Vec<Value> {
        let (_, before) = self.request(json!({"type": "list_peers"})).await;
        before.into_iter().filter(|frame| frame["subtype"] != "system").collect()
    }

    /// Rows of `list_peers`.
    pub(crate) async fn peers(&mut self) -> Vec<Value> {
        let (answer, _) = self.request(json!({"type": "list_peers"})).await;
        assert_eq!(answer["type"], "peers_list", "{answer}");
        answer["peers"].as_array().expect("peers is a list").clone()
    }

    /// From now on nothing is read of this socket, and no ping answered.
    pub(crate) async fn stop_reading(&mut self) {
        self.reader.abort();
        while self.seen.recv().await.is_some() {}
    }

    /// A normal close.
    pub(crate) async fn close(mut self) {
        let _ = self.sink.close().await;
        // Until the broker has closed as well, or gone.
        let _ = tokio::time::timeout(wait::DEADLINE, &mut self.reader).await;
    }
}

/// A direct message as a legacy client sends it: opaque bytes, no ids.
pub(crate) fn plain_send(target: &str) -> Value {
    json!({
        "type": "send",
        "targetSpec": target,
        "priority": "next",
        "nonce": keys::base64(&keys::random_bytes(24)),
        "ciphertext": keys::base64(&keys::random_bytes(40)),
    })
}

/// A direct message with an idempotency id, as a daemon sends it.
pub(crate) fn send_with_id(target: &str, client_message_id: &str, fingerprint: &str) -> Value {
    let mut frame = plain_send(target);
    frame["id"] = json!(client_message_id);
    frame["client_message_id"] = json!(client_message_id);
    frame["request_fingerprint"] = json!(fingerprint);
    frame
}
