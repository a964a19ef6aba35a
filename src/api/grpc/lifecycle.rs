//! `LifecycleService` over gRPC; operators have no REST form of it.

use tonic::{Request, Response, Status};

use super::{Grpc, answer};
use crate::proto::admin;
use crate::proto::admin::lifecycle_service_server::LifecycleService;

#[tonic::async_trait]
impl LifecycleService for Grpc {
    async fn get_status(
        &self,
        _request: Request<admin::GetStatusRequest>,
    ) -> Result<Response<admin::GetStatusResponse>, Status> {
        answer(self.0.status().await)
    }

    async fn reload(&self, _request: Request<admin::ReloadRequest>) -> Result<Response<admin::ReloadResponse>, Status> {
        answer(self.0.reload())
    }

    async fn shutdown(
        &self,
        _request: Request<admin::ShutdownRequest>,
    ) -> Result<Response<admin::ShutdownResponse>, Status> {
        Ok(Response::new(self.0.shutdown().await))
    }

    async fn accept_host(
        &self,
        _request: Request<admin::AcceptHostRequest>,
    ) -> Result<Response<admin::AcceptHostResponse>, Status> {
        answer(self.0.accept_host())
    }
}
