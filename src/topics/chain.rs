//! Which epochs of a topic count, and whom its keys may be given to.

use std::collections::BTreeMap;

use super::Handle;
use super::table::{KEPT_EPOCHS, Topic};
use crate::crypto::sign;
use crate::domain::ids::{MemberId, MemberKey};
use crate::domain::key_chain::PreviousKey;
use crate::domain::roster::PinnedMember;
use crate::domain::topics::{Distrust, Standing, counts, may_begin};
use crate::peers::Known;
use crate::wire::text;
use crate::wire::topics::EpochStatement;

/// Statements on their way to be adopted: each follows the one before.
#[derive(Debug, Default)]
pub(super) struct Chain {
    /// The last one, and what the next has to name.
    tip: Option<(u32, String)>,
    /// What the keys of those hash to that no trusted member stands behind yet.
    commitments: BTreeMap<u32, [u8; 32]>,
    /// Why the last one does not count.
    distrust: Option<Distrust>,
}

// === impl Chain ===

impl Chain {
    /// From the newest epoch that counts.
    pub(super) fn of(topic: &Topic, mesh_id: &str) -> Self {
        let tip = topic.head.as_ref().and_then(|head| Some((head.epoch, head.hash(mesh_id)?)));
        Self { tip, ..Self::default() }
    }

    /// The last epoch; what follows is asked for after it.
    pub(super) fn epoch(&self) -> u32 {
        self.tip.as_ref().map_or(0, |(epoch, _)| *epoch)
    }

    /// Leaves to the topic what was found out of what the broker shows.
    pub(super) fn end(self, topic: &mut Topic) {
        topic.shown.epoch = topic.shown.epoch.max(self.epoch());
        topic.shown.tip = self.tip;
        topic.shown.distrust = self.distrust;
    }
}

// === impl Handle ===

impl Handle {
    /// Adds a statement. A trusted signer stands behind it and all before it.
    pub(super) fn follow(
        &self,
        topic: &mut Topic,
        chain: &mut Chain,
        statement: EpochStatement,
    ) -> Result<(), Distrust> {
        let distrust = match self.link(topic, chain, &statement) {
            Ok(signer) => counts(signer).err(),
            Err(distrust) => {
                chain.distrust = Some(distrust);
                return Err(distrust);
            }
        };
        chain.distrust = distrust;
        if distrust.is_none() {
            topic.set_head(statement, std::mem::take(&mut chain.commitments));
        }
        Ok(())
    }

    /// Checks that a statement follows, and is signed; what is known of who did.
    fn link(&self, topic: &Topic, chain: &mut Chain, statement: &EpochStatement) -> Result<Option<Standing>, Distrust> {
        let mesh = self.0.deps.identity.mesh_id().as_str();
        if statement.topic_id != topic.id.as_str() || statement.name != topic.name {
            return Err(Distrust::OtherName);
        }
        let commitment = hex::decode(&statement.commitment).ok().and_then(|bytes| bytes.try_into().ok());
        let commitment: [u8; 32] = commitment.ok_or(Distrust::NotASuccessor)?;
        let follows = match &chain.tip {
            // What lies between is kept by no broker. Whoever signed the one that is
            // adopted vouches for all before it.
            Some((epoch, _)) if self.is_forgotten(topic, *epoch) && statement.epoch > epoch.saturating_add(1) => true,
            Some((epoch, hash)) => {
                epoch.checked_add(1) == Some(statement.epoch) && statement.predecessor.as_ref() == Some(hash)
            }
            // Whoever knows nothing of a topic begins at what its signer stands for.
            None => statement.epoch > 0 && (statement.epoch == 1) == statement.predecessor.is_none(),
        };
        let key = MemberKey::parse(&statement.signer_key).map_err(|_| Distrust::UnknownSigner)?;
        let signed = match (statement.signed_text(mesh), text::signature_from_hex(&statement.signature)) {
            (Some(text), Some(signature)) => sign::verify(key, text.as_bytes(), &signature),
            _ => false,
        };
        let hash = statement.hash(mesh).filter(|_| follows && signed).ok_or(Distrust::NotASuccessor)?;
        chain.tip = Some((statement.epoch, hash));
        chain.commitments.insert(statement.epoch, commitment);
        let signer = MemberId::parse(statement.signer.as_str()).map_err(|_| Distrust::UnknownSigner)?;
        Ok(self.standing_by(topic, &signer, key))
    }

    /// Whether brokers have forgotten the epoch after this one.
    fn is_forgotten(&self, topic: &Topic, epoch: u32) -> bool {
        topic.epoch() == epoch && topic.shown.epoch.saturating_sub(epoch) > KEPT_EPOCHS
    }

    /// What is known of a member that signed with this key; `None` unless it is the
    /// member's key, or was until lately.
    pub(super) fn standing_by(&self, topic: &Topic, id: &MemberId, key: MemberKey) -> Option<Standing> {
        let deps = &self.0.deps;
        if id == deps.identity.member_id() {
            // What the roster shows of this member counts for nothing here.
            return self.was_own(key).then(|| self.standing(topic, id));
        }
        match deps.peers.known(key) {
            Known::Member(member) if member.member_id == *id => Some(self.standing(topic, id)),
            _ => None,
        }
    }

    /// Whether a key is this member's, or was until lately: by the keys that are here,
    /// and the changes that the present one signed.
    fn was_own(&self, key: MemberKey) -> bool {
        let identity = &self.0.deps.identity;
        let members = self.0.deps.peers.members();
        let pinned = members.iter().find(|member| member.member_id == *identity.member_id());
        identity.opening_keys().iter().any(|own| own.public() == key)
            || pinned.is_some_and(|own| {
                let counts = |old: &PreviousKey| old.key == key && self.0.deps.peers.is_in_grace(old);
                own.key == identity.key() && own.previous.iter().any(counts)
            })
    }

    /// What is known of a member.
    pub(super) fn standing(&self, topic: &Topic, id: &MemberId) -> Standing {
        let deps = &self.0.deps;
        let certified = deps.peers.certified(id);
        if id == deps.identity.member_id() {
            return Standing { is_own: true, certified, ..Standing::default() };
        }
        let members = deps.peers.members();
        match members.iter().find(|member| member.member_id == *id) {
            None => Standing { is_out: true, ..Standing::default() },
            Some(member) => Standing {
                is_own: false,
                certified,
                admitted: member.is_verified() || topic.admitted.contains(id),
                is_out: member.revoked || member.changed_key.is_some(),
            },
        }
    }

    /// Whether a member is still in mesh and topic.
    pub(super) fn is_there(&self, topic: &Topic, id: &str) -> bool {
        let members = self.0.deps.peers.members();
        let revoked = members.iter().any(|member| member.member_id.as_str() == id && member.revoked);
        !revoked && topic.shown.members.contains(id)
    }

    /// The others in a topic whom its key may be given to.
    pub(super) fn admissible(&self, topic: &Topic) -> Vec<PinnedMember> {
        let own = self.0.deps.identity.member_id();
        let members = self.0.deps.peers.members();
        let may = |member: &&PinnedMember| {
            member.member_id != *own
                && topic.shown.members.contains(member.member_id.as_str())
                && self.standing(topic, &member.member_id).is_trusted()
        };
        members.iter().filter(may).cloned().collect()
    }

    /// Whether this member begins epochs of a topic.
    pub(super) fn may_renew(&self, topic: &Topic) -> bool {
        let own = self.0.deps.identity.member_id();
        let lead = topic.shown.lead.as_deref();
        let lead_is_there = lead.is_some_and(|lead| self.is_there(topic, lead));
        may_begin(self.standing(topic, own), lead == Some(own.as_str()), lead_is_there, self.has_certified(topic))
    }

    /// Whether somebody else is in the topic whom the mesh's owner certified.
    fn has_certified(&self, topic: &Topic) -> bool {
        let own = self.0.deps.identity.member_id();
        let certified = |member: &&PinnedMember| {
            member.member_id != *own
                && self.is_there(topic, member.member_id.as_str())
                && self.standing(topic, &member.member_id).certified.is_some()
        };
        self.0.deps.peers.members().iter().any(|member| certified(&member))
    }

    /// Whether nobody who had the newest key is left, and this member has none.
    pub(super) fn is_orphaned(&self, topic: &Topic) -> bool {
        let own = self.0.deps.identity.member_id().as_str();
        let has_key = topic.key(topic.epoch()).is_some();
        topic.head.is_some()
            && !has_key
            && !topic.readers().into_iter().any(|reader| reader != own && self.is_there(topic, reader))
    }

    /// Whether the newest key has to be replaced: somebody who may have it is gone,
    /// or nobody who counts stands behind it any more.
    pub(super) fn is_spent(&self, topic: &Topic) -> bool {
        let lost = topic.readers().into_iter().any(|reader| !self.is_there(topic, reader));
        let stands = |head: &EpochStatement| {
            let (id, key) = (MemberId::parse(head.signer.as_str()).ok()?, MemberKey::parse(&head.signer_key).ok()?);
            counts(self.standing_by(topic, &id, key)).ok()
        };
        // What one member doubts counts for another: whose own word counts for more
        // replaces it, and two without the owner's word do not go on for ever.
        let own = self.0.deps.identity.member_id();
        let outranks = self.standing(topic, own).certified.is_some() || !self.has_certified(topic);
        let doubts = matches!(topic.shown.distrust, Some(Distrust::UnknownSigner | Distrust::UncertifiedSigner));
        let doubted = doubts && outranks;
        lost || doubted || topic.head.as_ref().is_some_and(|head| stands(head).is_none())
    }
}
