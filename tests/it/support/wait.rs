//! Waiting for a condition, never for a time.

use std::time::{Duration, Instant};

/// How long a test waits for what must happen. Generous: the machine may be
/// busy, and a condition that holds is noticed within [`POLL`].
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// How often a condition is looked at.
pub(crate) const POLL: Duration = Duration::from_millis(10);

/// The first `Some` of `probe`.
#[track_caller]
pub(crate) fn until<T, F>(what: &str, probe: F) -> impl Future<Output = T>
where
    F: AsyncFnMut() -> Option<T>,
{
    until_within(DEADLINE, what, probe)
}

/// [`until`] with a deadline of its own.
#[track_caller]
pub(crate) fn until_within<T, F>(limit: Duration, what: &str, mut probe: F) -> impl Future<Output = T>
where
    F: AsyncFnMut() -> Option<T>,
{
    let caller = std::panic::Location::caller();
    let what = what.to_owned();
    async move {
        let end = Instant::now() + limit;
        loop {
            if let Some(value) = probe().await {
                return value;
            }
            assert!(Instant::now() < end, "{caller}: waited {limit:?} for {what}");
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Fails when `future` takes longer than [`DEADLINE`].
#[track_caller]
pub(crate) fn soon<T>(what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    let what = what.to_owned();
    async move {
        tokio::time::timeout(DEADLINE, future)
            .await
            .unwrap_or_else(|_| panic!("{caller}: waited {DEADLINE:?} for {what}"))
    }
}
