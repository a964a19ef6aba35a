//! The first pass over a frame: its type, its ids and its top-level keys.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Most top-level keys of a frame. The largest known frame has about 25.
const MAX_KEYS: usize = 128;

/// What the first pass finds.
#[derive(Debug, Default)]
pub(super) struct Head<'a> {
    pub(super) kind: Cow<'a, str>,
    pub(super) id: Option<Cow<'a, str>>,
    pub(super) req_id: Option<Cow<'a, str>>,
    pub(super) client_message_id: Option<Cow<'a, str>>,
    /// Every key but `type`.
    pub(super) keys: Vec<Cow<'a, str>>,
}

/// A text that borrows where the JSON has no escape.
struct Text<'a>(Cow<'a, str>);

/// A text, or `None` for a value of any other type.
struct TextOrElse<'a>(Option<Cow<'a, str>>);

/// Asks a type for its field names: takes them from `deserialize_struct` and
/// gives up. The names come from the same derive that reads the frame, so there
/// is no second list to keep.
pub(super) struct Probe<'p>(&'p mut &'static [&'static str]);

/// The probe's way out; costs nothing to make.
#[derive(Debug)]
pub(super) struct Probed;

/// The field names that `read` asks its deserializer for; `None` when it says
/// `Ok(true)`, that is when it knows no such type.
pub(super) fn field_names(read: impl FnOnce(Probe<'_>) -> Result<bool, Probed>) -> Option<&'static [&'static str]> {
    let mut names: &'static [&'static str] = &[];
    match read(Probe(&mut names)) {
        Ok(true) => None,
        Ok(false) | Err(Probed) => Some(names),
    }
}

// === impl Head ===

impl<'de: 'a, 'a> Deserialize<'de> for Head<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct HeadVisitor;

        impl<'de> Visitor<'de> for HeadVisitor {
            type Value = Head<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with a type")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Head<'de>, A::Error> {
                let mut head = Head { keys: Vec::with_capacity(16), ..Head::default() };
                let mut kind = None;
                while let Some(Text(key)) = map.next_key::<Text<'de>>()? {
                    match key.as_ref() {
                        "type" if kind.is_some() => return Err(serde::de::Error::duplicate_field("type")),
                        "type" => {
                            kind = Some(map.next_value::<Text<'de>>()?.0);
                            continue;
                        }
                        "id" => head.id = map.next_value::<TextOrElse<'de>>()?.0,
                        "_reqId" => head.req_id = map.next_value::<TextOrElse<'de>>()?.0,
                        "client_message_id" => head.client_message_id = map.next_value::<TextOrElse<'de>>()?.0,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                        }
                    }
                    if head.keys.len() == MAX_KEYS {
                        return Err(serde::de::Error::custom("too many keys"));
                    }
                    head.keys.push(key);
                }
                head.kind = kind.ok_or_else(|| serde::de::Error::missing_field("type"))?;
                Ok(head)
            }
        }

        deserializer.deserialize_map(HeadVisitor)
    }
}

// === impl Text ===

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(TextVisitor)
    }
}

// === impl TextOrElse ===

impl<'de> Deserialize<'de> for TextOrElse<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyVisitor;

        impl<'de> Visitor<'de> for AnyVisitor {
            type Value = TextOrElse<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(TextOrElse(Some(Cow::Borrowed(text))))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(TextOrElse(Some(Cow::Owned(text.to_owned()))))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
                Ok(TextOrElse(None))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(TextOrElse(None))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
                Ok(TextOrElse(None))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(TextOrElse(None))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(TextOrElse(None))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(TextOrElse(None))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(TextOrElse(None))
            }
        }

        deserializer.deserialize_any(AnyVisitor)
    }
}

// === impl Probe ===

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Probed;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Probed> {
        Err(Probed)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Probed> {
        *self.0 = fields;
        Err(Probed)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

// === impl Probed ===

impl fmt::Display for Probed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("probed for field names")
    }
}

impl std::error::Error for Probed {}

impl serde::de::Error for Probed {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}
