//! Identifiers as types, so that one cannot be handed where another belongs.

use std::fmt;
use std::str::FromStr;

/// Why a text is not an identifier of the wanted kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty.
    #[error("it is empty")]
    Empty,
    /// The text is longer than the kind allows.
    #[error("it is {got} bytes long, the limit is {max}")]
    TooLong {
        /// Length in bytes.
        got: usize,
        /// Greatest length in bytes.
        max: usize,
    },
    /// A character outside the visible ASCII range.
    #[error("it holds a character that is not visible ASCII")]
    NotVisibleAscii,
    /// Not 64 hexadecimal digits.
    #[error("it is not 64 hexadecimal digits")]
    NotHexKey,
    /// Not `<generation>-<sequence number>`.
    #[error("it is not of the form <generation>-<sequence number>")]
    NotEventId,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Greatest length in bytes.
            pub const MAX_BYTES: usize = 128;

            /// Takes 1 to 128 visible ASCII characters.
            pub fn parse(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                check_visible_ascii(&text, Self::MAX_BYTES)?;
                Ok(Self(text))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The id as an owned text.
            pub fn into_string(self) -> String {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

text_id! {
    /// The sender's id of one send; the key of every deduplication. Chosen by
    /// the caller or minted as a ULID (R143 to R145).
    ClientMessageId
}
text_id! {
    /// The broker's id of one message: the same on ack, push and history.
    BrokerMessageId
}
text_id! {
    /// A mesh, as the broker names it. Not its slug.
    MeshId
}
text_id! {
    /// A member of a mesh, as the broker names it; survives key rotation.
    MemberId
}
text_id! {
    /// A topic of a mesh, as the broker names it. Not its display name.
    TopicId
}

/// An ed25519 public key: 32 bytes, written as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberKey(pub [u8; 32]);

/// The place of a stored message in one inbox: `<generation>-<seq>`. The
/// generation changes when the inbox is made anew, so that a position of a lost
/// file is never mistaken for one of the new file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventId {
    /// Names one life of the inbox file.
    pub generation: String,
    /// Position; never reused, grows by at least one a message.
    pub seq: u64,
}

// === impl MemberKey ===

impl MemberKey {
    /// Reads 64 hexadecimal digits of either case.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let mut bytes = [0_u8; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| IdError::NotHexKey)?;
        Ok(Self(bytes))
    }

    /// 64 lower-case hexadecimal digits.
    pub fn to_hex(self) -> String {
        hex::encode(self.0)
    }

    /// The first 8 digits, for people and logs.
    pub fn short(self) -> String {
        hex::encode(&self.0[..4])
    }
}

impl fmt::Display for MemberKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for MemberKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemberKey({})", self.short())
    }
}

// === impl EventId ===

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.generation, self.seq)
    }
}

impl FromStr for EventId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        check_visible_ascii(text, 64)?;
        let (generation, seq) = text.rsplit_once('-').ok_or(IdError::NotEventId)?;
        let seq = seq.parse().map_err(|_| IdError::NotEventId)?;
        if generation.is_empty() {
            return Err(IdError::NotEventId);
        }
        Ok(Self { generation: generation.to_owned(), seq })
    }
}

fn check_visible_ascii(text: &str, max: usize) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > max {
        return Err(IdError::TooLong { got: text.len(), max });
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(IdError::NotVisibleAscii);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_message_ids_are_bounded_visible_ascii() {
        assert_eq!(
            ClientMessageId::parse("hook:01J:on-dm:1").map(ClientMessageId::into_string).as_deref(),
            Ok("hook:01J:on-dm:1")
        );
        assert_eq!(ClientMessageId::parse(""), Err(IdError::Empty));
        assert_eq!(ClientMessageId::parse("a b"), Err(IdError::NotVisibleAscii));
        assert_eq!(ClientMessageId::parse("é"), Err(IdError::NotVisibleAscii));
        assert_eq!(ClientMessageId::parse("x".repeat(129)), Err(IdError::TooLong { got: 129, max: 128 }));
    }

    #[test]
    fn member_keys_read_both_cases_and_write_lower() {
        let key = MemberKey::parse(&"AB".repeat(32)).expect("64 digits");
        assert_eq!(key.to_hex(), "ab".repeat(32));
        assert_eq!(MemberKey::parse("ab"), Err(IdError::NotHexKey));
    }

    #[test]
    fn event_ids_round_trip() {
        let id: EventId = "01JABC-42".parse().expect("an event id");
        assert_eq!((id.generation.as_str(), id.seq), ("01JABC", 42));
        assert_eq!(id.to_string(), "01JABC-42");
        for bad in ["", "-1", "x", "x-", "x-y", "x-1y"] {
            assert!(bad.parse::<EventId>().is_err(), "{bad}");
        }
    }
}
