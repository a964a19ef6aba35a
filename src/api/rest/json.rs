//! Requests from JSON bodies and query strings, answers to JSON.

use axum::Json;
use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use http::request::Parts;
use http::{HeaderMap, Uri, header};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::wrong;
use crate::api::service::Services;
use crate::api::status::Failure;
use crate::domain::error_code::ErrorCode;

/// The header that names a send (R143).
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Other names of parameters, which query strings have and bodies have not.
const ALIASES: [(&str, &str); 1] = [("from", "sender")];

/// A request from its JSON body. An empty body is an empty object. Beside it there are
/// no parameters.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Services> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, services: &Services) -> Result<Self, Failure> {
        no_parameters(request.uri())?;
        not_compressed(request.headers())?;
        let kind = request.headers().get(header::CONTENT_TYPE).map(|value| is_json(value.as_bytes()));
        let limit = services.limits().body_bytes;
        let bytes = to_bytes(request.into_body(), limit).await.map_err(|error| unreadable(&error, limit))?;
        if bytes.is_empty() {
            return serde_json::from_value(Value::Object(Map::new())).map(Self).map_err(|_| Failure::internal());
        }
        if kind != Some(true) {
            let text = "the body must come with `Content-Type: application/json`";
            return Err(Failure::new(ErrorCode::UnsupportedMediaType, text));
        }
        let mut text = serde_json::Deserializer::from_slice(&bytes);
        let request = serde_path_to_error::deserialize(&mut text).map_err(|error| wrong::body(&error))?;
        let rest = text.end().map_err(|error| wrong::not_json(&error));
        rest.map(|()| Self(request))
    }
}

/// The parameters of a query string, for [`Parameters::into_request`].
pub struct Parameters {
    pairs: Vec<(String, String)>,
    path: String,
}

impl<S: Sync> FromRequestParts<S> for Parameters {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        Self::of(&parts.uri)
    }
}

/// There are no parameters.
pub struct NoParameters;

impl<S: Sync> FromRequestParts<S> for NoParameters {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        no_parameters(&parts.uri).map(|()| Self)
    }
}

// === impl Parameters ===

impl Parameters {
    fn of(uri: &Uri) -> Result<Self, Failure> {
        let Query(pairs) = Query::try_from_uri(uri)
            .map_err(|_| Failure::new(ErrorCode::InvalidArgument, "the query string cannot be read"))?;
        Ok(Self { pairs, path: uri.path().to_owned() })
    }

    /// The request that the parameters mean. Numbers, times and enums are read
    /// from text by the message itself; `flags` name its booleans, and `lists`
    /// its lists, which take several values, by comma or by repeating them.
    pub fn into_request<T: DeserializeOwned>(&self, flags: &[&str], lists: &[&str]) -> Result<T, Failure> {
        let mut fields = Map::new();
        for (written, text) in &self.pairs {
            let name = field_of(written);
            let value = if lists.contains(&name.as_str()) {
                let words = text.split(',').filter(|word| !word.is_empty()).map(|word| Value::from(word.trim()));
                match fields.remove(&name) {
                    Some(Value::Array(before)) => before.into_iter().chain(words).collect(),
                    _ => words.collect(),
                }
            } else if flags.contains(&name.as_str()) {
                match text.as_str() {
                    "true" | "1" | "" => Value::from(true),
                    "false" | "0" => Value::from(false),
                    _ => return Err(Failure::field(&name, "it must be true or false")),
                }
            } else {
                Value::from(text.as_str())
            };
            if fields.insert(name.clone(), value).is_some() {
                return Err(Failure::field(&name, "it is given more than once"));
            }
        }
        serde_path_to_error::deserialize(Value::Object(fields)).map_err(|error| {
            // An unknown one is named as it was written.
            let written = |name: &str| self.pairs.iter().map(|(own, _)| own).find(|own| field_of(own) == name).cloned();
            wrong::query(&error, written)
        })
    }

    /// The `Link` header to the next page: the same request with its token.
    pub fn next_link(&self, token: &str) -> String {
        let mut link = format!("<{}?", self.path);
        for (name, value) in self.pairs.iter().filter(|(name, _)| field_of(name) != "page_token") {
            link.push_str(&format!("{}={}&", escaped(name), escaped(value)));
        }
        link.push_str(&format!("page_token={}>; rel=\"next\"", escaped(token)));
        link
    }
}

/// A page, with a `Link` to the next one.
pub fn page<T>(parameters: &Parameters, body: T, next_page_token: &str) -> (HeaderMap, Json<T>) {
    let mut headers = HeaderMap::new();
    if !next_page_token.is_empty()
        && let Ok(link) = parameters.next_link(next_page_token).parse()
    {
        headers.insert(header::LINK, link);
    }
    (headers, Json(body))
}

/// The key of a request's one `Idempotency-Key` header; `None` without one.
pub fn key_of(headers: &HeaderMap) -> Result<Option<String>, Failure> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    match (keys.next(), keys.next()) {
        (None, _) => Ok(None),
        (Some(key), None) => idempotency_key(key.as_bytes()).map(Some),
        (Some(_), Some(_)) => {
            Err(Failure::new(ErrorCode::IdempotencyKeyInvalid, "there is more than one Idempotency-Key"))
        }
    }
}

/// The value of an Idempotency-Key: a quoted string as its standard wants it, or
/// bare text as most clients send it.
pub fn idempotency_key(value: &[u8]) -> Result<String, Failure> {
    let wrong = |reason: &str| Failure::new(ErrorCode::IdempotencyKeyInvalid, format!("the Idempotency-Key {reason}"));
    let text = str::from_utf8(value).map_err(|_| wrong("is not ASCII"))?.trim();
    let Some(quoted) = text.strip_prefix('"') else { return Ok(text.to_owned()) };
    let inner = quoted.strip_suffix('"').ok_or_else(|| wrong("has no closing quote"))?;
    let (mut key, mut letters) = (String::with_capacity(inner.len()), inner.chars());
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some(escaped @ ('"' | '\\')) => key.push(escaped),
                _ => return Err(wrong("has a backslash before something else than a quote or a backslash")),
            },
            '"' => return Err(wrong("goes on after its closing quote")),
            other => key.push(other),
        }
    }
    Ok(key)
}

/// The field that a parameter means: the same name, in camelCase, or another one.
fn field_of(parameter: &str) -> String {
    let name = wrong::snake(parameter);
    ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, field)| (*field).to_owned())
}

fn no_parameters(uri: &Uri) -> Result<(), Failure> {
    let Parameters { pairs, path } = Parameters::of(uri)?;
    let Some((name, _)) = pairs.first() else { return Ok(()) };
    let name: String = name.chars().take(wrong::SHOWN).collect();
    let text = format!("{path} takes no parameters, and `{name}` is one");
    Err(Failure::new(ErrorCode::UnknownField, text).violation(&name, "it is not known"))
}

/// Compressed bodies are not read: a few bytes could become many.
fn not_compressed(headers: &HeaderMap) -> Result<(), Failure> {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    if codings.all(|coding| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity")) {
        return Ok(());
    }
    let text = "the body is compressed (`Content-Encoding`), which this daemon does not read; send it as it is";
    Err(Failure::new(ErrorCode::UnsupportedMediaType, text))
}

fn is_json(content_type: &[u8]) -> bool {
    let kind = content_type.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    kind.eq_ignore_ascii_case(b"application/json")
}

fn unreadable(error: &axum::Error, limit: usize) -> Failure {
    let is_limit = std::error::Error::source(error).is_some_and(|cause| cause.is::<http_body_util::LengthLimitError>());
    if is_limit {
        let text = format!("the body is larger than {limit} bytes; send less, or raise [limits] request_body_bytes");
        return Failure::new(ErrorCode::PayloadTooLarge, text).with("limit_bytes", limit.to_string());
    }
    Failure::new(ErrorCode::InvalidJson, format!("the body ended early: {error}"))
}

/// A part of a query string.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::pb;

    fn parameters(query: &str) -> Parameters {
        Parameters::of(&format!("/v1/x?{query}").parse().unwrap()).unwrap()
    }

    #[test]
    fn parameters_are_read_like_bodies() {
        let query = "since=2026-11-23T12%3A00%3A00%2B01:00&from=bob%20b&limit=7&order=newest_first";
        let request: pb::ListMessagesRequest = parameters(query).into_request(&[], &[]).unwrap();
        assert_eq!((request.sender.as_str(), request.limit, request.order), ("bob b", 7, 2));
        assert_eq!(request.since.unwrap().seconds, 1_795_431_600);
        let request: pb::ListPeersRequest =
            parameters("include_offline=true&roles=session,service&roles=control_plane")
                .into_request(&["include_offline"], &["roles"])
                .unwrap();
        assert_eq!((request.include_offline, request.roles), (true, vec![2, 3, 1]));
    }

    #[test]
    fn names_of_parameters_are_read_in_camel_case_too() {
        let read = |query: &str| {
            parameters(query).into_request::<pb::ListPeersRequest>(&["include_offline"], &["roles"]).unwrap()
        };
        for query in ["page_token=t&include_offline=true", "pageToken=t&includeOffline", "pageToken=t&includeOffline=1"]
        {
            let request = read(query);
            assert_eq!((request.page_token.as_str(), request.include_offline), ("t", true), "{query}");
        }
        let twice = parameters("page_token=a&pageToken=b").into_request::<pb::ListPeersRequest>(&[], &[]).unwrap_err();
        assert_eq!(twice.code(), ErrorCode::InvalidArgument);
        let unknown = parameters("includeOfline=1").into_request::<pb::ListPeersRequest>(&[], &[]).unwrap_err();
        let detail = unknown.to_detail();
        assert_eq!(
            (detail.code.as_str(), detail.field_violations[0].field.as_str()),
            ("unknown_field", "includeOfline")
        );
        assert!(detail.message.contains("did you mean `include_offline`"), "{}", detail.message);
    }

    #[test]
    fn who_a_message_is_from_has_two_names_in_a_query() {
        for query in ["from=bob", "sender=bob"] {
            let request: pb::ListMessagesRequest = parameters(query).into_request(&[], &[]).unwrap();
            assert_eq!(request.sender, "bob");
        }
        let both = parameters("from=bob&sender=eve").into_request::<pb::ListMessagesRequest>(&[], &[]).unwrap_err();
        assert_eq!(both.code(), ErrorCode::InvalidArgument);
        // Where there is no sender there is no other name for it.
        let unknown = parameters("from=bob").into_request::<pb::ListPeersRequest>(&[], &[]).unwrap_err();
        assert_eq!(unknown.to_detail().field_violations[0].field, "from");
        assert!(serde_json::from_str::<pb::ListMessagesRequest>(r#"{"from": "bob"}"#).is_err());
    }

    #[test]
    fn wrong_parameters_are_named() {
        let read = |query: &str| {
            parameters(query).into_request::<pb::ListMessagesRequest>(&["flag"], &[]).map_err(|failure| failure.code())
        };
        assert_eq!(read("nope=1").unwrap_err(), ErrorCode::UnknownField);
        for wrong in ["limit=ten", "limit=-1", "since=yesterday", "limit=1&limit=2", "flag=maybe"] {
            assert_eq!(read(wrong).unwrap_err(), ErrorCode::InvalidArgument, "{wrong}");
        }
    }

    #[test]
    fn the_next_page_is_the_same_request_with_its_token() {
        let link = parameters("topic=a%26b&page_token=old&limit=5").next_link("01J-7");
        assert_eq!(link, "</v1/x?topic=a%26b&limit=5&page_token=01J-7>; rel=\"next\"");
    }

    #[test]
    fn idempotency_keys_are_quoted_or_bare() {
        for (value, key) in [("abc", "abc"), (" a-b ", "a-b"), (r#""abc""#, "abc"), (r#""a\"b\\c""#, r#"a"b\c"#)] {
            assert_eq!(idempotency_key(value.as_bytes()).unwrap(), key);
        }
        for empty in ["", " ", r#""""#] {
            assert_eq!(idempotency_key(empty.as_bytes()).unwrap(), "", "the caller gave one, and it is refused later");
        }
        for bad in [r#""abc"#, r#""a"b""#, r#""a\b""#, r#"""#] {
            assert_eq!(idempotency_key(bad.as_bytes()).unwrap_err().code(), ErrorCode::IdempotencyKeyInvalid, "{bad}");
        }
    }
}
