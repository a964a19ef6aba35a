//! Redis streams with an append-only file that is synced before each answer.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use redis::aio::MultiplexedConnection;

use super::nats::free_port;
use crate::load::{Sample, closed_loop, operation, payload};
use crate::processes::{Server, which};

/// A running server.
pub struct Redis {
    _server: Server,
    connection: MultiplexedConnection,
}

// === impl Redis ===

impl Redis {
    /// Starts one; `None` without the program.
    pub async fn start(folder: &Path) -> Result<Option<Self>> {
        let Some(binary) = which("redis-server") else { return Ok(None) };
        let folder = folder.join("redis");
        std::fs::create_dir_all(&folder)?;
        let port = free_port()?.to_string();
        let mut command = Command::new(binary);
        command.args(["--bind", "127.0.0.1", "--port", &port, "--appendonly", "yes", "--appendfsync", "always"]);
        command.args(["--save", "", "--daemonize", "no", "--dir"]).arg(&folder);
        let mut server = Server::start("redis", command, &folder)?;
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}/"))?;
        let connection =
            server.until("a connection", async || client.get_multiplexed_async_connection().await.ok()).await?;
        Ok(Some(Self { _server: server, connection }))
    }

    /// `XADD` over one connection, `callers` in flight.
    pub async fn add(&self, callers: usize, time: Duration) -> Result<Sample> {
        let payload = payload();
        let callers = (0..callers).map(|_| {
            let (connection, payload) = (self.connection.clone(), payload.clone());
            operation(move || {
                let (mut connection, payload) = (connection.clone(), payload.clone());
                async move {
                    let mut command = redis::cmd("XADD");
                    command.arg("bench").arg("*").arg("p").arg(payload);
                    command.query_async::<String>(&mut connection).await?;
                    Ok(())
                }
            })
        });
        closed_loop(callers.collect(), time).await
    }
}
