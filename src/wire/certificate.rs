//! Member certificates in frames, and the part of a link that makes one.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::join::InviteError;
use super::text;
use crate::domain::certificate::{Certificate, CertifiedRole};
use crate::domain::ids::MemberKey;

/// Digits of the part of a link behind `#`: base64url of 96 bytes.
const LINK_KEY_DIGITS: usize = 128;
/// From here on what stands behind `#` in a web link is no anchor of a page.
const MIN_DAMAGED_DIGITS: usize = 64;

/// A member certificate: the owner signed the key of an invite, and that key
/// signed the member's. A field that is missing makes it none, and not the list
/// that it stands in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MemberCertificate {
    /// The key that joined, 64 hex digits.
    pub member_pubkey: String,
    /// The key of the invite, 64 hex digits.
    pub invite_pubkey: String,
    /// `admin` or `member`.
    pub role: String,
    /// When the invite ended, Unix seconds.
    pub expires_at: i64,
    /// By the owner, 128 hex digits.
    pub owner_signature: String,
    /// By the invite's key, 128 hex digits.
    pub invite_signature: String,
}

/// `member_certificate_put`: stores the own certificate; answered by `ack`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberCertificatePut {
    /// The certificate.
    pub certificate: MemberCertificate,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// `member_certificate_get`: asks for a member's certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberCertificateGet {
    /// The member by id.
    pub member_id: String,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// `member_certificate`: the answer to `member_certificate_get`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberCertificateFound {
    /// The member by id.
    pub member_id: String,
    /// Absent when the broker has none of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<MemberCertificate>,
    /// Correlation id.
    #[serde(rename = "_reqId", default, skip_serializing_if = "Option::is_none")]
    pub req_id: Option<String>,
}

/// The secret of an invite, which stands behind `#` in its link and is never
/// sent to a broker: the seed of the invite's key, and the owner's word for it.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkKey {
    /// The seed.
    pub seed: Zeroizing<[u8; 32]>,
    /// By the owner.
    pub owner_signature: [u8; 64],
}

// === impl MemberCertificate ===

impl MemberCertificate {
    /// What it says; `None` when a field is none of its kind. Says nothing about
    /// the signatures.
    pub fn read(&self) -> Option<Certificate> {
        Some(Certificate {
            member: MemberKey::parse(&self.member_pubkey).ok()?,
            invite: MemberKey::parse(&self.invite_pubkey).ok()?,
            role: CertifiedRole::parse(&self.role)?,
            expires_at_s: self.expires_at,
            owner_signature: text::signature_from_hex(&self.owner_signature)?,
            invite_signature: text::signature_from_hex(&self.invite_signature)?,
        })
    }
}

impl From<&Certificate> for MemberCertificate {
    fn from(certificate: &Certificate) -> Self {
        Self {
            member_pubkey: certificate.member.to_hex(),
            invite_pubkey: certificate.invite.to_hex(),
            role: certificate.role.as_str().to_owned(),
            expires_at: certificate.expires_at_s,
            owner_signature: hex::encode(certificate.owner_signature),
            invite_signature: hex::encode(certificate.invite_signature),
        }
    }
}

// === impl LinkKey ===

impl LinkKey {
    /// The key in a link; `None` in a link that has none. What looks like a key
    /// and is none is an error: a link that was cut off would otherwise make a
    /// member that nobody can tell from an invented one.
    pub fn of_link(link: &str) -> Result<Option<Self>, InviteError> {
        let link = link.trim();
        let Some((before, behind)) = link.split_once('#') else { return Ok(None) };
        let is_web = before.starts_with("https://") || before.starts_with("http://");
        if is_web && behind.len() < MIN_DAMAGED_DIGITS {
            return Ok(None);
        }
        if behind.len() != LINK_KEY_DIGITS {
            return Err(InviteError::BadLinkKey);
        }
        let bytes = text::from_base64url(behind).map(Zeroizing::new).ok_or(InviteError::BadLinkKey)?;
        let (seed, signature) = bytes.split_first_chunk::<32>().ok_or(InviteError::BadLinkKey)?;
        let owner_signature = signature.try_into().map_err(|_| InviteError::BadLinkKey)?;
        Ok(Some(Self { seed: Zeroizing::new(*seed), owner_signature }))
    }

    /// What stands behind `#`.
    pub fn to_fragment(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new([0_u8; 96]);
        bytes[..32].copy_from_slice(self.seed.as_slice());
        bytes[32..].copy_from_slice(&self.owner_signature);
        Zeroizing::new(text::to_base64url(bytes.as_slice()))
    }
}

impl fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkKey([redacted])")
    }
}
