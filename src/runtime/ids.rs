//! The only place that draws random numbers, so that what is random can be
//! seen and replaced.

use std::sync::{Arc, Mutex, PoisonError};

use ulid::Ulid;

use super::clock::Clock;
use crate::domain::time::UnixMillis;

/// Mints ULIDs that grow with each call, and random bytes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct IdSource {
    clock: Clock,
    // A std mutex: held for a few additions, never across an await.
    last: Arc<Mutex<Ulid>>,
}

/// The operating system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no random bytes: {0}")]
pub struct RandomError(#[from] getrandom::Error);

// === impl IdSource ===

impl IdSource {
    /// A source that takes the time from `clock`.
    pub fn new(clock: Clock) -> Self {
        Self { clock, last: Arc::new(Mutex::new(Ulid(0))) }
    }

    /// Goes on after this id, which an earlier run has given: the wall clock may have
    /// been ahead then. A text that is no ULID changes nothing.
    pub fn continue_after(&self, id: &str) {
        if let Ok(id) = Ulid::from_string(id) {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            *last = id.max(*last);
        }
    }

    /// A ULID greater than every one that this source has given, and than those of
    /// [`Self::continue_after`]: 26 characters of Crockford's base 32. Within one
    /// millisecond, and while the wall clock stands behind an earlier call, the last
    /// one is incremented.
    pub fn ulid(&self) -> String {
        self.ulid_at(self.clock.now())
    }

    /// The same by another clock, such as one that several hosts share: what they give
    /// is in the order of its time.
    pub fn ulid_at(&self, now: UnixMillis) -> String {
        let now_ms = u64::try_from(now.0).unwrap_or(0);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let next = if now_ms > last.timestamp_ms() {
            Ulid::from_parts(now_ms, random_u128())
        } else {
            last.increment().unwrap_or_else(|_| Ulid::from_parts(last.timestamp_ms().saturating_add(1), random_u128()))
        };
        *last = next;
        next.to_string()
    }

    /// `N` bytes from the operating system, fit for keys and nonces.
    pub fn random<const N: usize>(&self) -> Result<[u8; N], RandomError> {
        let mut bytes = [0; N];
        getrandom::fill(&mut bytes)?;
        Ok(bytes)
    }

    /// A number in `0..=max`, for jitter. Not for keys.
    pub fn jitter(&self, max: u64) -> u64 {
        if max == 0 { 0 } else { rand::random_range(0..=max) }
    }
}

#[expect(clippy::disallowed_methods, reason = "this file is where random ids come from")]
fn random_u128() -> u128 {
    rand::random()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ulids_grow_even_when_the_clock_stands_still_or_goes_back() {
        let clock = Clock::manual(UnixMillis(1_700_000_000_000));
        let ids = IdSource::new(clock.clone());
        let mut last = String::new();
        for round in 0..1_000 {
            if round % 100 == 0 {
                clock.advance(Duration::from_millis(1));
            }
            let next = ids.ulid();
            assert!(next > last, "{next} after {last}");
            assert_eq!(next.len(), 26);
            last = next;
        }
    }

    #[test]
    fn ulids_by_a_shared_clock_are_in_its_order() {
        let slow = IdSource::new(Clock::manual(UnixMillis(1_600_000_000_000)));
        let fast = IdSource::new(Clock::manual(UnixMillis(1_700_000_000_000)));
        let given = [fast.ulid_at(UnixMillis(10)), slow.ulid_at(UnixMillis(11)), fast.ulid_at(UnixMillis(12))];
        assert!(given.is_sorted(), "{given:?}");
    }

    #[test]
    fn ulids_go_on_after_those_of_a_run_whose_clock_was_ahead() {
        let clock = Clock::manual(UnixMillis(1_700_000_000_000));
        let ids = IdSource::new(clock.clone());
        let earlier = ids.ulid();
        clock.set(UnixMillis(1_600_000_000_000));
        let next = IdSource::new(clock);
        next.continue_after(&earlier);
        next.continue_after("no ULID");
        next.continue_after("01ARZ3NDEKTSV4RRFFQ69G5FAV");
        let first = next.ulid();
        assert!(first > earlier, "{first} after {earlier}");
        assert!(next.ulid() > first);
    }
}
