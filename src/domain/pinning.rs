//! What a roster row of the broker may change in the pinned list.
//!
//! The broker is not trusted with keys: a member keeps the key of its first
//! sight, and a name stays with the member that had it first. What the broker
//! says against that is noted and shown, never followed.

use super::ids::{MemberId, MemberKey};
use super::names;
use super::roster::PinnedMember;

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
    /// What its daemon can read, from a statement that its *shown* key signed.
    pub capabilities: Option<Vec<String>>,
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
    /// A name that belongs to another member.
    NameTaken {
        /// The name.
        name: String,
        /// Whose it is.
        bound_to: MemberId,
        /// Who claims it.
        claimed_by: MemberId,
    },
    /// A member whose daemon could read envelopes is shown as one that cannot.
    CapabilityDropped {
        /// The member.
        member_id: MemberId,
    },
}

/// Brings one shown row into the list. Returns the changed row, if any, and the
/// news.
pub fn merge(pinned: &[PinnedMember], shown: &ShownMember) -> (Option<PinnedMember>, Vec<PinNews>) {
    let mut news = Vec::new();
    let old = pinned.iter().find(|member| member.member_id == shown.member_id);
    let bound_name = bind_name(pinned, shown, &mut news);
    let new = match old {
        None => PinnedMember {
            member_id: shown.member_id.clone(),
            key: shown.key,
            display_name: shown.display_name.clone(),
            bound_name,
            changed_key: None,
            revoked: shown.revoked,
            capabilities: shown.capabilities.clone().unwrap_or_default(),
        },
        Some(old) => {
            let changed_key = (shown.key != old.key).then_some(shown.key);
            if let Some(key) = changed_key.filter(|key| old.changed_key != Some(*key)) {
                news.push(PinNews::KeyChanged {
                    member_id: old.member_id.clone(),
                    display_name: old.display_name.clone(),
                    pinned: old.key,
                    shown: key,
                });
            }
            PinnedMember {
                member_id: old.member_id.clone(),
                key: old.key,
                display_name: shown.display_name.clone(),
                bound_name,
                changed_key,
                revoked: shown.revoked,
                // A statement counts for the pinned key only, and what was seen
                // once is not unseen: a hidden capability would make senders
                // fall back to a weaker form.
                capabilities: merge_capabilities(old, shown, changed_key.is_some(), &mut news),
            }
        }
    };
    ((old != Some(&new)).then_some(new), news)
}

fn bind_name(pinned: &[PinnedMember], shown: &ShownMember, news: &mut Vec<PinNews>) -> Option<String> {
    let name = names::key(&shown.display_name);
    if names::check(&shown.display_name).is_err() {
        return None;
    }
    let owner = pinned.iter().find(|member| member.bound_name.as_deref() == Some(name.as_str()));
    match owner {
        Some(owner) if owner.member_id != shown.member_id => {
            let known = pinned
                .iter()
                .any(|member| member.member_id == shown.member_id && names::key(&member.display_name) == name);
            if !known {
                news.push(PinNews::NameTaken {
                    name: shown.display_name.clone(),
                    bound_to: owner.member_id.clone(),
                    claimed_by: shown.member_id.clone(),
                });
            }
            None
        }
        _ => Some(name),
    }
}

fn merge_capabilities(
    old: &PinnedMember,
    shown: &ShownMember,
    key_changed: bool,
    news: &mut Vec<PinNews>,
) -> Vec<String> {
    let Some(shown_list) = shown.capabilities.as_ref().filter(|_| !key_changed) else {
        return old.capabilities.clone();
    };
    if old.capabilities.iter().any(|name| !shown_list.contains(name)) {
        news.push(PinNews::CapabilityDropped { member_id: old.member_id.clone() });
    }
    let mut all: Vec<String> = old.capabilities.iter().chain(shown_list).cloned().collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(id: &str, key: u8, name: &str) -> ShownMember {
        ShownMember {
            member_id: MemberId::parse(id).unwrap(),
            key: MemberKey([key; 32]),
            display_name: name.to_owned(),
            revoked: false,
            capabilities: None,
        }
    }

    fn pin(list: &mut Vec<PinnedMember>, row: &ShownMember) -> Vec<PinNews> {
        let (changed, news) = merge(list, row);
        if let Some(changed) = changed {
            list.retain(|member| member.member_id != changed.member_id);
            list.push(changed);
        }
        news
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
    fn a_name_stays_with_its_first_bearer() {
        let mut list = Vec::new();
        pin(&mut list, &shown("a", 1, "Alice"));
        pin(&mut list, &shown("b", 2, "Bob"));
        let news = pin(&mut list, &shown("b", 2, "ALICE"));
        assert!(matches!(news.as_slice(), [PinNews::NameTaken { .. }]), "{news:?}");
        assert_eq!(list.iter().find(|m| m.member_id.as_str() == "b").unwrap().bound_name, None);
        assert!(pin(&mut list, &shown("b", 2, "ALICE")).is_empty());
        pin(&mut list, &shown("b", 2, "Robert"));
        assert_eq!(list.iter().find(|m| m.member_id.as_str() == "b").unwrap().bound_name.as_deref(), Some("robert"));
    }

    #[test]
    fn a_capability_once_seen_stays() {
        let mut list = Vec::new();
        let mut row = shown("a", 1, "Alice");
        row.capabilities = Some(vec!["envelope_v3".to_owned()]);
        pin(&mut list, &row);
        row.capabilities = None;
        assert!(pin(&mut list, &row).is_empty());
        assert_eq!(list[0].capabilities, ["envelope_v3"]);
        row.capabilities = Some(Vec::new());
        assert!(matches!(pin(&mut list, &row).as_slice(), [PinNews::CapabilityDropped { .. }]));
        assert_eq!(list[0].capabilities, ["envelope_v3"]);
    }
}
