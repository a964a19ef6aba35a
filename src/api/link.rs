//! What is known of the link to the broker, also while it is down.

use std::sync::Arc;

use tokio::sync::watch;

use crate::broker_client::{self, LinkState, Session, Stats};
use crate::domain::error_code::ErrorCode;
use crate::domain::time::UnixMillis;
use crate::runtime::clock::Clock;
use crate::runtime::supervisor::Supervisor;
use crate::runtime::task_kind::{Phase, TaskKind};

/// The link as callers are shown it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LinkView {
    handle: broker_client::Handle,
    seen: watch::Receiver<Seen>,
}

/// What was seen of the link so far.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its state.
    pub state: LinkState,
    /// When that began. Further failed attempts do not begin anything.
    pub since: UnixMillis,
    /// When the last change was seen, such as the next pause between attempts.
    pub changed_at: UnixMillis,
    /// The newest connection, up or not.
    pub last_session: Option<Arc<Session>>,
    /// The last failure: its code, its words and its time.
    pub last_failure: Option<(ErrorCode, String, UnixMillis)>,
}

/// The task that keeps a [`LinkView`] up to date, not started.
#[derive(Debug)]
pub struct Follower {
    states: watch::Receiver<LinkState>,
    seen: watch::Sender<Seen>,
    clock: Clock,
}

/// A view of the link, and the task that it needs.
pub fn prepare(handle: broker_client::Handle, clock: Clock) -> (LinkView, Follower) {
    let mut states = handle.state();
    let first = states.borrow_and_update().clone();
    let (seen_tx, seen) = watch::channel(Seen::first(first, clock.now()));
    (LinkView { handle, seen }, Follower { states, seen: seen_tx, clock })
}

// === impl Follower ===

impl Follower {
    /// Starts the task.
    pub fn spawn(mut self, supervisor: &Supervisor) {
        let stop = supervisor.token(Phase::Workers);
        supervisor.spawn(TaskKind::Maintenance, "link view", async move {
            while let Some(Ok(())) = stop.run_until_cancelled(self.states.changed()).await {
                let state = self.states.borrow_and_update().clone();
                self.seen.send_modify(|seen| seen.note(state, self.clock.now()));
            }
            // The link may end before the daemon does; what was seen last stays.
            stop.cancelled().await;
        });
    }
}

// === impl LinkView ===

impl LinkView {
    /// What was seen so far.
    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Whether there is a link now, as far as that is known.
    pub fn is_up(&self) -> bool {
        self.handle.session().is_some_and(|session| !session.is_doubtful())
    }

    /// The last round trip in milliseconds; 0 before the first.
    pub fn lag_ms(&self) -> f64 {
        let us = self.handle.stats().round_trip_us.load(std::sync::atomic::Ordering::Relaxed);
        // Far below 2^53 microseconds.
        us as f64 / 1000.0
    }

    /// A time of this host by the broker's clock, as far as that is known.
    pub fn broker_time(&self, at: UnixMillis) -> UnixMillis {
        let offset = self.seen.borrow().last_session.as_ref().map_or(0, |session| session.clock_offset_ms);
        UnixMillis(at.0.saturating_add(offset))
    }

    /// Times that the link came back since the start.
    pub fn reconnects(&self) -> u64 {
        self.stats().reconnects().values().sum()
    }

    /// Counters of the link.
    pub fn stats(&self) -> &Stats {
        self.handle.stats()
    }
}

// === impl Seen ===

impl Seen {
    fn first(state: LinkState, now: UnixMillis) -> Self {
        let mut seen =
            Self { state: LinkState::Connecting, since: now, changed_at: now, last_session: None, last_failure: None };
        seen.note(state, now);
        seen
    }

    fn note(&mut self, state: LinkState, now: UnixMillis) {
        match &state {
            LinkState::Ready(session) => self.last_session = Some(Arc::clone(session)),
            LinkState::Waiting { code, reason, .. } => self.last_failure = Some((*code, reason.clone(), now)),
            LinkState::Ended(end) => self.last_failure = Some((end.code(), end.to_string(), now)),
            LinkState::Connecting => {}
        }
        if std::mem::discriminant(&self.state) != std::mem::discriminant(&state) {
            self.since = now;
        }
        self.state = state;
        self.changed_at = now;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_outage_begins_once() {
        let waiting = |attempt| LinkState::Waiting {
            code: ErrorCode::BrokerUnreachable,
            reason: "refused".to_owned(),
            attempt,
            pause: Duration::ZERO,
        };
        let mut seen = Seen::first(LinkState::Connecting, UnixMillis(1));
        seen.note(waiting(1), UnixMillis(2));
        seen.note(waiting(2), UnixMillis(3));
        assert_eq!((seen.since, seen.changed_at), (UnixMillis(2), UnixMillis(3)));
        assert_eq!(seen.last_failure, Some((ErrorCode::BrokerUnreachable, "refused".to_owned(), UnixMillis(3))));
        seen.note(LinkState::Connecting, UnixMillis(4));
        assert_eq!(seen.since, UnixMillis(4));
    }
}
