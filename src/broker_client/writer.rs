//! The outgoing direction of one connection.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_util::sync::CancellationToken;

use super::pending::Pending;
use super::queue::Queue;
use super::{Error, Outgoing};
use crate::runtime::clock::Clock;
use crate::runtime::dial::Stream;
use crate::runtime::progress::{self, Moved, WriteError};
use crate::wire::frame::ClientFrame;

/// Pause between two pings (R-keepalive: both sides ping).
const PING_EVERY: Duration = Duration::from_secs(30);
/// A send that the broker has read so long ago is not answered any more.
const ACK_LIMIT: Duration = Duration::from_secs(30);
/// How often the clocks are compared.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The wall clock does not run ahead of the monotonic one by so much, unless this host
/// slept or somebody set it.
const JUMP_MS: u64 = 2_000;
/// How long the broker may take for a sign of life after that.
const PROBE_LIMIT: Duration = Duration::from_secs(10);
/// Frames that are taken over to be written in turns.
const TAKEN: usize = 1024;

/// One connection's outgoing direction.
pub(super) struct Writer<'a> {
    pub(super) socket: progress::Writer<Stream>,
    pub(super) queue: Queue,
    pub(super) moved: Moved,
    pub(super) pending: &'a Pending,
    pub(super) clock: &'a Clock,
    /// The connection ends when everything before has been written.
    pub(super) renews: bool,
}

/// Compares the clocks, and asks for a sign of life after a jump.
struct Probe {
    ahead_ms: i64,
    asked: Option<Instant>,
}

// === impl Writer ===

impl Writer<'_> {
    /// Writes what is handed over until the connection ends.
    pub(super) async fn run(&mut self, outgoing: &mut mpsc::Receiver<Outgoing>, stop: &CancellationToken) -> Error {
        let mut ping = tokio::time::interval(PING_EVERY);
        ping.reset();
        let mut look = tokio::time::interval(LOOK_EVERY);
        let mut probe = Probe { ahead_ms: self.ahead_ms(), asked: None };
        loop {
            if self.socket.is_idle() {
                match self.queue.batch(self.pending, self.clock) {
                    Ok(batch) => self.socket.begin(batch),
                    Err(error) => return error,
                }
            }
            if self.renews && self.queue.is_empty() && self.socket.is_idle() {
                return Error::Renewed;
            }
            let takes = self.queue.len() < TAKEN && !self.renews;
            tokio::select! {
                () = stop.cancelled() => return Error::Stopping,
                written = self.socket.written() => match written {
                    Ok(()) => {}
                    Err(WriteError::Stalled(limit)) => return Error::Stalled(limit),
                    Err(WriteError::Broken(error)) => return Error::Broken(error.to_string()),
                },
                _ = ping.tick() => {
                    if self.pending.read_for(self.clock.monotonic()).is_some_and(|waited| waited > ACK_LIMIT) {
                        return Error::NoAnswer(ACK_LIMIT);
                    }
                    self.ping();
                }
                _ = look.tick() => {
                    if probe.asked.is_some_and(|asked| self.moved.read_at() >= asked) {
                        probe.asked = None;
                    }
                    if probe.asked.is_some_and(|asked| asked.elapsed() >= PROBE_LIMIT) {
                        return Error::Silent(PROBE_LIMIT);
                    }
                    let ahead_ms = self.ahead_ms();
                    if ahead_ms.abs_diff(std::mem::replace(&mut probe.ahead_ms, ahead_ms)) > JUMP_MS {
                        tracing::info!("This host's clock jumped; the broker is asked for a sign of life");
                        probe.asked.get_or_insert_with(Instant::now);
                        self.ping();
                    }
                }
                next = outgoing.recv(), if takes => {
                    let mut next = next;
                    loop {
                        match next {
                            Some(item) => if let Err(error) = self.take(item) { return error },
                            None => return Error::Stopping,
                        }
                        if self.renews || self.queue.len() >= TAKEN { break }
                        match outgoing.try_recv() {
                            Ok(item) => next = Some(item),
                            Err(_) => break,
                        }
                    }
                }
            }
        }
    }

    fn take(&mut self, item: Outgoing) -> Result<(), Error> {
        match item {
            Outgoing::Send { frame, reply } => {
                self.queue.push_send(frame, reply);
                Ok(())
            }
            Outgoing::Request { frame, req_id, reply } => {
                self.pending.add_request(req_id, reply);
                self.queue.push(&frame)
            }
            Outgoing::Ack(ack) => self.queue.push(&ClientFrame::ClientAck(ack)),
            Outgoing::Tell(frame) => self.queue.push(&frame),
            Outgoing::Renew => {
                self.renews = true;
                Ok(())
            }
        }
    }

    /// Its answer also says that everything written before was read.
    fn ping(&mut self) {
        let number = self.pending.ping(self.queue.begun());
        self.socket.begin([Message::Ping(Bytes::copy_from_slice(&number.to_be_bytes()))]);
    }

    fn ahead_ms(&self) -> i64 {
        let monotonic = i64::try_from(self.clock.monotonic().as_millis()).unwrap_or(i64::MAX);
        self.clock.now().0.saturating_sub(monotonic)
    }
}
