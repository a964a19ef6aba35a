//! B0: a send that would be refused, but whose id was accepted before, gets the
//! answer of that time.
//!
//! The sender retries because an ack was lost. A rate limit, a full queue or a
//! receiver that is gone by now must not turn an accepted message into a
//! failure at its sender.

use std::slice;

use super::commit::Outcome;
use crate::broker::session::peer::Peer;
use crate::broker::shared::Shared;
use crate::broker::store::dedupe;
use crate::domain::dedupe::{Decision, decide};

/// What became of the id, if this sender has used it. Reads one row, takes no
/// lock.
pub async fn known(shared: &Shared, peer: &Peer, client_message_id: &str, fingerprint: &str) -> Option<Outcome> {
    let key = (peer.mesh.id.clone(), peer.member_id.clone(), client_message_id.to_owned());
    let mut found = match dedupe::find(shared.store.readers(), slice::from_ref(&key)).await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(error = %error, "Cannot look up a client message id: {error}");
            return None;
        }
    };
    match decide(found.remove(&key), fingerprint) {
        Decision::First => None,
        Decision::Duplicate(seen) => {
            shared.metrics.duplicates.inc();
            Some(Outcome::Duplicate(seen))
        }
        Decision::Mismatch(seen) => {
            shared.metrics.fingerprint_mismatches.inc();
            Some(Outcome::Mismatch(seen))
        }
    }
}
