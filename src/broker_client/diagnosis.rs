//! Why an upgrade failed, in words that lead to the cause.
//!
//! TLS on one side only, a certificate nobody here trusts, a web server at the
//! broker's address: the library's error names none of them.

use http::{StatusCode, Uri};
use tokio::net::TcpStream;
use tokio_tungstenite::client_async_tls_with_config;
use tokio_tungstenite::tungstenite::Error as Failure;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::error::ProtocolError;

use super::Error;

/// The error of an upgrade that failed. May connect once more, to see whether
/// the other side speaks TLS.
pub(super) async fn of_upgrade(failure: &Failure, uri: &Uri, target: (&str, u16), address: String) -> Error {
    match failure {
        Failure::Http(answer) => of_answer(answer.status(), uri, address),
        Failure::Io(error) if is_tls(uri) => of_tls(&error.to_string(), address),
        Failure::Tls(error) if is_tls(uri) => of_tls(&error.to_string(), address),
        Failure::Io(_) | Failure::Protocol(_) | Failure::HttpFormat(_) | Failure::Utf8(_) => {
            if !is_tls(uri) && speaks_tls(uri, target).await {
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
                detail: format!("it does not answer the upgrade of {} ({failure})", uri.path()),
            }
        }
        _ => Error::Upgrade { address, detail: failure.to_string() },
    }
}

fn of_answer(status: StatusCode, uri: &Uri, address: String) -> Error {
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        return Error::Upgrade {
            address,
            detail: format!("it answered HTTP {status}, as a proxy without its server does"),
        };
    }
    Error::NotABroker { address, detail: format!("it answered the upgrade of {} with HTTP {status}", uri.path()) }
}

/// The text is rustls' own: the error lies inside others and has no kind.
fn of_tls(text: &str, address: String) -> Error {
    let detail = if text.contains("InvalidContentType") {
        "it does not speak TLS, and the broker URL begins with wss://; ask the mesh's owner for an invite with the right \
         address, or serve the broker with TLS"
            .to_owned()
    } else if text.contains("certificate") {
        format!("its certificate is not trusted here ({text}); install its authority among the system's certificates")
    } else {
        format!("{text}; check that the broker is served with TLS there")
    };
    Error::Tls { address, detail }
}

/// Whether what listens there speaks TLS: it answers a TLS hello, whatever its
/// certificate is worth.
async fn speaks_tls(uri: &Uri, target: (&str, u16)) -> bool {
    let mut parts = uri.clone().into_parts();
    parts.scheme = "wss".parse().ok();
    let (Ok(uri), Ok(tcp)) = (Uri::from_parts(parts), TcpStream::connect(target).await) else { return false };
    let Ok(request) = uri.into_client_request() else { return false };
    match Box::pin(client_async_tls_with_config(request, tcp, None, None)).await {
        Ok(_) | Err(Failure::Http(_)) => true,
        Err(failure) => {
            let text = failure.to_string();
            text.contains("certificate") || text.contains("alert")
        }
    }
}

fn is_tls(uri: &Uri) -> bool {
    uri.scheme_str() == Some("wss")
}
