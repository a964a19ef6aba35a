//! Member certificates: made from the key of an invite, checked against the key
//! of the mesh's owner.
//!
//! The owner signs an invite's key once, and whoever holds that key signs the
//! member's: nobody has to be online, and no daemon of an admin knows it.

use super::keys::MemberSecret;
use super::sign::{Signature, Statement, StatementError};
use crate::domain::certificate::{Certificate, CertifiedRole};
use crate::domain::ids::MemberKey;

/// The owner's word for the key of an invite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delegation<'a> {
    /// The mesh by id.
    pub mesh_id: &'a str,
    /// The public half of the invite's key.
    pub invite: MemberKey,
    /// What those who join with it may do.
    pub role: CertifiedRole,
    /// When the invite ends, Unix seconds.
    pub expires_at_s: i64,
}

// === impl Delegation ===

impl Delegation<'_> {
    /// What the owner signs.
    pub fn statement(&self) -> Result<Statement, StatementError> {
        Statement::invite_key(self.mesh_id, self.invite, self.role.as_str(), self.expires_at_s)
    }

    /// Whether the owner signed it.
    pub fn is_signed_by(&self, owner: MemberKey, signature: &Signature) -> bool {
        self.statement().is_ok_and(|statement| statement.verify(owner, signature))
    }
}

/// Makes a member's certificate with the key of an invite. Says nothing about
/// the owner's signature, which is taken as it is.
pub fn issue(
    mesh_id: &str,
    member: MemberKey,
    invite: &MemberSecret,
    owner_signature: Signature,
    role: CertifiedRole,
    expires_at_s: i64,
) -> Result<Certificate, StatementError> {
    let public = invite.public();
    let statement = Statement::member_certificate(mesh_id, member, public, role.as_str(), expires_at_s)?;
    let invite_signature = statement.sign(invite);
    Ok(Certificate { member, invite: public, role, expires_at_s, owner_signature, invite_signature })
}

/// Whether this owner of this mesh let `certificate.member` in. Whose key that is
/// today is the caller's to know.
pub fn is_genuine(certificate: &Certificate, mesh_id: &str, owner: MemberKey) -> bool {
    let Certificate { member, invite, role, expires_at_s, owner_signature, invite_signature } = certificate;
    let delegation = Delegation { mesh_id, invite: *invite, role: *role, expires_at_s: *expires_at_s };
    delegation.is_signed_by(owner, owner_signature)
        && Statement::member_certificate(mesh_id, *member, *invite, role.as_str(), *expires_at_s)
            .is_ok_and(|statement| statement.verify(*invite, invite_signature))
}
