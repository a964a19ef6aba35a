//! What this daemon knows about who stands behind a message or a member, as of
//! now. Nothing of it is the broker's word.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use super::certificate::CertifiedRole;
use super::event::StoredMessage;
use super::ids::MemberId;
use super::names;
use super::roster::{PinnedMember, meant_by};

/// How far a member's key is trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PinState {
    /// Nobody's key that is known here.
    #[default]
    Unknown,
    /// Seen first, and followed since then by signed rotations only.
    Pinned,
    /// Its safety number was compared here.
    Verified,
    /// The broker shows another key.
    KeyChanged,
    /// The member was removed.
    Revoked,
}

/// What is known of a member, or of who wrote a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Provenance {
    /// How far the key is trusted.
    pub pin_state: PinState,
    /// Certificates lead from the key to the owner of the mesh.
    pub certified: bool,
    /// The safety number of exactly this key was compared here.
    pub verified: bool,
    /// The shown name means this member alone.
    pub name_bound: bool,
    /// How many automatic sends led to the message.
    pub hops: u32,
}

/// The roster of one moment, for as many messages and members as are asked for.
#[derive(Debug)]
pub struct Judge {
    members: Arc<Vec<PinnedMember>>,
    certified: Arc<BTreeMap<MemberId, CertifiedRole>>,
    index: OnceLock<Index>,
}

/// By what messages and members name each other; places in the list.
#[derive(Debug, Default)]
struct Index {
    by_id: HashMap<String, usize>,
    /// Who have or had a name, in its compared form.
    by_name: HashMap<String, Vec<usize>>,
}

// === impl PinState ===

impl PinState {
    /// Of a pinned member.
    pub fn of(member: &PinnedMember) -> Self {
        match member {
            PinnedMember { revoked: true, .. } => Self::Revoked,
            PinnedMember { changed_key: Some(_), .. } => Self::KeyChanged,
            member if member.is_verified() => Self::Verified,
            _ => Self::Pinned,
        }
    }

    /// As the API and the hooks' input write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unspecified",
            Self::Pinned => "pinned",
            Self::Verified => "verified",
            Self::KeyChanged => "key_changed",
            Self::Revoked => "revoked",
        }
    }
}

// === impl Provenance ===

impl Provenance {
    /// A hook of the sender's daemon sent it: nothing else counts hops.
    pub fn by_hook(&self) -> bool {
        self.hops > 0
    }
}

// === impl Judge ===

impl Judge {
    /// By these members, and whose certificates hold.
    pub fn new(members: Arc<Vec<PinnedMember>>, certified: Arc<BTreeMap<MemberId, CertifiedRole>>) -> Self {
        Self { members, certified, index: OnceLock::new() }
    }

    /// Whether it judges by this very list.
    pub fn is_of(&self, members: &Arc<Vec<PinnedMember>>, certified: &Arc<BTreeMap<MemberId, CertifiedRole>>) -> bool {
        Arc::ptr_eq(&self.members, members) && Arc::ptr_eq(&self.certified, certified)
    }

    /// Who wrote a message. One in clear text proves nobody: its sender is the
    /// broker's word.
    pub fn message(&self, message: &StoredMessage) -> Provenance {
        let hops = message.auto_hops;
        let member = self.index().by_id.get(message.sender_member_id.as_str()).map(|at| &self.members[*at]);
        let Some(member) = member.filter(|member| !message.unencrypted && is_or_was(member, message)) else {
            return Provenance { hops, ..Provenance::default() };
        };
        let verified = member.verified_key == Some(message.sender_key);
        Provenance {
            verified,
            hops,
            name_bound: self.is_bound(member.member_id.as_str(), &message.sender_name),
            ..self.of_member(member)
        }
    }

    /// A member, by the name that is shown of it.
    pub fn member(&self, member: &PinnedMember) -> Provenance {
        Provenance {
            name_bound: self.is_bound(member.member_id.as_str(), &member.display_name),
            ..self.of_member(member)
        }
    }

    fn of_member(&self, member: &PinnedMember) -> Provenance {
        Provenance {
            pin_state: PinState::of(member),
            certified: self.certified.contains_key(&member.member_id),
            verified: member.verified_key == Some(member.key),
            name_bound: false,
            hops: 0,
        }
    }

    /// Whether a name means this member alone.
    pub fn is_bound(&self, member_id: &str, name: &str) -> bool {
        let name = names::key(name);
        let Some(holders) = self.index().by_name.get(&name) else { return false };
        let meant = meant_by(&name, holders.iter().map(|at| &self.members[*at]).collect());
        matches!(meant.as_slice(), [only] if only.member_id.as_str() == member_id)
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| {
            let mut index = Index::default();
            for (at, member) in self.members.iter().enumerate() {
                index.by_id.insert(member.member_id.to_string(), at);
                for name in member.names().collect::<BTreeSet<_>>() {
                    index.by_name.entry(name.to_owned()).or_default().push(at);
                }
            }
            index
        })
    }
}

/// Whether the key that a message was opened with is the member's, or was.
fn is_or_was(member: &PinnedMember, message: &StoredMessage) -> bool {
    member.key == message.sender_key || member.previous.iter().any(|old| old.key == message.sender_key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::event::MessageKind;
    use crate::domain::ids::{EventId, MemberKey};
    use crate::domain::key_chain::PreviousKey;
    use crate::domain::message::Priority;
    use crate::domain::time::UnixMillis;

    fn member(id: &str, key: u8, name: &str) -> PinnedMember {
        let id = MemberId::parse(id).unwrap();
        PinnedMember::new(id, MemberKey([key; 32]), name)
    }

    fn message(from: &str, key: u8, name: &str) -> StoredMessage {
        StoredMessage {
            id: "i".to_owned(),
            event_id: EventId { generation: "g".to_owned(), seq: 1 },
            client_message_id: "c".to_owned(),
            broker_message_id: "b".to_owned(),
            history_id: None,
            mesh: "demo".to_owned(),
            topic: None,
            sender_member_id: MemberId::parse(from).unwrap(),
            sender_key: MemberKey([key; 32]),
            sender_name: name.to_owned(),
            body: String::new(),
            meta: None,
            reply_to_id: None,
            mentions: Vec::new(),
            priority: Priority::Next,
            sent_at: None,
            received_at: UnixMillis(1),
            kind: MessageKind::Direct,
            unencrypted: false,
            stale: false,
            before_recovery: false,
            auto_hops: 0,
        }
    }

    fn judge(members: Vec<PinnedMember>) -> Judge {
        let certified = [(MemberId::parse("b").unwrap(), CertifiedRole::Member)].into();
        Judge::new(Arc::new(members), Arc::new(certified))
    }

    #[test]
    fn a_name_is_bound_when_it_means_the_member_alone() {
        let mut renamed = member("r", 4, "Rob");
        renamed.former_names = vec![names::key("Carol")];
        let mut members = vec![member("b", 2, "Bob"), renamed, member("t", 3, "Bob")];
        let twins = judge(members.clone());
        assert!(!twins.message(&message("b", 2, "Bob")).name_bound && !twins.member(&members[2]).name_bound);
        members[0].accepted_name = Some(names::key("Bob"));
        let judge = judge(members.clone());
        let bound = |message| judge.message(&message).name_bound;
        assert!(bound(message("b", 2, "BOB")));
        assert!(!bound(message("t", 3, "Bob")) && !judge.member(&members[2]).name_bound);
        // A name from before still leads to its bearer, and one it never had does not.
        assert!(bound(message("r", 4, "Carol")));
        assert!(!bound(message("r", 4, "Bob")) && !bound(message("r", 4, "Nobody")));
    }

    #[test]
    fn the_key_of_the_message_decides_what_was_verified() {
        let mut bob = member("b", 2, "Bob");
        bob.previous = vec![PreviousKey { key: MemberKey([1; 32]), rotated_out_at: UnixMillis(5) }];
        bob.verified_key = Some(MemberKey([1; 32]));
        let judge = judge(vec![bob.clone()]);
        let (old, new) = (judge.message(&message("b", 1, "Bob")), judge.message(&message("b", 2, "Bob")));
        assert_eq!((old.verified, new.verified), (true, false));
        assert_eq!((old.pin_state, old.certified), (PinState::Pinned, true));
        assert_eq!(judge.member(&bob).pin_state, PinState::Pinned);
    }

    #[test]
    fn clear_text_a_strange_key_and_a_stranger_prove_nobody() {
        let judge = judge(vec![member("b", 2, "Bob")]);
        let open = StoredMessage { unencrypted: true, auto_hops: 2, ..message("b", 2, "Bob") };
        for unproven in [&open, &message("b", 9, "Bob"), &message("key:x", 9, "Bob")] {
            let hops = unproven.auto_hops;
            assert_eq!(judge.message(unproven), Provenance { hops, ..Provenance::default() });
        }
    }
}
