//! `ControlService` over REST, and the two probes of service managers.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, header};

use super::json::{Body, NoParameters};
use crate::api::service::Services;
use crate::api::status::Failure;
use crate::domain::error_code::ErrorCode;
use crate::proto::pb;

/// `GET /v1/health` (R98).
pub async fn health(State(services): State<Services>, _: NoParameters) -> Json<pb::GetHealthResponse> {
    Json(services.health().await)
}

/// `GET /v1/metrics` (R99): the text itself, in the newer format when it is
/// asked for.
pub async fn metrics(State(services): State<Services>, headers: HeaderMap, _: NoParameters) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let metrics = services.metrics(accept.contains("application/openmetrics-text")).await;
    ([(header::CONTENT_TYPE, metrics.content_type)], metrics.text).into_response()
}

/// `GET /v1/version` (R100, R407).
pub async fn version(State(services): State<Services>, _: NoParameters) -> Json<pb::GetVersionResponse> {
    Json(services.version())
}

/// `GET /v1/compat` (R102, R409).
pub async fn compat(State(services): State<Services>, _: NoParameters) -> Json<pb::GetCompatResponse> {
    Json(services.compat())
}

/// `POST /v1/heartbeat` (R101).
pub async fn heartbeat(
    State(services): State<Services>,
    Body(pb::HeartbeatRequest {}): Body<pb::HeartbeatRequest>,
) -> Json<pb::HeartbeatResponse> {
    Json(services.heartbeat())
}

/// `GET /healthz`: the process answers.
pub async fn alive(_: NoParameters) -> &'static str {
    "ok\n"
}

/// `GET /readyz`: it takes sends. That needs no link to the broker.
pub async fn ready(State(services): State<Services>, _: NoParameters) -> Result<&'static str, Failure> {
    if services.is_stopping() {
        return Err(Failure::new(ErrorCode::DaemonShuttingDown, "the daemon is stopping"));
    }
    if services.degraded_reasons().contains(&"outbox_full") {
        return Err(Failure::new(ErrorCode::InsufficientStorage, "the outbox is full; see `claudemesh daemon status`"));
    }
    Ok("ready\n")
}
