//! What a send is answered when its id is known already, and when it is not.
//!
//! The whole table: no row; and each of five states with the same or another
//! request. No answer changes a row.

use super::error_code::ErrorCode;
use super::fingerprint::LocalFingerprint;
use super::outbox::OutboxState;

/// The row that holds the id, as far as the decision needs it.
#[derive(Clone, Copy, Debug)]
pub struct ExistingRow {
    /// Its state.
    pub state: OutboxState,
    /// The fingerprint that was computed when it was accepted.
    pub fingerprint: LocalFingerprint,
}

/// What to do with a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptDecision {
    /// Insert a `pending` row; answer `queued`.
    Insert,
    /// The same request waits already; answer `queued`.
    Queued,
    /// The same request is on its way; answer `inflight`.
    Inflight,
    /// The broker has the same request; answer with its ids, call nobody.
    Duplicate,
    /// Refuse with this code.
    Conflict(ErrorCode),
}

/// Decides from the row that holds the id and the new request's fingerprint.
pub fn decide_accept(existing: Option<&ExistingRow>, new: &LocalFingerprint) -> AcceptDecision {
    use AcceptDecision::{Conflict, Duplicate, Inflight, Insert, Queued};
    let Some(row) = existing else { return Insert };
    match (row.state, row.fingerprint == *new) {
        (OutboxState::Pending, true) => Queued,
        (OutboxState::Pending, false) => Conflict(ErrorCode::OutboxPendingFingerprintMismatch),
        (OutboxState::Inflight, true) => Inflight,
        (OutboxState::Inflight, false) => Conflict(ErrorCode::OutboxInflightFingerprintMismatch),
        (OutboxState::Done, true) => Duplicate,
        (OutboxState::Done, false) => Conflict(ErrorCode::OutboxDoneFingerprintMismatch),
        (OutboxState::Dead, true) => Conflict(ErrorCode::OutboxDeadFingerprintMatch),
        (OutboxState::Dead, false) => Conflict(ErrorCode::OutboxDeadFingerprintMismatch),
        (OutboxState::Aborted, true) => Conflict(ErrorCode::OutboxAbortedFingerprintMatch),
        (OutboxState::Aborted, false) => Conflict(ErrorCode::OutboxAbortedFingerprintMismatch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Covers: R151
    #[test]
    fn the_whole_table() {
        let mine = LocalFingerprint([1; 32]);
        let other = LocalFingerprint([2; 32]);
        assert_eq!(decide_accept(None, &mine), AcceptDecision::Insert);
        for state in OutboxState::ALL {
            let row = ExistingRow { state, fingerprint: mine };
            let same = match state {
                OutboxState::Pending => "queued",
                OutboxState::Inflight => "inflight",
                OutboxState::Done => "duplicate",
                OutboxState::Dead => "outbox_dead_fingerprint_match",
                OutboxState::Aborted => "outbox_aborted_fingerprint_match",
            };
            assert_eq!(text(decide_accept(Some(&row), &mine)), same);
            let mismatch = format!("outbox_{}_fingerprint_mismatch", state.name());
            assert_eq!(text(decide_accept(Some(&row), &other)), mismatch);
        }
    }

    fn text(decision: AcceptDecision) -> &'static str {
        match decision {
            AcceptDecision::Insert => "insert",
            AcceptDecision::Queued => "queued",
            AcceptDecision::Inflight => "inflight",
            AcceptDecision::Duplicate => "duplicate",
            AcceptDecision::Conflict(code) => code.name(),
        }
    }
}
