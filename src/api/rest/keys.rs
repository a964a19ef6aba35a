//! `KeysService` over REST.

use axum::Json;
use axum::extract::State;
use http::HeaderMap;

use super::json::{Body, Parameters, page};
use crate::api::page::Encoding;
use crate::api::service::Services;
use crate::api::status::Failure;
use crate::proto::admin;

/// `POST /v1/keys/rotate-keypair` (R373).
pub async fn rotate_keypair(
    State(services): State<Services>,
    Body(admin::RotateKeypairRequest {}): Body<admin::RotateKeypairRequest>,
) -> Result<Json<admin::RotateKeypairResponse>, Failure> {
    services.rotate_keypair().await.map(Json)
}

/// `GET /v1/keys/pinned`.
pub async fn list_pinned(
    State(services): State<Services>,
    parameters: Parameters,
) -> Result<(HeaderMap, Json<admin::ListPinnedMembersResponse>), Failure> {
    let response = services.list_pinned_members(parameters.into_request(&["pending_only"], &[])?, Encoding::Json)?;
    let token = response.next_page_token.clone();
    Ok(page(&parameters, response, &token))
}

/// `POST /v1/keys/verify`.
pub async fn verify(
    State(services): State<Services>,
    Body(request): Body<admin::VerifyPeerRequest>,
) -> Result<Json<admin::VerifyPeerResponse>, Failure> {
    services.verify_peer(request).await.map(Json)
}

/// `POST /v1/keys/accept-key`.
pub async fn accept_key(
    State(services): State<Services>,
    Body(request): Body<admin::AcceptMemberKeyRequest>,
) -> Result<Json<admin::AcceptMemberKeyResponse>, Failure> {
    services.accept_member_key(request).await.map(Json)
}

/// `POST /v1/keys/accept-name`.
pub async fn accept_name(
    State(services): State<Services>,
    Body(request): Body<admin::AcceptNameBindingRequest>,
) -> Result<Json<admin::AcceptNameBindingResponse>, Failure> {
    services.accept_name_binding(request).await.map(Json)
}

/// `POST /v1/keys/rotate-topic-key`.
pub async fn rotate_topic_key(
    State(services): State<Services>,
    Body(request): Body<admin::RotateTopicKeyRequest>,
) -> Result<Json<admin::RotateTopicKeyResponse>, Failure> {
    services.rotate_topic_key(request).await.map(Json)
}

/// `GET /v1/keys/topic-admissions`.
pub async fn list_topic_admissions(
    State(services): State<Services>,
    parameters: Parameters,
) -> Result<(HeaderMap, Json<admin::ListTopicAdmissionsResponse>), Failure> {
    let response = services.list_topic_admissions(parameters.into_request(&[], &[])?, Encoding::Json).await?;
    let token = response.next_page_token.clone();
    Ok(page(&parameters, response, &token))
}

/// `POST /v1/keys/admit-topic-member`.
pub async fn admit_topic_member(
    State(services): State<Services>,
    Body(request): Body<admin::AdmitTopicMemberRequest>,
) -> Result<Json<admin::AdmitTopicMemberResponse>, Failure> {
    services.admit_topic_member(request).await.map(Json)
}
