//! Log lines of one cause that comes again and again: told at once, then once a minute
//! with their number, so that no cause fills the disk.

use std::time::Duration;

use super::clock::Clock;

/// Pause between two lines of one cause.
const PAUSE: Duration = Duration::from_secs(60);

/// One cause at one place.
#[derive(Debug)]
pub struct Repeated {
    clock: Clock,
    told: Option<Duration>,
    left_out: u64,
}

// === impl Repeated ===

impl Default for Repeated {
    fn default() -> Self {
        Self { clock: Clock::system(), told: None, left_out: 0 }
    }
}

impl Repeated {
    /// It happened: how often it did since the line before, this time included, if a
    /// line is to be written; `None` if not.
    pub fn tell(&mut self) -> Option<u64> {
        self.tell_at(self.clock.monotonic())
    }

    fn tell_at(&mut self, now: Duration) -> Option<u64> {
        self.left_out += 1;
        if self.told.is_some_and(|told| now.saturating_sub(told) < PAUSE) {
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
        let told = [0, 1, 59, 60, 61, 300].map(|seconds| repeated.tell_at(Duration::from_secs(seconds)));
        assert_eq!(told, [Some(1), None, None, Some(3), None, Some(2)]);
    }
}
