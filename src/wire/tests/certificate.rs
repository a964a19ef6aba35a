//! The part of a link behind `#`, and certificates in frames.

use zeroize::Zeroizing;

use crate::wire::certificate::{LinkKey, MemberCertificate};
use crate::wire::join::{InviteError, token_of};

const TOKEN: &str = "eyJ2IjoxLCJtZXNoX2lkIjoiTUVTSDEifQ";
/// The seed 5, and the owner's signature of the known delegation.
const FRAGMENT: &str = "BQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQU2gktFgK3A0Cha09o98yEOQNwtHk0w_FogQbxiNdo_\
    Htgco_xJ6vAw5EFQWbt-HBFvFCpXNSmmW3dj2rH18FMK";

#[test]
fn a_link_carries_the_key_behind_the_token() {
    let key = LinkKey::of_link(&format!(" ic://join/{TOKEN}#{FRAGMENT}\n")).unwrap().expect("a key");
    assert_eq!(*key.seed, [5; 32]);
    assert!(hex::encode(key.owner_signature).starts_with("36824b4580adc0d0"));
    assert_eq!(key.to_fragment().as_str(), FRAGMENT);
    for form in ["https://h/join/", "https://h/de/join/", "http://127.0.0.1:1/join/", ""] {
        let link = format!("{form}{TOKEN}#{FRAGMENT}");
        assert_eq!(LinkKey::of_link(&link), Ok(Some(key.clone())), "{link}");
        assert_eq!(token_of(&link), Ok(TOKEN), "what a broker gets");
    }
    let printed = format!("{key:?}");
    assert!(!printed.contains("5, 5") && printed.contains("redacted"), "{printed}");
    let other = LinkKey { seed: Zeroizing::new([6; 32]), ..key };
    assert_ne!(other.to_fragment().as_str(), FRAGMENT);
}

#[test]
fn links_of_before_have_no_key_and_a_damaged_key_is_told() {
    for plain in ["ic://join/T", "https://h/join/T", "https://h/join/T/?utm=1#top", "T", "http://h/join/T#"] {
        assert_eq!(LinkKey::of_link(plain), Ok(None), "{plain}");
    }
    let cut = &FRAGMENT[..127];
    let bad = format!("{cut}*");
    for damaged in ["", "top", cut, &bad, &format!("{FRAGMENT}A"), &format!("{FRAGMENT}#{FRAGMENT}")] {
        let link = format!("ic://join/{TOKEN}#{damaged}");
        assert_eq!(LinkKey::of_link(&link), Err(InviteError::BadLinkKey), "{link}");
    }
    let web = format!("https://h/join/{TOKEN}#{}", &FRAGMENT[..100]);
    assert_eq!(LinkKey::of_link(&web), Err(InviteError::BadLinkKey), "cut off while it was copied");
}

#[test]
fn a_certificate_reads_as_it_was_written_and_nothing_else_reads() {
    let good = MemberCertificate {
        member_pubkey: "8a".repeat(32),
        invite_pubkey: "6e".repeat(32),
        role: "admin".to_owned(),
        expires_at: 5,
        owner_signature: "aa".repeat(64),
        invite_signature: "bb".repeat(64),
    };
    let read = good.read().expect("a certificate");
    assert_eq!(MemberCertificate::from(&read), good);
    let changes: [fn(&mut MemberCertificate); 5] = [
        |it| it.member_pubkey.push('0'),
        |it| it.invite_pubkey.clear(),
        |it| it.role = "owner".to_owned(),
        |it| it.owner_signature.truncate(126),
        |it| it.invite_signature = "zz".repeat(64),
    ];
    for change in changes {
        let mut changed = good.clone();
        change(&mut changed);
        assert_eq!(changed.read(), None, "{changed:?}");
    }
}
