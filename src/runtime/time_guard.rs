//! Asked before anything is destroyed for its age: may the clock be believed?
//!
//! Holds what `domain::clock_trust` decides from: the last reading of both
//! clocks and what the broker said. Each question is a new reading, so a jump is
//! noticed by the first one that comes after it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::clock::Clock;
use crate::domain::clock_trust::{BrokerTime, Doubt, Reading, at_start, judge};
use crate::domain::time::UnixMillis;

/// The guard. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TimeGuard(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    // A std mutex: held for a comparison, never across an await.
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    last: Reading,
    doubt: Option<Doubt>,
    broker: Option<BrokerTime>,
    /// Times that were written since a start with a clock that ran behind.
    wrong: Option<Span>,
    /// Where they have been corrected.
    corrected: BTreeSet<Database>,
}

/// Where times are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Database {
    /// Of sends.
    Outbox,
    /// Of messages.
    Inbox,
}

/// Times of this daemon that a wrong clock gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub from: UnixMillis,
    /// The last.
    pub to: UnixMillis,
}

// === impl Database ===

impl Database {
    const COUNT: usize = 2;
}

// === impl TimeGuard ===

impl TimeGuard {
    /// The guard of a start. `last_tick` is the last time that the daemon has
    /// stored.
    pub fn new(clock: Clock, last_tick: Option<UnixMillis>) -> Self {
        let last = Reading { wall: clock.now(), monotonic: clock.monotonic() };
        let doubt = at_start(last.wall, last_tick);
        let wrong = doubt.map(|_| Span { from: last.wall, to: last.wall });
        let state = State { last, doubt, broker: None, wrong, corrected: BTreeSet::new() };
        Self(Arc::new(Inner { clock, state: Mutex::new(state) }))
    }

    /// The broker told its time just now.
    pub fn note_broker_time(&self, time: UnixMillis) {
        drop(self.look(Some(time)));
    }

    /// Why the clock must not be believed now.
    pub fn doubt(&self) -> Option<Doubt> {
        self.look(None).doubt
    }

    /// Whether what is old may be destroyed now: the clock is believed, and no
    /// stored time waits to be corrected.
    pub fn may_destroy(&self) -> bool {
        let state = self.look(None);
        state.doubt.is_none() && state.wrong.is_none()
    }

    /// Times that were written by a wrong clock, once the right time is known and
    /// until they are corrected in this database.
    pub fn wrong_times(&self, database: Database) -> Option<Span> {
        let state = self.look(None);
        state.wrong.filter(|_| state.doubt.is_none() && !state.corrected.contains(&database))
    }

    /// The wrong times of this database have been corrected.
    pub fn corrected(&self, database: Database) {
        let mut state = self.lock();
        state.corrected.insert(database);
        if state.corrected.len() == Database::COUNT {
            state.wrong = None;
        }
    }

    fn look(&self, broker: Option<UnixMillis>) -> std::sync::MutexGuard<'_, State> {
        let mut state = self.lock();
        let now = Reading { wall: self.0.clock.now(), monotonic: self.0.clock.monotonic() };
        if let Some(time) = broker {
            state.broker = Some(BrokerTime { time, monotonic: now.monotonic });
        }
        let doubt = judge(state.doubt, state.last, now, state.broker);
        let jumped = judge(None, state.last, now, None) == Some(Doubt::Jumped);
        let before = state.last.wall;
        // The span of a wrong clock ends where the clock was set; until then it ran on.
        let ran_on = before.plus(now.monotonic.saturating_sub(state.last.monotonic));
        if let Some(wrong) = state.wrong.as_mut().filter(|wrong| wrong.to == before) {
            wrong.to = if jumped { ran_on } else { now.wall };
        }
        match (state.doubt, doubt) {
            (None, Some(doubt)) => tracing::warn!(
                "The clock is not believed: {}; nothing is given up or removed for its age until the broker's time \
                 confirms it",
                doubt.text()
            ),
            (Some(_), None) => tracing::info!("The broker's time confirms the clock"),
            _ => {}
        }
        state.doubt = doubt;
        state.last = now;
        state
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::clock_trust::EARLIEST;

    #[test]
    fn a_clock_at_1970_destroys_nothing_until_the_broker_has_spoken() {
        let clock = Clock::manual(UnixMillis(5_000));
        let guard = TimeGuard::new(clock.clone(), None);
        assert!(!guard.may_destroy());
        clock.advance(Duration::from_secs(60));
        assert_eq!(guard.doubt(), Some(Doubt::RunsBehind));
        // Written since the last look, by the wrong clock as well.
        clock.advance(Duration::from_secs(4));
        // The clock is set right: a jump, still nothing is destroyed.
        let right = UnixMillis(EARLIEST.0 + 1_000_000_000);
        clock.set(right);
        assert_eq!(guard.doubt(), Some(Doubt::Jumped));
        assert_eq!(guard.wrong_times(Database::Outbox), None);
        clock.advance(Duration::from_secs(10));
        guard.note_broker_time(right.plus(Duration::from_secs(11)));
        assert_eq!(guard.doubt(), None);
        // What was written meanwhile has to be corrected first.
        assert!(!guard.may_destroy());
        let wrong = Some(Span { from: UnixMillis(5_000), to: UnixMillis(69_000) });
        assert_eq!(guard.wrong_times(Database::Outbox), wrong);
        guard.corrected(Database::Outbox);
        assert_eq!((guard.wrong_times(Database::Outbox), guard.wrong_times(Database::Inbox)), (None, wrong));
        assert!(!guard.may_destroy());
        guard.corrected(Database::Inbox);
        assert!(guard.may_destroy());
    }

    #[test]
    fn a_jump_is_noticed_by_the_next_question() {
        let clock = Clock::manual(UnixMillis(EARLIEST.0 + 1_000));
        let guard = TimeGuard::new(clock.clone(), Some(EARLIEST));
        assert!(guard.may_destroy());
        clock.set(UnixMillis(EARLIEST.0 + 31 * 86_400_000));
        assert!(!guard.may_destroy());
        assert_eq!(guard.wrong_times(Database::Outbox), None);
        guard.note_broker_time(clock.now());
        assert!(guard.may_destroy());
    }
}
