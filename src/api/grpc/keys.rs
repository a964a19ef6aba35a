//! `KeysService` over gRPC.

use tonic::{Request, Response, Status};

use super::{Grpc, answer};
use crate::api::page::Encoding;
use crate::api::status::Failure;
use crate::proto::admin;
use crate::proto::admin::keys_service_server::KeysService;

#[tonic::async_trait]
impl KeysService for Grpc {
    async fn rotate_keypair(
        &self,
        _request: Request<admin::RotateKeypairRequest>,
    ) -> Result<Response<admin::RotateKeypairResponse>, Status> {
        answer(self.0.rotate_keypair().await)
    }

    async fn rotate_token(
        &self,
        _request: Request<admin::RotateTokenRequest>,
    ) -> Result<Response<admin::RotateTokenResponse>, Status> {
        answer(Err(Failure::not_served("RotateToken")))
    }

    async fn list_pinned_members(
        &self,
        request: Request<admin::ListPinnedMembersRequest>,
    ) -> Result<Response<admin::ListPinnedMembersResponse>, Status> {
        answer(self.0.list_pinned_members(request.into_inner(), Encoding::Protobuf))
    }

    async fn accept_member_key(
        &self,
        request: Request<admin::AcceptMemberKeyRequest>,
    ) -> Result<Response<admin::AcceptMemberKeyResponse>, Status> {
        answer(self.0.accept_member_key(request.into_inner()).await)
    }

    async fn accept_name_binding(
        &self,
        request: Request<admin::AcceptNameBindingRequest>,
    ) -> Result<Response<admin::AcceptNameBindingResponse>, Status> {
        answer(self.0.accept_name_binding(request.into_inner()).await)
    }

    async fn verify_peer(
        &self,
        request: Request<admin::VerifyPeerRequest>,
    ) -> Result<Response<admin::VerifyPeerResponse>, Status> {
        answer(self.0.verify_peer(request.into_inner()).await)
    }

    async fn rotate_topic_key(
        &self,
        request: Request<admin::RotateTopicKeyRequest>,
    ) -> Result<Response<admin::RotateTopicKeyResponse>, Status> {
        answer(self.0.rotate_topic_key(request.into_inner()).await)
    }

    async fn list_topic_admissions(
        &self,
        request: Request<admin::ListTopicAdmissionsRequest>,
    ) -> Result<Response<admin::ListTopicAdmissionsResponse>, Status> {
        answer(self.0.list_topic_admissions(request.into_inner(), Encoding::Protobuf).await)
    }

    async fn admit_topic_member(
        &self,
        request: Request<admin::AdmitTopicMemberRequest>,
    ) -> Result<Response<admin::AdmitTopicMemberResponse>, Status> {
        answer(self.0.admit_topic_member(request.into_inner()).await)
    }
}
