//! What can go wrong with a send before it is durable.

use crate::domain::error_code::ErrorCode;
use crate::domain::ids::ClientMessageId;
use crate::domain::message::MessageError;
use crate::domain::pressure::Pressure;
use crate::domain::roster::{Candidate, ResolveError};
use crate::topics;

/// A send was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is wrong in itself.
    #[error(transparent)]
    Request(#[from] MessageError),
    /// The destination means nobody, or not one.
    #[error(transparent)]
    Destination(#[from] ResolveError),
    /// The answered message is not one.
    #[error(
        "several messages match the reply_to_id `{written}`: of {}; name the message by its `id` in the inbox or by its \
         broker_message_id",
        candidates.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(", ")
    )]
    AmbiguousReply {
        /// As the caller wrote it.
        written: String,
        /// Who sent those that match.
        candidates: Vec<Candidate>,
    },
    /// Nothing can be posted to the topic.
    #[error(transparent)]
    Topic(#[from] topics::Error),
    /// The destination is of a kind that this version does not serve.
    #[error("{what} are not served by this version; send to a member by name or key, or to a #topic")]
    NotServed {
        /// The kind of destination, in the plural.
        what: &'static str,
    },
    /// The id is taken by a row that answers with a conflict.
    #[error("the id {client_message_id} {detail}")]
    Conflict {
        /// Which conflict.
        code: ErrorCode,
        /// The id.
        client_message_id: ClientMessageId,
        /// First 8 bytes of the stored row's fingerprint, as hex.
        fingerprint_prefix: String,
        /// The broker's id, when the row has one.
        broker_message_id: Option<String>,
        /// The broker's history id, when the row has one.
        history_id: Option<String>,
        /// What is known of the row, for people.
        detail: String,
    },
    /// More sends wait to be written than fit into memory.
    #[error("the daemon is busy: too many sends wait to be written; try again with the same id {0}")]
    Busy(ClientMessageId),
    /// The outbox is nearly full.
    #[error(
        "the outbox is {:.0} % full ({}), so the send was not stored; make room (`claudemesh daemon outbox prune`), or \
         wait until it has drained, and repeat it with the same id {client_message_id}",
        pressure.used_pct,
        pressure.measure.setting()
    )]
    Full {
        /// The id to retry with.
        client_message_id: ClientMessageId,
        /// What is full, and how full.
        pressure: Pressure,
    },
    /// The age limit is longer than the broker remembers ids.
    #[error(
        "[outbox] max_age_hours = {hours} is longer than the broker remembers ids, so a late retry could be delivered \
         twice; set it to at most {safe_hours}, or accept that with accept_redelivery_risk = true"
    )]
    MaxAge {
        /// As configured.
        hours: u32,
        /// What is safe.
        safe_hours: u32,
    },
    /// The database did not take the write. It is unknown whether the row is
    /// there; a retry with the same id is safe.
    #[error("the outbox could not be written ({detail}); retry with the same id {client_message_id}")]
    Storage {
        /// The id to retry with.
        client_message_id: ClientMessageId,
        /// What the database said.
        detail: String,
    },
    /// The disk is full. The row is not there.
    #[error(
        "the disk is full, so the send was not stored (outbox {path}); free some space there and repeat it with the same \
         id {client_message_id}"
    )]
    DiskFull {
        /// The id to retry with.
        client_message_id: ClientMessageId,
        /// The database file.
        path: String,
    },
    /// The daemon is stopping.
    #[error("the daemon is stopping; retry with the same id {0}")]
    ShuttingDown(ClientMessageId),
    /// No row has this id.
    #[error("the outbox has no entry {id}; `claudemesh daemon outbox` lists them")]
    NoEntry {
        /// Row id or client message id, as given.
        id: String,
    },
    /// The row's state does not allow what the operator asks.
    #[error("the entry {id} is {state}; {rule}")]
    WrongState {
        /// Row id.
        id: String,
        /// Its state.
        state: &'static str,
        /// In which states it is allowed.
        rule: &'static str,
    },
    /// Under its own id the row could be delivered twice.
    #[error(
        "the entry {id} was first transmitted so long ago that the broker may forget its id before the last retry; \
         queue it under a new id: `claudemesh daemon outbox requeue {id} --auto`"
    )]
    WindowPassed {
        /// Row id.
        id: String,
    },
    /// The call cannot be made sense of.
    #[error("`{field}`: {reason}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// An operator's change was not written.
    #[error("the outbox was not changed: {0}")]
    NotWritten(String),
    /// The disk is too full for an operator's change.
    #[error("the disk is full, so the outbox was not changed: {0}")]
    NoRoom(String),
    /// A read of the database failed.
    #[error("the outbox could not be read: {0}")]
    Read(String),
}

// === impl Error ===

impl Error {
    /// The stable code of this failure.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Request(MessageError::TooLarge { .. }) => ErrorCode::PayloadTooLarge,
            Self::Request(_) => ErrorCode::InvalidArgument,
            Self::Destination(error) => error.code(),
            Self::AmbiguousReply { .. } => ErrorCode::AmbiguousReply,
            Self::Topic(error) => error.code(),
            Self::NotServed { .. } => ErrorCode::NotServed,
            Self::Conflict { code, .. } => *code,
            Self::Busy(_) => ErrorCode::DaemonBusy,
            Self::MaxAge { .. } => ErrorCode::OutboxMaxAgeAboveDedupeWindow,
            Self::Full { .. } | Self::DiskFull { .. } => ErrorCode::InsufficientStorage,
            Self::NoRoom(_) => ErrorCode::InsufficientStorage,
            Self::Storage { .. } | Self::Read(_) | Self::NotWritten(_) => ErrorCode::StorageFailed,
            Self::NoEntry { .. } => ErrorCode::OutboxEntryNotFound,
            Self::WrongState { .. } => ErrorCode::OutboxEntryWrongState,
            Self::WindowPassed { .. } => ErrorCode::DedupeWindowPassed,
            Self::Field { .. } => ErrorCode::InvalidArgument,
            Self::ShuttingDown(_) => ErrorCode::DaemonShuttingDown,
        }
    }

    /// The id that a retry must carry, when one was minted or given.
    pub fn client_message_id(&self) -> Option<&ClientMessageId> {
        match self {
            Self::Conflict { client_message_id, .. }
            | Self::Storage { client_message_id, .. }
            | Self::Full { client_message_id, .. }
            | Self::DiskFull { client_message_id, .. } => Some(client_message_id),
            Self::Busy(id) | Self::ShuttingDown(id) => Some(id),
            _ => None,
        }
    }
}
