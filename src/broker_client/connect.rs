//! From a URL to an open WebSocket.

use std::time::Duration;

use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::{Error, diagnosis};
use crate::config::broker_url::BrokerUrl;
use crate::runtime::dial::{Dialer, Stream};
use crate::runtime::progress::Moved;

/// Time for name lookup, TCP, TLS and the upgrade together.
const LIMIT: Duration = Duration::from_secs(10);
/// Greatest frame taken from a broker: what it may send plus room to grow.
const MAX_INCOMING: usize = 4 << 20;

pub(super) type Socket = WebSocketStream<Stream>;

/// An open socket and what the upgrade's answer told.
pub(super) struct Connected {
    pub(super) socket: Socket,
    /// When bytes move over it.
    pub(super) moved: Moved,
    /// The `Date` header of the answer.
    pub(super) date: Option<String>,
}

/// Connects and upgrades.
pub(super) async fn connect(url: &BrokerUrl, dialer: &Dialer) -> Result<Connected, Error> {
    tokio::time::timeout(LIMIT, upgrade(url, dialer)).await.map_err(|_| Error::NoAnswer(LIMIT))?
}

async fn upgrade(url: &BrokerUrl, dialer: &Dialer) -> Result<Connected, Error> {
    let (stream, moved) = dialer.open(url.host(), url.port(), url.is_tls()).await?;
    let address = format!("{}:{}", url.host(), url.port());
    let refused = |detail: String| Error::Upgrade { address: address.clone(), detail };
    let request = url.uri().clone().into_client_request().map_err(|error| refused(error.to_string()))?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_INCOMING))
        .max_frame_size(Some(MAX_INCOMING))
        .read_buffer_size(64 << 10);
    match client_async_with_config(request, stream, Some(config)).await {
        Ok((socket, answer)) => {
            let date = answer.headers().get(http::header::DATE).and_then(|date| date.to_str().ok()).map(str::to_owned);
            Ok(Connected { socket, moved, date })
        }
        Err(failure) => Err(diagnosis::of_upgrade(&failure, url, dialer).await),
    }
}
