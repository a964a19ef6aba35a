//! Topics as any client of the link makes them: statements, keys, copies and
//! posts, independent of the code under test.

use crypto_secretbox::XSalsa20Poly1305;
use crypto_secretbox::aead::{Aead as _, KeyInit as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::keys::{self, Key, now_ms};

/// What the first bytes of an envelope are.
const ENVELOPE: [u8; 4] = [0xFF, 0x43, 0x4D, 0x33];

/// The key of one topic and epoch.
pub(crate) type TopicKey = [u8; 32];

/// A fresh one.
pub(crate) fn topic_key() -> TopicKey {
    keys::random_bytes(32).try_into().expect("32 bytes")
}

/// What stands for a key in public.
pub(crate) fn commitment(topic_id: &str, epoch: u32, key: &TopicKey) -> String {
    let mut hash = Sha256::new();
    hash.update(format!("claudemesh-topic-key|v1|{topic_id}|"));
    hash.update(epoch.to_be_bytes());
    hash.update(key);
    hex::encode(hash.finalize())
}

/// What an epoch's beginning says, before it is signed.
#[derive(Clone)]
pub(crate) struct Epoch<'a> {
    pub(crate) mesh_id: &'a str,
    pub(crate) topic_id: &'a str,
    pub(crate) name: &'a str,
    pub(crate) epoch: u32,
    pub(crate) predecessor: Option<String>,
    pub(crate) key: &'a TopicKey,
    pub(crate) members: &'a [&'a str],
}

impl Epoch<'_> {
    /// The statement of this signer.
    pub(crate) fn signed_by(&self, member_id: &str, key: &Key) -> Value {
        let mut members = self.members.to_vec();
        members.sort_unstable();
        let mut statement = json!({
            "topicId": self.topic_id,
            "name": self.name,
            "epoch": self.epoch,
            "commitment": commitment(self.topic_id, self.epoch, self.key),
            "members": members,
            "signer": member_id,
            "signerKey": key.public(),
            "ts": now_ms(),
        });
        if let Some(predecessor) = &self.predecessor {
            statement["predecessor"] = json!(predecessor);
        }
        statement["signature"] = json!(key.sign(&signed_text(self.mesh_id, &statement)));
        statement
    }
}

/// What the signer of a statement signs.
pub(crate) fn signed_text(mesh_id: &str, statement: &Value) -> String {
    let text = |field: &str| statement[field].as_str().unwrap_or_else(|| panic!("{field} of {statement}"));
    let members: Vec<&str> =
        statement["members"].as_array().expect("members").iter().map(|id| id.as_str().expect("an id")).collect();
    let set = hex::encode(Sha256::digest(members.join("|")));
    [
        "claudemesh-topic-epoch|v1",
        mesh_id,
        text("topicId"),
        text("name"),
        &statement["epoch"].to_string(),
        statement["predecessor"].as_str().unwrap_or("-"),
        text("commitment"),
        &set,
        text("signer"),
        text("signerKey"),
        &statement["ts"].to_string(),
    ]
    .join("|")
}

/// What the next epoch names as its predecessor.
pub(crate) fn hash(mesh_id: &str, statement: &Value) -> Option<String> {
    Some(hex::encode(Sha256::digest(signed_text(mesh_id, statement))))
}

/// A copy of a key for a member: whose it is, the sealed bytes and their nonce.
pub(crate) fn sealed_copy(from: &Key, member_id: &str, to: &str, key: &TopicKey) -> Value {
    let (nonce, sealed) = keys::seal(from, to, key);
    let sealed = [from.box_public().as_slice(), &sealed].concat();
    json!({"memberId": member_id, "sealed": keys::base64(&sealed), "nonce": keys::base64(&nonce)})
}

/// Bytes that pass for a sealed copy wherever nobody opens it.
pub(crate) fn opaque_copy(member_id: &str) -> Value {
    let (sealed, nonce) = (keys::random_bytes(80), keys::random_bytes(24));
    json!({"memberId": member_id, "sealed": keys::base64(&sealed), "nonce": keys::base64(&nonce)})
}

/// What a post says inside its box.
#[derive(Clone)]
pub(crate) struct Post<'a> {
    pub(crate) mesh_id: &'a str,
    pub(crate) topic_id: &'a str,
    pub(crate) epoch: u32,
    pub(crate) id: &'a str,
    pub(crate) body: &'a str,
}

impl Post<'_> {
    /// The envelope, with the author's signature by `signer` if there is one.
    pub(crate) fn envelope(&self, author: &Key, signer: Option<&Key>) -> Vec<u8> {
        let author = hex::decode(author.public()).expect("hex");
        let topic =
            [field(1, self.topic_id.as_bytes()), vec![2 << 3, u8::try_from(self.epoch).expect("a small epoch")]];
        let mut bytes = Vec::new();
        for (number, value) in [
            (1, self.mesh_id.as_bytes()),
            (2, self.id.as_bytes()),
            (3, author.as_slice()),
            (5, topic.concat().as_slice()),
            (11, self.body.as_bytes()),
        ] {
            bytes.extend(field(number, value));
        }
        if let Some(signer) = signer {
            let signed = [b"claudemesh-envelope|v1|".as_slice(), &bytes].concat();
            bytes.extend(field(12, &signer.sign_bytes(&signed)));
        }
        [ENVELOPE.as_slice(), &bytes].concat()
    }
}

/// A protobuf field of bytes.
fn field(number: u8, value: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut length = value.len();
    while length >= 0x80 {
        bytes.push(u8::try_from(length & 0x7f).expect("seven bits") | 0x80);
        length >>= 7;
    }
    bytes.push(u8::try_from(length).expect("seven bits"));
    bytes.extend_from_slice(value);
    bytes
}

/// Seals with a topic's key; the nonce and the ciphertext.
pub(crate) fn seal(key: &TopicKey, plaintext: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let nonce = keys::random_bytes(24);
    let array: [u8; 24] = nonce.clone().try_into().expect("24 bytes");
    let cipher = XSalsa20Poly1305::new(key.as_slice().into());
    (nonce, cipher.encrypt(&array.into(), plaintext).expect("a text of any length can be sealed"))
}

/// Opens the ciphertext of a frame with a topic's key; `None` for a wrong key.
pub(crate) fn open(key: &TopicKey, frame: &Value) -> Option<Vec<u8>> {
    let bytes = |field: &str| keys::from_base64(frame[field].as_str().expect("base64"));
    let nonce: [u8; 24] = bytes("nonce").try_into().expect("24 bytes");
    let cipher = XSalsa20Poly1305::new(key.as_slice().into());
    cipher.decrypt(&nonce.into(), bytes("ciphertext").as_slice()).ok()
}
