//! Clients of the broker link that hold a connection and little else: ten thousand
//! of them fit into the load generator.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use ed25519_dalek::{Signer as _, SigningKey};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

/// Who connects.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The mesh.
    pub mesh_id: String,
    /// The member.
    pub member_id: String,
    key: SigningKey,
}

/// A connection that has said hello and agreed on what a daemon needs.
#[derive(Debug)]
pub struct Client {
    socket: WebSocketStream<TcpStream>,
}

// === impl Identity ===

impl Identity {
    /// A member with a key of its own, made from a number.
    pub fn new(mesh_id: &str, number: u32) -> Self {
        let mut seed = [7; 32];
        seed[..4].copy_from_slice(&number.to_be_bytes());
        Self { mesh_id: mesh_id.to_owned(), member_id: format!("member-{number}"), key: SigningKey::from_bytes(&seed) }
    }

    /// The public key in hexadecimal.
    pub fn public(&self) -> String {
        hex::encode(self.key.verifying_key().as_bytes())
    }

    fn hello(&self) -> Value {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let signed = format!("{}|{}|{}|{now}", self.mesh_id, self.member_id, self.public());
        json!({
            "type": "hello", "meshId": self.mesh_id, "memberId": self.member_id, "pubkey": self.public(),
            "timestamp": now as u64, "signature": hex::encode(self.key.sign(signed.as_bytes()).to_bytes()),
            "sessionId": self.member_id, "pid": 1, "cwd": "/", "channel": "claudemesh-daemon", "protocolVersion": 3,
            "instanceId": self.member_id, "bootId": self.member_id,
        })
    }
}

// === impl Client ===

impl Client {
    /// Connects.
    pub async fn connect(address: &str, identity: &Identity) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        // The default would take 128 KiB for each.
        let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(0);
        let url = format!("ws://{address}/ws");
        let (socket, _) = tokio_tungstenite::client_async_with_config(url, stream, Some(config)).await?;
        let mut client = Self { socket };
        client.send(&identity.hello()).await?;
        client.expect("hello_ack").await?;
        let wanted =
            json!({"type": "feature_negotiation_request", "require": ["client_message_id_dedupe"], "optional": []});
        client.send(&wanted).await?;
        client.expect("feature_negotiation_response").await?;
        Ok(client)
    }

    /// Sends a frame.
    pub async fn send(&mut self, frame: &Value) -> Result<()> {
        Ok(self.socket.send(Message::text(frame.to_string())).await?)
    }

    /// The next frame of a type; others pass by.
    pub async fn expect(&mut self, kind: &str) -> Result<Value> {
        loop {
            let message = self.socket.next().await.context("the broker closed the connection")??;
            let Message::Text(text) = message else { continue };
            let frame: Value = serde_json::from_str(&text)?;
            if frame["type"] == kind {
                return Ok(frame);
            }
            if frame["type"] == "error" {
                bail!("{frame}");
            }
        }
    }

    /// Answers pings until the connection ends.
    pub async fn rest(mut self) {
        while let Some(Ok(_)) = self.socket.next().await {}
    }
}
