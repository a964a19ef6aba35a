//! New rows that leave at once: from the writer to the sender in memory.
//!
//! A row that waits is claimed by a commit of its own before it leaves. While the
//! sender has nothing that waits and room for more, it says for how many rows, and
//! the writer inserts so many as `inflight` and hands them over after the commit:
//! one synced commit less on the way of each message. As soon as one row is not
//! handed over, none is until the sender has claimed: messages keep their order.

use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;

use super::entity::Model;

/// Between the writer and the sender.
#[derive(Debug)]
pub(super) struct Handover {
    rows: mpsc::Sender<Model>,
    /// A std mutex: held for a few instructions, never across an await.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Rows that may still be handed over.
    room: u32,
    /// Rows that were inserted for it, or will be, and have not arrived.
    under_way: u32,
    /// The sender has claimed since a row was last left to wait.
    caught_up: bool,
}

// === impl Handover ===

impl Handover {
    /// For at most `window` rows at a time. Nothing is handed over before the
    /// sender has claimed.
    pub(super) fn new(window: u32) -> (Self, mpsc::Receiver<Model>) {
        let (rows, arriving) = mpsc::channel(window.max(1) as usize);
        (Self { rows, state: Mutex::default() }, arriving)
    }

    /// Whether the next `count` rows leave at once. If not they wait, and so does
    /// everything after them.
    pub(super) fn take(&self, count: usize) -> bool {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let mut state = self.lock();
        if !state.caught_up || state.room < count {
            state.caught_up = false;
            return false;
        }
        state.room -= count;
        state.under_way += count;
        true
    }

    /// Hands over a row of those that were taken. Gives it back when nobody is
    /// there to take it.
    pub(super) fn give(&self, row: Model) -> Result<(), Box<Model>> {
        self.rows.try_send(row).map_err(|error| Box::new(error.into_inner()))
    }

    /// So many of those that were taken have arrived, or will not come.
    pub(super) fn arrived(&self, count: usize) {
        let mut state = self.lock();
        state.under_way = state.under_way.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX));
    }

    /// The sender has room for so many rows, those under way among them, and
    /// nothing that waits as far as it knows.
    pub(super) fn offer(&self, room: u32) {
        let mut state = self.lock();
        state.room = room.saturating_sub(state.under_way);
    }

    /// The sender claims now, and sees every row that was left to wait until here.
    pub(super) fn catch_up(&self) {
        let mut state = self.lock();
        state.room = 0;
        state.caught_up = true;
    }

    /// Rows that were taken and have not arrived.
    pub(super) fn under_way(&self) -> u32 {
        self.lock().under_way
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_waits_lets_nobody_pass() {
        let (handover, _arriving) = Handover::new(8);
        handover.offer(8);
        assert!(!handover.take(1), "the sender has not claimed yet");
        handover.catch_up();
        handover.offer(8);
        assert!(handover.take(3));
        assert!(!handover.take(6), "five are left");
        assert!(!handover.take(1), "it would pass the six that wait");
        handover.offer(8);
        assert!(!handover.take(1), "they still wait");
        handover.catch_up();
        handover.offer(8);
        assert!(!handover.take(6), "three are under way");
        handover.catch_up();
        handover.arrived(3);
        handover.offer(8);
        assert!(handover.take(8));
        handover.offer(0);
        handover.arrived(8);
        assert!(!handover.take(1), "no room");
    }
}
