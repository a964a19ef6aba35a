//! `EventService` over gRPC.

use std::pin::Pin;

use futures_util::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use super::Grpc;
use crate::proto::pb;
use crate::proto::pb::event_service_server::EventService;

#[tonic::async_trait]
impl EventService for Grpc {
    type StreamEventsStream = Pin<Box<dyn Stream<Item = Result<pb::StreamEventsResponse, Status>> + Send>>;

    async fn stream_events(
        &self,
        request: Request<pb::StreamEventsRequest>,
    ) -> Result<Response<Self::StreamEventsStream>, Status> {
        let deadline = Self::deadline(&request);
        let events = self.0.stream_events(request.into_inner(), deadline).await;
        let events = events.map_err(|failure| failure.to_status())?;
        Ok(Response::new(Box::pin(events.map(|one| one.map_err(|failure| failure.to_status())))))
    }
}
