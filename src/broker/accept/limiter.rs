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
    buckets: Mutex<HashMap<String, Bucket>>,
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
        Self { per_s, burst: per_s.saturating_mul(10).max(10), buckets: Mutex::default() }
    }

    /// The limit, if there is one: per second, and at once.
    pub fn limit(&self) -> Option<(u32, u32)> {
        (self.per_s > 0).then_some((self.per_s, self.burst))
    }

    /// Takes a token; else tells after how long there is one.
    pub fn take(&self, member_id: &str, now: Duration) -> Result<(), Duration> {
        let Some((per_s, burst)) = self.limit() else { return Ok(()) };
        let mut buckets = self.lock();
        if buckets.len() >= SWEEP_AT {
            buckets.retain(|_, bucket| bucket.refilled(per_s, burst, now).tokens < f64::from(burst));
        }
        let full = Bucket { tokens: f64::from(burst), at: now };
        let bucket = buckets.entry(member_id.to_owned()).or_insert(full);
        *bucket = bucket.refilled(per_s, burst, now);
        if bucket.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.tokens) / f64::from(per_s)));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }

    /// Gives a token back: the send was a duplicate and cost nothing.
    pub fn give_back(&self, member_id: &str) {
        if let Some(bucket) = self.lock().get_mut(member_id) {
            bucket.tokens = (bucket.tokens + 1.0).min(f64::from(self.burst));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Bucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
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
            limiter.take("a", at(0)).expect("the burst");
        }
        assert_eq!(limiter.take("a", at(0)), Err(at(500)));
        limiter.take("b", at(0)).expect("another member");
        limiter.take("a", at(500)).expect("refilled");
        assert!(limiter.take("a", at(500)).is_err());
        limiter.give_back("a");
        limiter.take("a", at(500)).expect("given back");
        assert_eq!(Limiter::new(0).take("a", at(0)), Ok(()));
    }
}
