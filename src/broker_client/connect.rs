//! From a URL to an open WebSocket.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async_tls_with_config};
use tower::Service as _;

use super::{End, Error, diagnosis};
use crate::runtime::progress::{self, Moved, Watched};

/// Time for name lookup, TCP, TLS and the upgrade together.
const LIMIT: Duration = Duration::from_secs(10);
/// Greatest frame taken from a broker: what it may send plus room to grow.
const MAX_INCOMING: usize = 4 << 20;

/// The bytes below the WebSocket.
pub(super) type Stream = MaybeTlsStream<Watched<TcpStream>>;
pub(super) type Socket = WebSocketStream<Stream>;

/// An open socket and what the upgrade's answer told.
pub(super) struct Connected {
    pub(super) socket: Socket,
    /// When bytes move over it.
    pub(super) moved: Moved,
    /// The `Date` header of the answer.
    pub(super) date: Option<String>,
}

/// Refuses URLs that can never work, or that would carry metadata in clear text
/// over a network (R335).
pub(super) fn check_url(url: &str, allow_insecure: bool) -> Result<Uri, End> {
    let wrong = |reason: &str| End::Url(format!("the broker URL {url} cannot be used: {reason}"));
    let uri: Uri = url.parse().map_err(|_| wrong("it is not a URL"))?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("it has no host"))?;
    match uri.scheme_str() {
        Some("wss") => Ok(uri),
        Some("ws") if allow_insecure || is_loopback(host) => Ok(uri),
        Some("ws") => Err(wrong(
            "ws:// is allowed to this host only; use wss://, or set [broker] allow_insecure = true in config.toml",
        )),
        _ => Err(wrong("it must begin with wss:// or ws://")),
    }
}

/// Connects and upgrades.
pub(super) async fn connect(uri: &Uri) -> Result<Connected, Error> {
    tokio::time::timeout(LIMIT, dial(uri)).await.map_err(|_| Error::NoAnswer(LIMIT))?
}

async fn dial(uri: &Uri) -> Result<Connected, Error> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("wss") { 443 } else { 80 });
    let address = format!("{}:{port}", uri.host().unwrap_or_default());
    let tcp = tcp(&address).await.map_err(|source| Error::Connect { address: address.clone(), source })?;
    progress::prepare(&tcp).map_err(|source| Error::Connect { address: address.clone(), source })?;
    let tcp = Watched::new(tcp);
    let moved = tcp.moved();
    let refused = |detail: String| Error::Upgrade { address: address.clone(), detail };
    let request = uri.clone().into_client_request().map_err(|error| refused(error.to_string()))?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_INCOMING))
        .max_frame_size(Some(MAX_INCOMING))
        .read_buffer_size(64 << 10);
    match client_async_tls_with_config(request, tcp, Some(config), None).await {
        Ok((socket, answer)) => {
            let date = answer.headers().get(http::header::DATE).and_then(|date| date.to_str().ok()).map(str::to_owned);
            Ok(Connected { socket, moved, date })
        }
        Err(failure) => Err(diagnosis::of_upgrade(&failure, uri, (host, port), address).await),
    }
}

/// Connects to one of the addresses of a host. Those of one family do not wait for the
/// other one to fail (RFC 8305): a route that swallows packets fails late.
async fn tcp(address: &str) -> io::Result<TcpStream> {
    let mut connector = HttpConnector::new();
    // Shared by the addresses of a family.
    connector.set_connect_timeout(Some(LIMIT));
    let uri = Uri::builder().scheme("http").authority(address).path_and_query("/").build().map_err(io::Error::other)?;
    connector.call(uri).await.map(TokioIo::into_inner).map_err(|error| {
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            if let Some(found) = inner.downcast_ref::<io::Error>() {
                return found
                    .raw_os_error()
                    .map_or_else(|| io::Error::new(found.kind(), found.to_string()), io::Error::from_raw_os_error);
            }
            cause = inner.source();
        }
        io::Error::other(error.to_string())
    })
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_links_stay_on_this_host_unless_allowed() {
        for url in ["wss://mesh.example/ws", "ws://127.0.0.1:7900/ws", "ws://localhost/ws", "ws://[::1]:1/ws"] {
            assert!(check_url(url, false).is_ok(), "{url}");
        }
        for url in ["ws://10.0.0.1/ws", "ws://mesh.example/ws", "http://x/ws", "/ws", ""] {
            assert!(check_url(url, false).is_err(), "{url}");
        }
        assert!(check_url("ws://10.0.0.1/ws", true).is_ok());
    }
}
