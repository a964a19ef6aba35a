//! What a hook is given to read, for each kind of event.

use chrono::{DateTime, SecondsFormat};
use serde_json::{Value, json};

use crate::domain::event::StoredMessage;
use crate::domain::message::SendRequest;
use crate::domain::provenance::Provenance;
use crate::domain::time::UnixMillis;

/// A stored message, with the names that the API gives its fields and, like there,
/// without those that are absent. `message_id` is its `id`, the hook's
/// CLAUDEMESH_EVENT_ID; `event_id` its place for `after`.
pub(super) fn message(message: &StoredMessage, provenance: &Provenance) -> Value {
    let mut input = json!({
        "event": if message.kind == crate::domain::event::MessageKind::File { "file_shared" } else { "message" },
        "message_id": message.id,
        "event_id": message.event_id.to_string(),
        "client_message_id": message.client_message_id,
        "broker_message_id": message.broker_message_id,
        "history_id": message.history_id.as_deref().unwrap_or_default(),
        "mesh": message.mesh,
        "kind": message.kind.name(),
        "topic": message.topic.as_deref().unwrap_or_default(),
        "sender_member_id": message.sender_member_id.as_str(),
        "sender_pubkey": message.sender_key.to_hex(),
        "sender_name": message.sender_name,
        "body": message.body,
        "reply_to_id": message.reply_to_id.as_deref().unwrap_or_default(),
        "mentions": message.mentions,
        "priority": message.priority.name(),
        "received_at": time(message.received_at),
        "unencrypted": message.unencrypted,
        "provenance": {
            "pin_state": provenance.pin_state.name(),
            "certified": provenance.certified,
            "verified": provenance.verified,
            "name_bound": provenance.name_bound,
            "hops": provenance.hops,
            "by_hook": provenance.by_hook(),
        },
    });
    if let Some(meta) = message.meta.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok()) {
        input["meta"] = meta;
    }
    if let Some(sent_at) = message.sent_at {
        input["sent_at"] = time(sent_at).into();
    }
    input
}

/// An event of the daemon itself, with what it adds.
pub(super) fn own(event: &str, message_id: &str, mesh: &str, at: UnixMillis, more: Value) -> Value {
    let mut input = json!({"event": event, "message_id": message_id, "mesh": mesh, "time": time(at)});
    if let (Value::Object(fields), Value::Object(more)) = (&mut input, more) {
        fields.extend(more);
    }
    input
}

/// A send before it is accepted.
pub(super) fn send(request: &SendRequest) -> Value {
    let mut input = json!({
        "client_message_id": request.client_message_id.as_ref().map(AsRef::<str>::as_ref).unwrap_or_default(),
        "to": request.to,
        "message": request.body,
        "priority": request.priority.name(),
        "reply_to_id": request.reply_to_id.as_deref().unwrap_or_default(),
        "mentions": request.mentions,
    });
    if let Some(meta) = request.meta.as_ref().and_then(|meta| serde_json::from_str::<Value>(meta.as_str()).ok()) {
        input["meta"] = meta;
    }
    input
}

/// A time as the API writes it.
pub(super) fn time(at: UnixMillis) -> String {
    DateTime::from_timestamp_millis(at.0).map_or_else(String::new, |at| at.to_rfc3339_opts(SecondsFormat::Millis, true))
}
