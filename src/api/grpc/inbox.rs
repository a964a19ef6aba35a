//! `InboxService` over gRPC.

use tonic::{Request, Response, Status};

use super::{Grpc, answer};
use crate::api::page::Encoding;
use crate::proto::pb;
use crate::proto::pb::inbox_service_server::InboxService;

#[tonic::async_trait]
impl InboxService for Grpc {
    async fn list_messages(
        &self,
        request: Request<pb::ListMessagesRequest>,
    ) -> Result<Response<pb::ListMessagesResponse>, Status> {
        answer(self.0.list_messages(request.into_inner(), Encoding::Protobuf).await)
    }
}
