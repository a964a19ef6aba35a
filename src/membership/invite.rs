//! Making and checking invites.

use std::time::Duration;

use super::http::Broker;
use super::owner::Owner;
use super::{Env, Error, certificate};
use crate::crypto::sign::{self, Statement};
use crate::domain::ids::MemberKey;
use crate::domain::time::UnixMillis;
use crate::wire::join::{InviteV1, RegisterInviteRequest, RegisterInviteResponse};

/// Shortest and longest life of an invite: clocks differ by seconds, and a link
/// that lies about for longer than a year is a key under the mat.
const LIFETIME: std::ops::RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(366 * 24 * 3600);

/// Who may join with an invite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends and receives.
    Member,
    /// Also changes topics and removes members.
    Admin,
}

/// What an invite allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// The role of those who join with it.
    pub role: Role,
    /// How many may join with it.
    pub uses: u32,
    /// From now.
    pub lifetime: Duration,
    /// Leave out what makes certificates: for programs that know links only in
    /// the form `ic://join/<token>`.
    pub plain: bool,
}

/// An invite that the broker knows. The link is a secret: whoever has it joins,
/// and what stands behind `#` in it the broker must not have either.
#[derive(Clone)]
pub struct Invite {
    /// `ic://join/<token>#<key>`, or without `#` when it is plain.
    pub link: String,
    /// The broker's id of it.
    pub invite_id: String,
    /// When it ends.
    pub expires_at: UnixMillis,
}

// === impl Role ===

impl Role {
    /// The name in an invite.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Admin => "admin",
        }
    }
}

impl std::fmt::Debug for Invite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invite").field("invite_id", &self.invite_id).finish_non_exhaustive()
    }
}

/// Makes an invite and stores it at the broker. Repeating it makes another one.
pub fn make(env: &Env, owner: &Owner, terms: &Terms) -> Result<Invite, Error> {
    if terms.uses == 0 {
        return Err(Error::Limit("an invite needs at least one use"));
    }
    if !LIFETIME.contains(&terms.lifetime) {
        return Err(Error::Limit("an invite lives from 1 minute to 366 days"));
    }
    let broker = Broker::new(env, &owner.broker_url)?;
    let now = env.clock.now();
    let payload = sign_payload(owner, terms, now, env.ids.ulid());
    let token = payload.to_token()?;
    let mut link = format!("ic://join/{token}");
    if !terms.plain {
        link.push('#');
        link.push_str(&certificate::delegate(env, owner, &payload)?.to_fragment());
    }
    let expires_at = UnixMillis(payload.expires_at.saturating_mul(1000));
    let statement = Statement::invite_registration(owner.mesh_id.as_str(), &token, terms.uses, now)?;
    let request = RegisterInviteRequest {
        token,
        payload,
        max_uses: terms.uses,
        ts: now.0,
        signature: hex::encode(statement.sign(&owner.secret)),
    };
    let answer = broker.post(&format!("/v1/meshes/{}/invites", owner.mesh_id), None, &request)?;
    if answer.is_success() {
        let response: RegisterInviteResponse = answer.json().ok_or_else(|| answer.unexpected())?;
        return Ok(Invite { link, invite_id: response.invite_id, expires_at });
    }
    match answer.status {
        400..=499 if answer.json::<serde_json::Value>().is_some() => {
            Err(Error::InviteRefused { address: broker.address().to_owned(), reason: answer.reason() })
        }
        _ => Err(answer.unexpected()),
    }
}

/// Checks the invite in a link: version, fields, expiry, the owner's signature.
/// Nothing is sent anywhere before this has passed.
pub(super) fn verify(link: &str, now: UnixMillis) -> Result<(InviteV1, MemberKey), Error> {
    let invite = InviteV1::parse(link)?;
    let owner = invite.verify(now, |key, text, signature| sign::verify(key, text.as_bytes(), signature))?;
    Ok((invite, owner))
}

fn sign_payload(owner: &Owner, terms: &Terms, now: UnixMillis, nonce: String) -> InviteV1 {
    let lifetime_s = i64::try_from(terms.lifetime.as_secs()).unwrap_or(i64::MAX);
    let mut payload = InviteV1 {
        v: 1,
        mesh_id: owner.mesh_id.to_string(),
        mesh_slug: owner.slug.clone(),
        broker_url: owner.broker_url.clone(),
        expires_at: (now.0 / 1000).saturating_add(lifetime_s),
        mesh_root_key: owner.root_key.to_string(),
        role: terms.role.as_str().to_owned(),
        owner_pubkey: owner.secret.public().to_hex(),
        signature: String::new(),
        nonce: Some(nonce),
    };
    payload.signature = hex::encode(sign::sign(&owner.secret, payload.signed_text().as_bytes()));
    payload
}
