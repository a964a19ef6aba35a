//! `PeerService` over gRPC.

use tonic::{Request, Response, Status};

use super::{Grpc, answer};
use crate::api::page::Encoding;
use crate::proto::pb;
use crate::proto::pb::peer_service_server::PeerService;

#[tonic::async_trait]
impl PeerService for Grpc {
    async fn list_peers(
        &self,
        request: Request<pb::ListPeersRequest>,
    ) -> Result<Response<pb::ListPeersResponse>, Status> {
        answer(self.0.list_peers(request.into_inner(), Encoding::Protobuf))
    }

    async fn set_profile(
        &self,
        request: Request<pb::SetProfileRequest>,
    ) -> Result<Response<pb::SetProfileResponse>, Status> {
        answer(self.0.set_profile(request.into_inner()).await)
    }
}
