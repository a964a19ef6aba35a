//! `TopicService` over REST.

use axum::Json;
use axum::extract::State;
use http::HeaderMap;

use super::json::{Body, Parameters, page};
use crate::api::page::Encoding;
use crate::api::service::Services;
use crate::api::status::Failure;
use crate::proto::pb;

/// `POST /v1/topic/create`.
pub async fn create(
    State(services): State<Services>,
    Body(request): Body<pb::CreateTopicRequest>,
) -> Result<Json<pb::CreateTopicResponse>, Failure> {
    services.create_topic(request).await.map(Json)
}

/// `POST /v1/topic/subscribe` (R78).
pub async fn subscribe(
    State(services): State<Services>,
    Body(request): Body<pb::SubscribeTopicRequest>,
) -> Result<Json<pb::SubscribeTopicResponse>, Failure> {
    services.subscribe_topic(request).await.map(Json)
}

/// `POST /v1/topic/unsubscribe` (R79).
pub async fn unsubscribe(
    State(services): State<Services>,
    Body(request): Body<pb::UnsubscribeTopicRequest>,
) -> Result<Json<pb::UnsubscribeTopicResponse>, Failure> {
    services.unsubscribe_topic(request).await.map(Json)
}

/// `GET /v1/topic/list` (R80).
pub async fn list(
    State(services): State<Services>,
    parameters: Parameters,
) -> Result<(HeaderMap, Json<pb::ListTopicsResponse>), Failure> {
    let response = services.list_topics(parameters.into_request(&["subscribed_only"], &[])?, Encoding::Json).await?;
    let token = response.next_page_token.clone();
    Ok(page(&parameters, response, &token))
}
