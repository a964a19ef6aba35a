//! `EventService` over REST: server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::{Stream, StreamExt as _};
use http::HeaderMap;

use super::json::Parameters;
use crate::api::service::Services;
use crate::api::status::Failure;
use crate::proto::pb;
use crate::proto::pb::stream_events_response::Event as Kind;

/// A comment is sent when nothing else was for this long.
const COMMENT: Duration = Duration::from_secs(15);
/// What a reader waits before it connects again.
const RETRY: Duration = Duration::from_secs(1);

/// `GET /v1/events` (R89 to R97). A reader that connects again repeats its URL,
/// so its `Last-Event-ID` wins over the parameter `after`.
pub async fn stream(
    State(services): State<Services>,
    headers: HeaderMap,
    parameters: Parameters,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failure> {
    let mut request: pb::StreamEventsRequest = parameters.into_request(&["from_start"], &["types"])?;
    if let Some(id) = headers.get("last-event-id").filter(|id| !id.is_empty()) {
        request.after = id.to_str().map_err(|_| Failure::field("last-event-id", "it is not ASCII"))?.to_owned();
        request.from_start = false;
    }
    let events = services.stream_events(request, None).await?;
    // A failure can only end the stream; the reader connects again and is told.
    let events = events.filter_map(|one| std::future::ready(one.ok().as_ref().and_then(sse)));
    let first = futures_util::stream::once(std::future::ready(Event::default().retry(RETRY)));
    Ok(Sse::new(first.chain(events).map(Ok)).keep_alive(KeepAlive::new().interval(COMMENT)))
}

fn sse(event: &pb::StreamEventsResponse) -> Option<Event> {
    let mut sse = Event::default().event(name(event.event.as_ref()?));
    if !event.event_id.is_empty() {
        sse = sse.id(&event.event_id);
    }
    sse.json_data(event)
        .inspect_err(|error| tracing::error!(%error, "An event cannot be written as JSON: {error}"))
        .ok()
}

/// The name of the field that is set, which is the event's name.
fn name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Message(_) => "message",
        Kind::PeerJoin(_) => "peer_join",
        Kind::PeerLeave(_) => "peer_leave",
        Kind::FileShared(_) => "file_shared",
        Kind::DaemonDisconnect(_) => "daemon_disconnect",
        Kind::DaemonReconnect(_) => "daemon_reconnect",
        Kind::HookExecuted(_) => "hook_executed",
        Kind::FeatureNegotiationFailed(_) => "feature_negotiation_failed",
        Kind::Gap(_) => "gap",
        Kind::DeliveryStatus(_) => "delivery_status",
        Kind::OutboxPressureHigh(_) => "outbox_pressure_high",
        Kind::OutboxPressureCleared(_) => "outbox_pressure_cleared",
        Kind::MemberKeyChanged(_) => "member_key_changed",
        Kind::NameBindingChanged(_) => "name_binding_changed",
        Kind::MemberKeypairRotated(_) => "member_keypair_rotated",
        Kind::MemberRenamed(_) => "member_renamed",
        Kind::MemberRevoked(_) => "member_revoked",
        Kind::PeerFeatureDowngrade(_) => "peer_feature_downgrade",
        Kind::CaughtUp(_) => "caught_up",
    }
}
