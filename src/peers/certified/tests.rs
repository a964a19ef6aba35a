//! Which certificates count for whom.

use super::*;
use crate::crypto::certificate::{Delegation, issue};
use crate::crypto::keys::MemberSecret;
use crate::crypto::sign::{KeyRotation, RotationSignatures};
use crate::domain::key_chain::PreviousKey;

const OWNER: u8 = 3;
const INVITE: u8 = 5;

fn secret(byte: u8) -> MemberSecret {
    MemberSecret::from_seed(&[byte; 32])
}

fn id(text: &str) -> MemberId {
    MemberId::parse(text).unwrap()
}

fn signed_by(owner: u8, mesh: &str, member: u8, role: CertifiedRole) -> MemberCertificate {
    let delegation = Delegation { mesh_id: mesh, invite: secret(INVITE).public(), role, expires_at_s: 5 };
    let by_owner = delegation.statement().unwrap().sign(&secret(owner));
    let made = issue(mesh, secret(member).public(), &secret(INVITE), by_owner, role, 5).unwrap();
    MemberCertificate::from(&made)
}

fn certificate(member: u8) -> MemberCertificate {
    signed_by(OWNER, "MESH", member, CertifiedRole::Member)
}

fn row(member_id: &str, key: u8, certificate: Option<MemberCertificate>) -> MemberRow {
    let pubkey = secret(key).public().to_hex();
    MemberRow { member_id: member_id.to_owned(), pubkey, certificate, ..MemberRow::default() }
}

fn pinned(member_id: &str, key: u8, seen: i64) -> PinnedMember {
    PinnedMember {
        first_seen_at: UnixMillis(seen),
        ..PinnedMember::new(id(member_id), secret(key).public(), member_id)
    }
}

fn rotated(member: PinnedMember, key: u8) -> PinnedMember {
    let before = PreviousKey { key: member.key, rotated_out_at: UnixMillis(9) };
    let previous: Vec<PreviousKey> = std::iter::once(before).chain(member.previous.iter().copied()).take(8).collect();
    PinnedMember { key: secret(key).public(), previous, ..member }
}

fn statement(member_id: &str, seq: u64, old: u8, new: u8) -> RotationStatement {
    let (old, new) = (secret(old), secret(new));
    let at = UnixMillis(7);
    let change = KeyRotation { mesh_id: "MESH", member_id, seq, old: old.public(), new: new.public(), at };
    let RotationSignatures { old: by_old, new: by_new } = change.sign(&old, &new).unwrap();
    RotationStatement {
        member_id: member_id.to_owned(),
        seq,
        old_pubkey: old.public().to_hex(),
        new_pubkey: new.public().to_hex(),
        ts: 7,
        old_signature: hex::encode(by_old),
        new_signature: hex::encode(by_new),
    }
}

fn daemon_with(owner: Option<MemberKey>, own_file: PathBuf) -> (Certificates, watch::Receiver<Arc<Certified>>) {
    Certificates::new(MeshId::parse("MESH").unwrap(), id("own"), Trust { owner, own_file }, &[])
}

fn daemon() -> (Certificates, watch::Receiver<Arc<Certified>>) {
    daemon_with(Some(secret(OWNER).public()), PathBuf::from("/nonexistent/certificate"))
}

fn names(told: &watch::Receiver<Arc<Certified>>) -> Vec<String> {
    told.borrow().keys().map(ToString::to_string).collect()
}

#[test]
fn only_what_the_own_owner_signed_for_this_key_counts() {
    let (mut certificates, told) = daemon();
    let members = [pinned("a", 10, 1), pinned("b", 11, 1), pinned("c", 12, 1), pinned("d", 13, 1), pinned("e", 14, 1)];
    let admin = signed_by(OWNER, "MESH", 11, CertifiedRole::Admin);
    let risen = MemberCertificate { role: "admin".to_owned(), ..certificate(14) };
    let rows = [
        row("a", 10, Some(signed_by(4, "MESH", 10, CertifiedRole::Member))),
        row("b", 11, Some(admin)),
        row("c", 12, Some(signed_by(OWNER, "OTHER", 12, CertifiedRole::Member))),
        row("d", 13, Some(certificate(20))),
        row("e", 14, Some(risen)),
        row("unpinned", 21, Some(certificate(21))),
    ];
    certificates.learn(&rows, &members);
    assert_eq!(*told.borrow().as_ref(), BTreeMap::from([(id("b"), CertifiedRole::Admin)]));

    // Without an owner's key nobody is anything.
    let (mut certificates, told) = daemon_with(None, PathBuf::from("/nonexistent/certificate"));
    certificates.learn(&rows, &members);
    assert!(told.borrow().is_empty());
}

#[test]
fn a_change_is_told_once_and_hiding_takes_nothing_away() {
    let (mut certificates, mut told) = daemon();
    let members = [pinned("a", 10, 1)];
    certificates.learn(&[row("a", 10, Some(certificate(10)))], &members);
    assert!(told.has_changed().unwrap());
    told.mark_unchanged();
    let forged = signed_by(4, "MESH", 10, CertifiedRole::Admin);
    for shown in [Some(certificate(10)), None, Some(forged), Some(certificate(11))] {
        certificates.learn(&[row("a", 10, shown)], &members);
    }
    assert!(!told.has_changed().unwrap());
    // A higher role is taken, and not given back for an older certificate.
    let admin = signed_by(OWNER, "MESH", 10, CertifiedRole::Admin);
    for shown in [admin, certificate(10)] {
        certificates.learn(&[row("a", 10, Some(shown))], &members);
        assert_eq!(told.borrow().get(&id("a")), Some(&CertifiedRole::Admin));
    }
    let removed = PinnedMember { revoked: true, ..members[0].clone() };
    certificates.tell(&[removed]);
    assert!(told.borrow().is_empty(), "nothing goes to who was removed");
}

#[test]
fn it_follows_signed_rotations_and_no_accepted_key() {
    let (mut certificates, told) = daemon();
    let mut member = pinned("a", 10, 1);
    certificates.learn(&[row("a", 10, Some(certificate(10)))], std::slice::from_ref(&member));
    // More of them than keys are pinned.
    for key in 11..=30 {
        member = rotated(member, key);
        certificates.learn(&[row("a", key, Some(certificate(10)))], std::slice::from_ref(&member));
        assert_eq!(names(&told), ["a"], "{key}");
    }
    let accepted = PinnedMember { key: secret(40).public(), previous: Vec::new(), ..member };
    certificates.learn(&[row("a", 40, Some(certificate(10)))], &[accepted]);
    assert!(names(&told).is_empty());
}

#[test]
fn a_long_chain_is_followed_by_its_signatures_after_a_start() {
    let mut member = pinned("a", 10, 1);
    for key in 11..=22 {
        member = rotated(member, key);
    }
    let chain: Vec<RotationStatement> = (1..=12).map(|seq| statement("a", u64::from(seq), 9 + seq, 10 + seq)).collect();
    let shown = |rotations: &[RotationStatement]| {
        let (mut certificates, told) = daemon();
        let row = MemberRow { rotations: Some(rotations.to_vec()), ..row("a", 22, Some(certificate(10))) };
        certificates.learn(&[row], std::slice::from_ref(&member));
        names(&told).len()
    };
    assert_eq!(shown(&chain), 1);
    assert_eq!(shown(&chain[1..]), 0, "one is missing");
    let mut forged = chain.clone();
    forged[3] = RotationStatement { old_signature: chain[4].old_signature.clone(), ..chain[3].clone() };
    assert_eq!(shown(&forged), 0);
    let mut of_another = chain;
    of_another[3] = statement("b", 4, 13, 14);
    assert_eq!(shown(&of_another), 0);
}

/// A retired key was stolen, and its thief signed a change to a key of its own
/// as another member that the broker invents.
#[test]
fn a_certificate_is_nobody_elses() {
    let (mut certificates, told) = daemon();
    let alice = rotated(pinned("a", 10, 1), 11);
    let ghost = rotated(pinned("g", 10, 2), 20);
    let rows = [row("g", 20, Some(certificate(10))), row("a", 11, Some(certificate(10)))];
    certificates.learn(&rows, &[alice.clone(), ghost]);
    assert_eq!(names(&told), ["a"]);
    // Seen at once: nobody can say whose it is.
    let (mut certificates, told) = daemon();
    certificates.learn(&rows, &[alice, rotated(pinned("g", 10, 1), 20)]);
    assert!(names(&told).is_empty());
}

#[test]
fn the_own_certificate_counts_and_is_offered_once_a_link() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("certificate.json");
    let (mut certificates, told) = daemon_with(Some(secret(OWNER).public()), file.clone());
    let members = [pinned("own", 10, 1)];
    let bare = [row("own", 10, None)];
    certificates.learn(&bare, &members);
    assert_eq!((names(&told).len(), certificates.offer(&bare)), (0, None));
    // A join with a link of the owner's, while the daemon runs.
    std::fs::write(&file, serde_json::to_string(&certificate(10)).unwrap()).unwrap();
    certificates.learn(&bare, &members);
    assert_eq!(names(&told), ["own"]);
    assert_eq!(certificates.offer(&bare), Some(certificate(10)));
    assert_eq!(certificates.offer(&bare), None);
    certificates.link_is_up();
    let there = [row("own", 10, Some(certificate(10)))];
    assert_eq!(certificates.offer(&there), None);
    let forged = [row("own", 10, Some(signed_by(4, "MESH", 10, CertifiedRole::Admin)))];
    assert_eq!(certificates.offer(&forged), Some(certificate(10)));

    // Someone else's file, or a damaged one, is none.
    for text in [serde_json::to_string(&certificate(11)).unwrap(), "{".to_owned()] {
        std::fs::write(&file, text).unwrap();
        let (mut certificates, told) = daemon_with(Some(secret(OWNER).public()), file.clone());
        certificates.learn(&bare, &members);
        assert!(names(&told).is_empty());
    }
}
