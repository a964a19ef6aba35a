//! What a caller is told: the accept table's decision put into words.

use std::path::Path;

use super::entity::Model;
use super::repo::{self, Existing};
use super::{Accepted, AcceptedState, Error};
use crate::domain::accept::{AcceptDecision, ExistingRow, decide_accept};
use crate::domain::error_code::ErrorCode;
use crate::domain::fingerprint::LocalFingerprint;
use crate::domain::ids::ClientMessageId;
use crate::domain::outbox::OutboxState;
use crate::domain::time::UnixMillis;

/// The answer to a send whose row was just committed.
pub(super) fn queued(row: &Model) -> Accepted {
    Accepted {
        client_message_id: row.client_message_id.clone(),
        state: AcceptedState::Queued,
        queued_at: UnixMillis(row.enqueued_at),
        broker_message_id: None,
        history_id: None,
        target_id: row.target_id.clone(),
        target_key: row.target_key.clone(),
        target_name: row.target_name.clone(),
        degraded: degraded(row.degraded.as_deref()),
        delivered_at: None,
        delivered_count: None,
    }
}

/// The answer from a row that holds the id already. No row is changed.
pub(super) fn from_existing(row: &Existing, new: &LocalFingerprint) -> Result<Accepted, Error> {
    let corrupt = |what: &str| Error::Read(format!("the row of {} has a damaged {what}", row.client_message_id));
    let state = OutboxState::from_name(&row.status).ok_or_else(|| corrupt("state"))?;
    let stored = row.request_fingerprint.as_slice().try_into().map_err(|_| corrupt("fingerprint"))?;
    let stored = LocalFingerprint(stored);
    let state = match decide_accept(Some(&ExistingRow { state, fingerprint: stored }), new) {
        // The table never asks for an insert while a row is there.
        AcceptDecision::Insert | AcceptDecision::Queued => AcceptedState::Queued,
        AcceptDecision::Inflight => AcceptedState::Inflight,
        AcceptDecision::Duplicate => AcceptedState::Duplicate,
        AcceptDecision::Conflict(code) => return Err(conflict(row, code, &stored)),
    };
    Ok(Accepted {
        client_message_id: row.client_message_id.clone(),
        state,
        queued_at: UnixMillis(row.enqueued_at),
        broker_message_id: row.broker_message_id.clone(),
        history_id: row.history_id.clone(),
        target_id: row.target_id.clone(),
        target_key: row.target_key.clone(),
        target_name: row.target_name.clone(),
        degraded: degraded(row.degraded.as_deref()),
        delivered_at: row.receiver_stored_at.map(UnixMillis),
        delivered_count: repo::operator::posted_to(&row.destination_kind, row.delivered_count),
    })
}

/// The answer when the database failed and it is unknown whether the row is there.
pub(super) fn storage(row: &Model, detail: impl ToString) -> Error {
    match ClientMessageId::parse(row.client_message_id.as_str()) {
        Ok(client_message_id) => Error::Storage { client_message_id, detail: detail.to_string() },
        Err(_) => Error::Read(detail.to_string()),
    }
}

/// The conflict of a successor's id that a row holds, whatever it says: the two
/// are never the same request.
pub(super) fn taken(row: &Existing) -> Error {
    match row.request_fingerprint.as_slice().try_into().map(LocalFingerprint) {
        Ok(stored) => {
            let other = LocalFingerprint(stored.0.map(|byte| !byte));
            match from_existing(row, &other) {
                Err(error) => error,
                Ok(_) => Error::Read(format!("the row of {} is in no known state", row.client_message_id)),
            }
        }
        Err(_) => Error::Read(format!("the row of {} has a damaged fingerprint", row.client_message_id)),
    }
}

/// The answer when the disk is full and the row is known not to be there.
pub(super) fn disk_full(row: &Model, path: &Path) -> Error {
    match ClientMessageId::parse(row.client_message_id.as_str()) {
        Ok(client_message_id) => Error::DiskFull { client_message_id, path: path.display().to_string() },
        Err(error) => Error::Read(error.to_string()),
    }
}

fn conflict(row: &Existing, code: ErrorCode, stored: &LocalFingerprint) -> Error {
    let Ok(client_message_id) = ClientMessageId::parse(row.client_message_id.as_str()) else {
        return Error::Read(format!("the row of {} has a damaged id", row.client_message_id));
    };
    let detail = match (code, &row.dead_reason) {
        (ErrorCode::OutboxDeadFingerprintMatch, Some(reason)) => {
            format!("belongs to this request, which was given up: {reason}; requeue it or use a new id")
        }
        (ErrorCode::OutboxDeadFingerprintMatch, None) => {
            "belongs to this request, which was given up; requeue it or use a new id".to_owned()
        }
        (ErrorCode::OutboxAbortedFingerprintMatch, _) => {
            "belongs to this request, which the operator aborted; use a new id".to_owned()
        }
        _ => format!("belongs to another request, which is {}; use a new id", row.status),
    };
    Error::Conflict {
        code,
        client_message_id,
        fingerprint_prefix: stored.prefix(),
        broker_message_id: row.broker_message_id.clone(),
        history_id: row.history_id.clone(),
        detail,
    }
}

fn degraded(json: Option<&str>) -> Vec<String> {
    json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
}
