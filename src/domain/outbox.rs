//! The life of an outbox row.
//!
//! ```text
//!              claimed                 accepted
//!  pending ───────────────► inflight ───────────► done
//!     ▲  │                    │  │
//!     │  │ too old            │  │ refused for good, too old
//!     │  └──────────► dead ◄──┘  │
//!     │                │         │ refused for now, link lost,
//!     └────────────────┼─────────┘ found at start
//!           requeued ──┘
//!  pending, inflight, dead ──── aborted by the operator ───► aborted
//! ```

/// The state of a row. The database holds the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutboxState {
    /// Waits to be transmitted.
    Pending,
    /// Transmitted; the broker's answer is awaited.
    Inflight,
    /// The broker has accepted it.
    Done,
    /// Given up; only the operator can bring it back.
    Dead,
    /// Retired by the operator.
    Aborted,
}

/// What can happen to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutboxEvent {
    /// The sender takes it for transmission.
    Claimed,
    /// The broker accepted it, now or before.
    Accepted,
    /// The broker refused it in a way that no retry mends.
    RefusedForGood,
    /// The broker refused it for now.
    RefusedForNow,
    /// The link went away before an answer came.
    LinkLost,
    /// A start found it: the answer, if any, is lost.
    FoundAtStart,
    /// It is older than the age limit.
    TooOld,
    /// The operator queues it again.
    Requeued,
    /// The operator retires it.
    AbortedByOperator,
}

// === impl OutboxState ===

impl OutboxState {
    /// All states.
    pub const ALL: [Self; 5] = [Self::Pending, Self::Inflight, Self::Done, Self::Dead, Self::Aborted];

    /// The name in the database and in every listing.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Inflight => "inflight",
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Aborted => "aborted",
        }
    }

    /// The state of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.name() == name)
    }
}

// === impl OutboxEvent ===

impl OutboxEvent {
    /// All events.
    pub const ALL: [Self; 9] = [
        Self::Claimed,
        Self::Accepted,
        Self::RefusedForGood,
        Self::RefusedForNow,
        Self::LinkLost,
        Self::FoundAtStart,
        Self::TooOld,
        Self::Requeued,
        Self::AbortedByOperator,
    ];
}

/// The state after an event; `None` when the event cannot happen in that state
/// and must leave the row as it is.
pub fn next(state: OutboxState, event: OutboxEvent) -> Option<OutboxState> {
    use OutboxEvent as E;
    use OutboxState as S;
    match (state, event) {
        (S::Pending, E::Claimed) => Some(S::Inflight),
        // An answer may come after the link was already given up.
        (S::Pending | S::Inflight, E::Accepted) => Some(S::Done),
        (S::Pending | S::Inflight, E::RefusedForGood | E::TooOld) => Some(S::Dead),
        (S::Inflight, E::RefusedForNow | E::LinkLost | E::FoundAtStart) => Some(S::Pending),
        (S::Dead, E::Requeued) => Some(S::Pending),
        (S::Pending | S::Inflight | S::Dead, E::AbortedByOperator) => Some(S::Aborted),
        (S::Pending, E::RefusedForNow | E::LinkLost | E::FoundAtStart | E::Requeued)
        | (S::Inflight, E::Claimed | E::Requeued)
        | (
            S::Dead,
            E::Claimed | E::Accepted | E::RefusedForGood | E::RefusedForNow | E::LinkLost | E::FoundAtStart | E::TooOld,
        )
        | (S::Done | S::Aborted, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_table() {
        // Rows: states in order; columns: events in order. `.` leaves the row.
        let table = ["iDx...x.a", ".DxPPPx.a", ".........", ".......Pa", "........."];
        for (state, row) in OutboxState::ALL.into_iter().zip(table) {
            for (event, cell) in OutboxEvent::ALL.into_iter().zip(row.chars()) {
                let expected = match cell {
                    'i' => Some(OutboxState::Inflight),
                    'D' => Some(OutboxState::Done),
                    'x' => Some(OutboxState::Dead),
                    'P' => Some(OutboxState::Pending),
                    'a' => Some(OutboxState::Aborted),
                    _ => None,
                };
                assert_eq!(next(state, event), expected, "{state:?} {event:?}");
            }
        }
    }

    #[test]
    fn no_state_that_ends_a_send_is_left_without_the_operator() {
        for event in OutboxEvent::ALL {
            assert_eq!(next(OutboxState::Done, event), None);
            assert_eq!(next(OutboxState::Aborted, event), None);
        }
    }
}
