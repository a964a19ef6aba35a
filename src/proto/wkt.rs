//! Well-known types of Protobuf with the JSON form that the mapping asks for.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, SecondsFormat};
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The greatest integer up to which a double holds every integer.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// A JSON object, `google.protobuf.Struct`. Its names are sorted.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Struct {
    /// The members.
    #[prost(btree_map = "string, message", tag = "1")]
    pub fields: BTreeMap<String, Value>,
}

/// A JSON value, `google.protobuf.Value`. All numbers are doubles, as in JSON
/// itself for most of its readers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Value {
    /// Which value; none is read as null.
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6")]
    pub kind: Option<Kind>,
}

/// A JSON array, `google.protobuf.ListValue`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListValue {
    /// The items.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<Value>,
}

/// The kinds of a [`Value`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Kind {
    /// `null`; the number is always 0.
    #[prost(int32, tag = "1")]
    Null(i32),
    /// A number.
    #[prost(double, tag = "2")]
    Number(f64),
    /// A text.
    #[prost(string, tag = "3")]
    Text(String),
    /// `true` or `false`.
    #[prost(bool, tag = "4")]
    Bool(bool),
    /// An object.
    #[prost(message, tag = "5")]
    Object(Struct),
    /// An array.
    #[prost(message, tag = "6")]
    List(ListValue),
}

/// A point in time, `google.protobuf.Timestamp`. In JSON an RFC 3339 time that
/// ends in `Z`; any offset is read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds within the second, 0 to 999,999,999.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

// === impl Timestamp ===

impl Timestamp {
    /// The time that is so many milliseconds after 1970-01-01T00:00:00Z.
    pub fn from_unix_ms(ms: i64) -> Self {
        // In range: the remainder is below 1000.
        Self { seconds: ms.div_euclid(1000), nanos: (ms.rem_euclid(1000) * 1_000_000) as i32 }
    }

    /// Milliseconds since 1970-01-01T00:00:00Z, rounded down; `None` beyond
    /// the years 1 to 9999 or when the nanoseconds are out of range.
    pub fn to_unix_ms(self) -> Option<i64> {
        self.to_date_time().map(|time| time.timestamp_millis())
    }

    fn to_date_time(self) -> Option<DateTime<chrono::Utc>> {
        use chrono::Datelike as _;
        let nanos = u32::try_from(self.nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
        DateTime::from_timestamp(self.seconds, nanos).filter(|time| (1..=9999).contains(&time.year()))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let time = self.to_date_time().ok_or_else(|| serde::ser::Error::custom("the time is out of range"))?;
        serializer.collect_str(&time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

impl std::str::FromStr for Timestamp {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "it is not an RFC 3339 time such as 2026-01-31T12:00:00Z";
        let time = DateTime::parse_from_rfc3339(text).map_err(|_| EXPECTED)?;
        let read = Self { seconds: time.timestamp(), nanos: time.timestamp_subsec_nanos().min(999_999_999) as i32 };
        if read.to_date_time().is_none() {
            return Err("it is outside the years 1 to 9999");
        }
        Ok(read)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(|reason| D::Error::custom(format_args!("`{text}`: {reason}")))
    }
}

// === impl Struct ===

impl Serialize for Struct {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.fields.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Struct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { fields: BTreeMap::deserialize(deserializer)? })
    }
}

// === impl Value ===

impl From<f64> for Value {
    fn from(number: f64) -> Self {
        Self { kind: Some(Kind::Number(number)) }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.kind {
            None | Some(Kind::Null(_)) => serializer.serialize_unit(),
            Some(Kind::Number(number)) if !number.is_finite() => {
                Err(serde::ser::Error::custom("JSON has no infinite numbers and no NaN"))
            }
            // What was written as 1 comes back as 1, not as 1.0.
            Some(Kind::Number(number)) if number.fract() == 0.0 && number.abs() <= MAX_EXACT => {
                serializer.serialize_i64(*number as i64)
            }
            Some(Kind::Number(number)) => serializer.serialize_f64(*number),
            Some(Kind::Text(text)) => serializer.serialize_str(text),
            Some(Kind::Bool(truth)) => serializer.serialize_bool(*truth),
            Some(Kind::Object(object)) => object.serialize(serializer),
            Some(Kind::List(list)) => list.values.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue).map(|kind| Self { kind: Some(kind) })
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null(0))
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Kind, E> {
        Ok(Kind::Bool(truth))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Kind, E> {
        Ok(Kind::Number(number))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Kind, E> {
        exact(number as f64, i128::from(number))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Kind, E> {
        exact(number as f64, i128::from(number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Kind, E> {
        Ok(Kind::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Kind, E> {
        Ok(Kind::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Kind, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element()? {
            values.push(value);
        }
        Ok(Kind::List(ListValue { values }))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Kind, A::Error> {
        let mut fields = BTreeMap::new();
        while let Some((name, value)) = members.next_entry()? {
            fields.insert(name, value);
        }
        Ok(Kind::Object(Struct { fields }))
    }
}

/// An integer as a double; an error when that would be another number.
fn exact<E: serde::de::Error>(double: f64, integer: i128) -> Result<Kind, E> {
    if double as i128 == integer && double.abs() <= MAX_EXACT {
        return Ok(Kind::Number(double));
    }
    Err(E::custom(format_args!("{integer} is beyond the integers that JSON carries safely; write it as a string")))
}
