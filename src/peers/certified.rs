//! Whose certificates hold: which members the mesh's owner let in.
//!
//! What it is for: topic keys go to these members only. The owner's key is the
//! one of this member's own invite, never what the broker says.
//! What it guarantees: a certificate counts for the member whose pinned key, or a
//! key before it in its chain, it names, and for nobody else; what was proven
//! once is not unproven by a broker that hides it.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use super::shown;
use crate::crypto::certificate::is_genuine;
use crate::domain::certificate::{Certificate, CertifiedRole};
use crate::domain::ids::{MemberId, MemberKey, MeshId};
use crate::domain::key_chain;
use crate::domain::roster::PinnedMember;
use crate::domain::time::UnixMillis;
use crate::runtime::private_file;
use crate::wire::certificate::MemberCertificate;
use crate::wire::roster::{MemberRow, RotationStatement};

/// The members whose certificates hold, and what the owner let them do.
pub type Certified = BTreeMap<MemberId, CertifiedRole>;

/// What the certificates are checked against.
#[derive(Clone, Debug)]
pub struct Trust {
    /// The owner's key of this member's own invite; `None` for a member that
    /// joined without one, to whom nobody is certified.
    pub owner: Option<MemberKey>,
    /// Where the join left this member's own certificate.
    pub own_file: PathBuf,
}

/// The certificates of the roster.
#[derive(Debug)]
pub(super) struct Certificates {
    mesh_id: MeshId,
    own_id: MemberId,
    trust: Trust,
    proven: HashMap<MemberId, Proven>,
    /// What was looked at last, so that signatures are checked once.
    looked_at: HashMap<MemberId, LookedAt>,
    told: watch::Sender<Arc<Certified>>,
    /// The broker was offered the own certificate over this link.
    offered: bool,
    /// The log has that the own certificate is of no use.
    warned: bool,
}

/// A certificate that the owner signed.
#[derive(Clone, Copy, Debug)]
struct Proven {
    certificate: Certificate,
    /// A key of the member that the chain leads to from the certificate's.
    reached: MemberKey,
}

/// What decides whether another look would find the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LookedAt {
    certificate: Certificate,
    pinned: MemberKey,
    rotations: usize,
}

// === impl Certificates ===

impl Certificates {
    /// What is known without a link: the own certificate.
    pub(super) fn new(
        mesh_id: MeshId,
        own_id: MemberId,
        trust: Trust,
        pinned: &[PinnedMember],
    ) -> (Self, watch::Receiver<Arc<Certified>>) {
        let (told, watching) = watch::channel(Arc::default());
        let (proven, looked_at) = (HashMap::new(), HashMap::new());
        let mut certificates = Self { mesh_id, own_id, trust, proven, looked_at, told, offered: false, warned: false };
        certificates.learn(&[], pinned);
        (certificates, watching)
    }

    /// The broker of a new link may lack what the one before had.
    pub(super) fn link_is_up(&mut self) {
        self.offered = false;
    }

    /// Takes over what the broker shows.
    pub(super) fn learn(&mut self, rows: &[MemberRow], pinned: &[PinnedMember]) {
        let by_id: HashMap<&str, &PinnedMember> =
            pinned.iter().map(|member| (member.member_id.as_str(), member)).collect();
        for row in rows {
            let shown = row.certificate.as_ref().and_then(MemberCertificate::read);
            if let (Some(certificate), Some(member)) = (shown, by_id.get(row.member_id.as_str())) {
                self.look(member, certificate, row.rotations.as_deref().unwrap_or_default());
            }
        }
        if let Some(own) = by_id.get(self.own_id.as_str())
            && !self.proven.contains_key(&self.own_id)
            && let Some(certificate) = self.own_certificate()
        {
            let row = rows.iter().find(|row| row.member_id == self.own_id.as_str());
            self.look(own, certificate, row.and_then(|row| row.rotations.as_deref()).unwrap_or_default());
        }
        self.tell(pinned);
    }

    /// The own certificate, if it holds and the broker shows none that does. Once
    /// a link: a broker that does not know the frame does not answer it.
    pub(super) fn offer(&mut self, rows: &[MemberRow]) -> Option<MemberCertificate> {
        let own = self.proven.get(&self.own_id)?.certificate;
        let row = rows.iter().find(|row| row.member_id == self.own_id.as_str());
        let shown = row.and_then(|row| row.certificate.as_ref()).and_then(MemberCertificate::read);
        let is_there = shown.is_some_and(|shown| shown == own || (shown.role >= own.role && self.is_genuine(&shown)));
        if is_there || std::mem::replace(&mut self.offered, true) {
            return None;
        }
        Some(MemberCertificate::from(&own))
    }

    /// Tells whose certificates hold for the keys that are pinned now.
    pub(super) fn tell(&mut self, pinned: &[PinnedMember]) {
        let certified = self.certified(pinned);
        self.told.send_if_modified(|told| {
            let changed = **told != certified;
            if changed {
                *told = Arc::new(certified);
            }
            changed
        });
    }

    fn certified(&mut self, pinned: &[PinnedMember]) -> Certified {
        // Who shows a key that a certificate names. A retired key can be stolen, and
        // its thief can sign a change to a key of its own: who was seen first with
        // it keeps it.
        let mut holders: HashMap<MemberKey, Vec<(UnixMillis, &MemberId)>> =
            self.proven.values().map(|proven| (proven.certificate.member, Vec::new())).collect();
        for member in pinned {
            let own = self.proven.get(&member.member_id).map(|proven| proven.certificate.member);
            let mut keys: Vec<MemberKey> = member.previous.iter().map(|old| old.key).chain([member.key]).collect();
            keys.extend(own.filter(|own| !keys.contains(own)));
            for key in keys {
                if let Some(holders) = holders.get_mut(&key) {
                    holders.push((member.first_seen_at, &member.member_id));
                }
            }
        }
        let mut certified = Certified::new();
        for member in pinned {
            let Some(proven) = self.proven.get_mut(&member.member_id).filter(|it| has_or_had(member, it.reached))
            else {
                continue;
            };
            proven.reached = member.key;
            let others = holders.get(&proven.certificate.member).into_iter().flatten();
            let is_first =
                others.filter(|(_, id)| **id != member.member_id).all(|(seen, _)| *seen > member.first_seen_at);
            if is_first && !member.revoked {
                certified.insert(member.member_id.clone(), proven.certificate.role);
            }
        }
        certified
    }

    fn look(&mut self, member: &PinnedMember, certificate: Certificate, rotations: &[RotationStatement]) {
        let looked_at = LookedAt { certificate, pinned: member.key, rotations: rotations.len() };
        if self.looked_at.insert(member.member_id.clone(), looked_at) == Some(looked_at) {
            return;
        }
        // An older certificate of the same member does not take anything away.
        let known = self.proven.get(&member.member_id).filter(|known| has_or_had(member, known.reached));
        if known.is_some_and(|known| known.certificate.role >= certificate.role) || !self.is_genuine(&certificate) {
            return;
        }
        if let Some(reached) = self.reached(member, certificate.member, rotations) {
            self.proven.insert(member.member_id.clone(), Proven { certificate, reached });
        }
    }

    /// A key of the member that is pinned, or was, and that `from` is or leads to.
    fn reached(&self, member: &PinnedMember, from: MemberKey, rotations: &[RotationStatement]) -> Option<MemberKey> {
        if has_or_had(member, from) {
            return Some(from);
        }
        // Only the newest keys are pinned; the chain itself is kept by the broker,
        // and each step of it is signed.
        let newest = &rotations[rotations.len().saturating_sub(shown::MAX_CHECKED)..];
        let verified = |statement| shown::verified_change(statement, &self.mesh_id, &member.member_id);
        let changes: Vec<_> = newest.iter().filter_map(verified).collect();
        key_chain::follow(from, member.key, &changes).map(|_| member.key)
    }

    fn is_genuine(&self, certificate: &Certificate) -> bool {
        self.trust.owner.is_some_and(|owner| is_genuine(certificate, self.mesh_id.as_str(), owner))
    }

    /// Read anew until it holds: a link of the owner's can make one later.
    fn own_certificate(&mut self) -> Option<Certificate> {
        let path = &self.trust.own_file;
        let read = match private_file::read_optional(path) {
            Ok(None) => return None,
            Ok(Some(text)) => serde_json::from_str::<MemberCertificate>(&text).ok().and_then(|it| it.read()),
            Err(_) => None,
        };
        let certificate = read.filter(|certificate| self.is_genuine(certificate));
        if certificate.is_none() && !std::mem::replace(&mut self.warned, true) {
            let path = self.trust.own_file.display();
            tracing::warn!(
                "{path} cannot be read or is not signed by the owner of this mesh; remove it and run claudemesh join \
                 with a link of the owner"
            );
        }
        certificate
    }
}

fn has_or_had(member: &PinnedMember, key: MemberKey) -> bool {
    member.key == key || member.previous.iter().any(|previous| previous.key == key)
}

#[cfg(test)]
mod tests;
