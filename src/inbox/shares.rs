//! What one member may make this daemon keep of what cannot be read: sealed messages
//! that wait for a key, and those that were set aside.
//!
//! Counted by member, by the broker's word where the key is not known; a broker that
//! lies about it can as well drop the message. What comes beyond a share is set aside and
//! acknowledged: nothing of it holds up what others send.

use std::collections::{HashMap, HashSet};

use super::Error;
use super::open::Refused;
use super::pipeline::{Origin, Pipeline, Work};
use super::repo::{self, Held};
use crate::wire::delivery::Push;

/// What waits for a key: of all members together, of one, and what each may have
/// however much the others have.
const ALL: Held = Held { rows: 10_000, bytes: 64 << 20 };
const MEMBER: Held = Held { rows: 1_000, bytes: 8 << 20 };
const ALWAYS: Held = Held { rows: 100, bytes: 1 << 20 };
/// The reason of what came beyond.
const NO_ROOM: &str = "too_much_waits";

// === impl Held ===

impl Held {
    /// Whether one more may be added. The last one may go beyond.
    fn is_below(self, limit: Self) -> bool {
        self.rows < limit.rows && self.bytes < limit.bytes
    }

    fn add(&mut self, bytes: u64) {
        self.rows += 1;
        self.bytes += bytes;
    }
}

// === impl Pipeline ===

impl Pipeline {
    /// Decides what of a batch may wait for its key.
    pub(super) async fn keep_to_shares(&self, work: &mut [Work]) -> Result<(), Error> {
        let waits = |one: &Work| one.origin == Origin::Broker && one.result.as_ref().is_err_and(Refused::waits);
        if !work.iter().any(waits) {
            return Ok(());
        }
        let db = self.db.writer();
        let ids: Vec<&str> = work.iter().filter(|one| waits(one)).map(|one| one.push.message_id.as_str()).collect();
        let mut known: HashSet<String> = repo::known_waiting(db, &ids).await?;
        let mut all = repo::waiting_held(db, None).await?;
        let mut by_holder: HashMap<String, Held> = HashMap::new();
        for one in work.iter_mut().filter(|one| waits(one)) {
            if !known.insert(one.push.message_id.clone()) {
                continue;
            }
            let holder = holder(&one.push);
            if !by_holder.contains_key(&holder) {
                by_holder.insert(holder.clone(), repo::waiting_held(db, Some(&holder)).await?);
            }
            let own = by_holder.entry(holder).or_default();
            if own.is_below(ALWAYS) || (own.is_below(MEMBER) && all.is_below(ALL)) {
                let bytes = one.push.ciphertext.len() as u64;
                own.add(bytes);
                all.add(bytes);
            } else {
                one.result = Err(Refused::Quarantine(NO_ROOM));
            }
        }
        Ok(())
    }
}

/// Whose share a message counts against.
pub(super) fn holder(push: &Push) -> String {
    let holder = push.sender_member_id.as_deref().filter(|id| !id.is_empty());
    holder.unwrap_or(&push.sender_pubkey).chars().take(128).collect()
}
