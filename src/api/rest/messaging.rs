//! `MessagingService` over REST.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, StatusCode};

use super::json::{Body, NoParameters, key_of};
use crate::api::service::Services;
use crate::api::status::Failure;
use crate::proto::pb;

/// `POST /v1/send` (R75, R76): 202 when queued or in flight, 200 when the broker
/// has it already.
pub async fn send(
    State(services): State<Services>,
    headers: HeaderMap,
    Body(request): Body<pb::SendRequest>,
) -> Result<Response, Failure> {
    let response = services.send(request, key_of(&headers)?).await?;
    let status = if response.duplicate { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(response)).into_response())
}

/// `GET /v1/send/{client_message_id}`.
pub async fn get_send(
    State(services): State<Services>,
    Path(client_message_id): Path<String>,
    _: NoParameters,
) -> Result<Json<pb::GetSendResponse>, Failure> {
    services.get_send(pb::GetSendRequest { client_message_id }).await.map(Json)
}

/// `POST /v1/topic/post` (R77, R146): statuses as for `send`.
pub async fn post_topic(
    State(services): State<Services>,
    headers: HeaderMap,
    Body(request): Body<pb::PostTopicRequest>,
) -> Result<Response, Failure> {
    let response = services.post_topic(request, key_of(&headers)?).await?;
    let status = if response.duplicate { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(response)).into_response())
}
