//! The HTTP calls to a broker: one connection each, with time limits.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::{Env, Error, route};
use crate::config::broker_url::BrokerUrl;
use crate::domain::foreign;
use crate::runtime::dial::{self, Dialer};

/// Time for one call as a whole. A join is a few database rows at the broker.
const LIMIT: Duration = Duration::from_secs(10);
/// Greatest answer that is read, in bytes: thousands of members fit.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// Speaks to one broker.
pub(super) struct Broker {
    url: BrokerUrl,
    dialer: Dialer,
    address: String,
}

/// Status and body, whatever the status is.
pub(super) struct Answer {
    pub(super) status: u16,
    body: String,
    url: String,
}

// === impl Broker ===

impl Broker {
    pub(super) fn new(env: &Env, url: &str) -> Result<Self, Error> {
        let (url, dialer) = route(url, &env.link, env.environment.as_ref())?;
        let address = url.http_base();
        Ok(Self { url, dialer, address })
    }

    /// The address, for messages to people.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// `POST <address><path>` with a JSON body. Blocks.
    pub(super) fn post(&self, path: &str, bearer: Option<&str>, body: &impl Serialize) -> Result<Answer, Error> {
        let url = format!("{}{path}", self.address);
        let unusable = |error: String| Error::NotABroker { address: self.address.clone(), detail: error };
        let body = serde_json::to_vec(body).map_err(|error| unusable(error.to_string()))?;
        let mut request = Request::post(format!("{}{path}", self.url.prefix()))
            .header(HOST, self.url.uri().authority().map_or("", |authority| authority.as_str()))
            .header(USER_AGENT, concat!("claudemesh/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .header(CONNECTION, "close");
        if let Some(token) = bearer {
            let value = Zeroizing::new(format!("Bearer {token}"));
            let mut value = HeaderValue::from_str(&value).map_err(|error| unusable(error.to_string()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let request = request.body(Full::from(body)).map_err(|error| unusable(error.to_string()))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| self.unreachable(error.to_string()))?;
        let answer = runtime.block_on(async { tokio::time::timeout(LIMIT, self.exchange(request)).await });
        // A name that is still being looked up keeps its thread, which nobody waits for.
        runtime.shutdown_background();
        let (status, body) =
            answer.unwrap_or_else(|_| Err(self.unreachable(format!("no answer within {} s", LIMIT.as_secs()))))?;
        Ok(Answer { status: status.as_u16(), body, url })
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, String), Error> {
        let stream = self.dialer.open(self.url.host(), self.url.port(), self.url.is_tls()).await;
        let (stream, _) = stream.map_err(|error| self.no_connection(error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| self.no_answer(&error))?;
        let answer = async move {
            let answer = sender.send_request(request).await.map_err(|error| self.no_answer(&error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| match error.downcast_ref::<hyper::Error>() {
                Some(error) => self.no_answer(error),
                None if error.is::<LengthLimitError>() => self.not_a_broker("its answer is too long".to_owned()),
                None => self.unreachable(error.to_string()),
            })?;
            Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
        };
        // What goes wrong with the connection, the answer tells.
        let (answer, _) = tokio::join!(answer, connection);
        answer
    }

    fn no_connection(&self, error: dial::Error) -> Error {
        match error {
            dial::Error::Tls { fault, .. } => Error::Tls { address: self.address.clone(), detail: fault.to_string() },
            dial::Error::Authorities(detail) => Error::Tls { address: self.address.clone(), detail },
            dial::Error::Connect { source, .. } => self.unreachable(match source.kind() {
                io::ErrorKind::ConnectionRefused => "nothing listens there (connection refused)".to_owned(),
                // The resolver's errors have no kind of their own.
                _ if source.to_string().contains("lookup") => "the name does not resolve".to_owned(),
                _ => source.to_string(),
            }),
            error @ dial::Error::Proxy { .. } => self.unreachable(error.to_string()),
        }
    }

    fn no_answer(&self, error: &hyper::Error) -> Error {
        if error.is_parse() {
            return self.not_a_broker(format!("what it answers is not HTTP ({error})"));
        }
        let source = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        let text = source.map_or_else(|| error.to_string(), ToString::to_string);
        if !self.url.is_tls() && (error.is_incomplete_message() || source.is_some_and(is_hang_up)) {
            return self
                .unreachable(format!("it hung up without an answer ({text}), as a server with TLS (wss://) does"));
        }
        self.unreachable(text)
    }

    fn unreachable(&self, detail: String) -> Error {
        Error::Unreachable { address: self.address.clone(), detail }
    }

    fn not_a_broker(&self, detail: String) -> Error {
        Error::NotABroker { address: self.address.clone(), detail }
    }
}

// === impl Answer ===

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON of the expected shape, if it is.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_str(&self.body).ok()
    }

    /// What the broker said about a failure, fit for a terminal.
    pub(super) fn reason(&self) -> String {
        let document: Option<serde_json::Value> = self.json();
        let text = ["message", "error", "detail"]
            .iter()
            .find_map(|key| document.as_ref()?.get(key)?.as_str())
            .unwrap_or(&self.body);
        foreign::said(text)
    }

    pub(super) fn unexpected(&self) -> Error {
        Error::UnexpectedAnswer { address: self.url.clone(), status: self.status, detail: self.reason() }
    }
}

fn is_hang_up(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    matches!(error.kind(), Kind::ConnectionReset | Kind::UnexpectedEof | Kind::ConnectionAborted | Kind::BrokenPipe)
}
