//! The chain of a member's keys: each one is followed by at most one other.

use std::time::Duration;

use super::ids::MemberKey;
use super::time::UnixMillis;

/// Changes that are followed at once at most.
const MAX_STEPS: usize = 256;
/// Keys before the current one that are remembered.
pub const MAX_PREVIOUS: usize = 8;

/// A change of a member's key whose two signatures hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyChange {
    /// Its number in the chain, from 1.
    pub seq: u64,
    /// The key that retired.
    pub old: MemberKey,
    /// The key that followed.
    pub new: MemberKey,
    /// When it was signed, by the member's clock.
    pub at: UnixMillis,
}

/// A key that a member had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreviousKey {
    /// The key.
    pub key: MemberKey,
    /// When the next one followed.
    pub rotated_out_at: UnixMillis,
}

/// The changes that lead from one key to another, in order. `None` when none
/// do, or when a key on the way has two successors: then somebody else holds it,
/// and neither is followed.
pub fn follow(from: MemberKey, to: MemberKey, changes: &[KeyChange]) -> Option<Vec<KeyChange>> {
    let mut path: Vec<KeyChange> = Vec::new();
    let mut key = from;
    while key != to {
        let mut successors = changes.iter().filter(|change| change.old == key);
        let change = *successors.next()?;
        if successors.any(|other| other.new != change.new) {
            return None;
        }
        let in_order = path.last().is_none_or(|last| change.seq == last.seq.saturating_add(1));
        if !in_order || path.len() == MAX_STEPS {
            return None;
        }
        path.push(change);
        key = change.new;
    }
    Some(path)
}

/// The changes that lead to a key that is seen for the first time, as far back
/// as they hold together, in order.
pub fn back_from(to: MemberKey, changes: &[KeyChange]) -> Vec<KeyChange> {
    let mut path: Vec<KeyChange> = Vec::new();
    let mut key = to;
    while path.len() < MAX_PREVIOUS {
        let Some(change) = changes.iter().find(|change| change.new == key) else { break };
        let in_order = path.last().is_none_or(|later| change.seq.saturating_add(1) == later.seq);
        let forked = changes.iter().any(|other| other.old == change.old && other.new != change.new);
        if !in_order || forked {
            break;
        }
        path.push(*change);
        key = change.old;
    }
    path.reverse();
    path
}

/// Adds the keys that a path leaves behind, the newest first. `now` bounds a
/// time that a member's clock puts into the future.
pub fn leave_behind(previous: &[PreviousKey], path: &[KeyChange], now: UnixMillis) -> Vec<PreviousKey> {
    let left = path.iter().rev().map(|change| PreviousKey { key: change.old, rotated_out_at: change.at.min(now) });
    let mut all: Vec<PreviousKey> = left.collect();
    for old in previous {
        if all.iter().all(|known| known.key != old.key) {
            all.push(*old);
        }
    }
    all.truncate(MAX_PREVIOUS);
    all
}

/// Whether a key that was rotated out then still counts as the sender's.
pub fn in_grace(previous: &PreviousKey, now: UnixMillis, grace: Duration) -> bool {
    now.since(previous.rotated_out_at) <= grace
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> MemberKey {
        MemberKey([number; 32])
    }

    fn change(seq: u64, old: u8, new: u8) -> KeyChange {
        KeyChange { seq, old: key(old), new: key(new), at: UnixMillis(i64::try_from(seq).unwrap() * 1000) }
    }

    fn seqs(path: Option<Vec<KeyChange>>) -> Option<Vec<u64>> {
        path.map(|path| path.iter().map(|change| change.seq).collect())
    }

    #[test]
    fn a_chain_is_followed_to_its_end_whatever_its_order() {
        let changes = [change(2, 2, 3), change(1, 1, 2), change(3, 3, 4)];
        assert_eq!(seqs(follow(key(1), key(4), &changes)), Some(vec![1, 2, 3]));
        assert_eq!(seqs(follow(key(2), key(3), &changes)), Some(vec![2]));
        assert_eq!(seqs(follow(key(4), key(4), &changes)), Some(vec![]));
    }

    #[test]
    fn gaps_forks_loops_and_ways_back_are_not_followed() {
        assert_eq!(follow(key(1), key(3), &[change(1, 1, 2)]), None);
        assert_eq!(follow(key(1), key(3), &[change(1, 1, 2), change(3, 2, 3)]), None);
        assert_eq!(follow(key(1), key(2), &[change(1, 1, 2), change(1, 1, 3)]), None);
        assert_eq!(follow(key(2), key(1), &[change(1, 1, 2)]), None);
        assert_eq!(follow(key(1), key(9), &[change(1, 1, 2), change(2, 2, 1)]), None);
        // The same statement twice is one.
        assert_eq!(seqs(follow(key(1), key(2), &[change(1, 1, 2), change(1, 1, 2)])), Some(vec![1]));
    }

    #[test]
    fn keys_before_the_first_sight_are_known_as_far_as_they_hold_together() {
        let changes = [change(1, 1, 2), change(2, 2, 3), change(3, 3, 4)];
        assert_eq!(back_from(key(4), &changes).iter().map(|one| one.seq).collect::<Vec<_>>(), [1, 2, 3]);
        let forked = [change(1, 1, 2), change(2, 2, 3), change(2, 2, 9), change(3, 3, 4)];
        assert_eq!(back_from(key(4), &forked).iter().map(|one| one.seq).collect::<Vec<_>>(), [3]);
        assert_eq!(back_from(key(5), &changes), []);
    }

    #[test]
    fn previous_keys_are_bounded_and_count_for_the_grace() {
        let now = UnixMillis(5_000);
        let path: Vec<KeyChange> = (1..=10).map(|seq| change(seq, seq as u8, seq as u8 + 1)).collect();
        let all = leave_behind(&[], &path, now);
        assert_eq!((all.len(), all[0].key, all[7].key), (MAX_PREVIOUS, key(10), key(3)));
        assert_eq!(all[0].rotated_out_at, now, "a time of the future counts as now");
        let old = PreviousKey { key: key(1), rotated_out_at: UnixMillis(0) };
        assert!(in_grace(&old, UnixMillis(1000), Duration::from_secs(1)));
        assert!(!in_grace(&old, UnixMillis(1001), Duration::from_secs(1)));
    }
}
