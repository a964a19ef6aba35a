//! What waits to be written, and whose turn it is.
//!
//! Acknowledgements and requests go first. Sends go in the order in which they were
//! handed over for each destination, and the destinations take turns; a large one goes in
//! pieces, with everybody else's turns between them.

use std::collections::VecDeque;

use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Message;

use super::pending::Pending;
use super::{Error, Transmit};
use crate::runtime::clock::Clock;
use crate::wire::codec;
use crate::wire::delivery::Send;
use crate::wire::frame::ClientFrame;
use crate::wire::pieces::{PIECE_BYTES, Pieces};

/// Text that is written before the next turn is decided, about.
const BATCH_BYTES: usize = 32 * 1024;

/// Frames by turn.
#[derive(Debug)]
pub(super) struct Queue {
    /// Whether large frames go in pieces.
    in_pieces: bool,
    /// Acknowledgements and requests.
    first: VecDeque<String>,
    /// Requests that go in pieces: the small ones pass them.
    large_first: VecDeque<String>,
    flows: VecDeque<Flow>,
    large: Option<Large>,
    sends: usize,
}

/// Sends to one destination.
#[derive(Debug)]
struct Flow {
    target: String,
    sends: VecDeque<(Box<Send>, oneshot::Sender<Transmit>)>,
}

/// A frame that is being written in pieces.
#[derive(Debug)]
struct Large {
    /// The destination, which waits for it; `None` for what is no send.
    target: Option<String>,
    /// The id of the send.
    id: Option<String>,
    pieces: Pieces<String>,
}

// === impl Queue ===

impl Queue {
    pub(super) fn new(in_pieces: bool) -> Self {
        Self {
            in_pieces,
            first: VecDeque::new(),
            large_first: VecDeque::new(),
            flows: VecDeque::new(),
            large: None,
            sends: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0 && self.large.is_none()
    }

    /// Frames that have not begun.
    pub(super) fn len(&self) -> usize {
        self.first.len() + self.large_first.len() + self.sends
    }

    /// The send that is partly written.
    pub(super) fn begun(&self) -> Option<&str> {
        self.large.as_ref()?.id.as_deref()
    }

    pub(super) fn push(&mut self, frame: &ClientFrame) -> Result<(), Error> {
        let text = text(frame)?;
        let goes_in_pieces = self.in_pieces && text.len() > PIECE_BYTES;
        if goes_in_pieces {
            self.large_first.push_back(text)
        } else {
            self.first.push_back(text)
        }
        Ok(())
    }

    pub(super) fn push_send(&mut self, frame: Box<Send>, reply: oneshot::Sender<Transmit>) {
        self.sends += 1;
        match self.flows.iter_mut().find(|flow| flow.target == frame.target_spec) {
            Some(flow) => flow.sends.push_back((frame, reply)),
            None => {
                let target = frame.target_spec.clone();
                self.flows.push_back(Flow { target, sends: VecDeque::from([(frame, reply)]) });
            }
        }
    }

    /// What is written next.
    pub(super) fn batch(&mut self, pending: &Pending, clock: &Clock) -> Result<Vec<Message>, Error> {
        let (mut messages, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES
            && let Some(next) = self.first.pop_front()
        {
            bytes += next.len();
            messages.push(Message::text(next));
        }
        if self.large.is_none()
            && let Some(next) = self.large_first.pop_front()
        {
            self.large = Some(Large { target: None, id: None, pieces: Pieces::of(next) });
        }
        bytes += self.piece(&mut messages)?;
        let mut passed = 0;
        while bytes < BATCH_BYTES && passed < self.flows.len() {
            let Some(mut flow) = self.flows.pop_front() else { break };
            let is_begun = self.large.as_ref().is_some_and(|large| large.target.as_ref() == Some(&flow.target));
            let is_large =
                self.in_pieces && flow.sends.front().is_some_and(|(send, _)| send.ciphertext.len() > PIECE_BYTES);
            if is_begun || (is_large && self.large.is_some()) {
                passed += 1;
                self.flows.push_back(flow);
                continue;
            }
            passed = 0;
            if let Some((send, reply)) = flow.sends.pop_front() {
                self.sends -= 1;
                let id = send.id.clone().unwrap_or_default();
                pending.add_send(id.clone(), clock.monotonic(), reply);
                let text = text(&ClientFrame::Send(send))?;
                if is_large {
                    let target = Some(flow.target.clone());
                    self.large = Some(Large { target, id: Some(id), pieces: Pieces::of(text) });
                    bytes += self.piece(&mut messages)?;
                } else {
                    bytes += text.len();
                    messages.push(Message::text(text));
                }
            }
            if !flow.sends.is_empty() {
                self.flows.push_back(flow);
            }
        }
        Ok(messages)
    }

    /// Takes the next piece; tells its bytes.
    fn piece(&mut self, messages: &mut Vec<Message>) -> Result<usize, Error> {
        let Some(piece) = self.large.as_mut().and_then(|large| large.pieces.next()) else { return Ok(0) };
        if piece.last {
            self.large = None;
        }
        let text = text(&ClientFrame::Piece(piece))?;
        let bytes = text.len();
        messages.push(Message::text(text));
        Ok(bytes)
    }
}

fn text(frame: &ClientFrame) -> Result<String, Error> {
    codec::encode(frame).map_err(|error| Error::Broken(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::UnixMillis;
    use crate::wire::delivery::ClientAck;

    fn send(target: &str, id: &str, bytes: usize) -> Box<Send> {
        Box::new(Send {
            target_spec: target.to_owned(),
            id: Some(id.to_owned()),
            ciphertext: "x".repeat(bytes),
            ..Send::default()
        })
    }

    /// The ids of whole sends and `+` for pieces, batch by batch.
    fn batches(queue: &mut Queue) -> Vec<Vec<String>> {
        let (pending, clock) = (Pending::default(), Clock::manual(UnixMillis(0)));
        let mut all = Vec::new();
        while !queue.is_empty() {
            let batch = queue.batch(&pending, &clock).expect("frames can be written");
            assert!(!batch.is_empty(), "nothing is written, and something waits");
            let names = batch.iter().map(|message| {
                let value: serde_json::Value = serde_json::from_str(message.to_text().expect("text")).expect("JSON");
                value["id"].as_str().unwrap_or("+").to_owned()
            });
            all.push(names.collect());
        }
        all
    }

    #[test]
    fn small_ones_pass_a_large_one_of_another_destination_and_not_of_their_own() {
        let mut queue = Queue::new(true);
        for (target, id, bytes) in
            [("a", "a1", 40_000), ("a", "a2", 10), ("b", "b1", 10), ("c", "c1", 40_000), ("b", "b2", 10)]
        {
            queue.push_send(send(target, id, bytes), oneshot::channel().0);
        }
        queue.push(&ClientFrame::ClientAck(ClientAck::default())).expect("a frame");
        let batches = batches(&mut queue);
        assert_eq!(batches[0], ["+", "+", "b1", "b2"], "the acknowledgement, a piece, and everybody else's turns");
        let all = batches.concat();
        assert_eq!(all.iter().filter(|name| *name == "+").count(), 7, "an acknowledgement and six pieces");
        assert_eq!(all.iter().position(|name| name == "a2"), Some(7), "after its predecessor: {all:?}");
    }

    #[test]
    fn an_acknowledgement_passes_requests_in_pieces() {
        let mut queue = Queue::new(true);
        let ack = |id: String| ClientFrame::ClientAck(ClientAck { delivery_id: Some(id), ..ClientAck::default() });
        for _ in 0..2 {
            queue.push(&ack("x".repeat(40_000))).expect("a frame");
        }
        let pending = (Pending::default(), Clock::manual(UnixMillis(0)));
        queue.batch(&pending.0, &pending.1).expect("the first piece");
        queue.push(&ack("small".to_owned())).expect("a frame");
        let next = queue.batch(&pending.0, &pending.1).expect("what is next");
        assert!(next[0].to_text().expect("text").contains("small"), "{next:?}");
    }

    #[test]
    fn without_pieces_every_frame_is_whole() {
        let mut queue = Queue::new(false);
        queue.push_send(send("a", "a1", 40_000), oneshot::channel().0);
        queue.push_send(send("b", "b1", 10), oneshot::channel().0);
        assert_eq!(batches(&mut queue), [["a1"], ["b1"]]);
    }
}
