//! The envelope: what it keeps, and each way of abusing it.

use proptest::prelude::*;
use prost::Message as _;

use crate::crypto::direct::SharedKey;
use crate::crypto::envelope::*;
use crate::crypto::keys::MemberSecret;
use crate::domain::ids::{MemberKey, MeshId, TopicId};

fn secret(byte: u8) -> MemberSecret {
    MemberSecret::from_seed(&[byte; 32])
}

fn key(byte: u8) -> MemberKey {
    secret(byte).public()
}

fn mesh() -> MeshId {
    MeshId::parse("MESH1").expect("an id")
}

/// From member 1 to member 2.
fn direct() -> Envelope {
    Envelope {
        mesh_id: "MESH1".to_owned(),
        client_message_id: "c1".to_owned(),
        sender_key: key(1).0.to_vec(),
        destination: Some(Destination::Member(key(2).0.to_vec())),
        sent_at_ms: 1_700_000_000_000,
        reply_to: "c0".to_owned(),
        mentions: vec!["MEMBER3".to_owned()],
        meta: r#"{"k":1}"#.to_owned(),
        auto_hops: 1,
        body: "hello".to_owned(),
        author_signature: Vec::new(),
    }
}

fn topic() -> Envelope {
    let destination = TopicDestination { topic_id: "T".to_owned(), key_epoch: 3 };
    let mut envelope = Envelope { destination: Some(Destination::Topic(destination)), ..direct() };
    envelope.sign_author(&secret(1));
    envelope
}

/// What member 2 expects of a message that member 1's key opened.
fn at_two(envelope: &Envelope, change: impl FnOnce(&mut Expected<'_>)) -> Result<(), EnvelopeError> {
    let (mesh, own) = (mesh(), [key(2), key(5)]);
    let mut expected = Expected {
        opening: Opening::Direct { sender: key(1) },
        own_keys: &own,
        mesh: &mesh,
        outer_client_message_id: Some("c1"),
    };
    change(&mut expected);
    envelope.check(&expected)
}

fn in_topic(envelope: &Envelope, sender: MemberKey, id: &str, key_epoch: u32) -> Result<(), EnvelopeError> {
    let (mesh, own) = (mesh(), [key(2)]);
    let topic_id = TopicId::parse(id).expect("an id");
    envelope.check(&Expected {
        opening: Opening::Topic { sender, topic_id: &topic_id, key_epoch },
        own_keys: &own,
        mesh: &mesh,
        outer_client_message_id: Some("c1"),
    })
}

#[test]
fn an_envelope_survives_the_way() {
    for envelope in [direct(), topic()] {
        let bytes = envelope.encode().expect("bytes");
        assert!(bytes.starts_with(&[0xff, 0x43, 0x4d, 0x33]));
        assert_eq!(open_plaintext(bytes), Ok(Plaintext::Envelope(Box::new(envelope))));
    }
    assert_eq!(at_two(&direct(), |_| ()), Ok(()));
    assert_eq!(in_topic(&topic(), key(1), "T", 3), Ok(()));
    // A legacy broker pushes without the id; a rotated-out key is still ours.
    assert_eq!(at_two(&direct(), |expected| expected.outer_client_message_id = None), Ok(()));
    let to_old_key = Envelope { destination: Some(Destination::Member(key(5).0.to_vec())), ..direct() };
    assert_eq!(at_two(&to_old_key, |_| ()), Ok(()));
}

#[test]
fn its_encoding_does_not_change() {
    let bytes = Envelope { reply_to: String::new(), mentions: Vec::new(), meta: String::new(), ..direct() }.encode();
    let expected =
        format!("ff434d330a054d45534831120263311a20{}2220{}3080d095ffbc3150015a0568656c6c6f", key(1), key(2));
    assert_eq!(hex::encode(bytes.expect("bytes")), expected);
}

#[test]
fn a_legacy_text_is_told_apart() {
    for text in ["", "hello", "\u{0}", "é"] {
        let read = open_plaintext(text.as_bytes().to_vec());
        assert_eq!(read, Ok(Plaintext::LegacyText(text.to_owned())));
    }
    for bytes in [&[0xff][..], &[0xff, 0x43, 0x4d, 0x34], &[b'a', 0x80]] {
        assert_eq!(open_plaintext(bytes.to_vec()), Err(EnvelopeError::NotText));
    }
    // The magic alone is an envelope, and an empty one.
    assert_eq!(open_plaintext(MAGIC.to_vec()), Err(EnvelopeError::BadField("mesh id")));
}

#[test]
fn a_message_that_is_sent_back_is_refused() {
    // Member 2 wrote to member 1; the broker pushes it to 2 as if 1 had sent it.
    // The box opens, because the pair's key is the same both ways.
    let sent = Envelope {
        sender_key: key(2).0.to_vec(),
        destination: Some(Destination::Member(key(1).0.to_vec())),
        ..direct()
    };
    let shared = SharedKey::between(&secret(2), key(1)).expect("a shared key");
    let sealed = shared.seal(&[7; 24], &sent.encode().expect("bytes")).expect("sealed");
    let Ok(Plaintext::Envelope(opened)) = open_plaintext(shared.open(&[7; 24], &sealed).expect("opened")) else {
        panic!("no envelope");
    };
    assert_eq!(at_two(&opened, |_| ()), Err(EnvelopeError::Reflected));
}

#[test]
fn a_message_in_another_place_is_refused() {
    let expect = |envelope: Envelope, error: EnvelopeError| assert_eq!(at_two(&envelope, |_| ()), Err(error));
    expect(Envelope { sender_key: key(3).0.to_vec(), ..direct() }, EnvelopeError::WrongSender);
    let to_three = Some(Destination::Member(key(3).0.to_vec()));
    expect(Envelope { destination: to_three, ..direct() }, EnvelopeError::WrongDestination);
    expect(topic(), EnvelopeError::WrongDestination);
    expect(Envelope { mesh_id: "MESH2".to_owned(), ..direct() }, EnvelopeError::WrongMesh);
    expect(Envelope { client_message_id: "c2".to_owned(), ..direct() }, EnvelopeError::WrongId);
    expect(Envelope { author_signature: vec![0; 64], ..direct() }, EnvelopeError::BadAuthor);
}

#[test]
fn a_topics_message_needs_its_author_topic_and_epoch() {
    assert_eq!(in_topic(&topic(), key(3), "T", 3), Err(EnvelopeError::WrongSender));
    assert_eq!(in_topic(&topic(), key(1), "U", 3), Err(EnvelopeError::WrongDestination));
    assert_eq!(in_topic(&topic(), key(1), "T", 4), Err(EnvelopeError::WrongDestination));
    assert_eq!(in_topic(&direct(), key(1), "T", 3), Err(EnvelopeError::WrongDestination));
    let unsigned = Envelope { author_signature: Vec::new(), ..topic() };
    assert_eq!(in_topic(&unsigned, key(1), "T", 3), Err(EnvelopeError::BadAuthor));
    // Another member of the topic changes the text, or signs in the author's name.
    let changed = Envelope { body: "bye".to_owned(), ..topic() };
    assert_eq!(in_topic(&changed, key(1), "T", 3), Err(EnvelopeError::BadAuthor));
    let mut forged = topic();
    forged.sign_author(&secret(3));
    forged.sender_key = key(1).0.to_vec();
    assert_eq!(in_topic(&forged, key(1), "T", 3), Err(EnvelopeError::BadAuthor));
}

#[test]
fn fields_are_bounded() {
    let nested = |n: usize| format!("{}1{}", r#"{"a":"#.repeat(n), "}".repeat(n));
    let bad: [(Envelope, &str); 12] = [
        (Envelope { mesh_id: String::new(), ..direct() }, "mesh id"),
        (Envelope { client_message_id: "a b".to_owned(), ..direct() }, "client_message_id"),
        (Envelope { client_message_id: "x".repeat(129), ..direct() }, "client_message_id"),
        (Envelope { sender_key: vec![0; 31], ..direct() }, "sender key"),
        (Envelope { reply_to: "\n".to_owned(), ..direct() }, "reply_to"),
        (Envelope { mentions: vec!["m".to_owned(); 17], ..direct() }, "mentions"),
        (Envelope { meta: "[1]".to_owned(), ..direct() }, "meta"),
        (Envelope { meta: nested(9), ..direct() }, "meta"),
        (Envelope { meta: format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_META_BYTES)), ..direct() }, "meta"),
        (Envelope { body: "x".repeat(MAX_BODY_BYTES + 1), ..direct() }, "body"),
        (Envelope { author_signature: vec![0; 63], ..direct() }, "author signature"),
        (Envelope { destination: None, ..direct() }, "destination"),
    ];
    for (envelope, field) in bad {
        assert_eq!(envelope.encode(), Err(EnvelopeError::BadField(field)));
        let mut bytes = MAGIC.to_vec();
        bytes.extend(envelope.encode_to_vec());
        assert_eq!(open_plaintext(bytes), Err(EnvelopeError::BadField(field)));
    }
    assert!(Envelope { meta: nested(8), body: "x".repeat(MAX_BODY_BYTES), ..direct() }.encode().is_ok());
    let huge = [&MAGIC[..], &vec![0; MAX_ENVELOPE_BYTES]].concat();
    assert_eq!(open_plaintext(huge), Err(EnvelopeError::TooLarge(MAX_ENVELOPE_BYTES + 4)));
}

#[test]
fn only_the_canonical_encoding_is_read() {
    let bytes = direct().encode().expect("bytes");
    // An unknown field 15, a body written twice, an empty default written out.
    for extra in [&[0x78, 0x01][..], &[0x5a, 0x02, b'h', b'i'], &[0x62, 0x00]] {
        assert_eq!(open_plaintext([&bytes, extra].concat()), Err(EnvelopeError::NotCanonical), "{extra:?}");
    }
    assert_eq!(open_plaintext(bytes[..bytes.len() - 1].to_vec()), Err(EnvelopeError::Damaged));
}

proptest! {
    // Covers: R417
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0_usize..200, flip in any::<u8>()) {
        let _ = open_plaintext(bytes.clone());
        let _ = open_plaintext([&MAGIC[..], &bytes].concat());
        let mut damaged = topic().encode().expect("bytes");
        let at = cut % damaged.len();
        damaged[at] ^= flip;
        if let Ok(Plaintext::Envelope(envelope)) = open_plaintext(damaged) {
            let changed = flip != 0;
            prop_assert_eq!(in_topic(&envelope, key(1), "T", 3).is_err(), changed);
        }
    }
}
