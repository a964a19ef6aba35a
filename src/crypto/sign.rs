//! The texts that members sign, and signing itself.
//!
//! A signed text joins its fields with `|`. A field that holds a `|` could
//! stand for two different statements, so it is refused when the text is made,
//! on both sides.

use ed25519_dalek::{Signature as DalekSignature, Signer as _};
use sha2::{Digest as _, Sha256};

use super::keys::{MemberSecret, checked_point};
use crate::domain::ids::MemberKey;
use crate::domain::time::UnixMillis;

/// A detached ed25519 signature; 128 hex digits in frames.
pub type Signature = [u8; 64];

/// Why a statement cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {field} of the statement is empty or holds a separator")]
pub struct StatementError {
    /// The field.
    pub field: &'static str,
}

/// A text to sign or to verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement(String);

/// A change of a member's key: signed by the old key, so that the change is
/// wanted, and by the new one, so that nobody adopts a key it does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyRotation<'a> {
    /// The mesh by id.
    pub mesh_id: &'a str,
    /// The member by id.
    pub member_id: &'a str,
    /// 1 for the first change of a member.
    pub seq: u64,
    /// The key that retires.
    pub old: MemberKey,
    /// The key that follows.
    pub new: MemberKey,
    /// When it was signed.
    pub at: UnixMillis,
}

/// The two signatures of a [`KeyRotation`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotationSignatures {
    /// By the old key.
    pub old: Signature,
    /// By the new key.
    pub new: Signature,
}

/// Signs bytes.
pub fn sign(secret: &MemberSecret, message: &[u8]) -> Signature {
    secret.signing().sign(message).to_bytes()
}

/// Whether `key` signed exactly these bytes. Strict: weak keys and second
/// encodings of a signature fail.
pub fn verify(key: MemberKey, message: &[u8], signature: &Signature) -> bool {
    let signature = DalekSignature::from_bytes(signature);
    checked_point(key).is_ok_and(|point| point.verify_strict(message, &signature).is_ok())
}

// === impl Statement ===

impl Statement {
    /// What opens a member's connection, by the member key.
    pub fn hello(
        mesh_id: &str,
        member_id: &str,
        member: MemberKey,
        timestamp: UnixMillis,
    ) -> Result<Self, StatementError> {
        field("mesh id", mesh_id)?;
        field("member id", member_id)?;
        Ok(Self(format!("{mesh_id}|{member_id}|{member}|{timestamp}")))
    }

    /// The member's word for a session key, by the member key.
    pub fn attestation(member: MemberKey, session: MemberKey, expires_at: UnixMillis) -> Self {
        Self(format!("claudemesh-session-attest|{member}|{session}|{expires_at}"))
    }

    /// What opens a session's connection, by the session key.
    pub fn session_hello(
        mesh_id: &str,
        member: MemberKey,
        session: MemberKey,
        timestamp: UnixMillis,
    ) -> Result<Self, StatementError> {
        field("mesh id", mesh_id)?;
        Ok(Self(format!("claudemesh-session-hello|{mesh_id}|{member}|{session}|{timestamp}")))
    }

    /// What a member can do, by the member key. The order of the names does not
    /// matter, nor do repeats.
    pub fn capabilities<'n>(
        mesh_id: &str,
        member: MemberKey,
        names: impl IntoIterator<Item = &'n str>,
        at: UnixMillis,
    ) -> Result<Self, StatementError> {
        field("mesh id", mesh_id)?;
        let mut names: Vec<&str> = names.into_iter().collect();
        names.sort_unstable();
        names.dedup();
        for name in &names {
            field("capability", name)?;
            if name.contains(',') {
                return Err(StatementError { field: "capability" });
            }
        }
        let names = names.join(",");
        Ok(Self(format!("claudemesh-capabilities|v1|{mesh_id}|{member}|{names}|{at}")))
    }

    /// The storing of an invite at the broker, by the mesh owner. Names the
    /// token by its hash, so that the statement can be logged.
    pub fn invite_registration(
        mesh_id: &str,
        token: &str,
        max_uses: u32,
        at: UnixMillis,
    ) -> Result<Self, StatementError> {
        field("mesh id", mesh_id)?;
        let token = hex::encode(Sha256::digest(token.as_bytes()));
        Ok(Self(format!("claudemesh-invite-register|v1|{mesh_id}|{token}|{max_uses}|{at}")))
    }

    /// The owner's word for the key of an invite. `expires_at_s` is in Unix
    /// seconds.
    pub fn invite_key(mesh_id: &str, invite: MemberKey, role: &str, expires_at_s: i64) -> Result<Self, StatementError> {
        field("mesh id", mesh_id)?;
        field("role", role)?;
        Ok(Self(format!("claudemesh-invite-key|v1|{mesh_id}|{invite}|{role}|{expires_at_s}")))
    }

    /// That a member joined with an invite, by the key of that invite.
    pub fn member_certificate(
        mesh_id: &str,
        member: MemberKey,
        invite: MemberKey,
        role: &str,
        expires_at_s: i64,
    ) -> Result<Self, StatementError> {
        field("mesh id", mesh_id)?;
        field("role", role)?;
        Ok(Self(format!("claudemesh-member-certificate|v1|{mesh_id}|{member}|{invite}|{role}|{expires_at_s}")))
    }

    /// A request about a mesh, by its owner or a member. `text` is the request's
    /// canonical JSON; its hash stands for it.
    pub fn admin(mesh_id: &str, signer: MemberKey, text: &str, at: UnixMillis) -> Result<Self, StatementError> {
        field("mesh id", mesh_id)?;
        let text = hex::encode(Sha256::digest(text.as_bytes()));
        Ok(Self(format!("claudemesh-admin|v1|{mesh_id}|{signer}|{text}|{at}")))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Signs it.
    pub fn sign(&self, secret: &MemberSecret) -> Signature {
        sign(secret, self.0.as_bytes())
    }

    /// Whether `key` signed it.
    pub fn verify(&self, key: MemberKey, signature: &Signature) -> bool {
        verify(key, self.0.as_bytes(), signature)
    }
}

// === impl KeyRotation ===

impl KeyRotation<'_> {
    /// The text that both keys sign.
    pub fn statement(&self) -> Result<Statement, StatementError> {
        field("mesh id", self.mesh_id)?;
        field("member id", self.member_id)?;
        let Self { mesh_id, member_id, seq, old, new, at } = self;
        Ok(Statement(format!("claudemesh-key-rotation|v1|{mesh_id}|{member_id}|{seq}|{old}|{new}|{at}")))
    }

    /// Signs it with both keys.
    pub fn sign(&self, old: &MemberSecret, new: &MemberSecret) -> Result<RotationSignatures, StatementError> {
        let statement = self.statement()?;
        Ok(RotationSignatures { old: statement.sign(old), new: statement.sign(new) })
    }

    /// Whether both keys signed it, and are two.
    pub fn verify(&self, signatures: &RotationSignatures) -> bool {
        self.old != self.new
            && self.statement().is_ok_and(|statement| {
                statement.verify(self.old, &signatures.old) && statement.verify(self.new, &signatures.new)
            })
    }
}

fn field(name: &'static str, value: &str) -> Result<(), StatementError> {
    if value.is_empty() || value.contains(|c: char| c == '|' || c.is_control()) {
        return Err(StatementError { field: name });
    }
    Ok(())
}
