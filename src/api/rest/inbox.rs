//! `InboxService` over REST.

use axum::Json;
use axum::extract::State;
use http::HeaderMap;

use super::json::{Parameters, page};
use crate::api::page::Encoding;
use crate::api::service::Services;
use crate::api::status::Failure;
use crate::proto::pb;

/// `GET /v1/inbox` (R81, R132).
pub async fn list(
    State(services): State<Services>,
    parameters: Parameters,
) -> Result<(HeaderMap, Json<pb::ListMessagesResponse>), Failure> {
    let response = services.list_messages(parameters.into_request(&[], &[])?, Encoding::Json).await?;
    let token = response.next_page_token.clone();
    Ok(page(&parameters, response, &token))
}
