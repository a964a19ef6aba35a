//! Certificates of members: `<root>/certificates/<mesh_id>.json`.
//!
//! The link of an invite carries the invite's own key, signed by the owner. The
//! joiner signs its member key with it and forgets it: what is kept says that
//! the owner let this key in, and is no secret.

use std::path::Path;

use zeroize::Zeroizing;

use super::config_json::MeshEntry;
use super::owner::Owner;
use super::{Env, Error};
use crate::config::paths::Root;
use crate::crypto::certificate::{self, Delegation};
use crate::crypto::keys::MemberSecret;
use crate::domain::certificate::CertifiedRole;
use crate::domain::ids::MemberKey;
use crate::runtime::private_file::{self, PRIVATE};
use crate::wire::certificate::{LinkKey, MemberCertificate};
use crate::wire::join::{InviteError, InviteV1};

/// A new key for an invite, with the owner's word for it.
pub(super) fn delegate(env: &Env, owner: &Owner, invite: &InviteV1) -> Result<LinkKey, Error> {
    let seed = Zeroizing::new(env.ids.random::<32>()?);
    let secret = MemberSecret::from_seed(&seed);
    let owner_signature = delegation(invite, &secret)?.statement()?.sign(&owner.secret);
    Ok(LinkKey { seed, owner_signature })
}

/// The certificate of a member who joins with this link; `None` with a link that
/// carries no key. `invite` is the link's own, checked, and `owner` has signed it.
pub(super) fn of_link(
    link: &str,
    invite: &InviteV1,
    owner: MemberKey,
    member: MemberKey,
) -> Result<Option<MemberCertificate>, Error> {
    let Some(key) = LinkKey::of_link(link)? else { return Ok(None) };
    let secret = MemberSecret::from_seed(&key.seed);
    let delegation = delegation(invite, &secret)?;
    if !delegation.is_signed_by(owner, &key.owner_signature) {
        return Err(InviteError::BadLinkKey.into());
    }
    let Delegation { mesh_id, role, expires_at_s, .. } = delegation;
    let made = certificate::issue(mesh_id, member, &secret, key.owner_signature, role, expires_at_s)?;
    Ok(Some(MemberCertificate::from(&made)))
}

/// Certifies a member of before with a link that the owner gave it later. The
/// broker is not asked: the daemon brings it the certificate.
pub(super) fn catch_up(env: &Env, entry: &MeshEntry, link: &str, invite: &InviteV1) -> Result<(), Error> {
    let path = env.root.certificate(&entry.mesh_id);
    if entry.owner_pubkey.as_deref() != Some(invite.owner_pubkey.as_str()) || path.exists() {
        return Ok(());
    }
    let key = |text: &str| MemberKey::parse(text).map_err(|_| Error::Id("key in config.json"));
    match of_link(link, invite, key(&invite.owner_pubkey)?, key(&entry.pubkey)?)? {
        Some(certificate) => write(&env.root, &entry.mesh_id, &certificate),
        None => Ok(()),
    }
}

/// Certifies the creator of a mesh of before, who has the owner's key at hand.
pub(super) fn of_creator(env: &Env, owner: &Owner, entry: &MeshEntry) -> Result<(), Error> {
    if env.root.certificate(&entry.mesh_id).exists() {
        return Ok(());
    }
    let member = MemberKey::parse(&entry.pubkey).map_err(|_| Error::Id("key in config.json"))?;
    let secret = MemberSecret::from_seed(&Zeroizing::new(env.ids.random::<32>()?));
    let (mesh_id, role, expires_at_s) = (owner.mesh_id.as_str(), CertifiedRole::Admin, env.clock.now().0 / 1000);
    let delegation = Delegation { mesh_id, invite: secret.public(), role, expires_at_s };
    let signature = delegation.statement()?.sign(&owner.secret);
    let made = certificate::issue(mesh_id, member, &secret, signature, role, expires_at_s)?;
    write(&env.root, mesh_id, &MemberCertificate::from(&made))
}

/// Keeps the certificate of this user's member.
pub(super) fn write(root: &Root, mesh_id: &str, certificate: &MemberCertificate) -> Result<(), Error> {
    let path = root.certificate(mesh_id);
    private_file::create_dir(path.parent().unwrap_or_else(|| Path::new(".")))?;
    let text = serde_json::to_vec_pretty(certificate)
        .map_err(|error| Error::Malformed { path: path.clone(), detail: error.to_string() })?;
    Ok(private_file::write_atomic(&path, &text, PRIVATE)?)
}

/// Removes it with the membership.
pub(super) fn remove(root: &Root, mesh_id: &str) -> Result<(), Error> {
    Ok(private_file::remove_if_there(&root.certificate(mesh_id))?)
}

fn delegation<'a>(invite: &'a InviteV1, secret: &MemberSecret) -> Result<Delegation<'a>, Error> {
    let role = CertifiedRole::parse(&invite.role).ok_or(InviteError::BadField("role"))?;
    Ok(Delegation { mesh_id: &invite.mesh_id, invite: secret.public(), role, expires_at_s: invite.expires_at })
}
