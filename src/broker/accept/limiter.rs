//! How many messages a member may send: a token bucket over all of its
//! connections.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Buckets that may exist before full ones are forgotten.
const SWEEP_AT: usize = 10_000;

/// The buckets of all members.
#[derive(Debug)]
pub struct Limiter {
    per_s: u32,
    burst: u32,
    budget: Mutex<Budget>,
}

#[derive(Debug, Default)]
struct Budget {
    buckets: HashMap<String, Bucket>,
    /// Sends by member and id that took a token, and until when that counts. As
    /// many as tokens are given out in two windows.
    paid: HashMap<(String, String), Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens: f64,
    at: Duration,
}

// === impl Limiter ===

impl Limiter {
    /// `per_s` messages a second; 0 is no limit.
    pub fn new(per_s: u32) -> Self {
        Self { per_s, burst: per_s.saturating_mul(10).max(10), budget: Mutex::default() }
    }

    /// The limit, if there is one: per second, and at once.
    pub fn limit(&self) -> Option<(u32, u32)> {
        (self.per_s > 0).then_some((self.per_s, self.burst))
    }

    /// Takes a token and says whether it did; else tells after how long there is
    /// one. A send that is tried again, before it was stored, costs once: the id
    /// is remembered for two windows, and a window is the time that refills a
    /// whole bucket.
    pub fn take(&self, member_id: &str, client_message_id: Option<&str>, now: Duration) -> Result<bool, Duration> {
        let Some((per_s, burst)) = self.limit() else { return Ok(false) };
        let mut budget = self.lock();
        let Budget { buckets, paid } = &mut *budget;
        if buckets.len() >= SWEEP_AT {
            buckets.retain(|_, bucket| bucket.refilled(per_s, burst, now).tokens < f64::from(burst));
        }
        if paid.len() >= SWEEP_AT {
            paid.retain(|_, until| *until > now);
        }
        let marker = client_message_id.map(|id| (member_id.to_owned(), id.to_owned()));
        if marker.as_ref().and_then(|marker| paid.get(marker)).is_some_and(|until| *until > now) {
            return Ok(false);
        }
        let full = Bucket { tokens: f64::from(burst), at: now };
        let bucket = buckets.entry(member_id.to_owned()).or_insert(full);
        *bucket = bucket.refilled(per_s, burst, now);
        if bucket.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.tokens) / f64::from(per_s)));
        }
        bucket.tokens -= 1.0;
        if let Some(marker) = marker {
            paid.insert(marker, now + 2 * Duration::from_secs_f64(f64::from(burst) / f64::from(per_s)));
        }
        Ok(true)
    }

    /// Gives a token back: the send was a duplicate and cost nothing.
    pub fn give_back(&self, member_id: &str) {
        if let Some(bucket) = self.lock().buckets.get_mut(member_id) {
            bucket.tokens = (bucket.tokens + 1.0).min(f64::from(self.burst));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Bucket ===

impl Bucket {
    fn refilled(self, per_s: u32, burst: u32, now: Duration) -> Self {
        let gained = now.saturating_sub(self.at).as_secs_f64() * f64::from(per_s);
        Self { tokens: (self.tokens + gained).min(f64::from(burst)), at: now.max(self.at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate() {
        let limiter = Limiter::new(2);
        let at = |ms| Duration::from_millis(ms);
        for _ in 0..20 {
            limiter.take("a", None, at(0)).expect("the burst");
        }
        assert_eq!(limiter.take("a", None, at(0)), Err(at(500)));
        limiter.take("b", None, at(0)).expect("another member");
        limiter.take("a", None, at(500)).expect("refilled");
        assert!(limiter.take("a", None, at(500)).is_err());
        limiter.give_back("a");
        limiter.take("a", None, at(500)).expect("given back");
        assert_eq!(Limiter::new(0).take("a", None, at(0)), Ok(false));
    }

    #[test]
    fn a_retry_of_one_send_costs_once() {
        let limiter = Limiter::new(1);
        let at = |s| Duration::from_secs(s);
        assert_eq!(limiter.take("a", Some("x"), at(0)), Ok(true));
        for _ in 0..20 {
            assert_eq!(limiter.take("a", Some("x"), at(0)), Ok(false));
        }
        for n in 0..9 {
            assert_eq!(limiter.take("a", Some(&n.to_string()), at(0)), Ok(true));
        }
        assert!(limiter.take("a", Some("y"), at(0)).is_err(), "the budget is spent");
        assert_eq!(limiter.take("a", Some("x"), at(0)), Ok(false), "but not for what it was spent on");
        assert!(limiter.take("b", Some("x"), at(0)).expect("another member"), "another's id is another id");
        assert_eq!(limiter.take("a", Some("x"), at(21)), Ok(true), "two windows later it is new");
    }
}
