//! How much waits for each receiver, so that no member can fill another's queue.
//!
//! The writer task owns the numbers: it writes every copy and every end of one,
//! so after one read they stay right without a query. Where several brokers share the
//! database they are read again after a second, and the bounds hold about.

use std::collections::HashMap;
use std::time::Duration;

use sea_orm::DbErr;

use crate::broker::store::Store;
use crate::broker::store::deliveries::{self, Ended, Waiting};

/// Copies of one sender that may wait for one receiver.
const PAIR_ROWS: i64 = 1_000;
/// Bytes of them.
const PAIR_BYTES: i64 = 64 << 20;
/// Copies that may wait for one receiver.
const RECEIVER_ROWS: i64 = 10_000;
/// Bytes of them.
const RECEIVER_BYTES: i64 = 256 << 20;
/// Receivers whose numbers are kept.
const REMEMBERED: usize = 50_000;

/// What waits, by receiver.
#[derive(Debug, Default)]
pub struct QueueSizes {
    by_receiver: HashMap<String, Sizes>,
    /// When the numbers began to be kept.
    since: Duration,
}

#[derive(Debug, Default)]
struct Sizes {
    rows: i64,
    bytes: i64,
    /// Rows and bytes of each sender.
    by_sender: HashMap<String, (i64, i64)>,
}

// === impl QueueSizes ===

impl QueueSizes {
    /// Reads the numbers of receivers that are not known yet.
    pub async fn load<'a>(&mut self, store: &Store, receivers: impl Iterator<Item = &'a String>) -> Result<(), DbErr> {
        if self.by_receiver.len() > REMEMBERED {
            self.by_receiver.retain(|_, sizes| sizes.rows > 0);
            if self.by_receiver.len() > REMEMBERED {
                self.by_receiver.clear();
            }
        }
        let mut unknown: Vec<String> =
            receivers.filter(|receiver| !self.by_receiver.contains_key(*receiver)).cloned().collect();
        if unknown.is_empty() {
            return Ok(());
        }
        unknown.sort_unstable();
        unknown.dedup();
        let mut found = deliveries::waiting(store.readers(), &unknown).await?;
        for receiver in unknown {
            self.by_receiver.insert(receiver.clone(), Sizes::from(found.remove(&receiver).unwrap_or_default()));
        }
        Ok(())
    }

    /// Whether another copy fits. Numbers that are not loaded count as empty.
    pub fn has_room(&self, receiver: &str, sender: &str, bytes: i64) -> bool {
        let Some(sizes) = self.by_receiver.get(receiver) else { return true };
        let (pair_rows, pair_bytes) = sizes.by_sender.get(sender).copied().unwrap_or_default();
        pair_rows < PAIR_ROWS
            && pair_bytes + bytes <= PAIR_BYTES
            && sizes.rows < RECEIVER_ROWS
            && sizes.bytes + bytes <= RECEIVER_BYTES
    }

    /// Whether so much fits that it is worth to begin again with sending: half of what
    /// the pair may hold. Numbers that are not loaded count as full.
    pub fn has_much_room(&self, receiver: &str, sender: &str) -> bool {
        let Some(sizes) = self.by_receiver.get(receiver) else { return false };
        let (pair_rows, pair_bytes) = sizes.by_sender.get(sender).copied().unwrap_or_default();
        pair_rows <= PAIR_ROWS / 2
            && pair_bytes <= PAIR_BYTES / 2
            && sizes.rows + PAIR_ROWS / 2 <= RECEIVER_ROWS
            && sizes.bytes + PAIR_BYTES / 2 <= RECEIVER_BYTES
    }

    /// Counts a copy that was written, or will be.
    pub fn add(&mut self, receiver: &str, sender: &str, bytes: i64) {
        self.change(receiver, sender, 1, bytes);
    }

    /// Takes back a copy that was not written after all.
    pub fn take_back(&mut self, receiver: &str, sender: &str, bytes: i64) {
        self.change(receiver, sender, -1, -bytes);
    }

    /// Counts copies that came to their end.
    pub fn ended(&mut self, ended: &[Ended]) {
        for copy in ended.iter().filter(|copy| !copy.had_left) {
            self.change(&copy.recipient_member_id, &copy.sender_member_id, -1, -copy.bytes);
        }
    }

    /// Forgets numbers older than `age`; `None` where nobody else changes them.
    pub fn forget_after(&mut self, age: Option<Duration>, now: Duration) {
        if age.is_some_and(|age| self.since + age <= now) {
            self.forget();
            self.since = now;
        }
    }

    /// Forgets the numbers of one receiver.
    pub fn forget_one(&mut self, receiver: &str) {
        self.by_receiver.remove(receiver);
    }

    /// Forgets everything; the next use reads again.
    pub fn forget(&mut self) {
        self.by_receiver.clear();
    }

    fn change(&mut self, receiver: &str, sender: &str, rows: i64, bytes: i64) {
        let Some(sizes) = self.by_receiver.get_mut(receiver) else { return };
        sizes.rows += rows;
        sizes.bytes += bytes;
        let pair = sizes.by_sender.entry(sender.to_owned()).or_default();
        *pair = (pair.0 + rows, pair.1 + bytes);
        if pair.0 <= 0 {
            sizes.by_sender.remove(sender);
        }
    }
}

impl From<Waiting> for Sizes {
    fn from(waiting: Waiting) -> Self {
        let total = |(r, b): (i64, i64), (rows, bytes): &(i64, i64)| (r + rows, b + bytes);
        let (rows, bytes) = waiting.by_sender.values().fold((0, 0), total);
        Self { rows, bytes, by_sender: waiting.by_sender }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_per_pair_and_per_receiver() {
        let mut sizes = QueueSizes::default();
        assert!(sizes.has_room("r", "s", 1), "not loaded");
        sizes.by_receiver.insert("r".to_owned(), Sizes::default());
        for _ in 0..PAIR_ROWS {
            assert!(sizes.has_room("r", "s", 10));
            sizes.add("r", "s", 10);
        }
        assert!(!sizes.has_room("r", "s", 10));
        assert!(sizes.has_room("r", "other", 10));
        sizes.take_back("r", "s", 10);
        assert!(sizes.has_room("r", "s", 10));
        assert!(!sizes.has_room("r", "other", RECEIVER_BYTES));
    }
}
