//! Feature negotiation, and the rule for a second connection of one member.
//!
//! The rule binds connections that negotiated it. Old clients and sessions are
//! siblings of whatever else the member has, so that a CLI call never evicts a
//! daemon.

use std::sync::Arc;

use serde_json::json;

use super::peer::Peer;
use super::presence;
use super::terms::{End, Kind};
use crate::broker::fanout::Audience;
use crate::broker::nodes;
use crate::broker::roster::policy_name;
use crate::broker::shared::{MAX_INLINE_BYTES, Shared};
use crate::wire::close;
use crate::wire::event::{ConcurrentConnection, SystemEvent};
use crate::wire::features::{
    ConcurrencyParams, ConcurrencyPolicy, DedupeMode, DedupeParams, Feature, KeyEpochParams, MaxPayloadParams,
    NegotiationRequest, NegotiationResponse, RateLimitParams, VersionOnly,
};

/// What this release has. The other brokers of one database learn it from here.
pub const OWN_FEATURES: &[Feature] = &[
    Feature::ClientMessageIdDedupe,
    Feature::ConcurrentConnectionPolicy,
    Feature::MaxPayload,
    Feature::MemberKeypairRotatedEvent,
    Feature::KeyEpoch,
    Feature::TopicE2e,
    Feature::DeliveryAck,
    Feature::DeliveryOutcome,
    Feature::History,
    Feature::RateLimit,
    Feature::FramePieces,
    Feature::ReceiverReady,
];

/// Epochs of a topic's key that new posts may use: the newest, and the one before
/// for who has not heard of it.
pub const MAX_CONCURRENT_EPOCHS: u32 = 2;

/// Answers a request and notes what was agreed.
pub fn answer(shared: &Shared, peer: &Peer, request: &NegotiationRequest) -> NegotiationResponse {
    let mut response = NegotiationResponse { req_id: request.req_id.clone(), ..NegotiationResponse::default() };
    let settings = peer.mesh.settings();
    for feature in OWN_FEATURES.iter().copied().filter(|feature| shared.nodes.all_have(*feature)) {
        match feature {
            Feature::ClientMessageIdDedupe => {
                let days = (settings.dedupe_mode == DedupeMode::RetentionScoped)
                    .then_some(shared.config.dedupe_retention_days);
                let params = DedupeParams { version: 1, mode: settings.dedupe_mode, dedupe_retention_days: days };
                response.grant(feature, &params);
            }
            Feature::ConcurrentConnectionPolicy => {
                response.grant(feature, &ConcurrencyParams { version: 1, default_policy: settings.policy });
            }
            Feature::MaxPayload => {
                let inline_bytes = MAX_INLINE_BYTES as u64;
                response.grant(feature, &MaxPayloadParams { version: 1, inline_bytes, blob_bytes: 0 });
            }
            Feature::KeyEpoch => {
                let params = KeyEpochParams { version: 1, max_concurrent_epochs: MAX_CONCURRENT_EPOCHS };
                response.grant(feature, &params);
            }
            Feature::RateLimit => {
                if let Some((per_s, burst)) = shared.limiter.limit() {
                    response.grant(feature, &RateLimitParams { version: 1, per_s, burst });
                }
            }
            other => response.grant(other, &VersionOnly { version: 1 }),
        }
    }
    let supported = |name: &String| response.supported.contains(name);
    response.missing_required = request.require.iter().filter(|name| !supported(name)).cloned().collect();
    peer.set_negotiates();
    for name in request.require.iter().chain(&request.optional) {
        if let Some(feature) = Feature::parse(name)
            && response.supports(feature)
        {
            peer.grant(feature);
        }
    }
    response
}

/// Settles which connection of a member stays, after one of them negotiated the
/// policy. `Err` is the end of the newcomer.
pub async fn contest(shared: &Arc<Shared>, peer: &Arc<Peer>) -> Result<(), End> {
    if peer.kind != Kind::Member || !peer.has(Feature::ConcurrentConnectionPolicy) {
        return Ok(());
    }
    // Only those that came before: of two newcomers at once, the later one
    // finds the earlier one and not the other way round.
    let older = |other: &Arc<Peer>| {
        other.kind == Kind::Member
            && other.is_online()
            && other.serial() < peer.serial()
            && other.has(Feature::ConcurrentConnectionPolicy)
    };
    let mut others = shared.registry.of_member(&peer.mesh.id, &peer.member_id);
    others.retain(older);
    for other in others {
        decide(shared, peer.facts.yields, &other).await?;
    }
    nodes::contest(shared, &peer.mesh, &peer.member_id, &peer.facts, false).await
}

/// Applies the mesh's policy between an older connection and a newcomer. A
/// connection that does not answer is a half-open socket and gives way.
pub async fn decide(shared: &Arc<Shared>, newcomer_yields: bool, older: &Arc<Peer>) -> Result<(), End> {
    let policy = older.mesh.policy();
    if !older.answers_within(shared.config.timers.probe).await {
        if shared.registry.remove(older) {
            older.finish(End::cut("replaced; it did not answer"));
        }
        return Ok(());
    }
    tell(shared, older).await;
    if newcomer_yields || policy == ConcurrencyPolicy::PreferOldest {
        let detail = "another live connection holds this member";
        return Err(End::explained(close::ALREADY_CONNECTED, "member_already_connected", detail, false));
    }
    if policy == ConcurrencyPolicy::PreferNewest && shared.registry.remove(older) {
        let detail = "a newer connection of this member took over";
        older.finish(End::explained(close::REPLACED, "replaced_by_newer_connection", detail, false));
    }
    Ok(())
}

/// Writes the audit row and tells those who may act on it.
async fn tell(shared: &Arc<Shared>, older: &Peer) {
    let policy = older.mesh.policy();
    presence::audit_concurrent(shared, older, policy_name(policy)).await;
    let event = SystemEvent::MemberConcurrentConnection(ConcurrentConnection {
        member_id: older.member_id.clone(),
        pubkey: older.member_pubkey.clone(),
        policy,
    });
    presence::send_event(shared, &older.mesh.id, &Audience::Admins, event);
}

/// The audit row's payload.
pub fn audit_payload(peer: &Peer, policy: &str) -> String {
    json!({
        "member_id": peer.member_id,
        "pubkey": peer.member_pubkey,
        "older_presence_id": peer.presence_id,
        "older_hostname": peer.facts.hostname,
        "policy": policy,
    })
    .to_string()
}
