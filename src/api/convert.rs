//! Between the API's types and the daemon's own.

use crate::domain::event::{
    DeliveryStatus, HookRun, MeshEvent, MessageKind, PeerChange, SendFailure, SendState, SentTo, StoredMessage,
};
use crate::domain::ids::ClientMessageId;
use crate::domain::message::{Meta, Priority, SendRequest};
use crate::domain::pressure::{Level, Pressure};
use crate::domain::provenance::{Judge, PinState, Provenance};
use crate::domain::time::UnixMillis;
use crate::events::Timed;
use crate::inbox;
use crate::outbox::{Accepted, AcceptedState};
use crate::proto::pb;
use crate::proto::pb::stream_events_response::Event;
use crate::proto::wkt::{self, Timestamp};

use super::status::Failure;
use crate::domain::error_code::ErrorCode;

/// A time of a database as the API writes it.
pub fn timestamp(at: UnixMillis) -> Timestamp {
    Timestamp::from_unix_ms(at.0)
}

/// A time as the databases write it; `field` names it in the failure.
pub fn unix_millis(field: &str, time: Timestamp) -> Result<UnixMillis, Failure> {
    time.to_unix_ms().map(UnixMillis).ok_or_else(|| Failure::field(field, "it is not a time in the years 1 to 9999"))
}

/// A limit of a list: 0 means the default, more than the greatest is refused
/// nowhere and means the greatest.
pub fn limit(given: u32) -> u32 {
    if given == 0 { inbox::DEFAULT_PAGE } else { given.min(inbox::MAX_PAGE) }
}

/// A send as the outbox takes it. `key` is the Idempotency-Key, which wins over
/// the field (R143, R144).
pub fn send_request(request: pb::SendRequest, key: Option<String>) -> Result<SendRequest, Failure> {
    let priority = priority(request.priority)?;
    let client_message_id = match key {
        Some(key) => Some(client_message_id("idempotency-key", key)?),
        None if request.client_message_id.is_empty() => None,
        None => Some(client_message_id("client_message_id", request.client_message_id)?),
    };
    Ok(SendRequest {
        client_message_id,
        to: request.to,
        body: request.message,
        priority,
        meta: request.meta.map(meta).transpose()?.flatten(),
        reply_to_id: Some(request.reply_to_id).filter(|id| !id.is_empty()),
        answered: Vec::new(),
        mentions: request.mentions,
        allow_unencrypted: request.allow_unencrypted,
        auto_hops: 0,
    })
}

/// A post as the outbox takes it: a send to `#topic` with mentions.
pub fn post_request(request: pb::PostTopicRequest, key: Option<String>) -> Result<SendRequest, Failure> {
    let name = request.topic.strip_prefix('#').unwrap_or(&request.topic);
    if name.is_empty() {
        return Err(Failure::field("topic", "it is missing or empty"));
    }
    let send = pb::SendRequest {
        to: format!("#{name}"),
        message: request.message,
        priority: request.priority,
        meta: request.meta,
        reply_to_id: request.reply_to_id,
        client_message_id: request.client_message_id,
        allow_unencrypted: request.allow_unencrypted,
        mentions: request.mentions,
    };
    send_request(send, key)
}

/// The answer to a post.
pub fn post_response(accepted: Accepted, judge: &Judge) -> pb::PostTopicResponse {
    let delivered_count = accepted.delivered_count;
    let response = send_response(accepted, pb::MessageKind::Topic, None, judge);
    pb::PostTopicResponse {
        client_message_id: response.client_message_id,
        status: response.status,
        duplicate: response.duplicate,
        broker_message_id: response.broker_message_id,
        history_id: response.history_id,
        degraded: response.degraded,
        queued_at: response.queued_at,
        recipient: response.recipient,
        delivered_count,
    }
}

/// The id of a send; `field` names it in the failure.
pub fn client_message_id(field: &'static str, text: String) -> Result<ClientMessageId, Failure> {
    ClientMessageId::parse(text).map_err(|error| {
        let text = format!("`{field}`: {error}; an id is 1 to 128 visible ASCII characters");
        Failure::new(ErrorCode::IdempotencyKeyInvalid, text).violation(field, error.to_string())
    })
}

fn priority(number: i32) -> Result<Priority, Failure> {
    match pb::Priority::try_from(number) {
        Ok(pb::Priority::Unspecified | pb::Priority::Next) => Ok(Priority::Next),
        Ok(pb::Priority::Now) => Ok(Priority::Now),
        Ok(pb::Priority::Low) => Ok(Priority::Low),
        Err(_) => Err(Failure::field("priority", format!("{number} is none of now (1), next (2) and low (3)"))),
    }
}

fn meta(given: wkt::Struct) -> Result<Option<Meta>, Failure> {
    let wrong = |reason: String| Failure::field("meta", reason);
    let value = serde_json::to_value(&given).map_err(|error| wrong(error.to_string()))?;
    let serde_json::Value::Object(object) = value else { return Err(wrong("it is not a JSON object".to_owned())) };
    Meta::from_object(&object).map_err(|error| match error {
        crate::domain::message::MessageError::Invalid { reason, .. } => wrong(reason),
        other => wrong(other.to_string()),
    })
}

/// Stored metadata as the API shows it. It was canonical JSON when it was
/// stored; what cannot be read is left out.
fn meta_struct(canonical: &str) -> Option<wkt::Struct> {
    serde_json::from_str(canonical).ok()
}

/// The answer to a send. `kind` is the destination's.
pub fn send_response(
    accepted: Accepted,
    kind: pb::MessageKind,
    online: Option<bool>,
    judge: &Judge,
) -> pb::SendResponse {
    let status = match accepted.state {
        AcceptedState::Queued => pb::SendStatus::Queued,
        AcceptedState::Inflight => pb::SendStatus::Inflight,
        AcceptedState::Duplicate => pb::SendStatus::Accepted,
    };
    let is_direct = kind == pb::MessageKind::Direct;
    let (key, name) = (accepted.target_key.unwrap_or_default(), accepted.target_name.unwrap_or_default());
    pb::SendResponse {
        client_message_id: accepted.client_message_id,
        status: status.into(),
        duplicate: accepted.state == AcceptedState::Duplicate,
        broker_message_id: accepted.broker_message_id.unwrap_or_default(),
        history_id: accepted.history_id.unwrap_or_default(),
        degraded: accepted.degraded,
        queued_at: Some(timestamp(accepted.queued_at)),
        recipient: Some(recipient(judge, kind, accepted.target_id, key, name)),
        recipient_online: online.filter(|_| is_direct),
        delivered_at: accepted.delivered_at.map(timestamp),
    }
}

fn kind(kind: MessageKind) -> pb::MessageKind {
    match kind {
        MessageKind::Direct => pb::MessageKind::Direct,
        MessageKind::Topic => pb::MessageKind::Topic,
        MessageKind::Broadcast => pb::MessageKind::Broadcast,
        MessageKind::Group => pb::MessageKind::Group,
        MessageKind::File => pb::MessageKind::File,
    }
}

/// How far a key is trusted.
pub fn pin_state(state: PinState) -> pb::PinState {
    match state {
        PinState::Unknown => pb::PinState::Unspecified,
        PinState::Pinned => pb::PinState::Pinned,
        PinState::Verified => pb::PinState::Verified,
        PinState::KeyChanged => pb::PinState::KeyChanged,
        PinState::Revoked => pb::PinState::Revoked,
    }
}

/// Who stands behind a message or a member.
pub fn provenance(known: &Provenance) -> pb::Provenance {
    pb::Provenance {
        pin_state: pin_state(known.pin_state).into(),
        certified: known.certified,
        verified: known.verified,
        name_bound: known.name_bound,
        hops: known.hops,
        by_hook: known.by_hook(),
    }
}

/// A stored message.
pub fn inbox_message(message: &StoredMessage, judge: &Judge) -> pb::InboxMessage {
    let priority = match message.priority {
        Priority::Now => pb::Priority::Now,
        Priority::Next => pb::Priority::Next,
        Priority::Low => pb::Priority::Low,
    };
    pb::InboxMessage {
        id: message.id.clone(),
        event_id: message.event_id.to_string(),
        client_message_id: message.client_message_id.clone(),
        broker_message_id: message.broker_message_id.clone(),
        history_id: message.history_id.clone().unwrap_or_default(),
        mesh: message.mesh.clone(),
        kind: kind(message.kind).into(),
        topic: message.topic.clone().unwrap_or_default(),
        sender_member_id: message.sender_member_id.to_string(),
        sender_pubkey: message.sender_key.to_hex(),
        sender_name: message.sender_name.clone(),
        body: message.body.clone(),
        meta: message.meta.as_deref().and_then(meta_struct),
        reply_to_id: message.reply_to_id.clone().unwrap_or_default(),
        mentions: message.mentions.clone(),
        priority: priority.into(),
        sent_at: message.sent_at.map(timestamp),
        received_at: Some(timestamp(message.received_at)),
        unencrypted: message.unencrypted,
        stale: message.stale,
        provenance: Some(provenance(&judge.message(message))),
        file_id: String::new(),
    }
}

/// How full the outbox is.
pub fn pressure_level(level: Level) -> pb::PressureLevel {
    match level {
        Level::Normal => pb::PressureLevel::Normal,
        Level::High => pb::PressureLevel::High,
        Level::Critical => pb::PressureLevel::Critical,
        Level::Full => pb::PressureLevel::Full,
    }
}

fn outbox_pressure(pressure: &Pressure) -> pb::OutboxPressure {
    pb::OutboxPressure {
        level: pressure_level(pressure.level).into(),
        used_pct: pressure.used_pct,
        measure: pressure.measure.name().to_owned(),
    }
}

/// An ended run of a hook.
pub fn hook_run(run: &HookRun) -> pb::HookRun {
    pb::HookRun {
        hook: run.hook.clone(),
        message_id: run.message_id.clone(),
        exit_code: run.exit_code,
        signal: run.signal.map_or(0, i32::unsigned_abs),
        timed_out: run.timed_out,
        duration_ms: run.duration_ms,
        stdout_bytes: run.stdout_bytes,
        stderr_bytes: run.stderr_bytes,
        replied: run.replied,
        capability_calls: run.capability_calls,
        unenforced: run.unenforced.clone(),
        start_error: run.start_error.clone(),
        started_at: Some(timestamp(run.started_at)),
    }
}

/// The member that came or left; empty when it is not known by its id.
fn member_id(peer: &PeerChange) -> String {
    peer.member_id.as_ref().map(ToString::to_string).unwrap_or_default()
}

/// Whom a send goes to: a member or a topic, by its id, and for a member by its key.
pub fn recipient(judge: &Judge, kind: pb::MessageKind, id: String, key: String, name: String) -> pb::Recipient {
    let recipient = pb::Recipient { kind: kind.into(), name_bound: true, name, ..pb::Recipient::default() };
    match kind {
        pb::MessageKind::Direct => {
            let name_bound = judge.is_bound(&id, &recipient.name);
            pb::Recipient { member_id: id, pubkey: key, name_bound, ..recipient }
        }
        pb::MessageKind::Topic => pb::Recipient { topic_id: id, ..recipient },
        _ => recipient,
    }
}

/// The same of an event; of a post the subscriber that has it.
fn sent_to(to: &SentTo, judge: &Judge) -> pb::Recipient {
    pb::Recipient {
        kind: kind(to.kind).into(),
        member_id: to.member_id.clone(),
        pubkey: to.key.clone(),
        name: to.name.clone(),
        topic_id: to.topic_id.clone(),
        name_bound: to.member_id.is_empty() || judge.is_bound(&to.member_id, &to.name),
    }
}

/// Why a send failed, with the facts that its caller may need.
fn send_failure(status: &DeliveryStatus, failure: &SendFailure) -> Failure {
    let told =
        Failure::new(failure.code, failure.text.as_str()).with("client_message_id", status.client_message_id.as_str());
    let facts = [
        ("broker_message_id", &status.broker_message_id),
        ("history_id", &status.history_id),
        ("reason", &failure.reason),
    ];
    facts.into_iter().fold(told, |told, (name, value)| match value {
        Some(value) => told.with(name, value.as_str()),
        None => told,
    })
}

/// An event of a stream.
pub fn event(timed: &Timed, judge: &Judge) -> pb::StreamEventsResponse {
    let event = match &*timed.event {
        MeshEvent::Message(message) if message.kind == MessageKind::File => {
            Event::FileShared(pb::FileShared { message: Some(inbox_message(message, judge)), file: None })
        }
        MeshEvent::Message(message) => Event::Message(inbox_message(message, judge)),
        MeshEvent::PeerJoin(peer) => Event::PeerJoin(pb::PeerJoin {
            member_id: member_id(peer),
            pubkey: peer.key.to_hex(),
            display_name: peer.display_name.clone(),
            name_bound: judge.is_bound(&member_id(peer), &peer.display_name),
        }),
        MeshEvent::PeerLeave(peer) => Event::PeerLeave(pb::PeerLeave {
            member_id: member_id(peer),
            pubkey: peer.key.to_hex(),
            display_name: peer.display_name.clone(),
            name_bound: judge.is_bound(&member_id(peer), &peer.display_name),
        }),
        MeshEvent::DaemonDisconnect { reason, close_code } => {
            let close_code = u32::from(*close_code);
            Event::DaemonDisconnect(pb::DaemonDisconnect { reason: reason.clone(), close_code })
        }
        MeshEvent::DaemonReconnect { away_ms } => {
            let away_ms = u32::try_from(*away_ms).unwrap_or(u32::MAX);
            Event::DaemonReconnect(pb::DaemonReconnect { away_ms })
        }
        MeshEvent::HookExecuted(run) => Event::HookExecuted(hook_run(run)),
        MeshEvent::FeatureNegotiationFailed { feature, detail, missing } => {
            Event::FeatureNegotiationFailed(pb::FeatureNegotiationFailed {
                feature: feature.clone(),
                detail: detail.clone(),
                missing_required: missing.clone(),
            })
        }
        MeshEvent::DeliveryStatus(status) => Event::DeliveryStatus(pb::DeliveryStatus {
            client_message_id: status.client_message_id.clone(),
            status: match status.state {
                SendState::Accepted => pb::SendStatus::Accepted,
                SendState::Delivered => pb::SendStatus::Delivered,
                SendState::Rejected => pb::SendStatus::Rejected,
                SendState::Expired => pb::SendStatus::Expired,
                SendState::Dead => pb::SendStatus::Dead,
            }
            .into(),
            broker_message_id: status.broker_message_id.clone().unwrap_or_default(),
            history_id: status.history_id.clone().unwrap_or_default(),
            recipient: status.recipient.as_ref().map(|to| sent_to(to, judge)),
            error: status.failure.as_ref().map(|failure| send_failure(status, failure).to_detail()),
        }),
        MeshEvent::OutboxPressureHigh(pressure) => Event::OutboxPressureHigh(outbox_pressure(pressure)),
        MeshEvent::OutboxPressureCleared(pressure) => Event::OutboxPressureCleared(outbox_pressure(pressure)),
        MeshEvent::MemberKeyChanged { member_id, display_name, pinned, shown } => {
            Event::MemberKeyChanged(pb::MemberKeyChanged {
                member_id: member_id.to_string(),
                display_name: display_name.clone(),
                name_bound: judge.is_bound(member_id.as_str(), display_name),
                pinned_pubkey: pinned.to_hex(),
                shown_pubkey: shown.to_hex(),
            })
        }
        MeshEvent::NameBindingChanged { name, bound_to, claimed_by } => {
            Event::NameBindingChanged(pb::NameBindingChanged {
                name: name.clone(),
                bound_member_id: bound_to.to_string(),
                claiming_member_id: claimed_by.to_string(),
            })
        }
        MeshEvent::MemberKeypairRotated { member_id, display_name, old, new } => {
            Event::MemberKeypairRotated(pb::MemberKeypairRotated {
                member_id: member_id.to_string(),
                display_name: display_name.clone(),
                name_bound: judge.is_bound(member_id.as_str(), display_name),
                old_pubkey: old.to_hex(),
                new_pubkey: new.to_hex(),
            })
        }
        MeshEvent::MemberRenamed { member_id, key, old_name, new_name } => Event::MemberRenamed(pb::MemberRenamed {
            member_id: member_id.to_string(),
            pubkey: key.to_hex(),
            old_name: old_name.clone(),
            new_name: new_name.clone(),
            name_bound: judge.is_bound(member_id.as_str(), new_name),
        }),
        MeshEvent::MemberRevoked { member_id, key, display_name, is_self } => Event::MemberRevoked(pb::MemberRevoked {
            member_id: member_id.to_string(),
            pubkey: key.to_hex(),
            display_name: display_name.clone(),
            name_bound: judge.is_bound(member_id.as_str(), display_name),
            is_self: *is_self,
        }),
        MeshEvent::PeerFeatureDowngrade { member_id, display_name, missing } => {
            Event::PeerFeatureDowngrade(pb::PeerFeatureDowngrade {
                member_id: member_id.to_string(),
                display_name: display_name.clone(),
                name_bound: judge.is_bound(member_id.as_str(), display_name),
                missing_capabilities: missing.clone(),
            })
        }
    };
    pb::StreamEventsResponse {
        event_id: timed.event.id().map(ToString::to_string).unwrap_or_default(),
        time: Some(timestamp(timed.at)),
        event: Some(event),
    }
}
