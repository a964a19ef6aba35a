//! `OutboxService` over gRPC.

use tonic::{Request, Response, Status};

use super::{Grpc, answer};
use crate::api::page::Encoding;
use crate::proto::admin;
use crate::proto::admin::outbox_service_server::OutboxService;

#[tonic::async_trait]
impl OutboxService for Grpc {
    async fn list_outbox(
        &self,
        request: Request<admin::ListOutboxRequest>,
    ) -> Result<Response<admin::ListOutboxResponse>, Status> {
        answer(self.0.list_outbox(request.into_inner(), Encoding::Protobuf).await)
    }

    async fn get_outbox_entry(
        &self,
        request: Request<admin::GetOutboxEntryRequest>,
    ) -> Result<Response<admin::GetOutboxEntryResponse>, Status> {
        answer(self.0.outbox_entry(request.into_inner()).await)
    }

    async fn requeue_entry(
        &self,
        request: Request<admin::RequeueEntryRequest>,
    ) -> Result<Response<admin::RequeueEntryResponse>, Status> {
        answer(self.0.requeue_entry(request.into_inner()).await)
    }

    async fn drop_entry(
        &self,
        request: Request<admin::DropEntryRequest>,
    ) -> Result<Response<admin::DropEntryResponse>, Status> {
        answer(self.0.drop_entry(request.into_inner()).await)
    }

    async fn prune_outbox(
        &self,
        request: Request<admin::PruneOutboxRequest>,
    ) -> Result<Response<admin::PruneOutboxResponse>, Status> {
        answer(self.0.prune_outbox(request.into_inner()).await)
    }
}
