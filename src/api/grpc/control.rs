//! `ControlService` over gRPC.

use tonic::{Request, Response, Status};

use super::Grpc;
use crate::proto::pb;
use crate::proto::pb::control_service_server::ControlService;

#[tonic::async_trait]
impl ControlService for Grpc {
    async fn get_health(
        &self,
        _request: Request<pb::GetHealthRequest>,
    ) -> Result<Response<pb::GetHealthResponse>, Status> {
        Ok(Response::new(self.0.health().await))
    }

    async fn get_metrics(
        &self,
        _request: Request<pb::GetMetricsRequest>,
    ) -> Result<Response<pb::GetMetricsResponse>, Status> {
        Ok(Response::new(self.0.metrics(false).await))
    }

    async fn get_version(
        &self,
        _request: Request<pb::GetVersionRequest>,
    ) -> Result<Response<pb::GetVersionResponse>, Status> {
        Ok(Response::new(self.0.version()))
    }

    async fn get_compat(
        &self,
        _request: Request<pb::GetCompatRequest>,
    ) -> Result<Response<pb::GetCompatResponse>, Status> {
        Ok(Response::new(self.0.compat()))
    }

    async fn heartbeat(
        &self,
        _request: Request<pb::HeartbeatRequest>,
    ) -> Result<Response<pb::HeartbeatResponse>, Status> {
        Ok(Response::new(self.0.heartbeat()))
    }
}
