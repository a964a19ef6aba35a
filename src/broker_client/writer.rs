//! The outgoing direction of one connection.

use std::time::Duration;

use futures_util::SinkExt as _;
use futures_util::stream::SplitSink;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_util::sync::CancellationToken;

use super::connect::Socket;
use super::pending::Pending;
use super::{Error, Outgoing};
use crate::runtime::clock::Clock;
use crate::wire::codec;
use crate::wire::frame::ClientFrame;

/// Pause between two pings (R-keepalive: both sides ping).
const PING_EVERY: Duration = Duration::from_secs(30);
/// A send that has waited so long for its ack means a link that is dead in one
/// direction.
const ACK_LIMIT: Duration = Duration::from_secs(30);

/// Writes what is handed over until the connection ends.
pub(super) async fn run(
    sink: &mut SplitSink<Socket, Message>,
    outgoing: &mut mpsc::Receiver<Outgoing>,
    pending: &Pending,
    clock: &Clock,
    stop: &CancellationToken,
) -> Error {
    let mut ping = tokio::time::interval(PING_EVERY);
    ping.reset();
    loop {
        let first = tokio::select! {
            () = stop.cancelled() => return Error::Stopping,
            _ = ping.tick() => {
                if pending.oldest(clock.monotonic()).is_some_and(|waited| waited > ACK_LIMIT) {
                    return Error::NoAnswer(ACK_LIMIT);
                }
                if let Err(error) = sink.send(Message::Ping(Bytes::new())).await {
                    return Error::Broken(error.to_string());
                }
                continue;
            }
            next = outgoing.recv() => match next {
                Some(next) => next,
                None => return Error::Stopping,
            },
        };
        if let Err(error) = write_waiting(sink, first, outgoing, pending, clock).await {
            return error;
        }
    }
}

/// Writes all that waits, then flushes once.
async fn write_waiting(
    sink: &mut SplitSink<Socket, Message>,
    first: Outgoing,
    outgoing: &mut mpsc::Receiver<Outgoing>,
    pending: &Pending,
    clock: &Clock,
) -> Result<(), Error> {
    let mut next = Some(first);
    while let Some(item) = next {
        let frame = match item {
            Outgoing::Send { frame, reply } => {
                let id = frame.id.clone().unwrap_or_default();
                pending.add_send(id, clock.monotonic(), reply);
                ClientFrame::Send(frame)
            }
            Outgoing::Request { frame, req_id, reply } => {
                pending.add_request(req_id, reply);
                frame
            }
            Outgoing::Ack(ack) => ClientFrame::ClientAck(ack),
            Outgoing::Tell(frame) => *frame,
            Outgoing::Renew => {
                // What was handed over before goes out first.
                sink.flush().await.map_err(|error| Error::Broken(error.to_string()))?;
                return Err(Error::Renewed);
            }
        };
        let text = codec::encode(&frame).map_err(|error| Error::Broken(error.to_string()))?;
        sink.feed(Message::text(text)).await.map_err(|error| Error::Broken(error.to_string()))?;
        next = outgoing.try_recv().ok();
    }
    sink.flush().await.map_err(|error| Error::Broken(error.to_string()))
}
