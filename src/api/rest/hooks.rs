//! `HooksService` over REST.

use axum::Json;
use axum::extract::State;
use http::HeaderMap;

use super::json::{Body, Parameters, page};
use crate::api::page::Encoding;
use crate::api::service::Services;
use crate::api::status::Failure;
use crate::proto::admin;

/// `GET /v1/hooks`: which there are, and why one does not run.
pub async fn list(
    State(services): State<Services>,
    parameters: Parameters,
) -> Result<(HeaderMap, Json<admin::ListHooksResponse>), Failure> {
    let response = services.list_hooks(parameters.into_request(&[], &[])?, Encoding::Json)?;
    let token = response.next_page_token.clone();
    Ok(page(&parameters, response, &token))
}

/// `GET /v1/hooks/runs`: ended runs, the newest first.
pub async fn runs(
    State(services): State<Services>,
    parameters: Parameters,
) -> Result<(HeaderMap, Json<admin::ListHookRunsResponse>), Failure> {
    let response = services.list_hook_runs(parameters.into_request(&["failed_only"], &[])?, Encoding::Json).await?;
    let token = response.next_page_token.clone();
    Ok(page(&parameters, response, &token))
}

/// `POST /v1/hooks/reload`.
pub async fn reload(
    State(services): State<Services>,
    Body(_): Body<admin::ReloadHooksRequest>,
) -> Result<Json<admin::ReloadHooksResponse>, Failure> {
    services.reload_hooks().map(Json)
}
