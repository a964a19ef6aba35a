//! The way to a broker: TCP, perhaps through a proxy, and TLS above it.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::proxy::matcher::Intercept;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{self, ClientConfig, InvalidMessage, RootCertStore};
use tokio_tungstenite::MaybeTlsStream;
use tower::Service as _;

use super::progress::{self, Moved, Watched};

/// Time for the addresses of one family; whoever opens a connection limits the whole.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// An open connection.
pub type Stream = MaybeTlsStream<Watched<TcpStream>>;

/// Opens connections.
#[derive(Clone, Debug, Default)]
pub struct Dialer {
    proxy: Option<Intercept>,
    ca_file: Option<PathBuf>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No TCP connection.
    #[error("{}", connect_text(address, source))]
    Connect {
        /// Host and port.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The proxy cannot be reached, or does not let this through.
    #[error("the proxy {proxy} {detail}; check [broker] proxy, or HTTPS_PROXY and NO_PROXY in the environment")]
    Proxy {
        /// Scheme, host and port, without a password.
        proxy: String,
        /// What it did.
        detail: String,
    },
    /// There is nothing to check a certificate against.
    #[error("{0}")]
    Authorities(String),
    /// No TLS session.
    #[error("TLS with {address} failed: {fault}")]
    Tls {
        /// Host and port.
        address: String,
        /// What went wrong.
        fault: TlsFault,
    },
}

/// Why there is no TLS session.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// What answers speaks something else.
    #[error("what answers there does not speak TLS")]
    NotTls,
    /// Its certificate is of nobody who is trusted here, of another host, or over.
    #[error("its certificate is not trusted here ({0})")]
    Untrusted(rustls::Error),
    /// Anything else.
    #[error("{0}")]
    Other(io::Error),
}

// === impl Dialer ===

impl Dialer {
    /// `ca_file` holds the certificate authorities in PEM that count instead of the
    /// system's.
    pub fn new(proxy: Option<Intercept>, ca_file: Option<PathBuf>) -> Self {
        Self { proxy, ca_file }
    }

    /// Connects, by the proxy if there is one. A name's addresses are tried side by
    /// side.
    pub async fn open(&self, host: &str, port: u16, tls: bool) -> Result<(Stream, Moved), Error> {
        let address = format!("{host}:{port}");
        let failed = |source| Error::Connect { address: address.clone(), source };
        let tcp = self.tcp(&address).await?;
        progress::prepare(&tcp).map_err(failed)?;
        let tcp = Watched::new(tcp);
        let moved = tcp.moved();
        if !tls {
            return Ok((MaybeTlsStream::Plain(tcp), moved));
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(bare).map_err(|error| failed(io::Error::other(error)))?;
        let connector = TlsConnector::from(self.tls_config()?);
        let stream = connector.connect(name, tcp).await.map_err(|error| Error::Tls { address, fault: fault(error) })?;
        Ok((MaybeTlsStream::Rustls(stream), moved))
    }

    async fn tcp(&self, address: &str) -> Result<TcpStream, Error> {
        let uri = Uri::builder().scheme("http").authority(address).path_and_query("/").build();
        let failed = |source| Error::Connect { address: address.to_owned(), source };
        let target = uri.map_err(|error| failed(io::Error::other(error)))?;
        let mut direct = HttpConnector::new();
        direct.set_connect_timeout(Some(CONNECT_LIMIT));
        let Some(proxy) = &self.proxy else {
            let connected = direct.call(target).await.map_err(|error| failed(system_error(&error)));
            return connected.map(TokioIo::into_inner);
        };
        // The connector knows the scheme of the web only.
        direct.enforce_http(false);
        let connected = if proxy.uri().scheme_str() == Some("http") {
            let mut tunnel = Tunnel::new(proxy.uri().clone(), direct);
            if let Some(auth) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(auth.clone());
            }
            tunnel.call(target).await.map_err(|error| because(&error))
        } else {
            let is_local = proxy.uri().scheme_str() == Some("socks5");
            let mut socks = SocksV5::new(proxy.uri().clone(), direct).local_dns(is_local);
            if let Some((user, password)) = proxy.raw_auth() {
                socks = socks.with_auth(user.to_owned(), password.to_owned());
            }
            socks.call(target).await.map_err(|error| because(&error))
        };
        connected.map(TokioIo::into_inner).map_err(|detail| Error::Proxy {
            proxy: proxy.uri().to_string().trim_end_matches('/').to_owned(),
            detail: format!("does not lead to {address} ({detail})"),
        })
    }

    /// Read anew for each connection: certificates are renewed while a daemon runs.
    fn tls_config(&self) -> Result<Arc<ClientConfig>, Error> {
        let mut roots = RootCertStore::empty();
        let found = match &self.ca_file {
            Some(path) => rustls_native_certs::load_certs_from_paths(Some(path), None),
            None => rustls_native_certs::load_native_certs(),
        };
        let (usable, _) = roots.add_parsable_certificates(found.certs);
        if usable == 0 {
            let why = found.errors.first().map_or_else(|| "none was found".to_owned(), |error| because(error));
            return Err(Error::Authorities(match &self.ca_file {
                Some(path) => format!("[broker] ca_file {} holds no certificate: {why}", path.display()),
                None => format!(
                    "this system has no certificate authorities to check the broker's certificate against: {why}; install \
                     them (on Debian the package ca-certificates), or name a file of them in SSL_CERT_FILE or [broker] \
                     ca_file"
                ),
            }));
        }
        Ok(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth()))
    }
}

fn fault(error: io::Error) -> TlsFault {
    let of_rustls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match of_rustls {
        Some(rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) => TlsFault::NotTls,
        Some(error @ rustls::Error::InvalidCertificate(_)) => TlsFault::Untrusted(error.clone()),
        _ => TlsFault::Other(error),
    }
}

/// The innermost error of the system.
fn system_error(error: &(dyn StdError + 'static)) -> io::Error {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(found) = inner.downcast_ref::<io::Error>() {
            return found
                .raw_os_error()
                .map_or_else(|| io::Error::new(found.kind(), found.to_string()), io::Error::from_raw_os_error);
        }
        cause = inner.source();
    }
    io::Error::other(error.to_string())
}

/// An error and what it came of.
fn because(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text
}

fn connect_text(address: &str, source: &io::Error) -> String {
    if source.kind() == io::ErrorKind::ConnectionRefused {
        return format!("nothing listens at {address} (connection refused); check that the broker runs there");
    }
    // The resolver's errors have no kind of their own.
    if source.raw_os_error().is_none() && source.to_string().contains("lookup") {
        return format!(
            "the name of the broker at {address} does not resolve; check the address and this host's name service"
        );
    }
    format!("cannot connect to {address}: {source}; check the address and the network")
}
