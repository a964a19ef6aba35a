//! What may listen where a broker is expected.

use std::net::SocketAddr;
use std::process::Command;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::process::{self, Process};
use crate::support::{tools, wait};

/// An address where nothing listens.
pub(super) async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    listener.local_addr().expect("a bound port")
}

/// A web server that has none of the paths of a broker. Ends with the test's
/// runtime.
pub(super) async fn web_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("a bound port");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 16 << 10];
                let _ = stream.read(&mut request).await;
                let body = "<html>not found</html>";
                let head = "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nConnection: close";
                let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            });
        }
    });
    address
}

/// A server with TLS, whose certificate no system trusts.
pub(super) struct TlsServer {
    pub(super) address: SocketAddr,
    _process: Process,
    _files: tempfile::TempDir,
}

impl TlsServer {
    pub(super) async fn start() -> Self {
        let openssl = tools::system("openssl").expect("these tests need openssl");
        let files = process::directory();
        let mut certificate = Command::new(&openssl);
        certificate.args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=claudemesh test",
        ]);
        certificate.args([
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
        ]);
        let made = certificate.current_dir(files.path()).output().expect("openssl runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let address = nobody().await;
        let mut command = process::with_program(&openssl, files.path());
        command.args(["s_server", "-cert", "cert.pem", "-key", "key.pem", "-www", "-accept", &address.to_string()]);
        let process = Process::spawn("openssl s_server", command, &files.path().join("out"), Vec::new());
        wait::until("openssl to listen", async || TcpStream::connect(address).await.ok()).await;
        Self { address, _process: process, _files: files }
    }
}
