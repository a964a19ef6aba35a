//! HTTP/1.1 by hand over a Unix socket or TCP, so that a test decides on every
//! byte: which headers, which host, which body.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader};

use super::wait;

/// Where to connect.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Unix(PathBuf),
    Tcp(String),
}

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// The first header of that name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// Fails unless the status is `status`.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        self
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A request under construction.
pub(crate) struct Request {
    target: Target,
    method: String,
    path: String,
    host: Option<String>,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
}

impl Target {
    pub(crate) fn unix(path: &Path) -> Self {
        Self::Unix(path.to_owned())
    }

    pub(crate) fn tcp(address: impl std::fmt::Display) -> Self {
        Self::Tcp(address.to_string())
    }

    async fn connect(&self) -> std::io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Unix(path) => Box::new(tokio::net::UnixStream::connect(path).await?),
            Self::Tcp(address) => Box::new(tokio::net::TcpStream::connect(address).await?),
        })
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> Request {
        Request {
            target: self.clone(),
            method: method.to_owned(),
            path: path.to_owned(),
            host: Some("localhost".to_owned()),
            headers: Vec::new(),
            body: None,
        }
    }

    pub(crate) fn get(&self, path: &str) -> Request {
        self.request("GET", path)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Request {
        self.request("POST", path).header("Content-Type", "application/json").body(body.to_string())
    }
}

impl Request {
    pub(crate) fn header(mut self, name: &str, value: impl std::fmt::Display) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// Another `Host`; `None` leaves the header away.
    pub(crate) fn host(mut self, host: Option<&str>) -> Self {
        self.host = host.map(str::to_owned);
        self
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("Authorization", format!("Bearer {token}"))
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    fn head(&self, connection: &str) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        if let Some(host) = &self.host {
            head += &format!("Host: {host}\r\n");
        }
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if let Some(body) = &self.body {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        head += &format!("Connection: {connection}\r\n\r\n");
        head.into_bytes()
    }

    /// The whole answer; an error when nobody listens or the peer hangs up.
    pub(crate) async fn try_send(&self) -> std::io::Result<Response> {
        let mut stream = self.target.connect().await?;
        let mut bytes = self.head("close");
        bytes.extend(self.body.as_deref().unwrap_or_default());
        // A server that refuses may close before it has read the body; its
        // answer still counts.
        let _ = stream.write_all(&bytes).await;
        let mut reader = BufReader::new(stream);
        let (status, headers) = read_head(&mut reader).await?;
        let mut body = Vec::new();
        let header = |name: &str| {
            headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_ascii_lowercase())
        };
        if header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            while let Some(chunk) = read_chunk(&mut reader).await? {
                body.extend(chunk);
            }
        } else if let Some(length) = header("content-length").and_then(|value| value.parse().ok()) {
            // An answer to HEAD has the length of what it leaves out.
            body.resize(if self.method == "HEAD" { 0 } else { length }, 0);
            reader.read_exact(&mut body).await?;
        } else {
            reader.read_to_end(&mut body).await?;
        }
        Ok(Response { status, headers, body })
    }

    /// The whole answer.
    #[track_caller]
    pub(crate) fn send(&self) -> impl Future<Output = Response> {
        let caller = std::panic::Location::caller();
        async move {
            let what = format!("{} {} at {:?}", self.method, self.path, self.target);
            wait::soon(&what, self.try_send()).await.unwrap_or_else(|error| panic!("{caller}: {what}: {error}"))
        }
    }

    /// Sends the request in such a way that the server has it in hand; the answer is
    /// never read. Dropping what is returned hangs up.
    pub(crate) async fn send_only(mut self) -> impl Sized {
        let mut stream = BufReader::new(self.target.connect().await.expect("the server listens"));
        self = self.header("Expect", "100-continue");
        stream.write_all(&self.head("close")).await.expect("the head is taken");
        let (status, _) = wait::soon("the server to ask for the body", read_head(&mut stream)).await.expect("a head");
        assert_eq!(status, 100);
        stream.write_all(self.body.as_deref().unwrap_or_default()).await.expect("the body is taken");
        stream
    }

    /// An event stream.
    pub(crate) async fn stream(&self) -> EventStream {
        let mut stream = self.target.connect().await.expect("the server listens");
        let mut bytes = self.head("keep-alive");
        bytes.extend(self.body.as_deref().unwrap_or_default());
        stream.write_all(&bytes).await.expect("the request is taken");
        let mut reader = BufReader::new(stream);
        let (status, headers) = wait::soon("the stream's head", read_head(&mut reader)).await.expect("a head");
        EventStream { status, headers, reader, pending: Vec::new() }
    }
}

type Reader = BufReader<Box<dyn Stream>>;

async fn read_line(reader: &mut Reader) -> std::io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line).await? == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

async fn read_head(reader: &mut Reader) -> std::io::Result<(u16, Vec<(String, String)>)> {
    let first = read_line(reader).await?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(std::io::ErrorKind::InvalidData)?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(reader).await?;
        let Some((name, value)) = line.split_once(':') else { return Ok((status, headers)) };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

async fn read_chunk(reader: &mut Reader) -> std::io::Result<Option<Vec<u8>>> {
    let line = read_line(reader).await?;
    let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
        .map_err(|_| std::io::ErrorKind::InvalidData)?;
    let mut chunk = vec![0; size + 2];
    reader.read_exact(&mut chunk).await?;
    chunk.truncate(size);
    Ok((size > 0).then_some(chunk))
}

/// One server-sent event.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) data: String,
}

impl Event {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A running stream of server-sent events.
pub(crate) struct EventStream {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    reader: Reader,
    pending: Vec<u8>,
}

impl EventStream {
    /// The next event; `None` when the server ended the stream. Comments are
    /// skipped.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        wait::soon("an event", self.read()).await
    }

    /// The next event of that kind; others are skipped.
    pub(crate) async fn next_of(&mut self, kind: &str) -> Event {
        loop {
            let event = self.next().await.unwrap_or_else(|| panic!("the stream ended before a {kind} event"));
            if event.kind.as_deref() == Some(kind) {
                return event;
            }
        }
    }

    async fn read(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.pending.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.pending.drain(..end + 2).collect();
                if let Some(event) = parse_event(&String::from_utf8_lossy(&block)) {
                    return Some(event);
                }
                continue;
            }
            self.pending.extend(read_chunk(&mut self.reader).await.ok()??);
        }
    }
}

fn parse_event(block: &str) -> Option<Event> {
    let mut event = Event::default();
    let mut data = Vec::new();
    for line in block.lines() {
        match line.split_once(':').map(|(name, value)| (name, value.strip_prefix(' ').unwrap_or(value))) {
            Some(("id", value)) => event.id = Some(value.to_owned()),
            Some(("event", value)) => event.kind = Some(value.to_owned()),
            Some(("data", value)) => data.push(value),
            _ => {}
        }
    }
    event.data = data.join("\n");
    (event.kind.is_some() || !event.data.is_empty()).then_some(event)
}
