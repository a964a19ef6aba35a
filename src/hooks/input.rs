//! What a hook is given to read, for each kind of event.

use chrono::{DateTime, SecondsFormat};
use serde_json::{Value, json};

use crate::domain::event::StoredMessage;
use crate::domain::message::SendRequest;
use crate::domain::time::UnixMillis;

/// A stored message, with the names that the API gives its fields. `event_id` is the
/// row's ULID, the hook's CLAUDEMESH_EVENT_ID; `position` is its place for `after`.
pub(super) fn message(message: &StoredMessage) -> Value {
    let meta: Value = message.meta.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null);
    json!({
        "event": if message.kind == crate::domain::event::MessageKind::File { "file_shared" } else { "message" },
        "event_id": message.id,
        "position": message.event_id.to_string(),
        "client_message_id": message.client_message_id,
        "broker_message_id": message.broker_message_id,
        "history_id": message.history_id,
        "mesh": message.mesh,
        "kind": message.kind.name(),
        "topic": message.topic,
        "sender_member_id": message.sender_member_id.as_str(),
        "sender_pubkey": message.sender_key.to_hex(),
        "sender_name": message.sender_name,
        "body": message.body,
        "meta": meta,
        "reply_to_id": message.reply_to_id,
        "mentions": message.mentions,
        "priority": message.priority.name(),
        "sent_at": message.sent_at.map(time),
        "received_at": time(message.received_at),
        "unencrypted": message.unencrypted,
        "auto_hops": message.auto_hops,
    })
}

/// An event of the daemon itself, with what it adds.
pub(super) fn own(event: &str, event_id: &str, mesh: &str, at: UnixMillis, more: Value) -> Value {
    let mut input = json!({"event": event, "event_id": event_id, "mesh": mesh, "time": time(at)});
    if let (Value::Object(fields), Value::Object(more)) = (&mut input, more) {
        fields.extend(more);
    }
    input
}

/// A send before it is accepted.
pub(super) fn send(request: &SendRequest) -> Value {
    let meta = request.meta.as_ref().and_then(|meta| serde_json::from_str(meta.as_str()).ok());
    json!({
        "client_message_id": request.client_message_id.as_ref().map(AsRef::<str>::as_ref),
        "to": request.to,
        "message": request.body,
        "meta": meta.unwrap_or(Value::Null),
        "priority": request.priority.name(),
        "reply_to_id": request.reply_to_id,
        "mentions": request.mentions,
    })
}

/// A time as the API writes it.
pub(super) fn time(at: UnixMillis) -> String {
    DateTime::from_timestamp_millis(at.0).map_or_else(String::new, |at| at.to_rfc3339_opts(SecondsFormat::Millis, true))
}
