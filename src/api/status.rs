//! One failure, in every form that a caller may need.
//!
//! The table from code to statuses is `domain::error_code`; here it meets gRPC
//! (`google.rpc.ErrorInfo`, `RetryInfo`, `BadRequest`, and this API's `Candidates`)
//! and HTTP (RFC 9457). A handler returns a [`Failure`]; the gate, which knows the
//! caller, renders it.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use prost::Message as _;
use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::domain::error_code::ErrorCode;
use crate::domain::message::MessageError;
use crate::domain::roster::{Candidate, ResolveError};
use crate::proto::pb;
use crate::{outbox, peers};

/// The domain of `google.rpc.ErrorInfo`.
pub const DOMAIN: &str = "claudemesh";
/// Media type of a problem document.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// The type of the detail that names the members a destination may mean.
pub const CANDIDATES_TYPE: &str = "type.googleapis.com/claudemesh.v1.Candidates";

/// A call failed. Cheap to move.
#[derive(Clone, Debug)]
pub struct Failure(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    code: ErrorCode,
    message: String,
    metadata: BTreeMap<&'static str, String>,
    violations: Vec<Violation>,
    candidates: Vec<pb::Candidate>,
    retry_after: Option<Duration>,
}

/// A field whose value is not allowed.
#[derive(Clone, Debug, Serialize)]
pub struct Violation {
    /// Its name in the request, in snake_case.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

/// RFC 9457.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    instance: &'a str,
    code: &'a str,
    metadata: &'a BTreeMap<&'static str, String>,
    errors: &'a [Violation],
    candidates: &'a [pb::Candidate],
}

// === impl Failure ===

impl Failure {
    /// A failure with its text for people: what happened, where, what to do.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            code,
            message: message.into(),
            metadata: BTreeMap::new(),
            violations: Vec::new(),
            candidates: Vec::new(),
            retry_after: None,
        }))
    }

    /// A field's value is not allowed.
    pub fn field(field: &str, reason: impl Into<String>) -> Self {
        let reason = reason.into();
        Self::new(ErrorCode::InvalidArgument, format!("`{field}`: {reason}")).violation(field, reason)
    }

    /// The daemon does not serve the call (yet).
    pub fn not_served(what: &str) -> Self {
        Self::new(ErrorCode::NotServed, format!("this daemon (version {}) does not serve {what}", crate_version()))
    }

    /// A defect. The caller is told nothing but where to look.
    pub fn internal() -> Self {
        Self::new(ErrorCode::InternalError, "an internal error; the daemon's log says more, by the request's id")
    }

    /// Adds a fact under its stable name.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.0.metadata.insert(name, value.into());
        self
    }

    /// Adds a field that is wrong.
    pub fn violation(mut self, field: &str, description: impl Into<String>) -> Self {
        self.0.violations.push(Violation { field: field.to_owned(), description: description.into() });
        self
    }

    /// Adds members that a destination may mean.
    pub fn candidates(mut self, candidates: &[Candidate]) -> Self {
        self.0.candidates.extend(candidates.iter().map(|one| pb::Candidate {
            pubkey: one.key.to_hex(),
            name: one.name.clone(),
            member_id: one.member_id.to_string(),
        }));
        self
    }

    /// Says when a retry makes sense.
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.0.retry_after = Some(pause);
        self
    }

    /// Its code.
    pub fn code(&self) -> ErrorCode {
        self.0.code
    }

    /// As a gRPC status with details.
    pub fn to_status(&self) -> Status {
        let Inner { code, message, metadata, violations, candidates, retry_after } = &*self.0;
        let mut details = ErrorDetails::new();
        details.set_error_info(
            code.name(),
            DOMAIN,
            metadata
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone()))
                .collect::<std::collections::HashMap<_, _>>(),
        );
        if code.retryable() {
            details.set_retry_info(*retry_after);
        }
        for violation in violations {
            details.add_bad_request_violation(&violation.field, &violation.description);
        }
        let status = Status::with_error_details(Code::from_i32(code.grpc()), message, details);
        if candidates.is_empty() { status } else { with_candidates(&status, candidates) }
    }

    /// As a problem document. `instance` is the request's id.
    pub fn to_problem(&self, instance: &str) -> Response {
        let Inner { code, message, metadata, violations, candidates, retry_after } = &*self.0;
        let status = StatusCode::from_u16(code.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let problem = Problem {
            r#type: format!("urn:claudemesh:error:{}", code.name()),
            title: code.title(),
            status: status.as_u16(),
            detail: message,
            instance,
            code: code.name(),
            metadata,
            errors: violations,
            candidates,
        };
        // Strings and numbers only: it can be written.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = (status, Body::from(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if code.retryable() {
            // Whole seconds, rounded up: a retry must not come too early.
            let seconds = retry_after.unwrap_or(Duration::from_secs(1)).as_millis().div_ceil(1000).max(1);
            if let Ok(value) = HeaderValue::from_str(&seconds.to_string()) {
                headers.insert(header::RETRY_AFTER, value);
            }
        }
        if *code == ErrorCode::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"claudemesh\""));
        }
        response
    }

    /// As a message, for failures that must not end their call.
    pub fn to_detail(&self) -> pb::ErrorDetail {
        let Inner { code, message, metadata, violations, candidates, retry_after } = &*self.0;
        let pause = retry_after.filter(|_| code.retryable()).unwrap_or(Duration::ZERO);
        pb::ErrorDetail {
            code: code.name().to_owned(),
            message: message.clone(),
            metadata: metadata.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect(),
            retryable: code.retryable(),
            retry_after_ms: u32::try_from(pause.as_millis()).unwrap_or(u32::MAX),
            grpc_code: code.grpc().unsigned_abs(),
            candidates: candidates.clone(),
            field_violations: violations
                .iter()
                .map(|one| pb::FieldViolation { field: one.field.clone(), description: one.description.clone() })
                .collect(),
        }
    }
}

impl IntoResponse for Failure {
    /// A place-holder that the gate replaces: only it knows whether the caller
    /// speaks gRPC, and the request's id.
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.code.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<outbox::Error> for Failure {
    fn from(error: outbox::Error) -> Self {
        let mut failure = Self::new(error.code(), error.to_string());
        if let Some(id) = error.client_message_id() {
            failure = failure.with("client_message_id", id.as_str());
        }
        match error {
            outbox::Error::Request(MessageError::Missing(field)) => failure.violation(field, "it is missing or empty"),
            outbox::Error::Request(MessageError::Invalid { field, reason }) => failure.violation(field, reason),
            outbox::Error::Request(MessageError::TooLarge { max, .. }) => failure.with("limit_bytes", max.to_string()),
            outbox::Error::Destination(error) => failure.candidates(error.candidates()),
            outbox::Error::AmbiguousReply { candidates, .. } => failure.candidates(&candidates),
            outbox::Error::Conflict { fingerprint_prefix, broker_message_id, history_id, .. } => {
                failure = failure.with("fingerprint", fingerprint_prefix);
                for (name, value) in [("broker_message_id", broker_message_id), ("history_id", history_id)] {
                    if let Some(value) = value {
                        failure = failure.with(name, value);
                    }
                }
                failure
            }
            outbox::Error::Full { pressure, .. } => failure.with("measure", pressure.measure.name()),
            outbox::Error::Field { field, reason } => failure.violation(field, reason),
            outbox::Error::Busy(_) => failure.retry_after(Duration::from_millis(100)),
            _ => failure,
        }
    }
}

impl From<ResolveError> for Failure {
    fn from(error: ResolveError) -> Self {
        Self::new(error.code(), error.to_string()).candidates(error.candidates())
    }
}

impl From<peers::Error> for Failure {
    fn from(error: peers::Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// The status with one more detail, of a type that the library does not know.
fn with_candidates(status: &Status, candidates: &[pb::Candidate]) -> Status {
    let candidates = pb::Candidates { candidates: candidates.to_vec() };
    let detail = prost_types::Any { type_url: CANDIDATES_TYPE.to_owned(), value: candidates.encode_to_vec() };
    // What the library wrote can be read.
    let mut all = tonic_types::pb::Status::decode(status.details()).unwrap_or_default();
    all.details.push(detail);
    Status::with_details(status.code(), status.message(), all.encode_to_vec().into())
}

/// The version of this program.
pub fn crate_version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::ids::{MemberId, MemberKey};

    async fn problem(failure: &Failure) -> (http::HeaderMap, Value) {
        let response = failure.to_problem("req-1");
        let headers = response.headers().clone();
        let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (headers, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn every_code_says_the_same_in_both_transports() {
        for code in ErrorCode::ALL {
            let failure = Failure::new(*code, "what happened").with("client_message_id", "id-1");
            let status = failure.to_status();
            let details = status.get_error_details();
            let info = details.error_info().unwrap();
            assert_eq!((info.reason.as_str(), info.domain.as_str()), (code.name(), DOMAIN));
            assert_eq!(info.metadata["client_message_id"], "id-1");
            assert_eq!(i32::from(status.code()), code.grpc());
            assert_eq!(details.retry_info().is_some(), code.retryable(), "{code}");
            let (headers, body) = problem(&failure).await;
            assert_eq!(body["code"], code.name());
            assert_eq!(body["status"], code.http());
            assert_eq!(body["title"], code.title());
            assert_eq!(body["metadata"], json!({ "client_message_id": "id-1" }));
            assert_eq!(headers.contains_key("retry-after"), code.retryable(), "{code}");
            assert_eq!(headers["content-type"], PROBLEM_JSON);
        }
    }

    #[tokio::test]
    async fn a_pause_is_rounded_up_to_whole_seconds() {
        let failure = Failure::new(ErrorCode::DaemonBusy, "busy").retry_after(Duration::from_millis(1500));
        assert_eq!(problem(&failure).await.0["retry-after"], "2");
        assert_eq!(failure.to_detail().retry_after_ms, 1500);
    }

    #[tokio::test]
    async fn fields_that_are_wrong_are_listed() {
        let failure = Failure::from(outbox::Error::Request(MessageError::Missing("to")));
        let (_, body) = problem(&failure).await;
        assert_eq!(body["code"], "invalid_argument");
        assert_eq!(body["errors"], json!([{ "field": "to", "description": "it is missing or empty" }]));
        assert_eq!(failure.to_status().get_error_details().bad_request().unwrap().field_violations[0].field, "to");
        let failure = failure.violation("message", "it is too long");
        assert_eq!(problem(&failure).await.1["errors"].as_array().map(Vec::len), Some(2));
        assert_eq!(failure.to_detail().field_violations.len(), 2);
        assert_eq!(body["candidates"], json!([]));
    }

    #[tokio::test]
    async fn candidates_stand_in_every_form() {
        let (member_id, key) = (MemberId::parse("m1").unwrap(), MemberKey([7; 32]));
        let bob = Candidate { member_id, key, name: "Bob".to_owned(), removed: false };
        let error = ResolveError::Ambiguous { to: "07".to_owned(), candidates: vec![bob.clone(), bob], others: 0 };
        let failure = Failure::from(outbox::Error::from(error.clone()));
        let shown = json!({ "pubkey": key.to_hex(), "name": "Bob", "member_id": "m1" });
        let (_, body) = problem(&failure).await;
        assert_eq!((&body["candidates"], &body["metadata"]), (&json!([shown, shown]), &json!({})));
        let status = Failure::from(error).to_status();
        // Beside what the library writes, not in its place.
        assert_eq!(status.get_error_details().error_info().unwrap().reason, "ambiguous_peer");
        let details = tonic_types::pb::Status::decode(status.details()).unwrap().details;
        let any = details.iter().find(|any| any.type_url == CANDIDATES_TYPE).unwrap();
        let read = pb::Candidates::decode(any.value.as_slice()).unwrap();
        assert_eq!(read.candidates, failure.to_detail().candidates);
        assert_eq!(read.candidates[1].pubkey, key.to_hex());
    }
}
