//! NATS JetStream on a file store that syncs before each acknowledgement.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_nats::jetstream;
use bytes::Bytes;

use crate::load::{Sample, closed_loop, operation, payload};
use crate::processes::{Server, which};

/// A running server.
pub struct Nats {
    _server: Server,
    context: jetstream::Context,
}

// === impl Nats ===

impl Nats {
    /// Starts one; `None` without the program.
    pub async fn start(folder: &Path, binary: Option<&Path>) -> Result<Option<Self>> {
        let Some(binary) = binary.map(Path::to_owned).or_else(|| which("nats-server")) else { return Ok(None) };
        let folder = folder.join("nats");
        std::fs::create_dir_all(&folder)?;
        let port = free_port()?;
        let config = format!(
            "host: 127.0.0.1\nport: {port}\njetstream {{ store_dir: {:?}, sync_interval: always }}\n",
            folder.join("store")
        );
        std::fs::write(folder.join("nats.conf"), config)?;
        let mut command = Command::new(binary);
        command.arg("-c").arg(folder.join("nats.conf"));
        let mut server = Server::start("nats", command, &folder)?;
        let url = format!("nats://127.0.0.1:{port}");
        let client = server.until("a connection", async || async_nats::connect(&url).await.ok()).await?;
        let context = jetstream::new(client);
        let config = jetstream::stream::Config {
            name: "BENCH".to_owned(),
            subjects: vec!["bench".to_owned()],
            storage: jetstream::stream::StorageType::File,
            ..jetstream::stream::Config::default()
        };
        context.create_stream(config).await.context("the stream")?;
        Ok(Some(Self { _server: server, context }))
    }

    /// Publishes that await their acknowledgement, `callers` at a time over one
    /// connection.
    pub async fn publish(&self, callers: usize, time: Duration) -> Result<Sample> {
        let payload = Bytes::from(payload());
        let callers = (0..callers).map(|_| {
            let (context, payload) = (self.context.clone(), payload.clone());
            operation(move || {
                let (context, payload) = (context.clone(), payload.clone());
                async move {
                    context.publish("bench", payload).await?.await?;
                    Ok(())
                }
            })
        });
        closed_loop(callers.collect(), time).await
    }
}

/// A port that is free now.
pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
