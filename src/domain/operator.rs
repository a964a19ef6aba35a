//! What an operator may do with a row of the outbox, as a table.

use std::time::Duration;

use super::age_limit::DedupeWindow;
use super::outbox::{OutboxEvent, OutboxState, next};
use super::time::UnixMillis;

/// A row, as far as an operator's call looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its state.
    pub state: OutboxState,
    /// When it was first transmitted.
    pub first_transmit_at: Option<UnixMillis>,
}

/// Why a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Not in this state.
    WrongState,
    /// The broker may have forgotten the id, so a repeat could be delivered
    /// twice. Only a new id is safe to reason about.
    WindowPassed,
}

/// Whether a row may be queued again under its own id.
pub fn requeue_same(facts: Facts, window: DedupeWindow, now: UnixMillis, max_age: Duration) -> Result<(), Refused> {
    if next(facts.state, OutboxEvent::Requeued).is_none() {
        return Err(Refused::WrongState);
    }
    if !window.covers_requeue(facts.first_transmit_at, now, max_age) {
        return Err(Refused::WindowPassed);
    }
    Ok(())
}

/// Whether a row may be retired, with or without a successor. One whose answer
/// is awaited may not: nobody could say then whether it was delivered.
pub fn retire(facts: Facts) -> Result<(), Refused> {
    match (next(facts.state, OutboxEvent::AbortedByOperator), facts.state) {
        (None, _) | (Some(_), OutboxState::Inflight) => Err(Refused::WrongState),
        (Some(_), _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_states_may_be_retired_and_queued_again() {
        let now = UnixMillis(0);
        for (state, may_retire, may_requeue) in [
            (OutboxState::Pending, true, false),
            (OutboxState::Inflight, false, false),
            (OutboxState::Done, false, false),
            (OutboxState::Dead, true, true),
            (OutboxState::Aborted, false, false),
        ] {
            let facts = Facts { state, first_transmit_at: None };
            assert_eq!(retire(facts).is_ok(), may_retire, "{state:?}");
            let requeued = requeue_same(facts, DedupeWindow::Unknown, now, Duration::from_secs(1));
            assert_eq!(requeued.is_ok(), may_requeue, "{state:?}");
        }
    }

    #[test]
    fn a_forgotten_id_is_not_used_again() {
        let hour = Duration::from_secs(3600);
        let facts = Facts { state: OutboxState::Dead, first_transmit_at: Some(UnixMillis(0)) };
        let late = UnixMillis(0).plus(hour * 24);
        assert_eq!(requeue_same(facts, DedupeWindow::Unknown, late, hour * 23), Err(Refused::WindowPassed));
        assert_eq!(requeue_same(facts, DedupeWindow::Days(365), late, hour * 23), Ok(()));
    }
}
