//! The API's types, generated from `proto/`.
//!
//! What it is for: one definition for gRPC, REST, reflection and the SDKs.
//! What runs here: nothing.
//! What it guarantees about JSON: names as in the definition, camelCase read as
//! well; unknown fields are errors; fields with default values are printed;
//! 64-bit integers are strings, all others numbers; enums are the short names
//! (`now`), and the long ones (`PRIORITY_NOW`) and numbers are read as well;
//! times are RFC 3339 ending in `Z`. `null` means absent for messages and
//! `optional` fields and is an error for all others.
//! What it must not do: know the rest of the crate.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, Unexpected, Visitor};

pub use self::claudemesh::admin::v1 as admin;
pub use self::claudemesh::v1 as pb;

/// Descriptors of every file in `proto/` and of what they import.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.binpb"));

/// The major version of the API (R407).
pub const API_VERSION: &str = "v1";

/// The packages, nested as the generated code expects them.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::allow_attributes_without_reason, reason = "generated code")]
mod claudemesh {
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/claudemesh.v1.rs"));
        include!(concat!(env!("OUT_DIR"), "/claudemesh.v1.serde.rs"));
    }

    pub mod admin {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/claudemesh.admin.v1.rs"));
            include!(concat!(env!("OUT_DIR"), "/claudemesh.admin.v1.serde.rs"));
        }
    }
}

/// An enum that JSON writes with short names.
trait ShortNames: Copy + Into<i32> + TryFrom<i32> {
    /// Number, short name and name in the definition of each value.
    const NAMES: &'static [(i32, &'static str, &'static str)];
}

macro_rules! short_names {
    ($type:path; $($number:literal => $short:literal | $long:literal,)+) => {
        impl ShortNames for $type {
            const NAMES: &'static [(i32, &'static str, &'static str)] = &[$(($number, $short, $long),)+];
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                write_short(*self, serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(NameVisitor(PhantomData))
            }
        }
    };
}

include!(concat!(env!("OUT_DIR"), "/enums.rs"));

mod methods {
    include!(concat!(env!("OUT_DIR"), "/methods.rs"));
}

/// The path of every gRPC method that is defined, such as
/// `/claudemesh.v1.MessagingService/Send`; sorted.
pub use self::methods::METHODS;

fn write_short<E: ShortNames, S: serde::Serializer>(value: E, serializer: S) -> Result<S::Ok, S::Error> {
    let number = value.into();
    match E::NAMES.iter().find(|(known, ..)| *known == number) {
        Some((_, short, _)) => serializer.serialize_str(short),
        None => serializer.serialize_i32(number),
    }
}

/// Reads a value by its short name, its long name or its number.
struct NameVisitor<E>(PhantomData<E>);

impl<E: ShortNames> NameVisitor<E> {
    fn by_number<X: serde::de::Error>(self, number: Option<i32>, given: Unexpected<'_>) -> Result<E, X> {
        number.and_then(|number| E::try_from(number).ok()).ok_or_else(|| X::invalid_value(given, &self))
    }
}

impl<E: ShortNames> Visitor<'_> for NameVisitor<E> {
    type Value = E;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one of")?;
        // The first value means "not given"; nobody has to write it.
        for (at, (_, short, _)) in E::NAMES.iter().skip(1).enumerate() {
            write!(f, "{} `{short}`", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }

    fn visit_str<X: serde::de::Error>(self, text: &str) -> Result<E, X> {
        let number =
            E::NAMES.iter().find(|(_, short, long)| text == *short || text == *long).map(|(number, ..)| *number);
        self.by_number(number, Unexpected::Str(text))
    }

    fn visit_u64<X: serde::de::Error>(self, number: u64) -> Result<E, X> {
        self.by_number(i32::try_from(number).ok(), Unexpected::Unsigned(number))
    }

    fn visit_i64<X: serde::de::Error>(self, number: i64) -> Result<E, X> {
        self.by_number(i32::try_from(number).ok(), Unexpected::Signed(number))
    }
}

/// Well-known types of Protobuf that have a better JSON form here.
pub mod wkt {
    use chrono::{DateTime, SecondsFormat};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

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
            text.parse().map_err(|reason| serde::de::Error::custom(format_args!("`{text}`: {reason}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::pb;
    use super::wkt::Timestamp;

    fn read(value: Value) -> Result<pb::SendRequest, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn enums_are_written_short_and_read_in_every_form() {
        for form in [json!("now"), json!("PRIORITY_NOW"), json!(1)] {
            assert_eq!(read(json!({ "priority": form })).unwrap().priority(), pb::Priority::Now);
        }
        for wrong in [json!("NOW"), json!("soon"), json!(9), json!(-1), json!(true), json!(1.5)] {
            let error = read(json!({ "priority": wrong })).unwrap_err();
            assert!(error.contains("one of `now`, `next`, `low`"), "{error}");
        }
        let written = serde_json::to_value(pb::SendRequest { priority: 3, ..Default::default() }).unwrap();
        assert_eq!(written["priority"], "low");
    }

    #[test]
    fn names_are_snake_case_and_camel_case_is_read() {
        let request =
            read(json!({ "to": "bob", "message": "hi", "replyToId": "a", "client_message_id": "b" })).unwrap();
        assert_eq!((request.reply_to_id.as_str(), request.client_message_id.as_str()), ("a", "b"));
        let written = serde_json::to_value(&request).unwrap();
        assert_eq!(written["reply_to_id"], "a");
        assert_eq!(written["allow_unencrypted"], false, "defaults are printed");
        let filter: pb::ListMessagesRequest = serde_json::from_value(json!({ "from": "bob" })).unwrap();
        assert_eq!(filter.from_peer, "bob");
    }

    // Covers: R84
    #[test]
    fn unknown_fields_are_refused() {
        assert!(read(json!({ "to": "bob", "massage": "hi" })).unwrap_err().contains("massage"));
        let error = serde_json::from_value::<pb::SetProfileRequest>(json!({ "name": "x" })).unwrap_err();
        assert!(error.to_string().contains("name"), "{error}");
    }

    #[test]
    fn null_is_absence_only_where_absence_means_something() {
        assert_eq!(read(json!({ "meta": null })).unwrap().meta, None);
        assert!(read(json!({ "message": null })).unwrap_err().contains("null"));
        let profile: pb::SetProfileRequest = serde_json::from_value(json!({ "summary": null })).unwrap();
        assert_eq!(profile.summary, None);
    }

    #[test]
    fn times_end_in_z_and_any_offset_is_read() {
        for (written, read) in [
            ("2026-11-23T12:00:00Z", "2026-11-23T12:00:00Z"),
            ("2026-11-23T12:00:00.250Z", "2026-11-23T14:00:00.25+02:00"),
        ] {
            let time: Timestamp = serde_json::from_value(json!(read)).unwrap();
            assert_eq!(serde_json::to_value(time).unwrap(), written);
            assert_eq!(Timestamp::from_unix_ms(time.to_unix_ms().unwrap()), time);
        }
        assert_eq!(serde_json::to_value(Timestamp::from_unix_ms(-1)).unwrap(), "1969-12-31T23:59:59.999Z");
        for bad in ["yesterday", "2026-11-23", "2026-11-23T12:00:00"] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad}");
        }
        assert_eq!(Timestamp { seconds: i64::MAX, nanos: 0 }.to_unix_ms(), None);
        assert_eq!(Timestamp { seconds: 0, nanos: -1 }.to_unix_ms(), None);
    }

    #[test]
    fn sizes_beyond_32_bits_are_strings() {
        let pruned = super::admin::PruneOutboxResponse { entries: 1, freed_bytes: 5, confirmed: true };
        assert_eq!(
            serde_json::to_value(&pruned).unwrap(),
            json!({ "entries": 1, "freed_bytes": "5", "confirmed": true })
        );
    }
}
