//! What is wrong with a body or a query string, in plain words.
//!
//! The library that reads JSON describes values and types in the words of its
//! language; callers are told what they wrote and what is expected instead.

use std::borrow::Cow;

use crate::api::status::Failure;
use crate::domain::error_code::ErrorCode;
use crate::domain::nearest::nearest;

/// Characters of what a caller wrote that are shown to it again.
pub(super) const SHOWN: usize = 64;
/// Every number in a request is of this kind.
const NUMBER: &str = "a whole number from 0 to 4294967295";

type Error = serde_path_to_error::Error<serde_json::Error>;

/// The failure of a body.
pub(super) fn body(error: &Error) -> Failure {
    if !error.inner().is_data() {
        return not_json(error.inner());
    }
    data(error, "field", |_| None)
}

/// The failure of a query string. `written` tells how a parameter was written.
pub(super) fn query(error: &Error, written: impl Fn(&str) -> Option<String>) -> Failure {
    data(error, "parameter", written)
}

/// The failure of a text that is not JSON.
pub(super) fn not_json(error: &serde_json::Error) -> Failure {
    let at = format!("line {} column {}", error.line(), error.column());
    let text = if error.is_eof() {
        format!("the body is not JSON: it ends too early, at {at}; send one JSON object")
    } else {
        format!("the body is not JSON: {}, at {at}; send one JSON object", without_place(&error.to_string()))
    };
    Failure::new(ErrorCode::InvalidJson, text)
}

fn data(error: &Error, what: &str, written: impl Fn(&str) -> Option<String>) -> Failure {
    let (text, path) = (error.inner().to_string(), error.path().to_string());
    let text = without_place(&text);
    if let Some((name, known)) = text.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`')) {
        let path = written(name).unwrap_or_else(|| beside(&path, name));
        return unknown(&path, what, known);
    }
    // At the top there is no field to name.
    if path == "." {
        return match text.strip_prefix("duplicate field `").and_then(|rest| rest.split_once('`')) {
            Some((name, _)) => Failure::field(&snake(name), "it is given more than once"),
            None => Failure::new(ErrorCode::InvalidArgument, format!("the body: {}", plain(text))),
        };
    }
    Failure::field(&path, plain(text))
}

fn unknown(path: &str, what: &str, known: &str) -> Failure {
    let path: String = path.chars().take(SHOWN).collect();
    let name = path.rsplit('.').next().unwrap_or_default();
    // Each name stands there in camelCase as well.
    let known = || known.split('`').skip(1).step_by(2).filter(|name| !name.contains(|c: char| c.is_ascii_uppercase()));
    let guess = match nearest(&snake(name), known()).first() {
        Some(near) => format!("; did you mean `{near}`?"),
        None if known().next().is_none() => "; there are none here".to_owned(),
        None => format!("; there are {}", known().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")),
    };
    let text = format!("there is no {what} `{path}`{guess}");
    Failure::new(ErrorCode::UnknownField, text).violation(&path, "it is not known")
}

/// The path of a field in the object that a path names or whose field it names.
fn beside(path: &str, name: &str) -> String {
    match path.rsplit_once('.') {
        Some(("", _)) | None => name.to_owned(),
        Some((object, _)) => format!("{object}.{name}"),
    }
}

/// `pageToken` to `page_token`.
pub(super) fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

/// A text of the JSON library without its ` at line 1 column 2`.
fn without_place(text: &str) -> &str {
    let Some((before, place)) = text.rsplit_once(" at line ") else { return text };
    let is_place = place.split(" column ").all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    if is_place { before } else { text }
}

/// What is expected, and what was given.
fn plain(text: &str) -> String {
    let mismatch = text.strip_prefix("invalid type: ").or_else(|| text.strip_prefix("invalid value: "));
    if let Some((given, expected)) = mismatch.and_then(|rest| rest.rsplit_once(", expected ")) {
        return format!("it must be {}, not {}", expectation(expected), value(given));
    }
    // An integer in a text, or a value that is neither text nor such an integer.
    let numbers = ["invalid digit", "cannot parse integer", "number too", "data did not match any variant"];
    if numbers.iter().any(|begin| text.starts_with(begin)) {
        return format!("it must be {NUMBER}");
    }
    // A reason of this program's own.
    if text.contains(": it is ") { text.to_owned() } else { "it cannot be read".to_owned() }
}

fn expectation(expected: &str) -> &str {
    match expected {
        "a string" | "a borrowed string" => "a text in quotes",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "an object",
        "u32" => NUMBER,
        words if words.starts_with("struct ") => "an object",
        // `one of ..`, in this program's words.
        words => words,
    }
}

/// A value as it was written, but no more of it than a reader needs.
fn value(given: &str) -> Cow<'_, str> {
    let given = match given {
        "sequence" => "a list",
        "map" => "an object",
        other => ["string ", "integer ", "floating point ", "boolean "]
            .iter()
            .find_map(|kind| other.strip_prefix(kind))
            .unwrap_or(other)
            .trim_matches('`'),
    };
    if given.chars().count() <= SHOWN {
        return Cow::Borrowed(given);
    }
    Cow::Owned(format!("{}..", given.chars().take(SHOWN).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use protox::prost_reflect::{DescriptorPool, Kind};
    use serde::de::DeserializeOwned;
    use serde_json::json;

    use super::*;
    use crate::proto::{FILE_DESCRIPTOR_SET, admin, pb};

    fn wrong<T: DeserializeOwned>(text: &str) -> pb::ErrorDetail {
        let mut reader = serde_json::Deserializer::from_str(text);
        let Err(error) = serde_path_to_error::deserialize::<_, T>(&mut reader) else { panic!("{text} was read") };
        body(&error).to_detail()
    }

    #[test]
    fn a_wrong_value_is_told_in_plain_words() {
        for (text, field, words) in [
            (r#"{"to": 7}"#, "to", "it must be a text in quotes, not 7"),
            (r#"{"to": null}"#, "to", "it must be a text in quotes, not null"),
            (r#"{"to": ["a"]}"#, "to", "it must be a text in quotes, not a list"),
            (r#"{"to": {"a": 1}}"#, "to", "it must be a text in quotes, not an object"),
            (r#"{"allow_unencrypted": "yes"}"#, "allow_unencrypted", r#"it must be true or false, not "yes""#),
            (r#"{"mentions": "bob"}"#, "mentions", r#"it must be a list, not "bob""#),
            (r#"{"mentions": [1]}"#, "mentions[0]", "it must be a text in quotes, not 1"),
            (r#"{"meta": 1.5}"#, "meta", "it must be an object, not 1.5"),
            (r#"{"priority": "soon"}"#, "priority", r#"it must be one of `now`, `next`, `low`, not "soon""#),
            (r#"{"priority": 9}"#, "priority", "it must be one of `now`, `next`, `low`, not 9"),
            (r#"{"to": "a", "to": "b"}"#, "to", "it is given more than once"),
            (r#"{"replyToId": "a", "reply_to_id": "b"}"#, "reply_to_id", "it is given more than once"),
        ] {
            let detail = wrong::<pb::SendRequest>(text);
            let violation = &detail.field_violations[0];
            assert_eq!((violation.field.as_str(), violation.description.as_str()), (field, words), "{text}");
            assert_eq!(detail.code, "invalid_argument", "{text}");
        }
        let number = "it must be a whole number from 0 to 4294967295";
        for value in [r#""ten""#, r#""""#, "-1", "1.5", "true", "null", "5000000000", r#""5000000000""#, "[]", "{}"] {
            let detail = wrong::<pb::ListMessagesRequest>(&format!(r#"{{"limit": {value}}}"#));
            assert_eq!(detail.field_violations[0].description, number, "{value}");
        }
        let detail = wrong::<pb::ListMessagesRequest>(r#"{"since": "yesterday"}"#);
        assert!(detail.message.contains("not an RFC 3339 time"), "{}", detail.message);
        assert_eq!(wrong::<pb::SendRequest>("[]").message, "the body: it must be an object, not a list");
    }

    #[test]
    fn a_long_value_is_not_given_back() {
        let detail = wrong::<pb::SendRequest>(&format!(r#"{{"priority": "{}"}}"#, "x".repeat(1_000_000)));
        assert!(detail.message.len() < 250, "{}", detail.message.len());
        let detail = wrong::<pb::SendRequest>(&format!(r#"{{"{}": 1}}"#, "x".repeat(1_000_000)));
        assert!(detail.message.len() < 500, "{}", detail.message.len());
    }

    #[test]
    fn an_unknown_field_is_named_with_the_nearest_or_all() {
        let detail = wrong::<pb::SendRequest>(r#"{"to": "bob", "masage": "x"}"#);
        assert_eq!((detail.code.as_str(), detail.field_violations[0].field.as_str()), ("unknown_field", "masage"));
        assert_eq!(detail.message, "there is no field `masage`; did you mean `message`?");
        let detail = wrong::<pb::SubscribeTopicRequest>(r#"{"zzzzzz": 1}"#);
        assert_eq!(detail.message, "there is no field `zzzzzz`; there are `topic`");
        assert_eq!(wrong::<pb::HeartbeatRequest>(r#"{"x": 1}"#).message, "there is no field `x`; there are none here");
    }

    #[test]
    fn a_text_that_is_no_json_is_told_with_its_place() {
        for (text, words) in
            [("{", "it ends too early, at line 1 column 1"), ("{]", "at line 1 column 2"), ("", "early")]
        {
            let detail = wrong::<pb::SendRequest>(text);
            assert_eq!(detail.code, "invalid_json", "{text}");
            assert!(
                detail.message.contains(words) && detail.message.ends_with("send one JSON object"),
                "{}",
                detail.message
            );
        }
    }

    /// Whatever is written into whatever field, the answer has no word of the language
    /// that this program is written in.
    #[test]
    fn no_answer_speaks_the_programs_language() {
        fn check<T: DeserializeOwned>(fields: &[&str]) {
            let values = [
                json!(null),
                json!(true),
                json!(-1),
                json!(1.5),
                json!(1e30),
                json!("x"),
                json!([[1]]),
                json!({"a": 1}),
            ];
            for (field, value) in fields.iter().flat_map(|field| values.iter().map(move |value| (field, value))) {
                let text = json!({ *field: value }).to_string();
                if serde_json::from_str::<T>(&text).is_ok() {
                    continue;
                }
                let said = wrong::<T>(&text).message;
                for word in
                    ["u32", "i32", "struct", "variant", "digit", "sequence", "invalid", "parse", "expected", "borrowed"]
                {
                    assert!(!said.contains(word), "{text}: {said}");
                }
            }
        }
        check::<pb::ListMessagesRequest>(&["since", "topic", "sender", "after", "limit", "order"]);
        check::<pb::ListPeersRequest>(&["include_offline", "roles", "limit", "mesh"]);
        check::<admin::ListOutboxRequest>(&["statuses", "limit", "page_token"]);
        check::<admin::RequeueEntryRequest>(&[
            "id",
            "auto_client_message_id",
            "new_client_message_id",
            "patched_message",
        ]);
    }

    #[test]
    fn every_number_of_a_request_is_of_one_kind() {
        let pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET).unwrap();
        let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
        let own = methods.filter(|method| method.full_name().starts_with("claudemesh."));
        for field in own.flat_map(|method| method.input().fields().collect::<Vec<_>>()) {
            let is_other = matches!(
                field.kind(),
                Kind::Int32 | Kind::Int64 | Kind::Uint64 | Kind::Double | Kind::Float | Kind::Sint32
            );
            assert!(!is_other, "{}: its failures need words", field.full_name());
        }
    }
}
