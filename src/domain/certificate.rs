//! What a member certificate says: the owner of the mesh let this key in.
//!
//! The owner signs the key of an invite, and that key signs the new member's.
//! Both signatures are checked in `crypto`; here is what they are over.

use super::ids::MemberKey;

/// What the owner let a member do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CertifiedRole {
    /// Sends and receives.
    Member,
    /// Also changes topics and removes members. The creator of a mesh is one.
    Admin,
}

/// A member certificate, read but not checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The key that joined.
    pub member: MemberKey,
    /// The key of the invite that it joined with.
    pub invite: MemberKey,
    /// What the invite allows.
    pub role: CertifiedRole,
    /// When the invite ended, Unix seconds. Nobody can prove later when a
    /// certificate was made, so nothing is decided by it; it is signed all the
    /// same, and shows which invite it was.
    pub expires_at_s: i64,
    /// By the owner of the mesh, over the key of the invite.
    pub owner_signature: [u8; 64],
    /// By the key of the invite, over the member's key.
    pub invite_signature: [u8; 64],
}

// === impl CertifiedRole ===

impl CertifiedRole {
    /// The name in invites and certificates.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Admin => "admin",
        }
    }

    /// The role of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Member, Self::Admin].into_iter().find(|role| role.as_str() == name)
    }
}
