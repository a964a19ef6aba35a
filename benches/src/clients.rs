//! The calls under load, as programs make them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use claudemesh::proto::pb::messaging_service_client::MessagingServiceClient;
use claudemesh::proto::pb::send_stream_response::Result as Outcome;
use claudemesh::proto::pb::{SendRequest, SendStreamRequest};
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use crate::load::{Operation, Sample, closed_loop, operation, payload, warm_up};

/// `Send` over gRPC by many callers over one connection.
pub async fn send(
    client: &MessagingServiceClient<Channel>,
    to: &str,
    callers: usize,
    time: Duration,
) -> Result<Sample> {
    let request = request(to);
    let callers = (0..callers).map(|_| {
        let (client, request) = (client.clone(), request.clone());
        operation(move || {
            let (mut client, request) = (client.clone(), request.clone());
            async move {
                client.send(request).await?;
                Ok(())
            }
        })
    });
    closed_loop(callers.collect(), time).await
}

/// `SendStream` with a window of unanswered sends.
pub async fn send_stream(
    client: &mut MessagingServiceClient<Channel>,
    to: &str,
    window: usize,
    time: Duration,
) -> Result<Sample> {
    let request = request(to);
    let (sender, requests) = mpsc::channel(window + 1);
    let next = |index: usize| SendStreamRequest {
        index: index as u32,
        send: Some(request.clone()),
        ..SendStreamRequest::default()
    };
    for index in 0..window {
        sender.send(next(index)).await?;
    }
    let mut answers = client.send_stream(ReceiverStream::new(requests)).await?.into_inner();
    let mut begun = vec![Instant::now(); window];
    let start = Instant::now() + warm_up(time);
    let mut latencies = Vec::with_capacity(1 << 17);
    while let Some(answer) = answers.message().await? {
        if let Some(Outcome::Error(error)) = answer.result {
            anyhow::bail!("{}: {}", error.code, error.message);
        }
        let index = answer.index as usize;
        let now = Instant::now();
        if now > start + time {
            break;
        }
        if begun[index] >= start {
            latencies.push(now - begun[index]);
        }
        begun[index] = now;
        sender.send(next(index)).await?;
    }
    Ok(Sample::new(latencies, time))
}

/// So many sends over one `SendStream`, a window of them unanswered.
pub async fn send_all(client: &mut MessagingServiceClient<Channel>, to: &str, count: u32, window: usize) -> Result<()> {
    let request = request(to);
    let (sender, requests) = mpsc::channel(window);
    let mut answers = client.send_stream(ReceiverStream::new(requests)).await?.into_inner();
    let (mut sent, mut answered) = (0, 0);
    while answered < count {
        while sent < count && ((sent - answered) as usize) < window {
            let send = Some(request.clone());
            sender.send(SendStreamRequest { index: sent, send, ..SendStreamRequest::default() }).await?;
            sent += 1;
        }
        let answer = answers.message().await?.context("the stream of sends ended")?;
        if let Some(Outcome::Error(error)) = answer.result {
            anyhow::bail!("{}: {}", error.code, error.message);
        }
        answered += 1;
    }
    Ok(())
}

/// `POST /v1/send` by many callers, each over a connection of its own, as HTTP/1.1
/// clients do.
pub async fn rest_send(socket: &Path, to: &str, callers: usize, time: Duration) -> Result<Sample> {
    let body = Bytes::from(serde_json::json!({"to": to, "message": payload()}).to_string());
    let mut operations = Vec::new();
    for _ in 0..callers {
        operations.push(post(socket, "/v1/send", body.clone()).await?);
    }
    closed_loop(operations, time).await
}

/// A POST over one connection, repeated.
async fn post(socket: &Path, path: &'static str, body: Bytes) -> Result<Operation> {
    let io = TokioIo::new(UnixStream::connect(socket).await?);
    let (sender, connection) = hyper::client::conn::http1::handshake(io).await?;
    tokio::spawn(connection);
    let sender = Arc::new(Mutex::new(sender));
    Ok(operation(move || {
        let (sender, body) = (Arc::clone(&sender), body.clone());
        async move {
            let request = Request::post(path).header("host", "localhost").header("content-type", "application/json");
            let mut sender = sender.lock().await;
            sender.ready().await?;
            let response = sender.send_request(request.body(Full::new(body))?).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
            let answer: serde_json::Value = serde_json::from_slice(&body)?;
            answer["client_message_id"].as_str().context("no id")?;
            Ok(())
        }
    }))
}

fn request(to: &str) -> SendRequest {
    SendRequest { to: to.to_owned(), message: payload(), ..SendRequest::default() }
}
