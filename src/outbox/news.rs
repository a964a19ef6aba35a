//! What subscribers are told of a send: everything that its row knows of it.

use super::entity::Model;
use super::repo::Existing;
use crate::domain::error_code::ErrorCode;
use crate::domain::event::{DeliveryStatus, MessageKind, SendFailure, SendState, SentTo};
use crate::domain::time::UnixMillis;

/// The news that a row has come to a state.
pub(super) fn of_row(row: &Model, state: SendState, at: UnixMillis) -> DeliveryStatus {
    DeliveryStatus {
        client_message_id: row.client_message_id.clone(),
        state,
        broker_message_id: row.broker_message_id.clone(),
        history_id: row.history_id.clone(),
        recipient: Some(sent_to(
            &row.destination_kind,
            &row.target_id,
            row.target_key.as_deref(),
            row.target_name.as_deref(),
        )),
        at,
        failure: None,
    }
}

/// The same of a row that was looked up.
pub(super) fn of_existing(row: &Existing, state: SendState, at: UnixMillis) -> DeliveryStatus {
    DeliveryStatus {
        client_message_id: row.client_message_id.clone(),
        state,
        broker_message_id: row.broker_message_id.clone(),
        history_id: row.history_id.clone(),
        recipient: Some(sent_to(
            &row.destination_kind,
            &row.target_id,
            row.target_key.as_deref(),
            row.target_name.as_deref(),
        )),
        at,
        failure: None,
    }
}

/// Of a send that has no row here.
pub(super) fn of_unknown(client_message_id: String, state: SendState, at: UnixMillis) -> DeliveryStatus {
    DeliveryStatus {
        client_message_id,
        state,
        broker_message_id: None,
        history_id: None,
        recipient: None,
        at,
        failure: None,
    }
}

/// The reason of a send that got too old.
pub(super) const MAX_AGE: &str = "max_age";

/// Why a send was given up.
pub fn dead(reason: String) -> SendFailure {
    let text = match reason.as_str() {
        MAX_AGE => "it was not accepted within the age limit".to_owned(),
        _ => reason.clone(),
    };
    SendFailure { code: ErrorCode::OutboxDeadFingerprintMatch, text, reason: Some(reason) }
}

/// Why a receiver does not have it: its daemon set it aside.
pub fn rejected(reason: &str) -> SendFailure {
    let text = match reason {
        "invalid" => "the receiver's daemon set it aside: its content does not fit what is written on it",
        "not_subscribed" => "the receiver's daemon set it aside: it is not subscribed to the topic any more",
        _ => "the receiver's daemon set it aside: it could not be opened there",
    };
    SendFailure { code: ErrorCode::MessageRejected, text: text.to_owned(), reason: Some(reason.to_owned()) }
}

/// Why a receiver does not have it: it did not take it in time.
pub fn expired() -> SendFailure {
    let text = "the receiver did not take it within the broker's limit".to_owned();
    SendFailure { code: ErrorCode::DeliveryExpired, text, reason: None }
}

fn sent_to(kind: &str, id: &str, key: Option<&str>, name: Option<&str>) -> SentTo {
    let kind = match kind {
        "topic" => MessageKind::Topic,
        "broadcast" => MessageKind::Broadcast,
        "group" => MessageKind::Group,
        _ => MessageKind::Direct,
    };
    let is_direct = kind == MessageKind::Direct;
    SentTo {
        kind,
        member_id: if is_direct { id.to_owned() } else { String::new() },
        topic_id: if kind == MessageKind::Topic { id.to_owned() } else { String::new() },
        key: key.filter(|_| is_direct).unwrap_or_default().to_owned(),
        name: name.unwrap_or_default().to_owned(),
    }
}
