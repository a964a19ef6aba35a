//! What is known of a request before it is handled.

use std::borrow::Cow;

use axum::extract::MatchedPath;
use http::{HeaderMap, Method, Request, Uri, header};

use super::status::Failure;
use super::trace;
use crate::domain::error_code::ErrorCode;
use crate::proto;
use crate::runtime::ids::IdSource;

/// Longest id that a caller may give its request, in bytes.
const MAX_REQUEST_ID: usize = 128;
/// Methods of other packages that are served too.
const STANDARD_METHODS: [&str; 5] = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/List",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// How a connection came in. Each connection carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// Over the Unix socket.
    Unix {
        /// User id of the peer.
        uid: u32,
        /// Process id of the peer, where the system tells it.
        pid: Option<i32>,
    },
    /// Over loopback TCP.
    Tcp {
        /// Port of the peer.
        peer_port: u16,
    },
    /// Over the socket of a hook run.
    Hook,
}

/// What the caller speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC: failures are trailers-only statuses.
    Grpc,
    /// Everything else: failures are problem documents.
    Rest,
}

/// The id of a request: the caller's `X-Request-Id`, or a ULID. Given back with
/// the answer and written to the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(pub String);

/// A request, as far as the gate looks at it.
#[derive(Clone, Debug)]
pub struct Call {
    /// Its id.
    pub id: RequestId,
    /// How it came in.
    pub via: Via,
    /// What the caller speaks.
    pub protocol: Protocol,
    /// The call's name in the metrics: the route, or the gRPC method; `other`
    /// for what does not exist.
    pub endpoint: Cow<'static, str>,
    /// The HTTP method.
    pub method: Method,
    /// What was asked for.
    pub uri: Uri,
    /// A credential was presented.
    pub has_credential: bool,
    /// Its messages are said to be compressed.
    pub is_compressed: bool,
    /// The trace that it belongs to.
    pub trace_id: Option<String>,
}

// === impl Via ===

impl Via {
    /// The name in metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unix { .. } => "uds",
            Self::Tcp { .. } => "tcp",
            Self::Hook => "hook",
        }
    }

    #[cfg(test)]
    pub fn unix() -> Self {
        Self::Unix { uid: 1000, pid: Some(1) }
    }

    #[cfg(test)]
    pub fn tcp() -> Self {
        Self::Tcp { peer_port: 40_000 }
    }
}

// === impl Protocol ===

impl Protocol {
    /// What a request's headers say.
    pub fn of(headers: &HeaderMap) -> Self {
        let is_grpc = media_type(headers).starts_with(GRPC) && !is_grpc_web(headers);
        if is_grpc { Self::Grpc } else { Self::Rest }
    }

    /// Why a request is not handled at all: what it says it is does not fit what it
    /// asks for.
    pub fn refuse(self, path: &str, headers: &HeaderMap) -> Option<Failure> {
        let text = match self {
            Self::Rest if is_grpc_web(headers) => {
                "gRPC-Web is not served; call with gRPC (`Content-Type: application/grpc`), or use the REST route of the \
                 call"
                    .to_owned()
            }
            Self::Rest => {
                known_method(path)?;
                format!("{path} is a gRPC method; it takes `Content-Type: application/grpc`")
            }
            Self::Grpc => match media_type(headers).get(GRPC.len()..).unwrap_or_default() {
                b"" | b"+proto" => return None,
                _ => "messages are in Protobuf, `Content-Type: application/grpc` or `application/grpc+proto`".to_owned(),
            },
        };
        Some(Failure::new(ErrorCode::UnsupportedMediaType, text))
    }
}

// === impl Call ===

impl Call {
    /// Looks at a request.
    pub fn of<B>(request: &Request<B>, via: Via, ids: &IdSource) -> Self {
        let headers = request.headers();
        let protocol = Protocol::of(headers);
        let endpoint = match protocol {
            Protocol::Grpc => known_method(request.uri().path()).map(Cow::Borrowed),
            Protocol::Rest => match request.extensions().get::<MatchedPath>() {
                // Routes of gRPC services, reached without gRPC.
                Some(matched) if !matched.as_str().contains("{*") => Some(Cow::Owned(matched.as_str().to_owned())),
                _ => None,
            },
        };
        Self {
            id: RequestId::of(headers, ids),
            via,
            protocol,
            endpoint: endpoint.unwrap_or(Cow::Borrowed("other")),
            method: request.method().clone(),
            uri: request.uri().clone(),
            has_credential: headers.contains_key(header::AUTHORIZATION),
            is_compressed: headers.contains_key("grpc-encoding"),
            trace_id: trace::of_headers(headers).map(str::to_owned),
        }
    }

    /// The path, without the query.
    pub fn path(&self) -> &str {
        self.uri.path()
    }
}

const GRPC: &[u8] = b"application/grpc";

/// The media type without its parameters, in lower case.
fn media_type(headers: &HeaderMap) -> Vec<u8> {
    let value = headers.get(header::CONTENT_TYPE).map(http::HeaderValue::as_bytes).unwrap_or_default();
    value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase()
}

fn is_grpc_web(headers: &HeaderMap) -> bool {
    media_type(headers).starts_with(b"application/grpc-web")
}

/// The gRPC method of this API or of the standard services that a path names.
fn known_method(path: &str) -> Option<&'static str> {
    proto::METHODS.iter().chain(&STANDARD_METHODS).find(|method| **method == path).copied()
}

// === impl RequestId ===

impl RequestId {
    fn of(headers: &HeaderMap, ids: &IdSource) -> Self {
        let given = headers.get("x-request-id").and_then(|value| value.to_str().ok());
        match given {
            Some(id) if (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Self(id.to_owned())
            }
            _ => Self(ids.ulid()),
        }
    }
}
