//! The HTTP calls to a broker: one connection each, with time limits.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use zeroize::Zeroizing;

use super::Error;
use crate::config::broker_url::BrokerUrl;

/// Time for one call as a whole. A join is a few database rows at the broker.
const LIMIT: Duration = Duration::from_secs(10);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Greatest answer that is read, in bytes; real ones have less than 200.
const MAX_ANSWER_BYTES: u64 = 64 << 10;

/// Speaks to one broker.
pub(super) struct Broker {
    agent: Agent,
    origin: String,
}

/// Status and body, whatever the status is.
pub(super) struct Answer {
    pub(super) status: u16,
    body: String,
    url: String,
}

// === impl Broker ===

impl Broker {
    pub(super) fn new(url: &BrokerUrl) -> Self {
        let origin = url.http_origin();
        let mut config = Agent::config_builder()
            .timeout_global(Some(LIMIT))
            .timeout_connect(Some(CONNECT_LIMIT))
            .http_status_as_error(false)
            // The invite names the broker; nobody else gets the request.
            .max_redirects(0)
            // The daemon's link uses no proxy either: a join through one would
            // succeed and the daemon then never connect.
            .proxy(None)
            .user_agent(concat!("claudemesh/", env!("CARGO_PKG_VERSION")));
        if origin.starts_with("https:") {
            config = config.tls_config(TlsConfig::builder().root_certs(system_roots()).build());
        }
        Self { agent: config.build().into(), origin }
    }

    /// The address, for messages to people.
    pub(super) fn address(&self) -> &str {
        &self.origin
    }

    /// `POST <origin><path>` with a JSON body.
    pub(super) fn post(&self, path: &str, bearer: Option<&str>, body: &impl Serialize) -> Result<Answer, Error> {
        let url = format!("{}{path}", self.origin);
        let unreachable = |error: ureq::Error| diagnose(&error, &self.origin);
        let mut request = self.agent.post(&url);
        if let Some(token) = bearer {
            let value = Zeroizing::new(format!("Bearer {token}"));
            request = request.header("authorization", value.as_str());
        }
        let mut response = request.send_json(body).map_err(unreachable)?;
        let status = response.status().as_u16();
        let body = response
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER_BYTES)
            .lossy_utf8(true)
            .read_to_string()
            .map_err(unreachable)?;
        Ok(Answer { status, body, url })
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
        printable(text)
    }

    pub(super) fn unexpected(&self) -> Error {
        Error::UnexpectedAnswer { address: self.url.clone(), status: self.status, detail: self.reason() }
    }
}

/// What a failed call means. The texts in it are rustls' own: such an error lies
/// inside others and has no kind.
fn diagnose(error: &ureq::Error, origin: &str) -> Error {
    let address = origin.to_owned();
    let text = match error {
        ureq::Error::Io(error) => error.to_string(),
        error => error.to_string(),
    };
    if text.contains("InvalidContentType") {
        return Error::Tls { address, detail: "what answers there does not speak TLS".to_owned() };
    }
    if text.contains("certificate") {
        return Error::Tls { address, detail: format!("its certificate is not trusted here ({text})") };
    }
    let detail = match error {
        ureq::Error::Timeout(_) => format!("no answer within {} s", LIMIT.as_secs()),
        ureq::Error::HostNotFound => "the name does not resolve".to_owned(),
        // The resolver's errors have no kind of their own.
        ureq::Error::Io(error) if error.to_string().contains("lookup") => "the name does not resolve".to_owned(),
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            "nothing listens there (connection refused)".to_owned()
        }
        ureq::Error::Io(error) if origin.starts_with("http:") && is_hang_up(error) => {
            format!("it hung up without an answer ({error}), as a server with TLS (wss://) does")
        }
        ureq::Error::Io(error) => error.to_string(),
        _ => return Error::NotABroker { address, detail: text },
    };
    Error::Unreachable { address, detail }
}

fn is_hang_up(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    matches!(error.kind(), Kind::ConnectionReset | Kind::UnexpectedEof | Kind::ConnectionAborted | Kind::BrokenPipe)
}

/// The first 200 characters without control characters: an answer must not
/// steer the terminal it is shown on.
pub(super) fn printable(text: &str) -> String {
    text.trim().chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The certificates that the system trusts, as for the daemon's link: a private
/// authority that is installed here works for both or for neither.
fn system_roots() -> RootCerts {
    let found = rustls_native_certs::load_native_certs();
    let certificates: Vec<_> =
        found.certs.iter().map(|certificate| Certificate::from_der(certificate.as_ref()).to_owned()).collect();
    RootCerts::Specific(Arc::new(certificates))
}
