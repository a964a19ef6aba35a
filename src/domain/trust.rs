//! What the operator decides about pinned members: to accept a changed key or
//! name, and to vouch for a key.

use super::ids::{MemberId, MemberKey};
use super::names;
use super::roster::{PinnedMember, meant_by};
use super::time::UnixMillis;

/// What is to be accepted is not what the broker shows now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NothingPending {
    /// No such member.
    #[error("no member of the mesh has the id {0}")]
    NoMember(MemberId),
    /// The broker shows no other key, or another one than was named.
    #[error("the broker does not show the key {named} for {name}; it shows {shown}")]
    Key {
        /// The member's name.
        name: String,
        /// The key that was to be accepted.
        named: MemberKey,
        /// What the broker shows.
        shown: MemberKey,
    },
    /// The member does not claim the name, or it means that one already.
    #[error("{claimant} does not claim the name {name}, or it means that member alone already")]
    Name {
        /// The name.
        name: String,
        /// Who was to get it.
        claimant: String,
    },
}

/// Pins the key that the broker shows in place of the one pinned before.
pub fn accept_key(
    members: &[PinnedMember],
    member_id: &MemberId,
    key: MemberKey,
) -> Result<PinnedMember, NothingPending> {
    let member = find(members, member_id)?;
    if member.changed_key != Some(key) {
        let shown = member.changed_key.unwrap_or(member.key);
        return Err(NothingPending::Key { name: member.display_name.clone(), named: key, shown });
    }
    // Nothing signed leads from the keys before to this one, so they are not
    // the member's any more; a verified mark stays with the key it was given to.
    Ok(PinnedMember { key, changed_key: None, seq: 0, previous: Vec::new(), ..member.clone() })
}

/// Gives a name to the member that claims it, whoever else has or had it. The changed
/// members, the one that loses the name first.
pub fn accept_name(
    members: &[PinnedMember],
    member_id: &MemberId,
    name: &str,
) -> Result<Vec<PinnedMember>, NothingPending> {
    let claimant = find(members, member_id)?;
    let key = names::key(name);
    let holders = members.iter().filter(|member| member.holds_name(&key)).collect();
    let means_it = matches!(meant_by(&key, holders).as_slice(), [only] if only.member_id == *member_id);
    if claimant.name_key.as_ref() != Some(&key) || means_it {
        let claimant = claimant.display_name.clone();
        return Err(NothingPending::Name { name: name.to_owned(), claimant });
    }
    let losers = members.iter().filter(|member| member.accepted_name.as_ref() == Some(&key)).cloned();
    let mut changed: Vec<_> = losers.map(|loser| PinnedMember { accepted_name: None, ..loser }).collect();
    changed.push(PinnedMember { accepted_name: Some(key), ..claimant.clone() });
    Ok(changed)
}

/// Notes that the operator compared the safety number with the member's owner.
pub fn verify(
    members: &[PinnedMember],
    member_id: &MemberId,
    key: MemberKey,
    now: UnixMillis,
) -> Result<PinnedMember, NothingPending> {
    let member = find(members, member_id)?;
    if member.key != key || member.changed_key.is_some() {
        let shown = member.changed_key.unwrap_or(member.key);
        return Err(NothingPending::Key { name: member.display_name.clone(), named: key, shown });
    }
    Ok(PinnedMember { verified_key: Some(key), verified_at: Some(now), ..member.clone() })
}

fn find<'a>(members: &'a [PinnedMember], member_id: &MemberId) -> Result<&'a PinnedMember, NothingPending> {
    let found = members.iter().find(|member| member.member_id == *member_id);
    found.ok_or_else(|| NothingPending::NoMember(member_id.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: &str, key: u8, name: &str) -> PinnedMember {
        let member_id = MemberId::parse(id).unwrap();
        PinnedMember::new(member_id, MemberKey([key; 32]), name)
    }

    fn id(text: &str) -> MemberId {
        MemberId::parse(text).unwrap()
    }

    #[test]
    fn only_the_key_that_is_shown_can_be_accepted() {
        let mut bob = member("b", 1, "Bob");
        assert!(accept_key(&[bob.clone()], &id("b"), MemberKey([1; 32])).is_err());
        bob.changed_key = Some(MemberKey([2; 32]));
        bob.verified_key = Some(bob.key);
        assert!(verify(&[bob.clone()], &id("b"), bob.key, UnixMillis(5)).is_err(), "not while a change waits");
        assert!(accept_key(&[bob.clone()], &id("b"), MemberKey([3; 32])).is_err());
        let accepted = accept_key(&[bob], &id("b"), MemberKey([2; 32])).unwrap();
        assert_eq!((accepted.key, accepted.changed_key, accepted.is_verified()), (MemberKey([2; 32]), None, false));
        let verified = verify(&[accepted], &id("b"), MemberKey([2; 32]), UnixMillis(5)).unwrap();
        assert!(verified.is_verified());
    }

    #[test]
    fn a_name_moves_to_its_claimant_and_leaves_the_other() {
        let bob = PinnedMember { accepted_name: Some("bob".to_owned()), ..member("b", 1, "Bob") };
        let members = [bob, member("t", 2, "BOB")];
        assert!(accept_name(&members, &id("b"), "bob").is_err(), "it has the name");
        assert!(accept_name(&members, &id("t"), "carol").is_err());
        assert!(accept_name(&members, &id("x"), "bob").is_err());
        let changed = accept_name(&members, &id("t"), "Bob").unwrap();
        let names: Vec<_> = changed.iter().map(|one| (one.member_id.as_str(), one.accepted_name.as_deref())).collect();
        assert_eq!(names, [("b", None), ("t", Some("bob"))]);
    }
}
