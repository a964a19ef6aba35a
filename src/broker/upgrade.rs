//! From an HTTP request to a WebSocket.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::sync::OwnedSemaphorePermit;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::http::{Answer, Dropped, text};
use super::session::connection;
use super::shared::{MAX_INLINE_BYTES, Shared};
use crate::runtime::progress::Watched;
use crate::runtime::task_kind::TaskKind;

/// The one path that is upgraded. A query makes it another one.
const PATH: &str = "/ws";
/// Read and write buffer of one socket. Small, because most sockets are idle.
const BUFFER_BYTES: usize = 4 * 1024;

/// Whether a request asks for a WebSocket. Other upgrades may be ignored.
pub fn is_asked(headers: &HeaderMap) -> bool {
    has_token(headers, &UPGRADE, "websocket")
}

/// Upgrades, or ends the connection without an answer when the target is not
/// exactly `/ws`.
pub fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    place: Arc<OwnedSemaphorePermit>,
) -> Result<Answer, Dropped> {
    if request.uri().path_and_query().is_none_or(|target| target.as_str() != PATH) {
        return Err(Dropped);
    }
    let headers = request.headers();
    let is_websocket = request.method() == Method::GET && has_token(headers, &CONNECTION, "upgrade");
    if !is_websocket {
        return Ok(text(StatusCode::BAD_REQUEST, "this is no WebSocket upgrade\n"));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut answer = text(StatusCode::UPGRADE_REQUIRED, "WebSocket version 13 is needed\n");
        answer.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Ok(answer);
    }
    let accept =
        headers.get(SEC_WEBSOCKET_KEY).and_then(|key| HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok());
    let Some(accept) = accept else {
        return Ok(text(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is missing\n"));
    };

    let upgraded = hyper::upgrade::on(request);
    let task = {
        let shared = Arc::clone(&shared);
        async move {
            match upgraded.await {
                Ok(upgraded) => {
                    let config = config();
                    let stream = Watched::new(TokioIo::new(upgraded));
                    let socket = WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await;
                    connection::serve(shared, socket, place).await;
                }
                Err(error) => tracing::debug!(error = %error, "Upgrade failed: {error}"),
            }
        }
    };
    shared.supervisor.spawn(TaskKind::Connection, "broker connection", task);

    let mut answer = Response::new(Full::new(Bytes::new()));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(answer)
}

/// The transport takes the largest frame that any connection may send; the
/// limit of the connection itself is checked on each frame.
fn config() -> WebSocketConfig {
    let mut config = WebSocketConfig::default();
    config.read_buffer_size = BUFFER_BYTES;
    config.write_buffer_size = BUFFER_BYTES;
    config.max_message_size = Some(MAX_INLINE_BYTES);
    config.max_frame_size = Some(MAX_INLINE_BYTES);
    config
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
}
