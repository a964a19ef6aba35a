//! Text frames to types and back. The only place that knows the frames are
//! JSON.
//!
//! Decoding takes two passes over the text and builds no tree: the first finds
//! `type`, the correlation ids and the names of the top-level keys, the second
//! fills the frame's own struct. Unknown top-level keys are dropped and counted
//! unless the strict mode refuses them. Keys below the top level are not
//! counted: rows of lists gain fields with every broker version.
//!
//! Every byte is hostile. The size is checked first; text that is no JSON
//! object, nests deeper than the parser allows, repeats a known key, holds
//! U+0000 (which PostgreSQL cannot store) or an unpaired surrogate is refused.

use serde::Serialize;
use serde::de::Deserializer;

use super::frame::{ClientFrame, ServerFrame, UnknownFrame};
use super::head::{Head, field_names};

/// The base protocol's limit of one frame in bytes; valid until negotiated.
pub const BASE_FRAME_BYTES: usize = 65_536;

/// Longest correlation id that is handed back, in bytes.
const MAX_CORRELATION_BYTES: usize = 256;

/// What a reader accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest frame in bytes.
    pub max_bytes: usize,
    /// Whether an unknown top-level key refuses the frame.
    pub strict: bool,
}

/// A frame and what was dropped from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded<F> {
    /// The frame.
    pub frame: F,
    /// How many top-level keys were not known. Zero for unknown frame types,
    /// of which no key is known.
    pub unknown_keys: usize,
}

/// What is wrong with a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeErrorKind {
    /// Above the limit.
    #[error("the frame has {got} bytes, the limit is {max}")]
    TooLarge {
        /// Its size in bytes.
        got: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// Not a JSON object with a text `type`, or with too many keys.
    #[error("the frame is no JSON object with a type: {0}")]
    Malformed(String),
    /// A field is missing or has another type.
    #[error("the frame does not fit its type: {0}")]
    BadField(String),
    /// A text holds U+0000.
    #[error("the frame holds the character U+0000")]
    NulCharacter,
    /// Strict mode met unknown keys.
    #[error("the frame has {0} unknown keys, and strict frames are on")]
    UnknownKeys(usize),
}

/// A frame that was refused, with what is needed to answer it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Correlation {
    /// The value of `type`.
    pub kind: Option<String>,
    /// The value of `id`.
    pub id: Option<String>,
    /// The value of `_reqId`.
    pub req_id: Option<String>,
    /// The value of `client_message_id`.
    pub client_message_id: Option<String>,
}

/// Why a text is not a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct DecodeError {
    /// What is wrong.
    pub kind: DecodeErrorKind,
    /// What could be read of the ids; empty where nothing could be read.
    pub correlation: Box<Correlation>,
}

/// Why a frame could not be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// An unknown frame has no text.
    #[error("the frame cannot be written: {0}")]
    NotWritable(#[from] serde_json::Error),
}

/// A direction's frames.
pub trait Frame: Serialize + Sized {
    /// Reads the body of a known type; `None` for an unknown one.
    fn body<'de, D: Deserializer<'de>>(kind: &str, body: D) -> Result<Option<Self>, D::Error>;

    /// The frame for an unknown type.
    fn unknown(frame: UnknownFrame) -> Self;
}

/// Reads a frame that a client sent.
pub fn decode_client(text: &str, limits: &Limits) -> Result<Decoded<ClientFrame>, DecodeError> {
    decode(text, limits)
}

/// Reads a frame that a broker sent.
pub fn decode_server(text: &str, limits: &Limits) -> Result<Decoded<ServerFrame>, DecodeError> {
    decode(text, limits)
}

/// Writes a frame.
pub fn encode<F: Frame>(frame: &F) -> Result<String, EncodeError> {
    Ok(serde_json::to_string(frame)?)
}

fn decode<F: Frame>(text: &str, limits: &Limits) -> Result<Decoded<F>, DecodeError> {
    if text.len() > limits.max_bytes {
        return Err(refuse(DecodeErrorKind::TooLarge { got: text.len(), max: limits.max_bytes }, None));
    }
    let head: Head<'_> =
        serde_json::from_str(text).map_err(|error| refuse(DecodeErrorKind::Malformed(detail(&error)), None))?;
    if holds_nul(text) {
        return Err(refuse(DecodeErrorKind::NulCharacter, Some(&head)));
    }

    let Some(known) = field_names(|probe| F::body(&head.kind, probe).map(|frame| frame.is_none())) else {
        let kind = head.kind.into_owned();
        let frame = F::unknown(UnknownFrame { kind, req_id: short(head.req_id.as_deref()) });
        return Ok(Decoded { frame, unknown_keys: 0 });
    };
    let unknown_keys = head.keys.iter().filter(|key| !known.contains(&key.as_ref())).count();
    if limits.strict && unknown_keys > 0 {
        return Err(refuse(DecodeErrorKind::UnknownKeys(unknown_keys), Some(&head)));
    }

    let mut body = serde_json::Deserializer::from_str(text);
    match F::body(&head.kind, &mut body) {
        Ok(Some(frame)) => Ok(Decoded { frame, unknown_keys }),
        Ok(None) => Err(refuse(DecodeErrorKind::Malformed("its type is not known".to_owned()), Some(&head))),
        Err(error) => Err(refuse(DecodeErrorKind::BadField(detail(&error)), Some(&head))),
    }
}

/// Whether an escape stands for U+0000. A raw one is no JSON. The backslashes
/// before it are counted, because `\\u0000` is a text about the escape.
fn holds_nul(text: &str) -> bool {
    if !text.as_bytes().contains(&b'\\') {
        return false;
    }
    text.match_indices("\\u0000").any(|(at, _)| {
        let before = text.as_bytes()[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
        before % 2 == 0
    })
}

fn refuse(kind: DecodeErrorKind, head: Option<&Head<'_>>) -> DecodeError {
    let correlation = head.map_or_else(Correlation::default, |head| Correlation {
        kind: short(Some(&head.kind)),
        id: short(head.id.as_deref()),
        req_id: short(head.req_id.as_deref()),
        client_message_id: short(head.client_message_id.as_deref()),
    });
    DecodeError { kind, correlation: Box::new(correlation) }
}

fn short(id: Option<&str>) -> Option<String> {
    id.filter(|id| id.len() <= MAX_CORRELATION_BYTES).map(str::to_owned)
}

/// The parser's words, which may quote a value of the peer: bounded, and for
/// people only.
fn detail(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text[..text.floor_char_boundary(160)].to_owned()
}
