//! What the codec refuses, drops and survives.

use proptest::prelude::*;

use crate::wire::codec::{self, DecodeErrorKind, Limits};
use crate::wire::event::SystemEvent;
use crate::wire::frame::{ClientFrame, ServerFrame, UnknownFrame};

const LAX: Limits = Limits { max_bytes: 65_536, strict: false };
const STRICT: Limits = Limits { max_bytes: 65_536, strict: true };

fn refusal(text: &str) -> DecodeErrorKind {
    codec::decode_client(text, &LAX).expect_err(text).kind
}

#[test]
fn unknown_keys_are_counted_or_refused() {
    let text = r#"{"type":"list_peers","_reqId":"q","a":{"b":[1]},"c":null}"#;
    let decoded = codec::decode_client(text, &LAX).expect("lax");
    assert_eq!((decoded.frame.kind(), decoded.unknown_keys), ("list_peers", 2));
    let error = codec::decode_client(text, &STRICT).expect_err("strict");
    assert_eq!(error.kind, DecodeErrorKind::UnknownKeys(2));
    assert_eq!(error.correlation.req_id.as_deref(), Some("q"));
}

#[test]
fn keys_of_rows_are_not_counted() {
    let text = r#"{"type":"members_list","members":[{"memberId":"A","pubkey":"8a","displayName":"n","role":"member","joinedAt":5,"newer":1}]}"#;
    assert_eq!(codec::decode_server(text, &STRICT).map(|decoded| decoded.unknown_keys), Ok(0));
}

#[test]
fn unknown_types_are_frames_too_and_cannot_be_written() {
    let text = r#"{"type":"from_the_future","_reqId":"q","x":1}"#;
    let decoded = codec::decode_server(text, &STRICT).expect("a frame");
    let unknown = UnknownFrame { kind: "from_the_future".to_owned(), req_id: Some("q".to_owned()) };
    assert_eq!(decoded.frame, ServerFrame::Unknown(unknown));
    assert!(codec::encode(&decoded.frame).is_err());
    // A frame of the other direction is unknown here.
    let push = codec::decode_client(r#"{"type":"push","id":5}"#, &STRICT).expect("a frame");
    assert!(matches!(push.frame, ClientFrame::Unknown(_)));
}

#[test]
fn malformed_frames_are_refused_by_kind() {
    for text in ["", "{", "[]", "5", "null", "{}", r#"{"type":5}"#, r#"{"type":"a","type":"b"}"#, "{\"type\":\"a\"} x"]
    {
        assert!(matches!(refusal(text), DecodeErrorKind::Malformed(_)), "{text}");
    }
    for text in [
        r#"{"type":"send"}"#,
        r#"{"type":"set_status","status":5}"#,
        r#"{"type":"set_status","status":"a","status":"b"}"#,
        r#"{"type":"send","targetSpec":"*","priority":"later","nonce":"","ciphertext":""}"#,
        r#"{"type":"hello","meshId":"M"}"#,
    ] {
        assert!(matches!(refusal(text), DecodeErrorKind::BadField(_)), "{text}");
    }
    let long = format!(r#"{{"type":"set_summary","summary":"{}"}}"#, "x".repeat(70_000));
    assert_eq!(refusal(&long), DecodeErrorKind::TooLarge { got: long.len(), max: 65_536 });
}

#[test]
fn a_refused_send_can_be_answered() {
    let text = r#"{"type":"send","id":"c1","client_message_id":"c2","_reqId":"q","priority":7}"#;
    let error = codec::decode_client(text, &LAX).expect_err("priority");
    assert_eq!(error.correlation.kind.as_deref(), Some("send"));
    assert_eq!(error.correlation.id.as_deref(), Some("c1"));
    assert_eq!(error.correlation.client_message_id.as_deref(), Some("c2"));
    let text = format!(r#"{{"type":"send","id":"{}"}}"#, "x".repeat(300));
    assert_eq!(codec::decode_client(&text, &LAX).expect_err("fields").correlation.id, None);
}

#[test]
fn characters_that_a_database_cannot_hold_are_refused() {
    let nul = r#"{"type":"set_summary","summary":"a\u0000b","_reqId":"q"}"#;
    assert_eq!(refusal(nul), DecodeErrorKind::NulCharacter);
    assert_eq!(refusal(r#"{"type":"set_summary","summary":"a\\\u0000b"}"#), DecodeErrorKind::NulCharacter);
    let about = r#"{"type":"set_summary","summary":"a\\u0000b"}"#;
    assert!(codec::decode_client(about, &LAX).is_ok());
    for lone in [r"\ud800", r"\udc00", r"\ud800x", r"\ud800\ud800"] {
        let text = format!(r#"{{"type":"set_summary","summary":"{lone}"}}"#);
        assert!(matches!(refusal(&text), DecodeErrorKind::BadField(_) | DecodeErrorKind::Malformed(_)), "{lone}");
    }
    assert!(codec::decode_client(r#"{"type":"set_summary","summary":"\ud83d\ude00"}"#, &LAX).is_ok());
}

#[test]
fn depth_and_number_of_keys_are_bounded() {
    let deep = |n: usize| format!(r#"{{"type":"set_stats","stats":{}{}}}"#, "[".repeat(n), "]".repeat(n));
    assert!(codec::decode_client(&deep(100), &LAX).is_ok());
    assert!(matches!(refusal(&deep(20_000)), DecodeErrorKind::BadField(_)));
    let ignored = format!(r#"{{"type":"list_peers","x":{}{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
    assert!(codec::decode_client(&ignored, &LAX).is_ok());
    let deep_id = format!(r#"{{"type":"x","id":{}{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
    assert!(codec::decode_client(&deep_id, &LAX).is_err() || deep_id.len() < LAX.max_bytes);
    let keys: String = (0..200).map(|n| format!(r#","k{n}":1"#)).collect();
    assert!(matches!(refusal(&format!(r#"{{"type":"list_peers"{keys}}}"#)), DecodeErrorKind::Malformed(_)));
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        ".{0,8}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::hash_map(key(), inner, 0..6)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

fn key() -> impl Strategy<Value = String> {
    const KNOWN: &[&str] =
        &["id", "_reqId", "peers", "members", "statement", "stats", "groups", "priority", "event", "eventData"];
    prop_oneof![prop::sample::select(KNOWN).prop_map(str::to_owned), ".{0,6}"]
}

fn survive(text: &str) {
    let _ = codec::decode_client(text, &LAX);
    if let Ok(decoded) = codec::decode_server(text, &STRICT)
        && let ServerFrame::Push(push) = decoded.frame
    {
        let _ = SystemEvent::of(&push);
    }
}

proptest! {
    // Covers: R417
    #[test]
    fn arbitrary_text_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), text in ".{0,200}") {
        survive(&String::from_utf8_lossy(&bytes));
        survive(&text);
    }

    // Covers: R417
    #[test]
    fn arbitrary_json_under_a_known_type_never_panics(
        kind in prop::sample::select([ClientFrame::KINDS, ServerFrame::KINDS].concat()),
        body in prop::collection::hash_map(key(), json(), 0..8),
    ) {
        let mut object: serde_json::Map<String, serde_json::Value> = body.into_iter().collect();
        object.insert("type".to_owned(), kind.into());
        survive(&serde_json::Value::Object(object).to_string());
    }
}
