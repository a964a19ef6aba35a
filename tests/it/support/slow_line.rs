//! A line with a rate and a delay: a TCP relay with small buffers, so that each side feels
//! how slow the other one is. It can also swallow everything, as a lost route does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// What the kernel may keep for a side, in bytes.
const BUFFER: u32 = 8 * 1024;
/// What goes over the line at once, in bytes.
const PACKET: usize = 1_400;

/// The relay. Ends with the test's runtime.
pub(crate) struct SlowLine {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    connections: AtomicU32,
    swallows: AtomicBool,
}

impl SlowLine {
    /// To `target`, with so many bytes a second each way.
    pub(crate) async fn to(target: SocketAddr, rate: u32, delay: Duration) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(BUFFER).expect("a small buffer");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let listener: TcpListener = socket.listen(16).expect("a listener");
        let address = listener.local_addr().expect("a bound port");
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let socket = TcpSocket::new_v4().expect("a socket");
                socket.set_recv_buffer_size(BUFFER).expect("a small buffer");
                let Ok(server) = socket.connect(target).await else { continue };
                shared.connections.fetch_add(1, Ordering::SeqCst);
                join(client, server, rate, delay, &shared);
            }
        });
        Self { address, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> u32 {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// From now on nothing arrives, and nobody is told.
    pub(crate) fn swallow(&self, yes: bool) {
        self.state.swallows.store(yes, Ordering::SeqCst);
    }
}

fn join(client: TcpStream, server: TcpStream, rate: u32, delay: Duration, state: &Arc<State>) {
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    tokio::spawn(carry(client_read, server_write, rate, delay, Arc::clone(state)));
    tokio::spawn(carry(server_read, client_write, rate, delay, Arc::clone(state)));
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, rate: u32, delay: Duration, state: Arc<State>) {
    // What is between the ends: no more than the delay holds at that rate.
    let between = (f64::from(rate) * delay.as_secs_f64()) as usize / PACKET + 2;
    let (line, mut far_end) = mpsc::channel::<(Instant, Vec<u8>)>(between);
    let arriving = async move {
        while let Some((at, bytes)) = far_end.recv().await {
            tokio::time::sleep_until(at).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    let leaving = async move {
        let mut free_at = Instant::now();
        let mut packet = vec![0; PACKET];
        loop {
            let count = from.read(&mut packet).await.unwrap_or(0);
            if count == 0 {
                return;
            }
            if state.swallows.load(Ordering::SeqCst) {
                continue;
            }
            free_at = free_at.max(Instant::now()) + Duration::from_secs_f64(count as f64 / f64::from(rate));
            tokio::time::sleep_until(free_at).await;
            if line.send((free_at + delay, packet[..count].to_vec())).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(arriving, leaving);
}
