//! `HooksService` over gRPC.

use tonic::{Request, Response, Status};

use super::{Grpc, answer};
use crate::api::page::Encoding;
use crate::proto::admin;
use crate::proto::admin::hooks_service_server::HooksService;

#[tonic::async_trait]
impl HooksService for Grpc {
    async fn list_hooks(
        &self,
        request: Request<admin::ListHooksRequest>,
    ) -> Result<Response<admin::ListHooksResponse>, Status> {
        answer(self.0.list_hooks(request.into_inner(), Encoding::Protobuf))
    }

    async fn list_hook_runs(
        &self,
        request: Request<admin::ListHookRunsRequest>,
    ) -> Result<Response<admin::ListHookRunsResponse>, Status> {
        answer(self.0.list_hook_runs(request.into_inner(), Encoding::Protobuf).await)
    }

    async fn reload_hooks(
        &self,
        _: Request<admin::ReloadHooksRequest>,
    ) -> Result<Response<admin::ReloadHooksResponse>, Status> {
        answer(self.0.reload_hooks())
    }
}
