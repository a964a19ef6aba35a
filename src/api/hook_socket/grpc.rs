//! What a hook run may call over gRPC.

use std::pin::Pin;

use axum::Router;
use futures_util::Stream;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

use super::OfRun;
use crate::api::grpc::{answer, idempotency_key};
use crate::api::limits::MAX_GRPC_MESSAGE;
use crate::proto::pb;
use crate::proto::pb::messaging_service_server::{MessagingService, MessagingServiceServer};

/// The one service that a run may call.
pub(super) fn router(of_run: OfRun) -> Router {
    let service = MessagingServiceServer::new(of_run)
        .max_decoding_message_size(MAX_GRPC_MESSAGE)
        .max_encoding_message_size(MAX_GRPC_MESSAGE);
    let mut routes = Routes::builder();
    routes.add_service(service);
    routes.routes().into_axum_router().reset_fallback()
}

#[tonic::async_trait]
impl MessagingService for OfRun {
    async fn send(&self, request: Request<pb::SendRequest>) -> Result<Response<pb::SendResponse>, Status> {
        let sent = async {
            let key = idempotency_key(request.metadata())?;
            let request = request.into_inner();
            let allowed = self.admit_send(&request.to, &request.reply_to_id)?;
            self.services.send_of_hook(request, key, allowed).await
        };
        answer(sent.await)
    }

    type SendStreamStream = Pin<Box<dyn Stream<Item = Result<pb::SendStreamResponse, Status>> + Send>>;

    async fn send_stream(
        &self,
        _: Request<Streaming<pb::SendStreamRequest>>,
    ) -> Result<Response<Self::SendStreamStream>, Status> {
        Err(self.refuse().to_status())
    }

    async fn get_send(&self, _: Request<pb::GetSendRequest>) -> Result<Response<pb::GetSendResponse>, Status> {
        Err(self.refuse().to_status())
    }

    async fn post_topic(
        &self,
        request: Request<pb::PostTopicRequest>,
    ) -> Result<Response<pb::PostTopicResponse>, Status> {
        let posted = async {
            let key = idempotency_key(request.metadata())?;
            let request = request.into_inner();
            let allowed = self.admit_post(&request.topic, &request.reply_to_id)?;
            self.services.post_of_hook(request, key, allowed).await
        };
        answer(posted.await)
    }
}
