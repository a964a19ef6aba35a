//! What a caller asks to send, checked: the text, its limits, its metadata and
//! the forms that a destination may take.

use std::fmt;

use serde_json::{Map, Value};

use super::ids::{ClientMessageId, MemberKey};
use super::reply;
use super::time::UnixMillis;

/// Greatest length of a message's text in bytes of UTF-8: 1 MiB.
pub const MAX_BODY_BYTES: usize = 1_048_576;
/// Greatest length of the metadata as canonical JSON, in bytes: 16 KiB.
pub const MAX_META_BYTES: usize = 16 * 1024;
/// Greatest nesting of the metadata; the object itself is level 1.
pub const MAX_META_DEPTH: usize = 8;
/// Greatest length of a destination as the caller writes it, in bytes.
pub const MAX_DESTINATION_BYTES: usize = 256;
/// Fewest hex digits of a key that name a member.
pub const MIN_PREFIX_DIGITS: usize = 16;
/// Greatest number of mentions in a message.
pub const MAX_MENTIONS: usize = 16;

/// How urgent a message is to its receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Priority {
    /// Interrupts.
    Now,
    /// Read at the next opportunity. The default.
    #[default]
    Next,
    /// Read when there is nothing else.
    Low,
}

/// Metadata of a message: a JSON object in the canonical form of RFC 8785, so
/// that two writings of the same object are the same bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta(String);

/// A message of this member to itself: it goes from the outbox to the inbox of one
/// daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnMessage {
    /// Its id.
    pub client_message_id: String,
    /// The member's name.
    pub sender_name: String,
    /// The text.
    pub body: String,
    /// Canonical JSON.
    pub meta: Option<String>,
    /// The message that it answers.
    pub reply_to_id: Option<String>,
    /// Ids of mentioned members.
    pub mentions: Vec<String>,
    /// How urgent.
    pub priority: Priority,
    /// When it was accepted.
    pub sent_at: UnixMillis,
    /// How many automatic sends led to it.
    pub auto_hops: u32,
}

/// A send as the caller wrote it, with every limit checked. The destination is
/// not resolved yet.
#[derive(Clone, Debug)]
pub struct SendRequest {
    /// The caller's id; `None` lets the daemon mint one.
    pub client_message_id: Option<ClientMessageId>,
    /// The destination as the caller wrote it.
    pub to: String,
    /// The text.
    pub body: String,
    /// How urgent.
    pub priority: Priority,
    /// Metadata; `None` when absent or empty.
    pub meta: Option<Meta>,
    /// The message that this one answers, as the caller named it.
    pub reply_to_id: Option<String>,
    /// What is stored under that name. No part of what makes two requests the same.
    pub answered: Vec<reply::Match>,
    /// Names or keys of mentioned members.
    pub mentions: Vec<String>,
    /// The caller accepts that the text leaves this host unencrypted.
    pub allow_unencrypted: bool,
    /// How many automatic sends led to this one.
    pub auto_hops: u32,
}

/// The forms that a destination may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A member's or session's full key: 64 hex digits.
    Key(MemberKey),
    /// A display name, or 16 to 63 hex digits of a key.
    NameOrPrefix(String),
    /// `#name`.
    Topic(String),
    /// `*` or `@all`.
    Everyone,
    /// `@name`.
    Group(String),
}

/// Why a request is refused before it can consume an id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// A required field is missing or empty.
    #[error("`{0}` is missing or empty; give it a value")]
    Missing(&'static str),
    /// The text is too long.
    #[error("the message is {got} bytes long, the limit is {max} bytes; send it in parts")]
    TooLarge {
        /// Its length in bytes.
        got: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// A field's value is not allowed.
    #[error("`{field}`: {reason}")]
    Invalid {
        /// The field's name.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

// === impl Priority ===

impl Priority {
    /// All priorities, most urgent first.
    pub const ALL: [Self; 3] = [Self::Now, Self::Next, Self::Low];

    /// The name in the databases, frames and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Now => "now",
            Self::Next => "next",
            Self::Low => "low",
        }
    }

    /// The priority of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|priority| priority.name() == name)
    }
}

// === impl Meta ===

impl Meta {
    /// Checks an object's size and depth and brings it into canonical form. An
    /// empty object means no metadata.
    pub fn from_object(object: &Map<String, Value>) -> Result<Option<Self>, MessageError> {
        if object.is_empty() {
            return Ok(None);
        }
        let invalid = |reason: String| MessageError::Invalid { field: "meta", reason };
        let depth = 1 + object.values().map(depth).max().unwrap_or(0);
        if depth > MAX_META_DEPTH {
            return Err(invalid(format!("it is nested {depth} deep, the limit is {MAX_META_DEPTH}")));
        }
        let canonical = serde_jcs::to_string(object).map_err(|error| invalid(error.to_string()))?;
        Self::from_canonical_len(canonical)
    }

    /// Parses JSON text that must be an object.
    pub fn from_json(text: &str) -> Result<Option<Self>, MessageError> {
        let invalid = |reason: String| MessageError::Invalid { field: "meta", reason };
        match serde_json::from_str(text) {
            Ok(Value::Object(object)) => Self::from_object(&object),
            Ok(_) => Err(invalid("it is not a JSON object".to_owned())),
            Err(error) => Err(invalid(format!("it is not JSON: {error}"))),
        }
    }

    /// The canonical JSON text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn from_canonical_len(canonical: String) -> Result<Option<Self>, MessageError> {
        if canonical.len() > MAX_META_BYTES {
            return Err(MessageError::Invalid {
                field: "meta",
                reason: format!("it is {} bytes long as JSON, the limit is {MAX_META_BYTES}", canonical.len()),
            });
        }
        Ok(Some(Self(canonical)))
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

// === impl SendRequest ===

impl SendRequest {
    /// Checks what can be checked without the roster.
    pub fn validate(&self) -> Result<Destination, MessageError> {
        if self.body.is_empty() {
            return Err(MessageError::Missing("message"));
        }
        if self.body.len() > MAX_BODY_BYTES {
            return Err(MessageError::TooLarge { got: self.body.len(), max: MAX_BODY_BYTES });
        }
        // The broker's database refuses it, and it hides text in terminals.
        if self.body.contains('\0') {
            return Err(MessageError::Invalid { field: "message", reason: "it holds the character U+0000".to_owned() });
        }
        if self.mentions.len() > MAX_MENTIONS {
            return Err(MessageError::Invalid {
                field: "mentions",
                reason: format!("there are {}, the limit is {MAX_MENTIONS}", self.mentions.len()),
            });
        }
        if let Some(reply_to) = &self.reply_to_id {
            ClientMessageId::parse(reply_to.as_str())
                .map_err(|error| MessageError::Invalid { field: "reply_to_id", reason: error.to_string() })?;
        }
        Destination::parse(&self.to)
    }
}

// === impl Destination ===

impl Destination {
    /// Reads the form, without looking anyone up.
    pub fn parse(text: &str) -> Result<Self, MessageError> {
        let invalid = |reason: &str| MessageError::Invalid { field: "to", reason: reason.to_owned() };
        if text.trim().is_empty() {
            return Err(MessageError::Missing("to"));
        }
        if text.len() > MAX_DESTINATION_BYTES {
            return Err(invalid("it is longer than 256 bytes"));
        }
        if text.chars().any(char::is_control) {
            return Err(invalid("it holds a control character"));
        }
        Ok(match text {
            "*" | "@all" => Self::Everyone,
            _ => match (text.strip_prefix('#'), text.strip_prefix('@')) {
                (Some(""), _) | (_, Some("")) => return Err(invalid("a name must follow the sign")),
                (Some(topic), _) => Self::Topic(topic.to_owned()),
                (_, Some(group)) => Self::Group(group.to_owned()),
                _ => match MemberKey::parse(text) {
                    Ok(key) => Self::Key(key),
                    Err(_) => Self::NameOrPrefix(text.to_owned()),
                },
            },
        })
    }

    /// The kind as the databases write it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Key(_) | Self::NameOrPrefix(_) => "dm",
            Self::Topic(_) => "topic",
            Self::Everyone => "broadcast",
            Self::Group(_) => "group",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_have_five_forms() {
        let key = "ab".repeat(32);
        assert_eq!(Destination::parse(&key), MemberKey::parse(&key).map(Destination::Key).map_err(|_| unreachable!()));
        assert_eq!(Destination::parse("bob"), Ok(Destination::NameOrPrefix("bob".to_owned())));
        assert_eq!(Destination::parse("#ops"), Ok(Destination::Topic("ops".to_owned())));
        assert_eq!(Destination::parse("*"), Ok(Destination::Everyone));
        assert_eq!(Destination::parse("@all"), Ok(Destination::Everyone));
        assert_eq!(Destination::parse("@team"), Ok(Destination::Group("team".to_owned())));
        for bad in ["", "  ", "#", "@", "a\nb"] {
            assert!(Destination::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn metadata_is_canonical_bounded_and_empty_means_none() {
        assert_eq!(Meta::from_json("{}"), Ok(None));
        let meta = Meta::from_json(r#"{"b": 1.0, "a": [true]}"#).unwrap().unwrap();
        assert_eq!(meta.as_str(), r#"{"a":[true],"b":1}"#);
        assert!(Meta::from_json("[]").is_err());
        let nested = |levels: usize| format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
        assert!(Meta::from_json(&nested(MAX_META_DEPTH)).is_ok());
        assert!(Meta::from_json(&nested(MAX_META_DEPTH + 1)).is_err());
        assert!(Meta::from_json(&format!(r#"{{"a":"{}"}}"#, "x".repeat(MAX_META_BYTES))).is_err());
    }
}
