//! Well-known types of Protobuf that have a better JSON form here: times end in
//! `Z`, and whole numbers are written without a fraction.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The integers that a double holds exactly.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

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
        let time = self.to_date_time().ok_or_else(|| S::Error::custom("the time is out of range"))?;
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

/// A JSON object, `google.protobuf.Struct`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Struct {
    /// The fields, in the order of their names.
    #[prost(btree_map = "string, message", tag = "1")]
    pub fields: BTreeMap<String, Value>,
}

/// A JSON array, `google.protobuf.ListValue`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ListValue {
    /// The items.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<Value>,
}

/// Any JSON value, `google.protobuf.Value`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Value {
    /// Which kind; `None` stands for null.
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6")]
    pub kind: Option<Kind>,
}

/// The kinds of a JSON value.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Kind {
    /// Null; the number is always 0.
    #[prost(int32, tag = "1")]
    Null(i32),
    /// A number.
    #[prost(double, tag = "2")]
    Number(f64),
    /// A text.
    #[prost(string, tag = "3")]
    Text(String),
    /// True or false.
    #[prost(bool, tag = "4")]
    Bool(bool),
    /// An object.
    #[prost(message, tag = "5")]
    Struct(Struct),
    /// An array.
    #[prost(message, tag = "6")]
    List(ListValue),
}

// === impl Struct ===

impl Serialize for Struct {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(&self.fields)
    }
}

impl<'de> Deserialize<'de> for Struct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::Object(fields) => Ok(from_object(fields)),
            _ => Err(D::Error::custom("it is not a JSON object")),
        }
    }
}

fn from_object(fields: serde_json::Map<String, serde_json::Value>) -> Struct {
    Struct { fields: fields.into_iter().map(|(name, value)| (name, value.into())).collect() }
}

// === impl ListValue ===

impl Serialize for ListValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(&self.values)
    }
}

impl<'de> Deserialize<'de> for ListValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { values: Vec::deserialize(deserializer)? })
    }
}

// === impl Value ===

impl From<serde_json::Value> for Value {
    fn from(value: serde_json::Value) -> Self {
        let kind = match value {
            serde_json::Value::Null => Kind::Null(0),
            serde_json::Value::Bool(value) => Kind::Bool(value),
            // Every number of JSON has a nearest double; that is what Protobuf keeps.
            serde_json::Value::Number(number) => Kind::Number(number.as_f64().unwrap_or(f64::NAN)),
            serde_json::Value::String(text) => Kind::Text(text),
            serde_json::Value::Array(items) => {
                Kind::List(ListValue { values: items.into_iter().map(Self::from).collect() })
            }
            serde_json::Value::Object(fields) => Kind::Struct(from_object(fields)),
        };
        Self { kind: Some(kind) }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.kind {
            None | Some(Kind::Null(_)) => serializer.serialize_unit(),
            Some(Kind::Bool(value)) => serializer.serialize_bool(*value),
            Some(Kind::Number(number)) if !number.is_finite() => {
                Err(S::Error::custom("JSON has no form for a number that is not finite"))
            }
            Some(Kind::Number(number)) if number.fract() == 0.0 && number.abs() <= MAX_EXACT => {
                serializer.serialize_i64(*number as i64)
            }
            Some(Kind::Number(number)) => serializer.serialize_f64(*number),
            Some(Kind::Text(text)) => serializer.serialize_str(text),
            Some(Kind::Struct(value)) => value.serialize(serializer),
            Some(Kind::List(value)) => value.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde_json::Value::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn an_object_comes_back_as_it_was_written() {
        let text = r#"{"a":[1,2.5,-3,true,null,"x"],"b":{"c":9007199254740992}}"#;
        let object: Struct = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&object).unwrap(), text);
        let decoded = Struct::decode(object.encode_to_vec().as_slice()).unwrap();
        assert_eq!(decoded, object);
        assert!(serde_json::from_str::<Struct>("[1]").is_err());
    }

    #[test]
    fn the_wire_form_is_that_of_the_standard_types() {
        let object: Struct = serde_json::from_str(r#"{"n":1,"l":[null]}"#).unwrap();
        let standard = pbjson_types::Struct::decode(object.encode_to_vec().as_slice()).unwrap();
        assert_eq!(serde_json::to_value(&standard).unwrap(), serde_json::json!({"n": 1.0, "l": [null]}));
    }
}
