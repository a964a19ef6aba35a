//! Live events to subscribers.
//!
//! What it is for: whoever follows the daemon learns what happens as it happens.
//! What runs here: nothing of its own; publishers call in.
//! What it guarantees: a publisher never waits; a subscriber that falls behind
//! is told so and reads what it missed from the database.
//! What it must not do: be the only record of anything. Stored messages are
//! published after their commit and can be read again.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::domain::event::MeshEvent;
use crate::domain::time::UnixMillis;

/// Events that a subscriber may be behind before it has to read the database.
const BUFFER: usize = 1024;

/// An event and when it happened.
#[derive(Clone, Debug)]
pub struct Timed {
    /// When.
    pub at: UnixMillis,
    /// What.
    pub event: Arc<MeshEvent>,
}

/// The hub. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hub(broadcast::Sender<Timed>);

/// One subscriber's view.
#[derive(Debug)]
pub struct Subscription(broadcast::Receiver<Timed>);

/// What a subscriber receives next.
#[derive(Clone, Debug)]
pub enum Next {
    /// An event.
    Event(Timed),
    /// So many events were dropped for this subscriber.
    Lagged(u64),
    /// The daemon stops.
    Closed,
}

// === impl Hub ===

impl Default for Hub {
    fn default() -> Self {
        Self(broadcast::Sender::new(BUFFER))
    }
}

impl Hub {
    /// Tells every subscriber.
    pub fn publish(&self, at: UnixMillis, event: MeshEvent) {
        // An error only says that nobody listens.
        let _ = self.0.send(Timed { at, event: Arc::new(event) });
    }

    /// Follows from now on.
    pub fn subscribe(&self) -> Subscription {
        Subscription(self.0.subscribe())
    }
}

// === impl Subscription ===

impl Subscription {
    /// Waits for the next event.
    pub async fn next(&mut self) -> Next {
        match self.0.recv().await {
            Ok(event) => Next::Event(event),
            Err(broadcast::error::RecvError::Lagged(count)) => Next::Lagged(count),
            Err(broadcast::error::RecvError::Closed) => Next::Closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_subscriber_is_told_and_does_not_hold_up_the_others() {
        let hub = Hub::default();
        let (mut slow, mut fast) = (hub.subscribe(), hub.subscribe());
        for count in 0..BUFFER as u64 + 5 {
            hub.publish(UnixMillis(0), MeshEvent::DaemonReconnect { away_ms: count });
            assert!(matches!(fast.next().await, Next::Event(_)));
        }
        assert!(matches!(slow.next().await, Next::Lagged(5)));
        assert!(matches!(slow.next().await, Next::Event(_)));
        drop(hub);
        assert!(matches!(fast.next().await, Next::Closed));
    }
}
