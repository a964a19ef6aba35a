//! The server on real sockets, in front of one route.

use axum::Router;
use axum::body::Body;
use axum::extract::Extension;
use axum::routing::get;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tower::ServiceExt as _;

use super::*;
use crate::runtime::listen;

struct Served {
    socket: std::path::PathBuf,
    tcp: std::net::SocketAddr,
    supervisor: Supervisor,
    _dir: tempfile::TempDir,
}

async fn serve_one(connections: u32) -> Served {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("sock");
    let unix = listen::UnixSocket::bind(&socket, 0o600).unwrap();
    let tcp = listen::tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = tcp.local_addr().unwrap();
    let router = Router::new()
        .route("/via", get(|Extension(via): Extension<Via>| async move { via.name() }))
        .route("/never", get(|| async { std::future::pending::<&'static str>().await }));
    let supervisor = Supervisor::new();
    let handler = move |request: Request<Incoming>, via| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(via);
        let router = router.clone();
        async move { router.oneshot(request).await.unwrap_or_else(|never| match never {}) }
    };
    serve(handler, Listeners { unix, tcp: Some(tcp) }, connections, &supervisor);
    Served { socket, tcp: address, supervisor, _dir: dir }
}

const GET: &[u8] = b"GET /via HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &[u8]) -> String {
    stream.write_all(request).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn both_sockets_serve_and_say_which_they_are() {
    let served = serve_one(8).await;
    let unix = exchange(UnixStream::connect(&served.socket).await.unwrap(), GET).await;
    assert!(unix.starts_with("HTTP/1.1 200") && unix.ends_with("uds"), "{unix}");
    let tcp = exchange(TcpStream::connect(served.tcp).await.unwrap(), GET).await;
    assert!(tcp.ends_with("tcp"), "{tcp}");
}

#[tokio::test]
async fn a_connection_above_the_limit_is_closed_at_once() {
    let served = serve_one(1).await;
    let mut first = UnixStream::connect(&served.socket).await.unwrap();
    first.write_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut second = UnixStream::connect(&served.socket).await.unwrap();
    let mut nothing = [0; 1];
    assert!(matches!(second.read(&mut nothing).await, Ok(0) | Err(_)), "it is closed without a word");
}

#[tokio::test]
async fn what_is_idle_closes_with_the_streams_and_nothing_is_accepted_any_more() {
    let served = serve_one(8).await;
    let limit = Duration::from_secs(5);
    let mut idle = UnixStream::connect(&served.socket).await.unwrap();
    idle.write_all(b"GET /via HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut begin = [0; 12];
    idle.read_exact(&mut begin).await.unwrap();
    let silent = UnixStream::connect(&served.socket).await.unwrap();
    assert!(served.supervisor.stop(Phase::Ingress, limit).await);
    assert!(
        served.supervisor.stop(Phase::Streams, limit).await,
        "neither an idle nor a silent connection keeps it open"
    );
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    drop(silent);
    assert!(UnixStream::connect(&served.socket).await.is_err());
}
