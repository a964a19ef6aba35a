//! Invites and the bodies of the join request.

use crate::domain::ids::MemberKey;
use crate::domain::time::UnixMillis;
use crate::wire::hello::CapabilityStatement;
use crate::wire::join::*;

const OWNER: &str = "ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d1";
const SIGNATURE: &str = "28cdf14483945a2fd620e3826c2f79b26235ac040ecdceb0c5424e03b2eabdc5914f1da3152d436f1785261736c24e434c095f42e05ac2acde85347593628508";
const VALID: UnixMillis = UnixMillis(1_700_604_799_999);

fn invite() -> InviteV1 {
    InviteV1 {
        v: 1,
        mesh_id: "MESH1".to_owned(),
        mesh_slug: "demo".to_owned(),
        broker_url: "ws://127.0.0.1:7900/ws".to_owned(),
        expires_at: 1_700_604_800,
        mesh_root_key: "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk".to_owned(),
        role: "member".to_owned(),
        owner_pubkey: OWNER.to_owned(),
        signature: SIGNATURE.to_owned(),
        nonce: None,
    }
}

fn real(key: MemberKey, text: &str, signature: &[u8; 64]) -> bool {
    let key = ed25519_dalek::VerifyingKey::from_bytes(&key.0).expect("a key");
    key.verify_strict(text.as_bytes(), &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
}

#[test]
fn the_owners_signature_covers_every_field() {
    let owner = MemberKey::parse(OWNER).expect("a key");
    assert_eq!(invite().verify(VALID, real), Ok(owner));
    assert_eq!(invite().verify(UnixMillis(1_700_604_800_000), real), Err(InviteError::Expired));
    let changes: [fn(&mut InviteV1); 6] = [
        |i| i.mesh_id.push('x'),
        |i| i.mesh_slug.push('x'),
        |i| i.broker_url.push('x'),
        |i| i.expires_at += 1,
        |i| i.mesh_root_key.push('x'),
        |i| i.role = "admin".to_owned(),
    ];
    for change in changes {
        let mut changed = invite();
        change(&mut changed);
        assert_eq!(changed.verify(VALID, real), Err(InviteError::BadSignature));
    }
    let unsigned = InviteV1 { signature: "00".to_owned(), ..invite() };
    assert_eq!(unsigned.verify(VALID, real), Err(InviteError::BadSignature));
}

#[test]
fn fields_that_make_the_signed_text_ambiguous_are_refused() {
    let shifted = InviteV1 { mesh_id: "MESH1|demo".to_owned(), ..invite() };
    assert_eq!(shifted.verify(VALID, |_, _, _| true), Err(InviteError::BadField("mesh_id")));
    let empty = InviteV1 { broker_url: String::new(), ..invite() };
    assert_eq!(empty.verify(VALID, |_, _, _| true), Err(InviteError::BadField("broker_url")));
    let role = InviteV1 { role: "owner".to_owned(), ..invite() };
    assert_eq!(role.verify(VALID, |_, _, _| true), Err(InviteError::BadField("role")));
    let newer = InviteV1 { v: 2, ..invite() };
    assert_eq!(newer.to_token(), Err(InviteError::UnknownVersion(2)));
}

#[test]
fn links_of_every_form_give_the_same_invite() {
    let token = invite().to_token().expect("a token");
    let link = invite().to_link().expect("a link");
    assert_eq!(link, format!("ic://join/{token}"));
    for form in [
        token.clone(),
        format!("  {link}\n"),
        format!("https://claudemesh.com/join/{token}"),
        format!("https://claudemesh.com/de/join/{token}"),
        format!("http://127.0.0.1:3000/join/{token}/?utm=1#top"),
    ] {
        assert_eq!(InviteV1::parse(&form), Ok(invite()), "{form}");
    }
}

#[test]
fn what_is_no_invite_is_said_to_be_none() {
    let long = "a".repeat(MAX_TOKEN_BYTES + 1);
    for link in
        ["", "hello", "ic://join/", "https://claudemesh.com", "https://h/i/ABCDEF123456789012345678", "ä", &long]
    {
        assert_eq!(InviteV1::parse(link), Err(InviteError::NotAnInvite), "{link}");
    }
    assert!(matches!(InviteV1::parse(&"a".repeat(24)), Err(InviteError::Damaged(_))));
    assert!(matches!(InviteV1::parse(&"A".repeat(21)), Err(InviteError::Damaged(_))));
}

#[test]
fn bodies_are_spelled_as_legacy_clients_spell_them() {
    let request = JoinRequest {
        invite_token: "T".to_owned(),
        invite_payload: invite(),
        peer_pubkey: "8a".to_owned(),
        display_name: "n".to_owned(),
        capabilities: None,
        certificate: None,
    };
    let json = serde_json::to_string(&request).expect("JSON");
    assert!(json.starts_with(r#"{"invite_token":"T","invite_payload":{"v":1,"mesh_id":"MESH1","mesh_slug":"demo","#));
    assert!(json.ends_with(r#""peer_pubkey":"8a","display_name":"n"}"#));
    assert_eq!(serde_json::from_str::<JoinRequest>(&json).expect("a request"), request);
    let statement =
        CapabilityStatement { capabilities: vec!["envelope_v3".to_owned()], ts: 5, signature: "ab".to_owned() };
    let signed = JoinRequest { capabilities: Some(statement), ..request };
    let json = serde_json::to_string(&signed).expect("JSON");
    assert!(json.ends_with(r#""capabilities":{"capabilities":["envelope_v3"],"ts":5,"signature":"ab"}}"#), "{json}");
    assert_eq!(serde_json::from_str::<JoinRequest>(&json).expect("a request"), signed);

    let ok = JoinResponse { ok: true, member_id: Some("A".to_owned()), ..JoinResponse::default() };
    assert_eq!(serde_json::to_string(&ok).expect("JSON"), r#"{"ok":true,"memberId":"A"}"#);
    let text = r#"{"ok":false,"error":"invite_expired"}"#;
    let refused: JoinResponse = serde_json::from_str(text).expect("a response");
    assert_eq!(refused.error.as_deref(), Some(join_error::INVITE_EXPIRED));

    let mesh = r#"{"slug":"demo","owner_pubkey":"ed"}"#;
    assert!(serde_json::from_str::<CreateMeshRequest>(mesh).is_ok());
    assert!(serde_json::from_str::<CreateMeshRequest>(r#"{"slug":"demo","owner_pubkey":"ed","x":1}"#).is_err());
}

#[test]
fn an_invite_is_not_printed_whole() {
    let token = invite().to_token().expect("a token");
    let register = RegisterInviteRequest { token: token.clone(), payload: invite(), ..Default::default() };
    let join = JoinRequest { invite_token: token.clone(), invite_payload: invite(), ..Default::default() };
    let printed = format!("{register:?} {join:?}");
    for secret in [&token[..], SIGNATURE, "CQkJCQ"] {
        assert!(!printed.contains(secret), "{printed}");
    }
}
