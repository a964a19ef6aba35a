//! `InboxService` over gRPC.

use prost::Message as _;
use tonic::{Request, Response, Status};

use super::{Grpc, answer};
use crate::api::limits::MAX_GRPC_MESSAGE;
use crate::api::service::Measure;
use crate::proto::pb;
use crate::proto::pb::inbox_service_server::InboxService;

/// Tag and length of one message in a list, and room for the page token.
const AROUND: usize = 16;

#[tonic::async_trait]
impl InboxService for Grpc {
    async fn list_messages(
        &self,
        request: Request<pb::ListMessagesRequest>,
    ) -> Result<Response<pb::ListMessagesResponse>, Status> {
        let measure = Measure { limit: MAX_GRPC_MESSAGE - 1024, size: |message| message.encoded_len() + AROUND };
        answer(self.0.list_messages(request.into_inner(), measure).await)
    }
}
