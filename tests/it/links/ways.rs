//! Ways to a broker that are not plain: its own certificate authority, a path above it,
//! proxies.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::support::broker::Broker;
use crate::support::daemon::Daemon;
use crate::support::{process, tools, wait};

const PASSWORD: &str = "geheim";

/// A web server with TLS that serves a broker below `/mesh`.
struct Front {
    address: SocketAddr,
    files: tempfile::TempDir,
}

impl Front {
    async fn of(broker: SocketAddr) -> Self {
        let files = process::directory();
        let mut made = Command::new(tools::system("openssl").expect("these tests need openssl"));
        made.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=claudemesh test"]);
        made.args(["-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]);
        made.args(["-keyout", "key.pem", "-out", "cert.pem"]).current_dir(files.path());
        let output = made.output().expect("openssl runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let certificate = CertificateDer::from_pem_file(files.path().join("cert.pem")).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(files.path().join("key.pem")).expect("a key");
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
        let acceptor = TlsAcceptor::from(Arc::new(config.expect("a key of this certificate")));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a bound port");
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    if let Ok(client) = acceptor.accept(client).await {
                        below_mesh(client, broker).await;
                    }
                });
            }
        });
        Self { address, files }
    }

    fn url(&self) -> String {
        format!("wss://{}/mesh/ws", self.address)
    }

    fn authority(&self) -> PathBuf {
        self.files.path().join("cert.pem")
    }
}

/// Passes one request on without the beginning of its path; others get no answer.
async fn below_mesh(mut client: impl AsyncRead + AsyncWrite + Unpin, broker: SocketAddr) {
    let mut first = vec![0; 16 << 10];
    let Ok(length) = client.read(&mut first).await else { return };
    let text = String::from_utf8_lossy(&first[..length]).into_owned();
    let Some((method, rest)) = text.split_once(" /mesh/") else { return };
    let mut server = TcpStream::connect(broker).await.expect("the broker listens");
    server.write_all(format!("{method} /{rest}").as_bytes()).await.expect("the broker reads");
    let _ = copy_bidirectional(&mut client, &mut server).await;
}

/// A proxy that speaks both CONNECT, for who knows the password, and SOCKS5, and leads
/// to the broker whatever the name.
struct Proxy {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    async fn to(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("a bound port");
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let all = Arc::clone(&asked);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, broker, Arc::clone(&all)));
            }
        });
        Self { address, asked }
    }

    fn url(&self, password: &str) -> String {
        format!("http://user:{password}@{}", self.address)
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().expect("no holder panicked"))
    }
}

async fn pass(mut client: TcpStream, broker: SocketAddr, asked: Arc<Mutex<Vec<String>>>) -> Option<()> {
    let note = |what: String| asked.lock().expect("no holder panicked").push(what);
    let mut bytes = vec![0; 4096];
    let length = client.read(&mut bytes).await.ok()?;
    if bytes[0] == 5 {
        client.write_all(&[5, 0]).await.ok()?;
        let length = client.read(&mut bytes).await.ok()?;
        let (host, port) = bytes[5..length].split_at(usize::from(bytes[4]));
        note(format!("socks {}:{}", String::from_utf8_lossy(host), u16::from_be_bytes([port[0], port[1]])));
        client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).await.ok()?;
    } else {
        let head = String::from_utf8_lossy(&bytes[..length]).into_owned();
        note(head.split(" HTTP").next()?.to_owned());
        // user:geheim
        if !head.contains("Basic dXNlcjpnZWhlaW0=") {
            client.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await.ok()?;
            return None;
        }
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.ok()?;
    }
    let mut server = TcpStream::connect(broker).await.ok()?;
    let _ = copy_bidirectional(&mut client, &mut server).await;
    Some(())
}

fn creating<'a>(url: &'a str, token: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let token = token.to_str().expect("a path");
    let mut arguments = vec!["mesh", "create", "demo", "--broker", url, "--admin-token-file", token];
    arguments.extend(more);
    arguments
}

#[tokio::test]
async fn a_broker_with_an_authority_of_its_own_below_a_path() {
    let broker = Broker::start().await;
    let front = Front::of(broker.address()).await;
    let (url, token) = (front.url(), broker.admin_token_file());
    let authority = front.authority().display().to_string();

    let mut alice = Daemon::unjoined("demo", "alice");
    let refused = alice.cli(&creating(&url, &token, &["--json"])).await;
    let error = refused.error();
    assert_eq!(error["code"], "broker_tls_failed", "{error}");
    assert!(error.to_string().contains("--ca-file"), "{error}");
    alice.cli(&creating(&url, &token, &["--display-name", "alice", "--ca-file", &authority])).await.ok();
    // The daemon and later commands go the same way.
    alice.start().await;
    alice.connected().await;
    let link = alice.cli(&["mesh", "invite", "demo"]).await.ok().stdout;

    // The environment's authorities, by a path from here; the daemon runs elsewhere.
    let mut bob = Daemon::unjoined("demo", "bob");
    std::fs::copy(front.authority(), bob.home().join("cert.pem")).expect("a copy");
    bob.env("SSL_CERT_FILE", "cert.pem");
    bob.cli(&["join", link.trim(), "--display-name", "bob"]).await.ok();
    bob.cli(&["daemon", "up"]).await.ok();
    bob.connected().await;
    alice.knows("bob").await;
    alice.send("bob", "over TLS").await;
    bob.received("over TLS").await;
    bob.cli(&["daemon", "down"]).await.ok();

    bob.env("SSL_CERT_FILE", "/nowhere.pem");
    bob.cli(&["daemon", "up"]).await.ok();
    wait::until("the reason in the status", async || {
        let status = bob.cli(&["daemon", "status"]).await.all();
        (status.contains("/nowhere.pem") && status.contains("ca_file")).then_some(())
    })
    .await;
    bob.cli(&["daemon", "down"]).await.ok();
}

#[tokio::test]
async fn authorities_that_cannot_be_read_are_refused_at_the_start() {
    let broker = Broker::start().await;
    let mut alice = Daemon::unjoined("demo", "alice");
    alice.cli(&creating(&broker.url(), &broker.admin_token_file(), &[])).await.ok();
    std::fs::write(alice.home().join("empty.pem"), "no certificate\n").expect("a file");
    let empty = alice.home().join("empty.pem").display().to_string();
    for (file, expected) in [("ca.pem", "absolute"), ("/nowhere.pem", "/nowhere.pem"), (empty.as_str(), "certificate")]
    {
        alice.configure(&format!("[broker]\nca_file = \"{file}\"\n"));
        let (code, said) = alice.refused().await;
        assert!(code != 0 && said.contains("broker.ca_file") && said.contains(expected), "{said}");
    }
    alice.configure("[broker]\nproxy = \"https://user:geheim@proxy:1\"\n");
    let (code, said) = alice.refused().await;
    assert!(code != 0 && said.contains("broker.proxy") && !said.contains(PASSWORD), "{said}");
}

#[tokio::test]
async fn a_broker_behind_a_proxy() {
    let broker = Broker::start().await;
    let proxy = Proxy::to(broker.address()).await;
    let token = broker.admin_token_file();
    // A name that nobody but the proxy knows.
    let url = "ws://broker.invalid:7900/ws";

    let mut alice = Daemon::unjoined("demo", "alice");
    let wrong = proxy.url("wrong");
    let refused = alice.cli(&creating(url, &token, &["--json", "--allow-insecure", "--proxy", &wrong])).await;
    let error = refused.error();
    assert_eq!(error["code"], "broker_unreachable", "{error}");
    let place = format!("the proxy http://{}", proxy.address);
    assert!(error.to_string().contains(&place) && error.to_string().contains("authorization"), "{error}");
    assert!(!error.to_string().contains("wrong"), "{error}");

    proxy.asked();
    let right = proxy.url(PASSWORD);
    alice.cli(&creating(url, &token, &["--display-name", "alice", "--allow-insecure", "--proxy", &right])).await.ok();
    alice.start().await;
    alice.connected().await;
    let asked = proxy.asked();
    assert!(asked.len() > 1 && asked.iter().all(|line| line == "CONNECT broker.invalid:7900"), "{asked:?}");
    let settings = alice.dir().join("config.toml");
    let mode = std::os::unix::fs::MetadataExt::mode(&settings.metadata().expect("the settings"));
    assert_eq!(mode & 0o777, 0o600, "it holds a password");
    assert!(!alice.cli(&["daemon", "status", "--json"]).await.all().contains(PASSWORD));

    let link = alice.cli(&["mesh", "invite", "demo"]).await.ok().stdout;
    let mut bob = Daemon::unjoined("demo", "bob");
    bob.env("ALL_PROXY", &format!("socks5h://{}", proxy.address));
    bob.cli(&["join", link.trim(), "--display-name", "bob", "--allow-insecure"]).await.ok();
    bob.start().await;
    bob.connected().await;
    let asked = proxy.asked();
    assert!(asked.contains(&"socks broker.invalid:7900".to_owned()), "{asked:?}");
    alice.knows("bob").await;
    alice.send("bob", "through both").await;
    bob.received("through both").await;

    // An exception from the environment's proxy, and a value that is no proxy.
    bob.stop().await;
    bob.env("no_proxy", "broker.invalid");
    let direct = bob.cli(&["member", "list", "demo", "--json"]).await.error();
    assert!(direct.to_string().contains("does not resolve"), "{direct}");
    bob.env("ALL_PROXY", "nonsense://x");
    let named = bob.cli(&["member", "list", "demo", "--json"]).await.error();
    assert!(named["code"] == "config_invalid" && named.to_string().contains("ALL_PROXY"), "{named}");
}
