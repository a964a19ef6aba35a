//! Finds copies whose receiver nobody has woken.
//!
//! What it is for: a wake-up may be lost between brokers, or a connection may
//! have failed to read its queue. Every few seconds the copies of the last
//! moments are compared with who is connected here.
//! What runs here: one task, until the broker stops. The pushing itself is done
//! by each connection's own task.
//! What it guarantees: an open copy of a connected member is pushed within one
//! scan, whatever was lost.
//! What it must not do: push, or read the whole table.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::shared::Shared;
use super::store::deliveries::{self, Wake};

/// Pairs of sender and receiver of one scan.
const MAX_PAIRS: u64 = 10_000;

/// Scans until `stop`.
pub async fn scan(shared: Arc<Shared>, stop: CancellationToken) {
    let every = shared.config.timers.scan;
    // Looked at three times: a row bears the time of its statement and is seen
    // from its commit on.
    let back = i64::try_from(every.as_millis()).unwrap_or(i64::MAX).saturating_mul(3);
    let mut looked_until = shared.store.now().0;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        let now = shared.store.now().0;
        let since = looked_until.min(now).saturating_sub(back);
        // Of the others nobody here can be woken.
        let meshes = shared.registry.mesh_ids();
        match deliveries::recent(shared.store.readers(), &meshes, since, MAX_PAIRS).await {
            Ok(wakes) => {
                looked_until = now;
                wakes.iter().for_each(|wake| self::wake(&shared, wake));
            }
            Err(error) => tracing::warn!(error = %error, "Cannot look for open deliveries: {error}"),
        }
    }
}

/// Has the receiver's connections here read these copies.
pub fn wake(shared: &Shared, wake: &Wake) {
    for peer in shared.registry.of_member(&wake.mesh_id, &wake.recipient_id) {
        if peer.is_online() {
            peer.fall_behind(&wake.sender_id, &wake.first);
        }
    }
}
