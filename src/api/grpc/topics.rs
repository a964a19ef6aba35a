//! `TopicService` over gRPC.

use tonic::{Request, Response, Status};

use super::{Grpc, answer};
use crate::api::page::Encoding;
use crate::proto::pb;
use crate::proto::pb::topic_service_server::TopicService;

#[tonic::async_trait]
impl TopicService for Grpc {
    async fn create_topic(
        &self,
        request: Request<pb::CreateTopicRequest>,
    ) -> Result<Response<pb::CreateTopicResponse>, Status> {
        answer(self.0.create_topic(request.into_inner()).await)
    }

    async fn subscribe_topic(
        &self,
        request: Request<pb::SubscribeTopicRequest>,
    ) -> Result<Response<pb::SubscribeTopicResponse>, Status> {
        answer(self.0.subscribe_topic(request.into_inner()).await)
    }

    async fn unsubscribe_topic(
        &self,
        request: Request<pb::UnsubscribeTopicRequest>,
    ) -> Result<Response<pb::UnsubscribeTopicResponse>, Status> {
        answer(self.0.unsubscribe_topic(request.into_inner()).await)
    }

    async fn list_topics(
        &self,
        request: Request<pb::ListTopicsRequest>,
    ) -> Result<Response<pb::ListTopicsResponse>, Status> {
        answer(self.0.list_topics(request.into_inner(), Encoding::Protobuf).await)
    }
}
