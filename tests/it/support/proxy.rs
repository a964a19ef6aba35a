//! A TCP proxy between daemon and broker that a test can cut, slow down, make
//! lose frames of either side, and read from.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

#[derive(Default)]
struct State {
    cut: AtomicBool,
    delay_ms: AtomicU64,
    acks_to_drop: AtomicU32,
    acks_dropped: AtomicU32,
    /// The type of the frame at which the link is to be cut.
    cut_at: Mutex<Option<&'static str>>,
    cuts: AtomicU32,
    connections: AtomicU32,
    swallowed: Mutex<Vec<String>>,
    from_client: Mutex<Vec<Value>>,
    /// Every byte of HTTP, and every frame as text, whoever sent it.
    heard: Mutex<Vec<u8>>,
    links: Mutex<Vec<CancellationToken>>,
}

/// The proxy. Ends with the test's runtime.
pub(crate) struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

impl Proxy {
    /// Listens on a port of its own and forwards to `target`.
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a bound port");
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if shared.cut.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(target).await else { continue };
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let token = CancellationToken::new();
                shared.links.lock().expect("no holder panicked").push(token.clone());
                tokio::spawn(link(client, server, Arc::clone(&shared), token));
            }
        });
        Self { address, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    /// Ends every connection and refuses new ones.
    pub(crate) fn cut(&self) {
        self.state.cut.store(true, Ordering::SeqCst);
        self.hang_up();
    }

    /// Swallows the next frame of this type, whichever side sends it, and cuts
    /// there. Nothing gets through until [`Self::restore`]: what is retried waits
    /// until the test has done what it wants in between.
    pub(crate) fn cut_at(&self, kind: &'static str) {
        *self.state.cut_at.lock().expect("no holder panicked") = Some(kind);
    }

    /// How often a link was cut by [`Self::cut_at`].
    pub(crate) fn cuts(&self) -> u32 {
        self.state.cuts.load(Ordering::SeqCst)
    }

    /// Ends every connection; new ones are served.
    pub(crate) fn hang_up(&self) {
        self.state.hang_up();
    }

    /// Serves again after [`Self::cut`].
    pub(crate) fn restore(&self) {
        self.state.cut.store(false, Ordering::SeqCst);
    }

    /// Holds every piece of data back for this long.
    pub(crate) fn delay(&self, delay: Duration) {
        let ms = u64::try_from(delay.as_millis()).expect("a short delay");
        self.state.delay_ms.store(ms, Ordering::SeqCst);
    }

    /// Swallows the next `count` frames of type `ack`, and hangs up after each,
    /// as a link does that dies between commit and answer.
    pub(crate) fn drop_acks(&self, count: u32) {
        self.state.acks_to_drop.store(count, Ordering::SeqCst);
    }

    /// How many acks were swallowed.
    pub(crate) fn acks_dropped(&self) -> u32 {
        self.state.acks_dropped.load(Ordering::SeqCst)
    }

    /// From now on frames of these types and of no others vanish, whoever sends
    /// them; the link stays.
    pub(crate) fn swallow(&self, kinds: &[&str]) {
        *self.state.swallowed.lock().expect("no holder panicked") =
            kinds.iter().map(|kind| (*kind).to_owned()).collect();
    }

    /// Connections so far.
    pub(crate) fn connections(&self) -> u32 {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// Everything that went over the links so far, in clear.
    pub(crate) fn heard(&self) -> Vec<u8> {
        self.state.heard.lock().expect("no holder panicked").clone()
    }

    /// Every frame of that type that clients sent so far.
    pub(crate) fn client_frames(&self, kind: &str) -> Vec<Value> {
        let frames = self.state.from_client.lock().expect("no holder panicked");
        frames.iter().filter(|frame| frame["type"] == kind).cloned().collect()
    }
}

// === impl State ===

impl State {
    fn hear(&self, bytes: &[u8]) {
        let mut heard = self.heard.lock().expect("no holder panicked");
        heard.extend_from_slice(bytes);
        heard.push(b'\n');
    }

    fn hang_up(&self) {
        for token in self.links.lock().expect("no holder panicked").drain(..) {
            token.cancel();
        }
    }

    /// Whether a frame of this side and type is lost, and the link with it.
    fn loses(&self, side: Side, kind: &str) -> bool {
        if self.cut_at.lock().expect("no holder panicked").take_if(|at| *at == kind).is_some() {
            self.cut.store(true, Ordering::SeqCst);
            self.hang_up();
            self.cuts.fetch_add(1, Ordering::SeqCst);
            return true;
        }
        side == Side::Server && kind == "ack" && take_drop(self)
    }
}

async fn link(client: TcpStream, server: TcpStream, state: Arc<State>, token: CancellationToken) {
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    tokio::select! {
        () = token.cancelled() => {}
        _ = forward(client_read, server_write, &state, Side::Client) => {}
        _ = forward(server_read, client_write, &state, Side::Server) => {}
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Side {
    Client,
    Server,
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State, side: Side) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    let mut chunk = vec![0; 64 * 1024];
    // Until the head of the request or answer is whole.
    let mut frames = None;
    loop {
        let count = from.read(&mut chunk).await?;
        if count == 0 {
            return Ok(());
        }
        let delay = state.delay_ms.load(Ordering::SeqCst);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        buffer.extend_from_slice(&chunk[..count]);
        if frames.is_none() {
            let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
            let head: Vec<u8> = buffer.drain(..end + 4).collect();
            state.hear(&head);
            to.write_all(&head).await?;
            let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
            frames = Some(head.contains("upgrade: websocket"));
        }
        if frames == Some(false) {
            state.hear(&buffer);
            to.write_all(&buffer).await?;
            buffer.clear();
            continue;
        }
        while let Some(frame) = frame_length(&buffer).filter(|length| *length <= buffer.len()) {
            let bytes: Vec<u8> = buffer.drain(..frame).collect();
            let text = text_of(&bytes);
            state.hear(text.as_ref().map_or(&bytes, |text| text.as_bytes()));
            let vanishes = text.as_deref().is_some_and(|text| is_swallowed(state, text));
            if let Some(frame) = text.and_then(|text| serde_json::from_str::<Value>(&text).ok()) {
                let kind = frame["type"].as_str().unwrap_or_default().to_owned();
                // Noted before it is lost: a test that sees the cut finds it here.
                if side == Side::Client {
                    state.from_client.lock().expect("no holder panicked").push(frame);
                }
                if state.loses(side, &kind) {
                    return Ok(());
                }
            }
            if !vanishes {
                to.write_all(&bytes).await?;
            }
        }
    }
}

fn is_swallowed(state: &State, text: &str) -> bool {
    let kinds = state.swallowed.lock().expect("no holder panicked");
    let kind = || Some(serde_json::from_str::<Value>(text).ok()?["type"].as_str()?.to_owned());
    !kinds.is_empty() && kind().is_some_and(|kind| kinds.contains(&kind))
}

fn take_drop(state: &State) -> bool {
    let taken = state.acks_to_drop.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
    if taken {
        state.acks_dropped.fetch_add(1, Ordering::SeqCst);
    }
    taken
}

/// Length of the first WebSocket frame, header included; `None` while the
/// header is incomplete.
fn frame_length(bytes: &[u8]) -> Option<usize> {
    let (header, length) = header_and_length(bytes)?;
    Some(header + length)
}

fn header_and_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let second = *bytes.get(1)?;
    let mask = if second & 0x80 != 0 { 4 } else { 0 };
    match second & 0x7f {
        126 => {
            let length = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
            Some((4 + mask, usize::from(length)))
        }
        127 => {
            let length = u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?);
            Some((10 + mask, usize::try_from(length).ok()?))
        }
        short => Some((2 + mask, usize::from(short))),
    }
}

/// The text of an unfragmented text frame, unmasked.
fn text_of(frame: &[u8]) -> Option<String> {
    if frame.first()? & 0x8f != 0x81 {
        return None;
    }
    let (header, length) = header_and_length(frame)?;
    let mut payload = frame.get(header..header + length)?.to_vec();
    if frame[1] & 0x80 != 0 {
        let mask = &frame[header - 4..header];
        for (index, byte) in payload.iter_mut().enumerate() {
            *byte ^= mask[index % 4];
        }
    }
    String::from_utf8(payload).ok()
}
