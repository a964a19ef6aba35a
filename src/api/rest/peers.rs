//! `PeerService` over REST.

use axum::Json;
use axum::extract::State;
use http::HeaderMap;

use super::json::{Body, Parameters, page};
use crate::api::page::Encoding;
use crate::api::service::Services;
use crate::api::status::Failure;
use crate::proto::pb;

/// `GET /v1/peers` (R83).
pub async fn list(
    State(services): State<Services>,
    parameters: Parameters,
) -> Result<(HeaderMap, Json<pb::ListPeersResponse>), Failure> {
    let response = services.list_peers(parameters.into_request(&["include_offline"], &["roles"])?, Encoding::Json)?;
    let token = response.next_page_token.clone();
    Ok(page(&parameters, response, &token))
}

/// `POST /v1/profile` (R84).
pub async fn set_profile(
    State(services): State<Services>,
    Body(request): Body<pb::SetProfileRequest>,
) -> Result<Json<pb::SetProfileResponse>, Failure> {
    services.set_profile(request).await.map(Json)
}
