//! Requests from JSON bodies and query strings, answers to JSON.

use axum::Json;
use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use http::request::Parts;
use http::{HeaderMap, Uri, header};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::api::service::Services;
use crate::api::status::Failure;
use crate::domain::error_code::ErrorCode;
use crate::domain::nearest::nearest;

/// The header that names a send (R143).
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// A request from its JSON body. An empty body is an empty object.
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Services> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, services: &Services) -> Result<Self, Failure> {
        let kind = request.headers().get(header::CONTENT_TYPE).map(|value| is_json(value.as_bytes()));
        let limit = services.limits().body_bytes;
        let bytes = to_bytes(request.into_body(), limit).await.map_err(|error| unreadable(&error, limit))?;
        if bytes.is_empty() {
            return from_value(Value::Object(Map::new())).map(Self);
        }
        if kind != Some(true) {
            let text = "the body must come with `Content-Type: application/json`";
            return Err(Failure::new(ErrorCode::UnsupportedMediaType, text));
        }
        let mut text = serde_json::Deserializer::from_slice(&bytes);
        let request = serde_path_to_error::deserialize(&mut text).map_err(|error| wrong_json(&error))?;
        let rest = text.end().map_err(|error| Failure::new(ErrorCode::InvalidJson, not_json(&error)));
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
        let Query(pairs) = Query::try_from_uri(&parts.uri)
            .map_err(|error| Failure::new(ErrorCode::InvalidArgument, format!("the query string: {error}")))?;
        Ok(Self { pairs, path: path_of(&parts.uri) })
    }
}

fn path_of(uri: &Uri) -> String {
    uri.path().to_owned()
}

// === impl Parameters ===

impl Parameters {
    /// The request that the parameters mean. Numbers, times and enums are read
    /// from text by the message itself; `flags` name its booleans, and `lists`
    /// its lists, which take several values, by comma or by repeating them.
    pub fn into_request<T: DeserializeOwned>(&self, flags: &[&str], lists: &[&str]) -> Result<T, Failure> {
        let mut fields = Map::new();
        for (name, text) in &self.pairs {
            let name = if name == "from" { "sender" } else { name };
            let value = if lists.contains(&name) {
                let words = text.split(',').filter(|word| !word.is_empty()).map(|word| Value::from(word.trim()));
                match fields.remove(name) {
                    Some(Value::Array(before)) => before.into_iter().chain(words).collect(),
                    _ => words.collect(),
                }
            } else if flags.contains(&name) {
                match text.as_str() {
                    "true" | "1" | "" => Value::from(true),
                    "false" | "0" => Value::from(false),
                    _ => return Err(Failure::field(name, "it must be true or false")),
                }
            } else {
                Value::from(text.as_str())
            };
            if fields.insert(name.to_owned(), value).is_some() {
                return Err(Failure::field(name, "it is given more than once"));
            }
        }
        from_value(Value::Object(fields))
    }

    /// The `Link` header to the next page: the same request with its token.
    pub fn next_link(&self, token: &str) -> String {
        let mut link = format!("<{}?", self.path);
        for (name, value) in self.pairs.iter().filter(|(name, _)| name != "page_token" && name != "pageToken") {
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

fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Failure> {
    serde_path_to_error::deserialize(value).map_err(|error| wrong_json(&error))
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

/// What is wrong with a body or a query string, and in which field.
fn wrong_json(error: &serde_path_to_error::Error<serde_json::Error>) -> Failure {
    let (inner, path) = (error.inner(), error.path().to_string());
    if !inner.is_data() {
        return Failure::new(ErrorCode::InvalidJson, not_json(inner));
    }
    let text = inner.to_string();
    if let Some((field, rest)) = text.strip_prefix("unknown field `").and_then(|rest| rest.split_once('`')) {
        let near = nearest(field, rest.split('`').skip(1).step_by(2));
        let guess = near.first().map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        return Failure::new(ErrorCode::UnknownField, format!("{text}{guess}")).violation(field, "it is not known");
    }
    // At the top there is no field to name.
    if path == "." { Failure::new(ErrorCode::InvalidArgument, text) } else { Failure::field(&path, text) }
}

fn not_json(error: &serde_json::Error) -> String {
    format!("the body is not JSON: {error}; send one JSON object")
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
        let uri: Uri = format!("/v1/x?{query}").parse().unwrap();
        let Query(pairs) = Query::try_from_uri(&uri).unwrap();
        Parameters { pairs, path: path_of(&uri) }
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
        for bad in [r#""abc"#, r#""a"b""#, r#""a\b""#, r#"""#] {
            assert_eq!(idempotency_key(bad.as_bytes()).unwrap_err().code(), ErrorCode::IdempotencyKeyInvalid, "{bad}");
        }
    }
}
