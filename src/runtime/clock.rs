//! The only place that reads a clock, so that tests can set the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::domain::time::UnixMillis;

/// Tells the wall time and a monotonic time. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Source>);

#[derive(Debug)]
enum Source {
    System { start: Instant },
    Manual { wall_ms: AtomicI64, monotonic_ms: AtomicU64 },
}

// === impl Clock ===

impl Clock {
    /// The clock of the machine.
    #[expect(clippy::disallowed_methods, reason = "this is the clock that the ban points to")]
    pub fn system() -> Self {
        Self(Arc::new(Source::System { start: Instant::now() }))
    }

    /// A clock that stands still until it is moved.
    pub fn manual(now: UnixMillis) -> Self {
        Self(Arc::new(Source::Manual { wall_ms: AtomicI64::new(now.0), monotonic_ms: AtomicU64::new(0) }))
    }

    /// The wall time. May jump when the operator or a time service sets it.
    #[expect(clippy::disallowed_methods, reason = "this is the clock that the ban points to")]
    pub fn now(&self) -> UnixMillis {
        match &*self.0 {
            Source::System { .. } => {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
                UnixMillis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
            }
            Source::Manual { wall_ms, .. } => UnixMillis(wall_ms.load(Ordering::Acquire)),
        }
    }

    /// Time since this clock was made. Never jumps.
    pub fn monotonic(&self) -> Duration {
        match &*self.0 {
            Source::System { start } => start.elapsed(),
            Source::Manual { monotonic_ms, .. } => Duration::from_millis(monotonic_ms.load(Ordering::Acquire)),
        }
    }

    /// Moves a manual clock forward; does nothing to the system clock.
    pub fn advance(&self, by: Duration) {
        if let Source::Manual { wall_ms, monotonic_ms } = &*self.0 {
            let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
            wall_ms.fetch_add(i64::try_from(ms).unwrap_or(i64::MAX), Ordering::AcqRel);
            monotonic_ms.fetch_add(ms, Ordering::AcqRel);
        }
    }

    /// Sets the wall time of a manual clock, as an operator or a time service
    /// does; does nothing to the system clock.
    pub fn set(&self, now: UnixMillis) {
        if let Source::Manual { wall_ms, .. } = &*self.0 {
            wall_ms.store(now.0, Ordering::Release);
        }
    }
}
