//! TCP connections whose caller has not shown a token yet.
//!
//! Whoever has an account on the host can open them. They have few places of their own,
//! and the one that has had its place longest goes when another comes: so strangers keep
//! nobody out who has a token, and calls of those that have are never cut for them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// Places for strangers.
const PLACES: usize = 64;
/// How long one may stay a stranger.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// The gate let a call with a token through: put into its response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Admitted;

/// All that are there, the oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Strangers(Arc<Mutex<VecDeque<CancellationToken>>>);

// === impl Strangers ===

impl Strangers {
    /// A place for one more, whose end is told by the token. Cancelling it gives the place
    /// back.
    pub(super) fn enter(&self) -> CancellationToken {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| !one.is_cancelled());
        if all.len() >= PLACES
            && let Some(oldest) = all.pop_front()
        {
            oldest.cancel();
        }
        let place = CancellationToken::new();
        all.push_back(place.clone());
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_when_another_comes() {
        let strangers = Strangers::default();
        let places: Vec<CancellationToken> = (0..PLACES).map(|_| strangers.enter()).collect();
        places[3].cancel();
        let last = strangers.enter();
        assert!(!places[0].is_cancelled(), "a place was free");
        strangers.enter();
        assert!(places[0].is_cancelled() && !places[1].is_cancelled() && !last.is_cancelled());
    }
}
