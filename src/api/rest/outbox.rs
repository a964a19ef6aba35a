//! `OutboxService` over REST.

use axum::Json;
use axum::extract::State;
use http::HeaderMap;

use super::json::{Body, Parameters, page};
use crate::api::page::Encoding;
use crate::api::service::Services;
use crate::api::status::Failure;
use crate::proto::admin;

/// `GET /v1/outbox`: what waits and what was given up.
pub async fn list(
    State(services): State<Services>,
    parameters: Parameters,
) -> Result<(HeaderMap, Json<admin::ListOutboxResponse>), Failure> {
    let response = services.list_outbox(parameters.into_request(&[], &["statuses"])?, Encoding::Json).await?;
    let token = response.next_page_token.clone();
    Ok(page(&parameters, response, &token))
}

/// `GET /v1/outbox/entry?id=`: one entry with its text.
pub async fn entry(
    State(services): State<Services>,
    parameters: Parameters,
) -> Result<Json<admin::GetOutboxEntryResponse>, Failure> {
    services.outbox_entry(parameters.into_request(&[], &[])?).await.map(Json)
}

/// `POST /v1/outbox/requeue`.
pub async fn requeue(
    State(services): State<Services>,
    Body(request): Body<admin::RequeueEntryRequest>,
) -> Result<Json<admin::RequeueEntryResponse>, Failure> {
    services.requeue_entry(request).await.map(Json)
}

/// `POST /v1/outbox/drop`.
pub async fn drop_entry(
    State(services): State<Services>,
    Body(request): Body<admin::DropEntryRequest>,
) -> Result<Json<admin::DropEntryResponse>, Failure> {
    services.drop_entry(request).await.map(Json)
}

/// `POST /v1/outbox/prune`.
pub async fn prune(
    State(services): State<Services>,
    Body(request): Body<admin::PruneOutboxRequest>,
) -> Result<Json<admin::PruneOutboxResponse>, Failure> {
    services.prune_outbox(request).await.map(Json)
}
