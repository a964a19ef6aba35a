//! Member certificates, for the members' daemons to check.
//!
//! Members believe the owner's signature, not this broker. It is checked here all
//! the same, so that nobody stores something else under that name.

use std::sync::Arc;

use sea_orm::DbErr;

use super::roster::{Member, Mesh};
use super::session::peer::Peer;
use super::session::terms::Kind;
use super::shared::Shared;
use super::store::members;
use crate::crypto::certificate::is_genuine;
use crate::domain::certificate::Certificate;
use crate::domain::ids::MemberKey;
use crate::wire::certificate::{MemberCertificate, MemberCertificateFound, MemberCertificateGet};
use crate::wire::refusal::Refusal;

/// What the mesh's owner has signed; `None` for anything else.
pub fn genuine(mesh: &Mesh, certificate: &MemberCertificate) -> Option<Certificate> {
    let owner = MemberKey::parse(&mesh.owner_pubkey).ok()?;
    certificate.read().filter(|certificate| is_genuine(certificate, &mesh.id, owner))
}

/// The certificate as it is stored, if it is for this key.
pub fn for_key(mesh: &Mesh, certificate: &MemberCertificate, key: MemberKey) -> Option<String> {
    let certificate = genuine(mesh, certificate).filter(|certificate| certificate.member == key)?;
    serde_json::to_string(&MemberCertificate::from(&certificate)).ok()
}

/// Stores the caller's own certificate. It is for a key that the member has or
/// had: a rotation needs no new one. Repeating it changes nothing.
pub async fn put(shared: &Arc<Shared>, peer: &Peer, certificate: &MemberCertificate) -> Result<(), Refusal> {
    // A session speaks for itself and not for its member.
    if peer.kind != Kind::Member {
        return Err(Refusal::Forbidden);
    }
    if certificate.read().is_none() {
        return Err(Refusal::Invalid);
    }
    let certificate = genuine(&peer.mesh, certificate).ok_or(Refusal::Forbidden)?;
    let changing = shared.roster.changing().await;
    let is_own = peer.mesh.key(&certificate.member.to_hex()).is_some_and(|key| key.member_id == peer.member_id);
    let member = peer.mesh.member(&peer.member_id).filter(|member| is_own && member.revoked_at.is_none());
    let member = member.ok_or(Refusal::Forbidden)?;
    let certificate = MemberCertificate::from(&certificate);
    if member.certificate.as_ref() == Some(&certificate) {
        return Ok(());
    }
    write(shared, &member.id, &certificate).await.map_err(|error| {
        tracing::error!(error = %error, "Cannot store a member's certificate: {error}");
        Refusal::Internal
    })?;
    peer.mesh.put(&changing, Member { certificate: Some(certificate), ..(*member).clone() });
    Ok(())
}

/// Answers `member_certificate_get`, to every member.
pub fn get(mesh: &Mesh, request: MemberCertificateGet) -> MemberCertificateFound {
    let certificate = mesh.member(&request.member_id).and_then(|member| member.certificate.clone());
    MemberCertificateFound { member_id: request.member_id, certificate, req_id: request.req_id }
}

async fn write(shared: &Shared, member_id: &str, certificate: &MemberCertificate) -> Result<(), DbErr> {
    let json = serde_json::to_string(certificate).map_err(|error| DbErr::Custom(error.to_string()))?;
    let transaction = shared.store.begin().await?;
    members::set_certificate(&transaction, member_id, &json, shared.store.now().0).await?;
    transaction.commit().await
}
