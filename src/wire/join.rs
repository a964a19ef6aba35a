//! Invites and the HTTP bodies around membership.
//!
//! An invite is verified before the first byte goes to the network, because it
//! names the broker and the owner that everything later is checked against.
//! The signature check is handed in by the caller: ciphers are another folder.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::certificate::MemberCertificate;
use super::features::ConcurrencyPolicy;
use super::hello::CapabilityStatement;
use super::text;
use crate::domain::ids::{IdError, MemberKey};
use crate::domain::time::UnixMillis;

/// Longest token and link, in bytes. A real token has about 700.
pub const MAX_TOKEN_BYTES: usize = 8192;

/// Why an invite cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InviteError {
    /// Neither a link nor a token.
    #[error("this is no invite: expected ic://join/<token>, https://<host>/join/<token> or the token itself")]
    NotAnInvite,
    /// The token is not base64url of the payload.
    #[error("the invite is damaged: {0}")]
    Damaged(String),
    /// A version that this program does not know.
    #[error("the invite has version {0}, this program knows version 1")]
    UnknownVersion(u32),
    /// A field is empty, or holds what would make the signed text ambiguous.
    #[error("the invite's {0} is not usable")]
    BadField(&'static str),
    /// `owner_pubkey` is no key.
    #[error("the invite's owner_pubkey is no key: {0}")]
    BadOwner(IdError),
    /// Its time is over.
    #[error("the invite has expired")]
    Expired,
    /// The owner did not sign it.
    #[error("the invite's signature is not the owner's")]
    BadSignature,
    /// What stands behind `#` is no key that the owner signed for this invite.
    #[error("the part of the link behind # is cut off or changed")]
    BadLinkKey,
}

/// The payload of a version 1 invite. Whoever has all of it can join, so its
/// `Debug` leaves out what the token is made of.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteV1 {
    /// Always 1.
    pub v: u32,
    /// The mesh by id.
    pub mesh_id: String,
    /// The mesh's short name.
    pub mesh_slug: String,
    /// The whole WebSocket URL.
    pub broker_url: String,
    /// Unix seconds.
    pub expires_at: i64,
    /// 32 bytes, base64url. Required by the format, used by nothing.
    pub mesh_root_key: String,
    /// `admin` or `member`.
    pub role: String,
    /// The mesh owner's ed25519 public key, 64 hex digits.
    pub owner_pubkey: String,
    /// 128 hex digits, by the owner, over [`InviteV1::signed_text`].
    pub signature: String,
    /// Makes two invites of one second two tokens. Not signed: the owner registers
    /// the token as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
}

/// Body of `POST /join`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The token as it was in the link: the broker finds its row by it.
    pub invite_token: String,
    /// The token's content.
    pub invite_payload: InviteV1,
    /// The new member's ed25519 public key, 64 hex digits.
    pub peer_pubkey: String,
    /// The new member's name.
    pub display_name: String,
    /// What the new member can read, signed by its key. Peers learn it with the
    /// member itself, so the first message to a member that has not connected
    /// yet already has the safe form. A broker that does not know the field
    /// ignores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<CapabilityStatement>,
    /// That the owner let the key in, made with the part of the link behind `#`.
    /// A broker that does not know the field ignores it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<MemberCertificate>,
}

/// Answer of `POST /join`: 200 with `ok: true`, or 400 with `error`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JoinResponse {
    /// Whether the key is a member now.
    pub ok: bool,
    /// The member by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_id: Option<String>,
    /// It was one before; no use of the invite was spent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub already_member: Option<bool>,
    /// Another member has or had its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_taken: Option<bool>,
    /// A name of [`join_error`], or a text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The values of [`JoinResponse::error`] that clients know.
pub mod join_error {
    /// No such mesh.
    pub const MESH_NOT_FOUND: &str = "mesh_not_found";
    /// The mesh has no owner key to check the invite with.
    pub const MESH_MISSING_OWNER_KEY: &str = "mesh_missing_owner_key";
    /// The token was never registered.
    pub const INVITE_NOT_FOUND: &str = "invite_not_found";
    /// Its time is over.
    pub const INVITE_EXPIRED: &str = "invite_expired";
    /// Its uses are spent.
    pub const INVITE_EXHAUSTED: &str = "invite_exhausted";
    /// It was withdrawn.
    pub const INVITE_REVOKED: &str = "invite_revoked";
    /// The owner did not sign it.
    pub const INVITE_BAD_SIGNATURE: &str = "invite_bad_signature";
    /// The token belongs to another mesh than the payload says.
    pub const INVITE_MESH_MISMATCH: &str = "invite_mesh_mismatch";
    /// The payload names another owner than the mesh has.
    pub const INVITE_OWNER_MISMATCH: &str = "invite_owner_mismatch";
    /// The member could not be stored.
    pub const MEMBER_INSERT_FAILED: &str = "member_insert_failed";
}

/// Body of `POST /v1/meshes`. The bearer is the broker's admin token; the owner
/// key is made by the creator and never leaves it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateMeshRequest {
    /// Short name: 1 to 32 of `a-z`, `0-9` and `-`.
    pub slug: String,
    /// Name for people; the slug if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The owner's ed25519 public key, 64 hex digits.
    pub owner_pubkey: String,
    /// What happens on a second connection; `prefer_newest` if absent (R71).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_policy: Option<ConcurrencyPolicy>,
}

/// Answer of `POST /v1/meshes`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateMeshResponse {
    /// The mesh by id.
    pub mesh_id: String,
    /// Its short name.
    pub slug: String,
}

/// Body of `POST /v1/meshes/:id/invites`: stores an invite that the owner made.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegisterInviteRequest {
    /// The token, exactly as it goes into the link.
    pub token: String,
    /// The token's content.
    pub payload: InviteV1,
    /// How many members may join with it; at least 1.
    pub max_uses: u32,
    /// When it was signed, Unix ms; at most 60 s from the broker's clock.
    pub ts: i64,
    /// 128 hex digits, by the owner.
    pub signature: String,
}

/// Answer of `POST /v1/meshes/:id/invites`. Repeating the request gives the
/// same answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterInviteResponse {
    /// The invite by id.
    pub invite_id: String,
}

/// The token in a link: `ic://join/<token>`, `http(s)://<host>/join/<token>`
/// with an optional two-letter language before `join`, or the token itself.
/// A query or fragment behind the token is cut off: what stands behind `#` is a
/// secret that no broker gets.
pub fn token_of(link: &str) -> Result<&str, InviteError> {
    let link = link.trim();
    if link.len() > MAX_TOKEN_BYTES {
        return Err(InviteError::NotAnInvite);
    }
    let token = if let Some(token) = link.strip_prefix("ic://join/") {
        token
    } else if let Some(rest) = link.strip_prefix("https://").or_else(|| link.strip_prefix("http://")) {
        let (_, path) = rest.split_once('/').ok_or(InviteError::NotAnInvite)?;
        let path = match path.split_once('/') {
            Some((locale, path)) if locale.len() == 2 && locale.bytes().all(|b| b.is_ascii_alphabetic()) => path,
            _ => path,
        };
        path.strip_prefix("join/").ok_or(InviteError::NotAnInvite)?
    } else {
        link
    };
    let token = token.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if token.len() <= 20 || !token.bytes().all(plain) {
        return Err(InviteError::NotAnInvite);
    }
    Ok(token)
}

// === impl InviteV1 ===

impl InviteV1 {
    /// Reads a link or a token. Says nothing about its signature.
    pub fn parse(link: &str) -> Result<Self, InviteError> {
        let token = token_of(link)?;
        let json =
            text::from_base64url(token).ok_or_else(|| InviteError::Damaged("the token is not base64url".to_owned()))?;
        let invite: Self = serde_json::from_slice(&json)
            .map_err(|error| InviteError::Damaged(format!("the payload does not fit: {error}")))?;
        invite.check_fields()?;
        Ok(invite)
    }

    /// The token: base64url of the payload's JSON. Two programs may write the
    /// same payload differently; the broker compares tokens, so a token is made
    /// once and then carried along.
    pub fn to_token(&self) -> Result<String, InviteError> {
        self.check_fields()?;
        let json = serde_json::to_vec(self).map_err(|error| InviteError::Damaged(error.to_string()))?;
        Ok(text::to_base64url(&json))
    }

    /// The link that every client understands.
    pub fn to_link(&self) -> Result<String, InviteError> {
        Ok(format!("ic://join/{}", self.to_token()?))
    }

    /// What the owner signs.
    pub fn signed_text(&self) -> String {
        format!(
            "{}|{}|{}|{}|{}|{}|{}|{}",
            self.v,
            self.mesh_id,
            self.mesh_slug,
            self.broker_url,
            self.expires_at,
            self.mesh_root_key,
            self.role,
            self.owner_pubkey
        )
    }

    /// Checks version, fields, expiry and signature. `verify` gets the owner's
    /// key, the signed text and the signature.
    pub fn verify(
        &self,
        now: UnixMillis,
        verify: impl FnOnce(MemberKey, &str, &[u8; 64]) -> bool,
    ) -> Result<MemberKey, InviteError> {
        self.check_fields()?;
        let owner = MemberKey::parse(&self.owner_pubkey).map_err(InviteError::BadOwner)?;
        if self.expires_at.saturating_mul(1000) <= now.0 {
            return Err(InviteError::Expired);
        }
        let signature = text::signature_from_hex(&self.signature).ok_or(InviteError::BadSignature)?;
        if !verify(owner, &self.signed_text(), &signature) {
            return Err(InviteError::BadSignature);
        }
        Ok(owner)
    }

    /// A `|` or a control character inside a field would let one signature stand
    /// for two payloads.
    fn check_fields(&self) -> Result<(), InviteError> {
        if self.v != 1 {
            return Err(InviteError::UnknownVersion(self.v));
        }
        let fields = [
            ("mesh_id", &self.mesh_id),
            ("mesh_slug", &self.mesh_slug),
            ("broker_url", &self.broker_url),
            ("mesh_root_key", &self.mesh_root_key),
            ("owner_pubkey", &self.owner_pubkey),
        ];
        for (name, value) in fields {
            if value.is_empty() || value.contains(|c: char| c == '|' || c.is_control()) {
                return Err(InviteError::BadField(name));
            }
        }
        if self.role != "admin" && self.role != "member" {
            return Err(InviteError::BadField("role"));
        }
        Ok(())
    }
}

impl fmt::Debug for InviteV1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InviteV1")
            .field("mesh_id", &self.mesh_id)
            .field("mesh_slug", &self.mesh_slug)
            .field("broker_url", &self.broker_url)
            .field("expires_at", &self.expires_at)
            .field("role", &self.role)
            .field("owner_pubkey", &self.owner_pubkey)
            .finish_non_exhaustive()
    }
}

// === impl JoinRequest ===

impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinRequest")
            .field("invite_payload", &self.invite_payload)
            .field("peer_pubkey", &self.peer_pubkey)
            .field("display_name", &self.display_name)
            .field("capabilities", &self.capabilities)
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

// === impl RegisterInviteRequest ===

impl fmt::Debug for RegisterInviteRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegisterInviteRequest")
            .field("payload", &self.payload)
            .field("max_uses", &self.max_uses)
            .field("ts", &self.ts)
            .finish_non_exhaustive()
    }
}
