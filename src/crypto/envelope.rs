//! The sealed envelope: what is inside the box of a message of ours.
//!
//! A box says who could have sealed it, and nothing else. Everything outside it
//! is the broker's word. The envelope therefore repeats inside the box what the
//! frame says outside, and [`Envelope::check`] compares: a box that is sent
//! back, sent on to another member, put under another id or moved to another
//! mesh is refused.
//!
//! Four bytes that no UTF-8 text can start with tell an envelope from the raw
//! text of a legacy peer; nothing outside the box takes part in that decision.
//! After them stands a protobuf message, in its canonical encoding only: a
//! field that is not known or is written twice is refused, so that two readers
//! never see two messages.

use prost::Message as _;
use serde_json::Value;

use super::keys::MemberSecret;
use super::sign::{self, Signature};
use crate::domain::ids::{ClientMessageId, MemberId, MemberKey, MeshId, TopicId};

/// The first bytes of an envelope. 0xFF occurs in no UTF-8 text.
pub const MAGIC: [u8; 4] = [0xff, 0x43, 0x4d, 0x33];

/// Largest envelope, with its magic, in bytes: the largest message and room for
/// the rest.
pub const MAX_ENVELOPE_BYTES: usize = (1 << 20) + (64 << 10);

/// Largest body in bytes.
pub const MAX_BODY_BYTES: usize = 1 << 20;

/// Largest `meta` in bytes.
pub const MAX_META_BYTES: usize = 16 << 10;

/// Deepest nesting of `meta`; the object itself counts as 1.
pub const MAX_META_DEPTH: usize = 8;

/// Most mentions.
pub const MAX_MENTIONS: usize = 16;

/// What an author's signature covers before the envelope's bytes.
const AUTHOR_CONTEXT: &[u8] = b"claudemesh-envelope|v1|";

/// Why an envelope is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Above [`MAX_ENVELOPE_BYTES`].
    #[error("the envelope has {0} bytes, the limit is {MAX_ENVELOPE_BYTES}")]
    TooLarge(usize),
    /// Neither an envelope nor text.
    #[error("the plaintext is neither an envelope nor UTF-8 text")]
    NotText,
    /// The protobuf message does not parse.
    #[error("the envelope is damaged")]
    Damaged,
    /// Unknown or repeated fields, or a second encoding of the same message.
    #[error("the envelope is not in its canonical encoding")]
    NotCanonical,
    /// A field is missing, malformed or too large.
    #[error("the envelope's {0} is missing, malformed or too large")]
    BadField(&'static str),
    /// Our own message, sent back as the peer's.
    #[error("the envelope is one of our own, sent back")]
    Reflected,
    /// Another sender inside than the key that opened it.
    #[error("the envelope names another sender than the key that opened it")]
    WrongSender,
    /// Sealed for somebody else, or for another topic or epoch.
    #[error("the envelope is addressed to another member, topic or epoch")]
    WrongDestination,
    /// From another mesh.
    #[error("the envelope belongs to another mesh")]
    WrongMesh,
    /// Another id inside than outside.
    #[error("the envelope has another client_message_id than the frame")]
    WrongId,
    /// A topic's envelope without its author's signature.
    #[error("the author's signature is missing or wrong")]
    BadAuthor,
}

/// Where an envelope goes.
#[derive(Clone, PartialEq, Eq, prost::Oneof)]
pub enum Destination {
    /// A member, by the key that it is sealed for. 32 bytes.
    #[prost(bytes = "vec", tag = "4")]
    Member(Vec<u8>),
    /// A topic.
    #[prost(message, tag = "5")]
    Topic(TopicDestination),
}

/// A topic and the epoch of its key.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TopicDestination {
    /// The topic by id.
    #[prost(string, tag = "1")]
    pub topic_id: String,
    /// The epoch of the key that it is sealed under.
    #[prost(uint32, tag = "2")]
    pub key_epoch: u32,
}

/// The content of a message of ours.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Envelope {
    /// The mesh by id.
    #[prost(string, tag = "1")]
    pub mesh_id: String,
    /// The sender's id of this send.
    #[prost(string, tag = "2")]
    pub client_message_id: String,
    /// The key that seals it. 32 bytes.
    #[prost(bytes = "vec", tag = "3")]
    pub sender_key: Vec<u8>,
    /// Where it goes; required.
    #[prost(oneof = "Destination", tags = "4, 5")]
    pub destination: Option<Destination>,
    /// When it was accepted from the caller, Unix ms by the sender's clock.
    #[prost(int64, tag = "6")]
    pub sent_at_ms: i64,
    /// The message that it answers; empty for none.
    #[prost(string, tag = "7")]
    pub reply_to: String,
    /// Mentioned members, by id.
    #[prost(string, repeated, tag = "8")]
    pub mentions: Vec<String>,
    /// A JSON object as text; empty for none.
    #[prost(string, tag = "9")]
    pub meta: String,
    /// How many hooks sent on before this one; 0 for a person's message.
    #[prost(uint32, tag = "10")]
    pub auto_hops: u32,
    /// The text.
    #[prost(string, tag = "11")]
    pub body: String,
    /// The author's signature over everything else; empty on direct messages,
    /// which the box itself authenticates.
    #[prost(bytes = "vec", tag = "12")]
    pub author_signature: Vec<u8>,
}

/// What a box held.
#[derive(Clone, Debug, PartialEq)]
pub enum Plaintext {
    /// A message of ours; still to be checked.
    Envelope(Box<Envelope>),
    /// The raw text of a legacy peer. Nothing in it says for whom it was.
    LegacyText(String),
}

/// How the box was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening<'a> {
    /// With the shared key of a pair.
    Direct {
        /// The peer's key.
        sender: MemberKey,
    },
    /// With a topic's key.
    Topic {
        /// The sender's key, as the roster knows it.
        sender: MemberKey,
        /// The topic whose key it was.
        topic_id: &'a TopicId,
        /// The epoch of that key.
        key_epoch: u32,
    },
}

/// What the inside of a box has to agree with.
#[derive(Clone, Debug)]
pub struct Expected<'a> {
    /// How it was opened.
    pub opening: Opening<'a>,
    /// Our own keys: the current one and those in their grace.
    pub own_keys: &'a [MemberKey],
    /// Our mesh.
    pub mesh: &'a MeshId,
    /// The id outside the box; `None` where a legacy broker pushes without one.
    pub outer_client_message_id: Option<&'a str>,
}

/// Reads the bytes of an opened box.
pub fn open_plaintext(bytes: Vec<u8>) -> Result<Plaintext, EnvelopeError> {
    let Some(message) = bytes.strip_prefix(&MAGIC) else {
        return String::from_utf8(bytes).map(Plaintext::LegacyText).map_err(|_| EnvelopeError::NotText);
    };
    if bytes.len() > MAX_ENVELOPE_BYTES {
        return Err(EnvelopeError::TooLarge(bytes.len()));
    }
    let envelope = Envelope::decode(message).map_err(|_| EnvelopeError::Damaged)?;
    if envelope.encode_to_vec() != message {
        return Err(EnvelopeError::NotCanonical);
    }
    envelope.check_fields()?;
    Ok(Plaintext::Envelope(Box::new(envelope)))
}

// === impl Envelope ===

impl Envelope {
    /// The bytes to seal.
    pub fn encode(&self) -> Result<Vec<u8>, EnvelopeError> {
        self.check_fields()?;
        let len = MAGIC.len() + self.encoded_len();
        if len > MAX_ENVELOPE_BYTES {
            return Err(EnvelopeError::TooLarge(len));
        }
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(&MAGIC);
        self.encode_raw(&mut bytes);
        Ok(bytes)
    }

    /// The sender's key.
    pub fn sender(&self) -> Option<MemberKey> {
        self.sender_key.as_slice().try_into().ok().map(MemberKey)
    }

    /// Names `author` as the sender and signs. Topics need it, because their key
    /// is shared and proves no author.
    pub fn sign_author(&mut self, author: &MemberSecret) {
        self.sender_key = author.public().0.to_vec();
        self.author_signature = sign::sign(author, &self.author_bytes()).to_vec();
    }

    /// Whether the inside of the box agrees with how it came here.
    pub fn check(&self, expected: &Expected<'_>) -> Result<(), EnvelopeError> {
        let sender = self.sender().ok_or(EnvelopeError::BadField("sender key"))?;
        let opened_with = match expected.opening {
            Opening::Direct { sender } | Opening::Topic { sender, .. } => sender,
        };
        if sender != opened_with {
            let own = expected.own_keys.contains(&sender);
            return Err(if own { EnvelopeError::Reflected } else { EnvelopeError::WrongSender });
        }
        if self.mesh_id != expected.mesh.as_str() {
            return Err(EnvelopeError::WrongMesh);
        }
        if expected.outer_client_message_id.is_some_and(|outer| outer != self.client_message_id) {
            return Err(EnvelopeError::WrongId);
        }
        match (&self.destination, &expected.opening) {
            (Some(Destination::Member(key)), Opening::Direct { .. }) => {
                if !expected.own_keys.iter().any(|own| own.0.as_slice() == key) {
                    return Err(EnvelopeError::WrongDestination);
                }
                if !self.author_signature.is_empty() && !self.author_is(sender) {
                    return Err(EnvelopeError::BadAuthor);
                }
                Ok(())
            }
            (Some(Destination::Topic(inner)), Opening::Topic { topic_id, key_epoch, .. }) => {
                if inner.topic_id != topic_id.as_str() || inner.key_epoch != *key_epoch {
                    return Err(EnvelopeError::WrongDestination);
                }
                if self.author_is(sender) { Ok(()) } else { Err(EnvelopeError::BadAuthor) }
            }
            _ => Err(EnvelopeError::WrongDestination),
        }
    }

    fn author_is(&self, sender: MemberKey) -> bool {
        Signature::try_from(self.author_signature.as_slice())
            .is_ok_and(|signature| sign::verify(sender, &self.author_bytes(), &signature))
    }

    fn author_bytes(&self) -> Vec<u8> {
        let unsigned = Self { author_signature: Vec::new(), ..self.clone() };
        let mut bytes = Vec::with_capacity(AUTHOR_CONTEXT.len() + unsigned.encoded_len());
        bytes.extend_from_slice(AUTHOR_CONTEXT);
        unsigned.encode_raw(&mut bytes);
        bytes
    }

    fn check_fields(&self) -> Result<(), EnvelopeError> {
        let require = |ok: bool, field: &'static str| if ok { Ok(()) } else { Err(EnvelopeError::BadField(field)) };
        let id = |text: &str| ClientMessageId::parse(text).is_ok();
        require(MeshId::parse(self.mesh_id.as_str()).is_ok(), "mesh id")?;
        require(id(&self.client_message_id), "client_message_id")?;
        require(self.sender().is_some(), "sender key")?;
        require(self.reply_to.is_empty() || id(&self.reply_to), "reply_to")?;
        require(self.mentions.len() <= MAX_MENTIONS, "mentions")?;
        require(self.mentions.iter().all(|member| MemberId::parse(member.as_str()).is_ok()), "mentions")?;
        require(self.meta.len() <= MAX_META_BYTES && meta_is_usable(&self.meta), "meta")?;
        require(self.body.len() <= MAX_BODY_BYTES, "body")?;
        require(matches!(self.author_signature.len(), 0 | 64), "author signature")?;
        match &self.destination {
            Some(Destination::Member(key)) => require(key.len() == 32, "destination"),
            Some(Destination::Topic(topic)) => require(TopicId::parse(topic.topic_id.as_str()).is_ok(), "destination"),
            None => Err(EnvelopeError::BadField("destination")),
        }
    }
}

/// Whether it is empty or a JSON object of bounded depth. The parser's own
/// limit keeps the recursion short.
fn meta_is_usable(meta: &str) -> bool {
    meta.is_empty()
        || serde_json::from_str::<Value>(meta).is_ok_and(|meta| meta.is_object() && depth(&meta) <= MAX_META_DEPTH)
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
