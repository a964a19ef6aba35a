//! Why an upgrade failed, in words that lead to the cause.
//!
//! TLS on one side only, a certificate nobody here trusts, a web server at the
//! broker's address: the library's error names none of them.

use http::StatusCode;
use tokio_tungstenite::tungstenite::Error as Failure;
use tokio_tungstenite::tungstenite::error::ProtocolError;

use super::Error;
use crate::config::broker_url::BrokerUrl;
use crate::runtime::dial::{self, Dialer, TlsFault};

/// The error of an upgrade that failed. May connect once more, to see whether
/// the other side speaks TLS.
pub(super) async fn of_upgrade(failure: &Failure, url: &BrokerUrl, dialer: &Dialer) -> Error {
    let address = format!("{}:{}", url.host(), url.port());
    match failure {
        Failure::Http(answer) => of_answer(answer.status(), url, address),
        Failure::Io(_) | Failure::Protocol(_) | Failure::HttpFormat(_) | Failure::Utf8(_) => {
            if !url.is_tls() && speaks_tls(url, dialer).await {
                let detail = "it speaks TLS, and the broker URL begins with ws://; it must begin with wss://: ask the \
                              mesh's owner for an invite that says so"
                    .to_owned();
                return Error::Tls { address, detail };
            }
            // A connection that ends, as when a broker or a relay before it restarts, says
            // nothing of what listens there.
            let ended = matches!(failure, Failure::Io(_) | Failure::Protocol(ProtocolError::HandshakeIncomplete));
            if ended {
                return Error::Upgrade { address, detail: format!("the connection ended first ({failure})") };
            }
            Error::NotABroker {
                address,
                detail: format!("it does not answer the upgrade of {} ({failure})", url.uri().path()),
            }
        }
        _ => Error::Upgrade { address, detail: failure.to_string() },
    }
}

fn of_answer(status: StatusCode, url: &BrokerUrl, address: String) -> Error {
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return Error::Upgrade {
            address,
            detail: format!("it answered HTTP {status}, as a proxy without its server does"),
        };
    }
    Error::NotABroker { address, detail: format!("it answered the upgrade of {} with HTTP {status}", url.uri().path()) }
}

/// What helps when there is no TLS session.
pub(super) fn of_tls(address: String, fault: &TlsFault) -> Error {
    let detail = match fault {
        TlsFault::NotTls => {
            "it does not speak TLS, and the broker URL begins with wss://; ask the mesh's owner for an \
                             invite with the right address, or serve the broker with TLS"
                .to_owned()
        }
        TlsFault::Untrusted(_) => format!(
            "{fault}; install its authority among the system's certificates, or name the authority's file in [broker] \
             ca_file"
        ),
        TlsFault::Other(_) => format!("{fault}; check that the broker is served with TLS there"),
    };
    Error::Tls { address, detail }
}

/// Whether what listens there speaks TLS: it answers a TLS hello, whatever its
/// certificate is worth.
async fn speaks_tls(url: &BrokerUrl, dialer: &Dialer) -> bool {
    match dialer.open(url.host(), url.port(), true).await {
        Ok(_) | Err(dial::Error::Tls { fault: TlsFault::Untrusted(_), .. }) => true,
        Err(dial::Error::Tls { fault: TlsFault::Other(error), .. }) => error.to_string().contains("alert"),
        Err(_) => false,
    }
}
