//! What a roster row of the broker may change in the pinned list.
//!
//! The broker is not trusted with keys: a member keeps the key of its first
//! sight and follows signed rotations only, and a name means a member only while no
//! other has or had it. What the broker says against that is noted and shown, never
//! followed.

use super::ids::{MemberId, MemberKey};
use super::key_chain::{self, KeyChange};
use super::roster::{PinnedMember, meant_by};
use super::time::UnixMillis;

/// A member as the broker's roster shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownMember {
    /// Its id.
    pub member_id: MemberId,
    /// The key shown.
    pub key: MemberKey,
    /// The name shown.
    pub display_name: String,
    /// The broker says that it was removed.
    pub revoked: bool,
    /// What its daemon can read, from a statement that the shown key or one
    /// before it in its chain has signed.
    pub capabilities: Option<Vec<String>>,
    /// Changes of its key whose signatures hold.
    pub changes: Vec<KeyChange>,
}

/// News for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinNews {
    /// Another key than the pinned one.
    KeyChanged {
        /// The member.
        member_id: MemberId,
        /// Its name.
        display_name: String,
        /// The pinned key.
        pinned: MemberKey,
        /// The shown key.
        shown: MemberKey,
    },
    /// A new key by a statement that the old one signed.
    KeyRotated {
        /// The member.
        member_id: MemberId,
        /// Its name.
        display_name: String,
        /// The key before.
        old: MemberKey,
        /// The key from now on.
        new: MemberKey,
        /// The operator had verified the key before.
        was_verified: bool,
    },
    /// A name that another member has or had.
    NameTaken {
        /// The name.
        name: String,
        /// Whose it is or was.
        bound_to: MemberId,
        /// Who claims it.
        claimed_by: MemberId,
    },
    /// Another name than before.
    Renamed {
        /// The member.
        member_id: MemberId,
        /// Its key.
        key: MemberKey,
        /// The name before.
        old_name: String,
        /// The name from now on.
        new_name: String,
    },
    /// A member whose daemon could read something is shown as one that cannot.
    CapabilityDropped {
        /// The member.
        member_id: MemberId,
        /// Its name.
        display_name: String,
        /// What is missing.
        missing: Vec<String>,
    },
    /// The member was removed from the mesh.
    Revoked {
        /// The member.
        member_id: MemberId,
        /// Its key.
        key: MemberKey,
        /// Its name.
        display_name: String,
    },
}

/// Brings one shown row into the list. Returns the changed row, if any, and the
/// news.
pub fn merge(pinned: &[PinnedMember], shown: &ShownMember, now: UnixMillis) -> (Option<PinnedMember>, Vec<PinNews>) {
    let mut news = Vec::new();
    let old = pinned.iter().find(|member| member.member_id == shown.member_id);
    let mut new = match old {
        None => first_sight(shown, now),
        Some(old) => {
            let mut new = old.clone();
            merge_key(&mut new, shown, now, &mut news);
            // A statement counts for the pinned key only, and what was seen once
            // is not unseen: a hidden capability would make senders fall back to
            // a weaker form.
            if new.changed_key.is_none() {
                merge_capabilities(&mut new, shown, &mut news);
            }
            new.revoked = shown.revoked;
            if new.revoked && !old.revoked {
                let (member_id, key) = (new.member_id.clone(), new.key);
                news.push(PinNews::Revoked { member_id, key, display_name: old.display_name.clone() });
            }
            new
        }
    };
    merge_name(pinned, &mut new, old, shown, &mut news);
    ((old != Some(&new)).then_some(new), news)
}

fn first_sight(shown: &ShownMember, now: UnixMillis) -> PinnedMember {
    let path = key_chain::back_from(shown.key, &shown.changes);
    let capabilities = shown.capabilities.clone().unwrap_or_default();
    PinnedMember {
        seq: path.last().map_or(0, |change| change.seq),
        previous: key_chain::leave_behind(&[], &path, now),
        revoked: shown.revoked,
        shown_capabilities: capabilities.clone(),
        capabilities,
        first_seen_at: now,
        ..PinnedMember::new(shown.member_id.clone(), shown.key, &shown.display_name)
    }
}

fn merge_key(new: &mut PinnedMember, shown: &ShownMember, now: UnixMillis, news: &mut Vec<PinNews>) {
    // Numbers only grow: an old statement cannot be used twice.
    let path = key_chain::follow(new.key, shown.key, &shown.changes)
        .filter(|path| path.first().is_none_or(|first| first.seq > new.seq));
    let Some(path) = path else {
        if new.changed_key != Some(shown.key) {
            news.push(PinNews::KeyChanged {
                member_id: new.member_id.clone(),
                display_name: new.display_name.clone(),
                pinned: new.key,
                shown: shown.key,
            });
        }
        new.changed_key = Some(shown.key);
        return;
    };
    new.changed_key = None;
    if let Some(last) = path.last() {
        news.push(PinNews::KeyRotated {
            member_id: new.member_id.clone(),
            display_name: new.display_name.clone(),
            old: new.key,
            new: shown.key,
            was_verified: new.is_verified(),
        });
        new.previous = key_chain::leave_behind(&new.previous, &path, now);
        new.seq = last.seq;
        new.key = shown.key;
    }
}

fn merge_capabilities(new: &mut PinnedMember, shown: &ShownMember, news: &mut Vec<PinNews>) {
    let list = shown.capabilities.clone().unwrap_or_default();
    let gone = |name: &&String| !list.contains(name) && new.shown_capabilities.contains(name);
    let missing: Vec<String> = new.capabilities.iter().filter(gone).cloned().collect();
    if !missing.is_empty() {
        let (member_id, display_name) = (new.member_id.clone(), new.display_name.clone());
        news.push(PinNews::CapabilityDropped { member_id, display_name, missing });
    }
    new.capabilities.extend(list.iter().cloned());
    new.capabilities.sort_unstable();
    new.capabilities.dedup();
    new.shown_capabilities = list;
}

fn merge_name(
    pinned: &[PinnedMember],
    new: &mut PinnedMember,
    old: Option<&PinnedMember>,
    shown: &ShownMember,
    news: &mut Vec<PinNews>,
) {
    if let Some(old) = old.filter(|old| old.display_name != shown.display_name) {
        news.push(PinNews::Renamed {
            member_id: new.member_id.clone(),
            key: new.key,
            old_name: old.display_name.clone(),
            new_name: shown.display_name.clone(),
        });
        new.rename(&shown.display_name);
    }
    let Some(name) = new.name_key.as_ref().filter(|name| old.is_none_or(|old| !old.holds_name(name))) else { return };
    let holders = pinned.iter().filter(|member| member.member_id != new.member_id && member.holds_name(name));
    if let Some(holder) = meant_by(name, holders.collect()).first() {
        news.push(PinNews::NameTaken {
            name: shown.display_name.clone(),
            bound_to: holder.member_id.clone(),
            claimed_by: new.member_id.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn shown(id: &str, key: u8, name: &str) -> ShownMember {
        ShownMember {
            member_id: MemberId::parse(id).unwrap(),
            key: MemberKey([key; 32]),
            display_name: name.to_owned(),
            revoked: false,
            capabilities: None,
            changes: Vec::new(),
        }
    }

    fn change(seq: u64, old: u8, new: u8) -> KeyChange {
        KeyChange { seq, old: MemberKey([old; 32]), new: MemberKey([new; 32]), at: UnixMillis(5) }
    }

    fn pin(list: &mut Vec<PinnedMember>, row: &ShownMember) -> Vec<PinNews> {
        let (changed, news) = merge(list, row, NOW);
        if let Some(changed) = changed {
            list.retain(|member| member.member_id != changed.member_id);
            list.push(changed);
        }
        news
    }

    fn member<'a>(list: &'a [PinnedMember], id: &str) -> &'a PinnedMember {
        list.iter().find(|member| member.member_id.as_str() == id).unwrap()
    }

    #[test]
    fn a_swapped_key_is_told_once_and_never_followed() {
        let mut list = Vec::new();
        assert!(pin(&mut list, &shown("a", 1, "Alice")).is_empty());
        assert!(matches!(pin(&mut list, &shown("a", 2, "Alice")).as_slice(), [PinNews::KeyChanged { .. }]));
        assert!(pin(&mut list, &shown("a", 2, "Alice")).is_empty());
        assert_eq!((list[0].key, list[0].changed_key), (MemberKey([1; 32]), Some(MemberKey([2; 32]))));
        pin(&mut list, &shown("a", 1, "Alice"));
        assert_eq!(list[0].changed_key, None);
    }

    #[test]
    fn a_signed_rotation_is_followed_and_unverifies() {
        let mut list = Vec::new();
        pin(&mut list, &shown("a", 1, "Alice"));
        list[0].verified_key = Some(MemberKey([1; 32]));
        let row = ShownMember { changes: vec![change(1, 1, 2), change(2, 2, 3)], ..shown("a", 3, "Alice") };
        let news = pin(&mut list, &row);
        assert!(matches!(news.as_slice(), [PinNews::KeyRotated { was_verified: true, .. }]), "{news:?}");
        assert!(pin(&mut list, &row).is_empty());
        assert_eq!((list[0].key, list[0].seq, list[0].is_verified()), (MemberKey([3; 32]), 2, false));
        assert_eq!(list[0].previous.iter().map(|old| old.key.0[0]).collect::<Vec<_>>(), [2, 1]);
        // Back to a key before, or by a statement with a number used already.
        assert!(matches!(pin(&mut list, &shown("a", 2, "Alice")).as_slice(), [PinNews::KeyChanged { .. }]));
        let again = ShownMember { changes: vec![change(2, 3, 9)], ..shown("a", 9, "Alice") };
        assert!(matches!(pin(&mut list, &again).as_slice(), [PinNews::KeyChanged { .. }]));
        assert_eq!(list[0].key, MemberKey([3; 32]));
    }

    #[test]
    fn a_fork_is_a_changed_key() {
        let mut list = Vec::new();
        pin(&mut list, &shown("a", 1, "Alice"));
        let row = ShownMember { changes: vec![change(1, 1, 2), change(1, 1, 3)], ..shown("a", 2, "Alice") };
        assert!(matches!(pin(&mut list, &row).as_slice(), [PinNews::KeyChanged { .. }]));
        assert_eq!(list[0].key, MemberKey([1; 32]));
    }

    #[test]
    fn who_takes_a_name_that_another_has_is_told_once() {
        let mut list = Vec::new();
        pin(&mut list, &shown("a", 1, "Alice"));
        pin(&mut list, &shown("b", 2, "Bob"));
        let news = pin(&mut list, &shown("b", 2, "ALICE"));
        assert!(matches!(news.as_slice(), [PinNews::Renamed { .. }, PinNews::NameTaken { .. }]), "{news:?}");
        assert_eq!(member(&list, "b").former_names, ["bob"], "its own name stays its own");
        assert!(pin(&mut list, &shown("b", 2, "ALICE")).is_empty());
        assert!(matches!(pin(&mut list, &shown("b", 2, "Robert")).as_slice(), [PinNews::Renamed { .. }]));
        assert_eq!(member(&list, "b").names().collect::<Vec<_>>(), ["robert", "alice", "bob"]);
        assert!(matches!(pin(&mut list, &shown("b", 2, "Bob")).as_slice(), [PinNews::Renamed { .. }]));
    }

    #[test]
    fn a_name_that_was_given_up_is_not_free() {
        let mut list = Vec::new();
        pin(&mut list, &shown("a", 1, "Alice"));
        pin(&mut list, &shown("a", 1, "Alicia"));
        let news = pin(&mut list, &shown("m", 2, "alice"));
        assert!(matches!(news.as_slice(), [PinNews::NameTaken { .. }]), "{news:?}");
        pin(&mut list, &shown("a", 1, "Alice"));
        assert_eq!(member(&list, "a").former_names, ["alicia"]);
        // One that is none is nobody's, and the one before stays.
        pin(&mut list, &shown("a", 1, "eve, bob"));
        assert_eq!(member(&list, "a").names().collect::<Vec<_>>(), ["alice", "alicia"]);
    }

    #[test]
    fn a_capability_once_seen_stays_and_its_loss_is_told_once() {
        let mut list = Vec::new();
        let mut row = shown("a", 1, "Alice");
        row.capabilities = Some(vec!["envelope_v3".to_owned()]);
        pin(&mut list, &row);
        for hidden in [None, Some(Vec::new())] {
            row.capabilities = hidden;
            let news = pin(&mut list, &row);
            assert!(matches!(news.as_slice(), [PinNews::CapabilityDropped { .. }]), "{news:?}");
            assert!(pin(&mut list, &row).is_empty());
            assert_eq!(list[0].capabilities, ["envelope_v3"]);
            row.capabilities = Some(vec!["envelope_v3".to_owned()]);
            assert!(pin(&mut list, &row).is_empty());
        }
    }
}
