//! `TopicService` over gRPC.

use tonic::{Request, Response, Status};

use super::{Grpc, answer};
use crate::proto::pb;
use crate::proto::pb::topic_service_server::TopicService;

#[tonic::async_trait]
impl TopicService for Grpc {
    async fn subscribe(
        &self,
        request: Request<pb::SubscribeRequest>,
    ) -> Result<Response<pb::SubscribeResponse>, Status> {
        answer(self.0.subscribe(request.into_inner()).await)
    }

    async fn unsubscribe(
        &self,
        request: Request<pb::UnsubscribeRequest>,
    ) -> Result<Response<pb::UnsubscribeResponse>, Status> {
        answer(self.0.unsubscribe(request.into_inner()).await)
    }

    async fn list_topics(
        &self,
        request: Request<pb::ListTopicsRequest>,
    ) -> Result<Response<pb::ListTopicsResponse>, Status> {
        answer(self.0.list_topics(request.into_inner()).await)
    }
}
