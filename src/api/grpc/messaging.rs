//! `MessagingService` over gRPC.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use super::{Grpc, answer, broken_stream, idempotency_key};
use crate::api::status::Failure;
use crate::domain::error_code::ErrorCode;
use crate::proto::pb;
use crate::proto::pb::messaging_service_server::MessagingService;

#[tonic::async_trait]
impl MessagingService for Grpc {
    async fn send(&self, request: Request<pb::SendRequest>) -> Result<Response<pb::SendResponse>, Status> {
        let key = idempotency_key(request.metadata()).map_err(|failure| failure.to_status())?;
        answer(self.0.send(request.into_inner(), key).await)
    }

    type SendStreamStream = Pin<Box<dyn Stream<Item = Result<pb::SendStreamResponse, Status>> + Send>>;

    async fn send_stream(
        &self,
        request: Request<Streaming<pb::SendStreamRequest>>,
    ) -> Result<Response<Self::SendStreamStream>, Status> {
        if request.metadata().contains_key("idempotency-key") {
            let text = "an idempotency-key names a single message; give each send of the stream its client_message_id";
            return Err(Failure::new(ErrorCode::IdempotencyKeyInvalid, text).to_status());
        }
        let deadline = Self::deadline(&request);
        let requests = request.into_inner().map(|one| one.map_err(broken_stream));
        let answers = self.0.send_stream(requests, deadline).map_err(|failure| failure.to_status())?;
        Ok(Response::new(Box::pin(answers.map(|one| one.map_err(|failure| failure.to_status())))))
    }

    async fn get_send(&self, request: Request<pb::GetSendRequest>) -> Result<Response<pb::GetSendResponse>, Status> {
        answer(self.0.get_send(request.into_inner()).await)
    }

    async fn post_topic(
        &self,
        request: Request<pb::PostTopicRequest>,
    ) -> Result<Response<pb::PostTopicResponse>, Status> {
        let key = idempotency_key(request.metadata()).map_err(|failure| failure.to_status())?;
        answer(self.0.post_topic(request.into_inner(), key).await)
    }
}
