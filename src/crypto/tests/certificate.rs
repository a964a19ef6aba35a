//! Member certificates: known values, and what no certificate may say.
//!
//! Made with another library's ed25519. Seeds are 32 equal bytes: the owner = 3,
//! the invite's key = 5, the member = 1.

use crate::crypto::certificate::{Delegation, is_genuine, issue};
use crate::crypto::keys::MemberSecret;
use crate::crypto::sign::{Statement, StatementError};
use crate::domain::certificate::{Certificate, CertifiedRole};
use crate::domain::ids::MemberKey;

const EXPIRES: i64 = 1_700_604_800;
const DELEGATION: &str = "claudemesh-invite-key|v1|MESH1|\
    6e7a1cdd29b0b78fd13af4c5598feff4ef2a97166e3ca6f2e4fbfccd80505bf1|member|1700604800";
const DELEGATION_SIGNATURE: &str = "36824b4580adc0d0285ad3da3df3210e40dc2d1e4d30fc5a2041bc6235da3f1e\
    d81ca3fc49eaf030e4415059bb7e1c116f142a573529a65b7763dab1f5f0530a";
const CERTIFICATE: &str = "claudemesh-member-certificate|v1|MESH1|\
    8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c|\
    6e7a1cdd29b0b78fd13af4c5598feff4ef2a97166e3ca6f2e4fbfccd80505bf1|member|1700604800";
const CERTIFICATE_SIGNATURE: &str = "71570caf226df453096580027f149555625964e9890d9116a191060d2ae5e4a6\
    86977a89f0a4a9a51545a7467e55d0183a0cb669117aea4782669a32e524d202";

fn secret(byte: u8) -> MemberSecret {
    MemberSecret::from_seed(&[byte; 32])
}

fn public(byte: u8) -> MemberKey {
    secret(byte).public()
}

fn certificate() -> Certificate {
    let delegation =
        Delegation { mesh_id: "MESH1", invite: public(5), role: CertifiedRole::Member, expires_at_s: EXPIRES };
    let by_owner = delegation.statement().unwrap().sign(&secret(3));
    issue("MESH1", public(1), &secret(5), by_owner, CertifiedRole::Member, EXPIRES).unwrap()
}

#[test]
fn both_texts_and_signatures_are_the_known_ones() {
    let statement = Statement::invite_key("MESH1", public(5), "member", EXPIRES).unwrap();
    assert_eq!(statement.as_str(), DELEGATION);
    let statement = Statement::member_certificate("MESH1", public(1), public(5), "member", EXPIRES).unwrap();
    assert_eq!(statement.as_str(), CERTIFICATE);
    let certificate = certificate();
    assert_eq!(hex::encode(certificate.owner_signature), DELEGATION_SIGNATURE);
    assert_eq!(hex::encode(certificate.invite_signature), CERTIFICATE_SIGNATURE);
    assert!(is_genuine(&certificate, "MESH1", public(3)));
}

#[test]
fn no_field_can_be_changed_and_no_signature_exchanged() {
    let good = certificate();
    assert!(!is_genuine(&good, "MESH2", public(3)), "of another mesh");
    assert!(!is_genuine(&good, "MESH1", public(4)), "of another owner");
    let changes: [fn(&mut Certificate); 8] = [
        |it| it.member = public(2),
        |it| it.invite = public(6),
        |it| it.role = CertifiedRole::Admin,
        |it| it.expires_at_s += 1,
        |it| it.owner_signature[0] ^= 1,
        |it| it.invite_signature[0] ^= 1,
        |it| it.owner_signature = it.invite_signature,
        |it| it.invite_signature = it.owner_signature,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut changed = good;
        change(&mut changed);
        assert!(!is_genuine(&changed, "MESH1", public(3)), "change {number}");
    }
    // The owner's word for something else, beside a signature of the invite's key
    // that was not made for it.
    let (admin, later) = (CertifiedRole::Admin, EXPIRES + 1);
    let others = [
        ("MESH1", Certificate { role: admin, ..good }),
        ("MESH1", Certificate { expires_at_s: later, ..good }),
        ("MESH2", good),
    ];
    for (mesh, other) in others {
        let text = Statement::invite_key(mesh, public(5), other.role.as_str(), other.expires_at_s).unwrap();
        let mixed = Certificate { owner_signature: text.sign(&secret(3)), ..other };
        assert!(!is_genuine(&mixed, mesh, public(3)), "{mixed:?} of {mesh}");
    }
    // The keys of an invite sign members and no further invites.
    let below = Statement::invite_key("MESH1", public(7), "member", EXPIRES).unwrap().sign(&secret(5));
    let chained = issue("MESH1", public(1), &secret(7), below, CertifiedRole::Member, EXPIRES).unwrap();
    assert!(!is_genuine(&chained, "MESH1", public(3)));
}

#[test]
fn a_mesh_id_cannot_shift_the_fields() {
    let refused = Statement::invite_key("MESH1|x", public(5), "member", EXPIRES);
    assert_eq!(refused, Err(StatementError { field: "mesh id" }));
    assert!(Statement::member_certificate("", public(1), public(5), "member", EXPIRES).is_err());
    assert!(!is_genuine(&certificate(), "MESH1|", public(3)));
}
