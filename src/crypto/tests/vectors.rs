//! Known values, made with libsodium and recomputed with a second library.
//! Seeds are 32 equal bytes: A = 1, B = 2, the owner O = 3, the session S = 4.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::crypto::direct::{BoxError, SharedKey};
use crate::crypto::fingerprint::FingerprintKey;
use crate::crypto::keys::{BoxPublic, KeyError, MemberSecret, check_member_key};
use crate::crypto::safety_number::safety_number;
use crate::crypto::sign::{self, KeyRotation, RotationSignatures, Statement};
use crate::crypto::topic::TopicKey;
use crate::domain::ids::{ClientMessageId, MemberKey, MeshId};
use crate::domain::time::UnixMillis;

const A: &str = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";
const B: &str = "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b394";
const O: &str = "ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d1";
const S: &str = "ca93ac1705187071d67b83c7ff0efe8108e8ec4530575d7726879333dbdabe7c";
const NONCE: [u8; 24] = [7; 24];
const NOW: UnixMillis = UnixMillis(1_700_000_000_000);

fn secret(byte: u8) -> MemberSecret {
    MemberSecret::from_seed(&[byte; 32])
}

fn key(hex: &str) -> MemberKey {
    MemberKey::parse(hex).expect("a key")
}

fn b64(text: &str) -> Vec<u8> {
    STANDARD.decode(text).expect("base64")
}

#[test]
fn ed25519_keys() {
    for (byte, hex) in [(1, A), (2, B), (3, O), (4, S)] {
        assert_eq!(secret(byte).public().to_hex(), hex);
    }
}

#[test]
fn x25519_keys_are_converted_as_libsodium_does() {
    for (byte, ed, public, private) in [
        (
            1,
            A,
            "1b1b58dd50ea14b60da17b790cd02754d970c9bab864ebb3c0f3016fe51d3f57",
            "58e86efb75fa4e2c410f46e16de9f6acae1a1703528651b69bc176c088bef36e",
        ),
        (
            2,
            B,
            "60346e7c911a5f6ba154129174cafe75b294ac3bbd5549632f48cec6266f8410",
            "a83c626bc9c38c8c201878ebb1d5b0b50ac40e8986c78793db1d4ef369fca14e",
        ),
    ] {
        assert_eq!(hex::encode(secret(byte).box_secret().as_bytes()), private);
        assert_eq!(hex::encode(secret(byte).box_public().as_bytes()), public);
        assert_eq!(BoxPublic::of(key(ed)), Ok(secret(byte).box_public()));
    }
}

#[test]
fn secret_keys_are_written_as_libsodium_does_and_never_printed() {
    let text = format!("{}{A}", "01".repeat(32));
    assert_eq!(secret(1).to_libsodium_hex().as_str(), text);
    let read = MemberSecret::from_libsodium_hex(&text.to_uppercase()).expect("a secret");
    assert_eq!((read.public(), *read.seed()), (key(A), [1; 32]));
    let mixed = format!("{}{B}", "01".repeat(32));
    assert_eq!(MemberSecret::from_libsodium_hex(&mixed).err(), Some(KeyError::HalvesDiffer));
    assert_eq!(MemberSecret::from_libsodium_hex("01").err(), Some(KeyError::NotSecretHex));
    let printed = format!("{:?} {:?} {:?}", read, read.box_secret(), FingerprintKey::derive(&read));
    assert!(!printed.contains("0101") && !printed.contains("1, 1") && printed.contains("[redacted]"), "{printed}");
}

#[test]
fn unusable_public_keys_are_refused() {
    // Points of order 4, 1, 8 and 2.
    for weak in [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ] {
        assert_eq!(check_member_key(key(weak)), Err(KeyError::WeakPoint), "{weak}");
        assert!(SharedKey::between(&secret(1), key(weak)).is_err());
        // The signature that a weak key makes valid for almost every text.
        assert!(!sign::verify(key(weak), b"text", &[0; 64]));
    }
    // y above the prime; y without an x.
    for bad in [
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0200000000000000000000000000000000000000000000000000000000000000",
        "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ] {
        assert_eq!(check_member_key(key(bad)), Err(KeyError::NotAPoint), "{bad}");
    }
    // B's point plus the point of order 2, which is (-x, -y): no small order, but
    // outside the main subgroup.
    let mut mixed = key(B).0;
    let prime_low = 0xed_u8;
    let mut borrow = 0_u16;
    for (n, byte) in mixed.iter_mut().enumerate() {
        let of_prime = match n {
            0 => prime_low,
            31 => 0x7f,
            _ => 0xff,
        };
        let value = if n == 31 { *byte & 0x7f } else { *byte };
        let difference = 0x100 + u16::from(of_prime) - u16::from(value) - borrow;
        borrow = u16::from(difference < 0x100);
        *byte = (difference & 0xff) as u8;
    }
    mixed[31] |= !key(B).0[31] & 0x80;
    assert_eq!(check_member_key(MemberKey(mixed)), Err(KeyError::WeakPoint));
}

#[test]
fn hello_signatures() {
    let hello = Statement::hello("MESH1", "MEMBER1", key(A), NOW).expect("a statement");
    assert_eq!(hello.as_str(), format!("MESH1|MEMBER1|{A}|1700000000000"));
    check(
        &hello,
        1,
        "f947518581e9247589486f1351224b604fb9de3d3472aa008e29752146ad05a00b40315829a029572aaf5c5bd0499814760ecf8002575defca5e1b25ff54a40d",
    );
    let attestation = Statement::attestation(key(A), key(S), UnixMillis(1_700_043_200_000));
    check(
        &attestation,
        1,
        "c62f9a749e8d83e5f9052d5896b5e98a3e85be1f776fec8147839d6e6b50db7e2b97d1834428f16173ce9a08de49dae716a4ebcadfaef1c8735d6e484cacb10a",
    );
    let session = Statement::session_hello("MESH1", key(A), key(S), NOW).expect("a statement");
    check(
        &session,
        4,
        "dc682e43a9b44e9a88879a180aa117a38bbff504c0438ec3ffba2869b716e197f04b1e5052d34c12d8b2574e29276cd9c7259a18a757625f03ebf05223c19a07",
    );
}

#[test]
fn invite_signatures() {
    let v1 = format!(
        "1|MESH1|demo|ws://127.0.0.1:7900/ws|1700604800|CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk|member|{O}"
    );
    let v2 = format!("v=2|MESH1|INV1|1700604800|member|{O}");
    for (text, hex) in [
        (
            v1,
            "28cdf14483945a2fd620e3826c2f79b26235ac040ecdceb0c5424e03b2eabdc5914f1da3152d436f1785261736c24e434c095f42e05ac2acde85347593628508",
        ),
        (
            v2,
            "9bbc350a5b19a8b568c13dfe88d4a6273d588f93262a12e4aa431496940ee0b82fa56abbf887999e9eb1b012e820cc51bfc9a7fcd25e0ea28b872f7d4a5a820e",
        ),
    ] {
        let signature = sign::sign(&secret(3), text.as_bytes());
        assert_eq!(hex::encode(signature), hex);
        assert!(sign::verify(key(O), text.as_bytes(), &signature));
        assert!(!sign::verify(key(A), text.as_bytes(), &signature));
    }
}

fn check(statement: &Statement, signer: u8, expected: &str) {
    let signature = statement.sign(&secret(signer));
    assert_eq!(hex::encode(signature), expected);
    assert!(statement.verify(secret(signer).public(), &signature));
    assert!(!statement.verify(key(O), &signature));
    let mut changed = signature;
    changed[0] ^= 1;
    assert!(!statement.verify(secret(signer).public(), &changed));
}

#[test]
fn own_statements() {
    let capabilities = |names: &[&'static str]| Statement::capabilities("MESH1", key(A), names.iter().copied(), NOW);
    let statement = capabilities(&["topic_e2e", "envelope_v3", "topic_e2e"]).expect("a statement");
    assert_eq!(statement.as_str(), format!("claudemesh-capabilities|v1|MESH1|{A}|envelope_v3,topic_e2e|1700000000000"));
    assert!(capabilities(&[]).is_ok());
    for bad in ["", "a,b", "a|b"] {
        assert!(capabilities(&[bad]).is_err(), "{bad}");
    }
    let invite = Statement::invite_registration("MESH1", "TOKEN", 5, NOW).expect("a statement");
    let hash = "f98103e9217f099208569d295c1b276f1821348636c268c854bb2a086e0037cd";
    assert_eq!(invite.as_str(), format!("claudemesh-invite-register|v1|MESH1|{hash}|5|1700000000000"));
    assert!(Statement::hello("MESH1|X", "MEMBER1", key(A), NOW).is_err());
    assert!(Statement::hello("MESH1", "", key(A), NOW).is_err());
    assert!(Statement::session_hello("a\nb", key(A), key(S), NOW).is_err());
}

#[test]
fn a_rotation_needs_both_keys() {
    let rotation = KeyRotation { mesh_id: "MESH1", member_id: "MEMBER1", seq: 1, old: key(A), new: key(B), at: NOW };
    let text = format!("claudemesh-key-rotation|v1|MESH1|MEMBER1|1|{A}|{B}|1700000000000");
    assert_eq!(rotation.statement().expect("a statement").as_str(), text);
    let signatures = rotation.sign(&secret(1), &secret(2)).expect("signatures");
    assert!(rotation.verify(&signatures));
    assert!(!rotation.verify(&RotationSignatures { new: signatures.old, ..signatures }));
    assert!(!rotation.verify(&RotationSignatures { old: signatures.new, ..signatures }));
    assert!(!KeyRotation { seq: 2, ..rotation }.verify(&signatures));
    let same = KeyRotation { new: key(A), ..rotation };
    assert!(!same.verify(&same.sign(&secret(1), &secret(1)).expect("signatures")));
}

#[test]
fn a_direct_message() {
    let sealed = b64("z6FYNMHy+csNwZT9Bs5KhqjrHIqU");
    let at_a = SharedKey::between(&secret(1), key(B)).expect("a shared key");
    let at_b = SharedKey::between(&secret(2), key(A)).expect("a shared key");
    assert_eq!(at_a.seal(&NONCE, b"hello"), Ok(sealed.clone()));
    assert_eq!(at_b.open(&NONCE, &sealed), Ok(b"hello".to_vec()));
    let elsewhere = SharedKey::between(&secret(4), key(A)).expect("a shared key");
    assert_eq!(elsewhere.open(&NONCE, &sealed), Err(BoxError::NotOpened));
    assert_eq!(at_b.open(&[8; 24], &sealed), Err(BoxError::NotOpened));
    for len in 0..sealed.len() {
        assert_eq!(at_b.open(&NONCE, &sealed[..len]), Err(BoxError::NotOpened));
    }
    assert_eq!(format!("{at_a:?}"), "SharedKey([redacted])");
}

#[test]
fn a_topic_key_and_its_body() {
    let copy = b64(
        "xE5CklF3Hsdhl8eh+OoomhjKPden4QK6fMhN9rVcvhpr44kN26ZZmMFVhzk3PN4rrMSKiofFjQUTQOGzhtMr36Kx4Rs6sgrOwXlftPsruuQ=",
    );
    let topic = TopicKey::open_copy(&secret(1).box_secret(), &copy, &NONCE).expect("the topic key");
    assert_eq!(topic.as_bytes(), &[8; 32]);
    assert!(TopicKey::open_copy(&secret(2).box_secret(), &copy, &NONCE).is_err());
    assert!(TopicKey::open_copy(&secret(1).box_secret(), &copy[..79], &NONCE).is_err());
    let body = b64("hWujBsRk31lL5sKarcKlCJSrTPPVtOPRRmFe");
    assert_eq!(topic.open(&NONCE, &body), Ok(b"hello topic".to_vec()));
    assert_eq!(topic.seal(&NONCE, b"hello topic"), Ok(body));

    let copy = topic.seal_copy(&secret(1), &BoxPublic::of(key(B)).expect("a key"), &NONCE).expect("a copy");
    assert_eq!(TopicKey::open_copy(&secret(2).box_secret(), &copy, &NONCE).expect("the key").as_bytes(), &[8; 32]);
}

#[test]
fn a_wire_fingerprint() {
    let fingerprint = |secret: &MemberSecret, mesh: &str, id: &str| {
        let (mesh, id) = (MeshId::parse(mesh).expect("an id"), ClientMessageId::parse(id).expect("an id"));
        hex::encode(FingerprintKey::derive(secret).wire_fingerprint(&mesh, &id, &[0xaa; 32]))
    };
    let expected = "d0c12f8e3d263b9fa16064bc4d91af5f160de0983da0ac2731a66606df84cfe0";
    assert_eq!(fingerprint(&secret(1), "MESH1", "c1"), expected);
    // The parts are told apart, and the key matters.
    assert_ne!(fingerprint(&secret(1), "MESH1c", "1"), expected);
    assert_ne!(fingerprint(&secret(2), "MESH1", "c1"), expected);
}

#[test]
fn a_safety_number_is_the_same_from_both_sides() {
    // Made with Python: hashlib.sha512 over context and sorted keys.
    let expected = "67669 16603 57120 93240 62993 25568 58967 05473 32131 33750 09944 51246";
    assert_eq!(safety_number(key(A), key(B)), expected);
    assert_eq!(safety_number(key(B), key(A)), expected);
}
