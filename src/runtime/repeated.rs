//! Log lines of one cause that comes again and again: told at once, then once a minute
//! with their number, so that no cause fills the disk.

use std::time::{Duration, Instant};

/// Pause between two lines of one cause.
const PAUSE: Duration = Duration::from_secs(60);

/// One cause at one place.
#[derive(Debug, Default)]
pub struct Repeated {
    told: Option<Instant>,
    left_out: u64,
}

// === impl Repeated ===

impl Repeated {
    /// It happened: how often it did since the line before, this time included, if a
    /// line is to be written; `None` if not.
    pub fn tell(&mut self) -> Option<u64> {
        self.tell_at(Instant::now())
    }

    fn tell_at(&mut self, now: Instant) -> Option<u64> {
        self.left_out += 1;
        if self.told.is_some_and(|told| now.duration_since(told) < PAUSE) {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_at_once_and_then_by_its_number() {
        let mut repeated = Repeated::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let told = [0, 1, 59, 60, 61, 300].map(|seconds| repeated.tell_at(after(seconds)));
        assert_eq!(told, [Some(1), None, None, Some(3), None, Some(2)]);
    }
}
