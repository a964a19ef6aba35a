//! The local API over gRPC, as a generated client sees it.

use std::path::Path;
use std::time::Instant;

use claudemesh::proto::pb::event_service_client::EventServiceClient;
use claudemesh::proto::pb::inbox_service_client::InboxServiceClient;
use claudemesh::proto::pb::messaging_service_client::MessagingServiceClient;
use claudemesh::proto::pb::{SendRequest, SendResponse};
use tonic::transport::{Channel, Endpoint};

use super::wait;

/// A connection to a daemon's socket.
pub(crate) async fn channel(socket: &Path) -> Channel {
    let endpoint = Endpoint::try_from(format!("unix://{}", socket.display())).expect("a socket's address");
    // Small windows make a receiver of many small frames give up.
    let endpoint = endpoint.initial_connection_window_size(64 << 20).initial_stream_window_size(1 << 20);
    wait::soon("the gRPC connection", endpoint.connect()).await.expect("the daemon takes connections")
}

pub(crate) async fn messaging(socket: &Path) -> MessagingServiceClient<Channel> {
    MessagingServiceClient::new(channel(socket).await)
}

pub(crate) async fn inbox(socket: &Path) -> InboxServiceClient<Channel> {
    InboxServiceClient::new(channel(socket).await).max_decoding_message_size(64 << 20)
}

pub(crate) async fn events(socket: &Path) -> EventServiceClient<Channel> {
    EventServiceClient::new(channel(socket).await)
}

/// A send with an id of the caller's.
pub(crate) fn send_request(to: &str, message: &str, id: &str) -> SendRequest {
    SendRequest { to: to.into(), message: message.into(), client_message_id: id.into(), ..SendRequest::default() }
}

/// Sends until the daemon answers, over as many of its lives as it takes. The
/// id makes this one message.
pub(crate) async fn send_until_answered(socket: &Path, request: &SendRequest) -> SendResponse {
    let end = Instant::now() + wait::DEADLINE * 4;
    loop {
        let endpoint = Endpoint::try_from(format!("unix://{}", socket.display())).expect("a socket's address");
        if let Ok(channel) = endpoint.connect().await
            && let Ok(answer) = MessagingServiceClient::new(channel).send(request.clone()).await
        {
            return answer.into_inner();
        }
        assert!(Instant::now() < end, "no answer to {}", request.client_message_id);
        tokio::time::sleep(wait::POLL).await;
    }
}
