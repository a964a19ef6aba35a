//! What every request passes first and every answer last, in one place: the
//! order of the checks is the order of the lines.
//!
//! It guarantees that nothing of a request is read before its caller is known to
//! be allowed, and that every failure has a code, the request's id and the form
//! that its caller understands.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use http::{HeaderName, HeaderValue, Request, StatusCode, header};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::auth;
use super::call::{Call, Protocol, Via};
use super::deadline::Deadline;
use super::guard::Guard;
use super::limits::{CallPermit, Limits};
use super::status::{Failure, PROBLEM_JSON};
use super::strangers::Admitted;
use crate::domain::error_code::ErrorCode;
use crate::hooks::Family;
use crate::identity::token::LocalToken;
use crate::runtime::clock::Clock;
use crate::runtime::ids::IdSource;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::names::target;

/// The program and its version, in every answer to an admitted call.
const SERVER: HeaderValue = HeaderValue::from_static(concat!("claudemesh/", env!("CARGO_PKG_VERSION")));
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Calls that are answered while the daemon stops, so that whoever waits for its
/// end learns of it.
const WHILE_STOPPING: [&str; 10] = [
    "/healthz",
    "/readyz",
    "/v1/health",
    "/v1/version",
    "/claudemesh.v1.ControlService/GetHealth",
    "/claudemesh.v1.ControlService/GetVersion",
    "/claudemesh.admin.v1.LifecycleService/GetStatus",
    "/claudemesh.admin.v1.LifecycleService/Shutdown",
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
];

/// What the gate needs.
#[derive(Clone, Debug)]
pub struct Gate {
    /// The browser's rules.
    pub guard: Guard,
    /// The bearer token of TCP.
    pub token: LocalToken,
    /// `[ipc] public_health_check` (R119).
    pub public_health: bool,
    /// The limits.
    pub limits: Limits,
    /// Cancelled when new work is refused.
    pub stopping: CancellationToken,
    /// Counts the calls.
    pub metrics: Metrics,
    /// Measures them.
    pub clock: Clock,
    /// Names them.
    pub ids: IdSource,
    /// Which processes belong to hooks.
    pub hooks: Family,
}

/// The gate as a layer around a router. A request without [`Via`] counts as come
/// over TCP, where the stricter rules hold.
pub async fn layer(State(gate): State<Arc<Gate>>, request: Request<Body>, next: Next) -> Response {
    let via = request.extensions().get().cloned().unwrap_or(Via::Tcp { peer_port: 0 });
    gate.pass(request, via, |request| next.run(request)).await
}

/// Runs the handler under the caller's deadline. A panic is a defect of the
/// handler; it must not end the connection and the calls beside it.
async fn run(call: &Call, deadline: Option<Deadline>, handler: impl Future<Output = Response>) -> Response {
    let handler = AssertUnwindSafe(handler).catch_unwind();
    let result = match deadline {
        None => handler.await,
        Some(Deadline(limit)) => match tokio::time::timeout(limit, handler).await {
            Ok(result) => result,
            Err(_) => {
                let text = "the call did not end within its deadline; it may still take effect";
                return Failure::new(ErrorCode::DeadlineExceeded, text).into_response();
            }
        },
    };
    result.unwrap_or_else(|_| {
        tracing::error!(request_id = call.id.0, endpoint = %call.endpoint, "The handler of {} panicked", call.endpoint);
        Failure::internal().into_response()
    })
}

// === impl Gate ===

impl Gate {
    /// Lets a request through to its handler, or answers it.
    pub async fn pass<B, F>(&self, mut request: Request<B>, via: Via, handler: impl FnOnce(Request<B>) -> F) -> Response
    where
        F: Future<Output = Response>,
    {
        let started = self.clock.monotonic();
        let call = Call::of(&request, via, &self.ids);
        let (permit, has_token) = match self.admit(&call, &request) {
            Ok(admitted) => admitted,
            // Who is turned away need not know what runs here.
            Err(failure) => return self.finish(&call, failure.into_response(), started),
        };
        let deadline = Deadline::of(request.headers()).filter(|_| call.protocol == Protocol::Grpc);
        if let Some(deadline) = deadline {
            request.extensions_mut().insert(deadline);
        }
        let response = match call.protocol.refuse(call.path(), request.headers()) {
            Some(failure) => failure.into_response(),
            None => run(&call, deadline, handler(request)).await,
        };
        drop(permit);
        let mut response = self.finish(&call, response, started);
        // A client of another version tells its user.
        response.headers_mut().insert(header::SERVER, SERVER);
        if has_token {
            response.extensions_mut().insert(Admitted);
        }
        response
    }

    /// Whether it may be done, and whether its caller has shown that it may call.
    fn admit<B>(&self, call: &Call, request: &Request<B>) -> Result<(CallPermit, bool), Failure> {
        let (uri, headers) = (request.uri(), request.headers());
        self.guard.check(&call.via, request.method(), uri, headers).inspect_err(|failure| warn(call, failure))?;
        self.refuse_hooks(&call.via).inspect_err(|failure| warn(call, failure))?;
        let is_public = self.public_health && call.endpoint == "/v1/health" && call.protocol == Protocol::Rest;
        if !is_public {
            auth::check(&call.via, headers, &self.token).inspect_err(|failure| warn(call, failure))?;
        }
        if self.stopping.is_cancelled() && !WHILE_STOPPING.contains(&&*call.endpoint) {
            let text = "the daemon is stopping; try again when it has been started again";
            return Err(Failure::new(ErrorCode::DaemonShuttingDown, text).retry_after(Duration::from_secs(1)));
        }
        self.limits.enter().map(|permit| (permit, !is_public))
    }

    /// The main socket asks for no token, so scopes would mean nothing there.
    fn refuse_hooks(&self, via: &Via) -> Result<(), Failure> {
        let Via::Unix { pid: Some(pid), .. } = via else { return Ok(()) };
        let Some(hook) = self.hooks.hook_of(*pid) else { return Ok(()) };
        let text = format!(
            "the caller is the hook {hook}; it may use the socket of its run, CLAUDEMESH_DAEMON_SOCK, with its token; \
             `user_cli = true` gives it this one"
        );
        Err(Failure::new(ErrorCode::HookProcessRefused, text))
    }

    /// Gives the answer its final form, counts and logs it.
    fn finish(&self, call: &Call, response: Response, started: Duration) -> Response {
        let (mut response, code) = rendered(call, response);
        if let Ok(mut id) = HeaderValue::from_str(&call.id.0) {
            // Not a secret: HTTP/2 keeps what is not sensitive in a table, and this
            // is never said again.
            id.set_sensitive(true);
            response.headers_mut().insert(REQUEST_ID, id);
        }
        let took = self.clock.monotonic().saturating_sub(started);
        let status = status_name(call.protocol, &response);
        self.metrics.call(call.endpoint.clone(), status, call.via.name(), took);
        log(call, status, code, took);
        response
    }
}

/// The answer as its caller understands it, and the code of a failure.
fn rendered(call: &Call, response: Response) -> (Response, Option<ErrorCode>) {
    let failure = response.extensions().get::<Failure>().cloned().or_else(|| unnamed_failure(call, &response));
    let Some(failure) = failure else { return (response, None) };
    let code = Some(failure.code());
    match call.protocol {
        Protocol::Grpc => (failure.to_status().into_http(), code),
        Protocol::Rest => {
            let mut problem = failure.to_problem(&call.id.0);
            if let Some(allow) = response.headers().get(header::ALLOW) {
                problem.headers_mut().insert(header::ALLOW, allow.clone());
            }
            (problem, code)
        }
    }
}

/// A failure that a library has answered with a bare status.
fn unnamed_failure(call: &Call, response: &Response) -> Option<Failure> {
    let path = call.path();
    match call.protocol {
        Protocol::Grpc => unhandled_call(call, response),
        Protocol::Rest => {
            // A method that its service does not know; those that it knows were refused before.
            if response.headers().contains_key("grpc-status") {
                return Some(Failure::new(ErrorCode::RouteNotFound, format!("there is no {path}")));
            }
            let is_problem = || response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == PROBLEM_JSON);
            let status = response.status();
            if !(status.is_client_error() || status.is_server_error()) || is_problem() {
                return None;
            }
            Some(match status {
                StatusCode::METHOD_NOT_ALLOWED => {
                    Failure::new(ErrorCode::MethodNotAllowed, format!("{path} is not served with {}", call.method))
                }
                StatusCode::NOT_FOUND => Failure::new(ErrorCode::RouteNotFound, format!("there is no {path}")),
                StatusCode::PAYLOAD_TOO_LARGE => {
                    Failure::new(ErrorCode::PayloadTooLarge, format!("the body of {path} is too large"))
                }
                StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                    Failure::new(ErrorCode::UnsupportedMediaType, format!("{path} does not take this content type"))
                }
                status if status.is_client_error() => {
                    Failure::new(ErrorCode::InvalidArgument, format!("{path} was refused with {status}"))
                }
                _ => Failure::internal(),
            })
        }
    }
}

/// The failure of a gRPC call that the library has answered: it does not know the
/// method, or could not read the message. All statuses
/// of handlers have details; those of the standard services are their own.
fn unhandled_call(call: &Call, response: &Response<Body>) -> Option<Failure> {
    let has_details = response.headers().contains_key("grpc-status-details-bin");
    let path = call.path();
    if has_details || !path.starts_with("/claudemesh.") {
        return None;
    }
    Some(match grpc_status(response)? {
        Code::OutOfRange => {
            let limit = super::limits::MAX_GRPC_MESSAGE;
            let text = format!("a message of {path} is larger than {limit} bytes; send it in parts");
            Failure::new(ErrorCode::PayloadTooLarge, text)
        }
        Code::Unimplemented if call.is_compressed => {
            let text = "the message is compressed (`grpc-encoding`), which this daemon does not read; send it as it is";
            Failure::new(ErrorCode::UnsupportedMediaType, text)
        }
        Code::Unimplemented => Failure::new(ErrorCode::RouteNotFound, format!("there is no method {path}")),
        Code::Internal => {
            let text = format!("the message cannot be read as the one that {path} takes");
            Failure::new(ErrorCode::InvalidArgument, text)
        }
        _ => return None,
    })
}

fn grpc_status(response: &Response<Body>) -> Option<Code> {
    let value = response.headers().get("grpc-status")?;
    Some(Code::from_bytes(value.as_bytes()))
}

/// The status in metrics and logs: a word of gRPC or a number of HTTP. A gRPC
/// call that fails after its headers counts as `ok`; its stream has a log line.
fn status_name(protocol: Protocol, response: &Response) -> &'static str {
    match protocol {
        Protocol::Grpc => match grpc_status(response).unwrap_or(Code::Ok) {
            Code::Ok => "ok",
            Code::Cancelled => "cancelled",
            Code::Unknown => "unknown",
            Code::InvalidArgument => "invalid_argument",
            Code::DeadlineExceeded => "deadline_exceeded",
            Code::NotFound => "not_found",
            Code::AlreadyExists => "already_exists",
            Code::PermissionDenied => "permission_denied",
            Code::ResourceExhausted => "resource_exhausted",
            Code::FailedPrecondition => "failed_precondition",
            Code::Aborted => "aborted",
            Code::OutOfRange => "out_of_range",
            Code::Unimplemented => "unimplemented",
            Code::Internal => "internal",
            Code::Unavailable => "unavailable",
            Code::DataLoss => "data_loss",
            Code::Unauthenticated => "unauthenticated",
        },
        Protocol::Rest => match response.status().as_u16() {
            200 => "200",
            202 => "202",
            400 => "400",
            401 => "401",
            403 => "403",
            404 => "404",
            405 => "405",
            409 => "409",
            413 => "413",
            415 => "415",
            429 => "429",
            500 => "500",
            501 => "501",
            503 => "503",
            504 => "504",
            507 => "507",
            100..=399 => "other_ok",
            _ => "other_error",
        },
    }
}

fn log(call: &Call, status: &'static str, code: Option<ErrorCode>, took: Duration) {
    let code = code.map(ErrorCode::name);
    let authorization = call.has_credential.then_some(auth::REDACTED);
    let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    tracing::debug!(
        target: target::ACCESS,
        request_id = call.id.0,
        transport = call.via.name(),
        method = call.method.as_str(),
        path = call.path(),
        status,
        code,
        authorization,
        trace_id = call.trace_id,
        took_us,
        "{} {} {status} in {took_us} us",
        call.method,
        call.path()
    );
}

/// A request that a page or another user may have caused.
fn warn(call: &Call, failure: &Failure) {
    let (uid, pid) = match call.via {
        Via::Unix { uid, pid } => (Some(uid), pid),
        Via::Tcp { .. } | Via::Hook => (None, None),
    };
    tracing::warn!(
        target: target::SECURITY,
        request_id = call.id.0,
        transport = call.via.name(),
        uid,
        pid,
        path = call.path(),
        authorization = call.has_credential.then_some(auth::REDACTED),
        code = failure.code().name(),
        "Refused {} {} over {}: {}",
        call.method,
        call.path(),
        call.via.name(),
        failure.code()
    );
}

#[cfg(test)]
mod tests;
