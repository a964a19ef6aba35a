//! Who waits for which answer on the present connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Transmit;
use crate::wire::delivery::Ack;
use crate::wire::frame::ServerFrame;

/// Waiting callers by correlation id. Shared by the two directions of one
/// connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Pending(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    sends: HashMap<String, Sent>,
    requests: HashMap<String, oneshot::Sender<ServerFrame>>,
    /// Pings of this connection.
    pings: u64,
    /// At so many requests those are left out for which nobody waits any more.
    tidy_at: usize,
}

/// Requests below which nothing is left out.
const FEW: usize = 64;

#[derive(Debug)]
struct Sent {
    /// Monotonic time of the transmit.
    at: Duration,
    reply: oneshot::Sender<Transmit>,
    /// The ping that was written after it.
    followed_by: Option<u64>,
    /// When that ping's answer showed that the broker has read it.
    read_at: Option<Duration>,
}

// === impl Pending ===

impl Pending {
    /// A message was written.
    pub(super) fn add_send(&self, id: String, at: Duration, reply: oneshot::Sender<Transmit>) {
        self.lock().sends.insert(id, Sent { at, reply, followed_by: None, read_at: None });
    }

    /// A request was written.
    pub(super) fn add_request(&self, req_id: String, reply: oneshot::Sender<ServerFrame>) {
        let mut waiting = self.lock();
        if waiting.requests.len() >= waiting.tidy_at {
            waiting.requests.retain(|_, reply| !reply.is_closed());
            waiting.tidy_at = FEW.max(2 * waiting.requests.len());
        }
        waiting.requests.insert(req_id, reply);
    }

    /// Hands an ack to its sender; tells how long it took.
    pub(super) fn answer_send(&self, ack: Box<Ack>, now: Duration) -> Option<Duration> {
        let sent = self.lock().sends.remove(&ack.id)?;
        // The sender may have stopped waiting.
        let _ = sent.reply.send(Transmit::Answered(ack));
        Some(now.saturating_sub(sent.at))
    }

    /// Whether somebody waits for the answer with this id.
    pub(super) fn awaits(&self, req_id: Option<&str>) -> bool {
        req_id.is_some_and(|id| self.lock().requests.contains_key(id))
    }

    /// Hands an answer to whoever asked.
    pub(super) fn answer_request(&self, req_id: &str, frame: ServerFrame) {
        if let Some(reply) = self.lock().requests.remove(req_id) {
            let _ = reply.send(frame);
        }
    }

    /// The number of a ping that is written after everything but `begun`.
    pub(super) fn ping(&self, begun: Option<&str>) -> u64 {
        let mut waiting = self.lock();
        waiting.pings += 1;
        let number = waiting.pings;
        let followed = waiting.sends.iter_mut().filter(|(id, _)| Some(id.as_str()) != begun);
        followed.for_each(|(_, sent)| _ = sent.followed_by.get_or_insert(number));
        number
    }

    /// The broker has read what was written before this ping.
    pub(super) fn pong(&self, payload: &[u8], now: Duration) {
        let Ok(number) = payload.try_into().map(u64::from_be_bytes) else { return };
        let mut waiting = self.lock();
        let read = waiting.sends.values_mut().filter(|sent| sent.followed_by.is_some_and(|ping| ping <= number));
        read.for_each(|sent| _ = sent.read_at.get_or_insert(now));
    }

    /// For how long the broker has left a send unanswered that it has read.
    pub(super) fn read_for(&self, now: Duration) -> Option<Duration> {
        self.lock().sends.values().filter_map(|sent| sent.read_at).map(|at| now.saturating_sub(at)).max()
    }

    /// The connection is gone: everybody learns it.
    pub(super) fn fail_all(&self, too_large: bool) {
        let waiting = std::mem::take(&mut *self.lock());
        for (_, sent) in waiting.sends {
            let _ = sent.reply.send(Transmit::LinkLost { too_large });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_nobody_waits_for_are_left_out() {
        let pending = Pending::default();
        let mut asked = Vec::new();
        for number in 0..10_000 {
            let (reply, answer) = oneshot::channel();
            pending.add_request(number.to_string(), reply);
            // The others have run out of time.
            if number % 1_000 == 0 {
                asked.push((number.to_string(), answer));
            }
        }
        let kept = pending.lock().requests.len();
        assert!(kept <= FEW, "{kept}");
        for (req_id, _) in asked {
            assert!(pending.awaits(Some(&req_id)), "{req_id}");
        }
    }
}
