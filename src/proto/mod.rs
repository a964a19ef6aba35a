//! The API's types, generated from `proto/`.
//!
//! What it is for: one definition for gRPC, REST, reflection and the SDKs.
//! What runs here: nothing.
//! What it guarantees: in JSON, names as in the definition, camelCase read as
//! well; unknown fields are errors; fields with default values are printed;
//! 64-bit integers are strings, all others numbers; enums are the short names
//! (`now`), and the long ones (`PRIORITY_NOW`) and numbers are read as well;
//! times are RFC 3339 ending in `Z`. `null` means absent for messages and
//! `optional` fields and is an error for all others.
//! What it must not do: know the rest of the crate.

pub mod wkt;

#[cfg(test)]
mod tests;

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
