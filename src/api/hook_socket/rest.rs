//! What a hook run may call over REST.

use axum::extract::{FromRequest as _, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use http::StatusCode;

use super::OfRun;
use crate::api::rest::json::{Body, key_of};
use crate::api::status::Failure;
use crate::proto::pb;

/// The routes.
pub(super) fn router(of_run: OfRun) -> Router {
    Router::new().route("/v1/send", post(send)).route("/v1/topic/post", post(post_topic)).with_state(of_run)
}

async fn send(State(of_run): State<OfRun>, request: Request) -> Result<Response, Failure> {
    let key = key_of(request.headers())?;
    let Body(request) = Body::<pb::SendRequest>::from_request(request, &of_run.services).await?;
    let allowed = of_run.admit_send(&request.to, &request.reply_to_id)?;
    let response = of_run.services.send_of_hook(request, key, allowed).await?;
    let status = if response.duplicate { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(response)).into_response())
}

async fn post_topic(State(of_run): State<OfRun>, request: Request) -> Result<Response, Failure> {
    let key = key_of(request.headers())?;
    let Body(request) = Body::<pb::PostTopicRequest>::from_request(request, &of_run.services).await?;
    let allowed = of_run.admit_post(&request.topic, &request.reply_to_id)?;
    let response = of_run.services.post_of_hook(request, key, allowed).await?;
    let status = if response.duplicate { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(response)).into_response())
}
