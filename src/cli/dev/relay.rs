//! The way from one member to the broker, which can be cut and stalled.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::runtime::supervisor::Supervisor;
use crate::runtime::task_kind::TaskKind;

/// Bytes that are read at once.
const CHUNK: usize = 64 * 1024;
/// After a failed accept, such as for want of open files.
const PAUSE: Duration = Duration::from_millis(50);

/// What the relay does with bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    /// They flow.
    Open,
    /// Connections are closed, new ones too.
    Cut,
    /// Connections stay and come to be, and nothing moves on them.
    Stalled,
}

/// A port on loopback that leads to the broker.
pub(super) struct Relay {
    address: SocketAddr,
    flow: watch::Sender<Flow>,
}

// === impl Relay ===

impl Relay {
    /// Listens, and forwards to `broker`.
    pub(super) async fn start(broker: SocketAddr, supervisor: &Supervisor) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (flow, watched) = watch::channel(Flow::Open);
        supervisor.spawn(TaskKind::Server, "relay", serve(listener, broker, watched, supervisor.clone()));
        Ok(Self { address, flow })
    }

    /// Where the member finds the broker.
    pub(super) fn url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    pub(super) fn flow(&self) -> Flow {
        *self.flow.borrow()
    }

    pub(super) fn set(&self, flow: Flow) {
        self.flow.send_replace(flow);
    }
}

async fn serve(listener: TcpListener, broker: SocketAddr, flow: watch::Receiver<Flow>, supervisor: Supervisor) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        if *flow.borrow() != Flow::Cut {
            supervisor.spawn(TaskKind::Connection, "relayed connection", connection(client, broker, flow.clone()));
        }
    }
}

async fn connection(client: TcpStream, broker: SocketAddr, flow: watch::Receiver<Flow>) {
    let mut cut = flow.clone();
    tokio::select! {
        // An error is the end of the relay.
        _ = cut.wait_for(|flow| *flow == Flow::Cut) => {}
        // Whoever lost the connection notices; here it is no news.
        _ = carry(client, broker, flow) => {}
    }
}

async fn carry(client: TcpStream, broker: SocketAddr, mut flow: watch::Receiver<Flow>) -> io::Result<()> {
    open(&mut flow).await;
    let server = TcpStream::connect(broker).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(pump(from_client, to_server, flow.clone()), pump(from_server, to_client, flow)).map(drop)
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut flow: watch::Receiver<Flow>) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        open(&mut flow).await;
        let count = from.read(&mut chunk).await?;
        // It may have been stalled while there was nothing to read.
        open(&mut flow).await;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&chunk[..count]).await?;
    }
}

async fn open(flow: &mut watch::Receiver<Flow>) {
    // The sender lives as long as the process.
    let _ = flow.wait_for(|flow| *flow == Flow::Open).await;
}
