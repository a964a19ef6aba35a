//! How many messages a member may send: a token bucket over all of its
//! connections.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What each send looks at of what may be forgotten. More than one that it adds, so
/// that what is remembered shrinks.
const TIDIED: usize = 2;

/// The buckets of all members.
#[derive(Debug)]
pub struct Limiter {
    per_s: u32,
    burst: u32,
    budget: Mutex<Budget>,
}

#[derive(Debug, Default)]
struct Budget {
    buckets: HashMap<Arc<str>, Bucket>,
    /// Their members, the one that was looked at longest ago first.
    members: VecDeque<Arc<str>>,
    /// Sends by member and id that took a token, and until when that counts. As
    /// many as tokens are given out in two windows.
    paid: HashMap<Marker, Duration>,
    /// The same in the order in which they end.
    ending: VecDeque<(Duration, Marker)>,
}

/// A member and its id of a send.
type Marker = Arc<(String, String)>;

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
        budget.tidy(per_s, burst, now);
        let Budget { buckets, members, paid, ending } = &mut *budget;
        let marker = client_message_id.map(|id| Arc::new((member_id.to_owned(), id.to_owned())));
        if marker.as_ref().and_then(|marker| paid.get(marker)).is_some_and(|until| *until > now) {
            return Ok(false);
        }
        let full = Bucket { tokens: f64::from(burst), at: now };
        if !buckets.contains_key(member_id) {
            let member: Arc<str> = member_id.into();
            members.push_back(Arc::clone(&member));
            buckets.insert(member, full);
        }
        let Some(bucket) = buckets.get_mut(member_id) else { return Ok(false) };
        *bucket = bucket.refilled(per_s, burst, now);
        if bucket.tokens < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.tokens) / f64::from(per_s)));
        }
        bucket.tokens -= 1.0;
        if let Some(marker) = marker {
            let until = now + 2 * Duration::from_secs_f64(f64::from(burst) / f64::from(per_s));
            paid.insert(Arc::clone(&marker), until);
            ending.push_back((until, marker));
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

// === impl Budget ===

impl Budget {
    /// Forgets some of what says no more than nothing: full buckets, and sends that
    /// were paid long ago. The same work however much there is.
    fn tidy(&mut self, per_s: u32, burst: u32, now: Duration) {
        for _ in 0..TIDIED {
            if let Some((_, marker)) = self.ending.pop_front_if(|(until, _)| *until <= now)
                && self.paid.get(&marker).is_some_and(|until| *until <= now)
            {
                self.paid.remove(&marker);
            }
            let Some(member) = self.members.pop_front() else { continue };
            let is_full = |bucket: &Bucket| bucket.refilled(per_s, burst, now).tokens >= f64::from(burst);
            if self.buckets.get(&member).is_some_and(is_full) {
                self.buckets.remove(&member);
            } else {
                self.members.push_back(member);
            }
        }
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

    #[test]
    fn what_says_nothing_is_forgotten() {
        let limiter = Limiter::new(1);
        for number in 0..1_000 {
            limiter.take(&format!("member {number}"), Some("x"), Duration::ZERO).expect("a token");
        }
        let later = Duration::from_secs(21);
        for number in 0..1_000 {
            limiter.take("a", None, later + Duration::from_secs(number)).expect("a token");
        }
        let budget = limiter.lock();
        assert_eq!((budget.buckets.len(), budget.members.len()), (1, 1));
        assert_eq!((budget.paid.len(), budget.ending.len()), (0, 0));
    }

    /// Nothing can be forgotten yet; a walk over all of it at each send would take hours.
    #[test]
    fn a_send_costs_the_same_however_many_there_were() {
        let limiter = Limiter::new(1_000_000);
        for number in 0..300_000 {
            let id = number.to_string();
            limiter.take(&id, Some(&id), Duration::ZERO).expect("a token");
        }
        assert_eq!(limiter.lock().paid.len(), 300_000);
    }
}
