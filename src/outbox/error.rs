//! What can go wrong with a send before it is durable.

use crate::domain::error_code::ErrorCode;
use crate::domain::ids::ClientMessageId;
use crate::domain::message::MessageError;
use crate::domain::roster::ResolveError;

/// A send was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is wrong in itself.
    #[error(transparent)]
    Request(#[from] MessageError),
    /// The destination means nobody, or not one.
    #[error(transparent)]
    Destination(#[from] ResolveError),
    /// The destination is of a kind that this version does not serve.
    #[error("{what} are not served by this version; send to a member by name or key")]
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
    /// The queue is full.
    #[error("the outbox holds {rows} rows that wait, the limit is {limit}; see `claudemesh daemon status`")]
    Full {
        /// Rows that wait.
        rows: u64,
        /// `[outbox] max_queue_size`.
        limit: u64,
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
            Self::Destination(ResolveError::Unknown { .. }) => ErrorCode::UnknownPeer,
            Self::Destination(ResolveError::Ambiguous { .. }) => ErrorCode::AmbiguousPeer,
            Self::Destination(ResolveError::KeyChanged { .. }) => ErrorCode::MemberKeyChanged,
            Self::Destination(ResolveError::Revoked { .. }) => ErrorCode::UnknownPeer,
            Self::NotServed { .. } => ErrorCode::NotServed,
            Self::Conflict { code, .. } => *code,
            Self::Busy(_) => ErrorCode::DaemonBusy,
            Self::Full { .. } | Self::DiskFull { .. } => ErrorCode::InsufficientStorage,
            Self::Storage { .. } | Self::Read(_) => ErrorCode::StorageFailed,
            Self::ShuttingDown(_) => ErrorCode::DaemonShuttingDown,
        }
    }

    /// The id that a retry must carry, when one was minted or given.
    pub fn client_message_id(&self) -> Option<&ClientMessageId> {
        match self {
            Self::Conflict { client_message_id, .. }
            | Self::Storage { client_message_id, .. }
            | Self::DiskFull { client_message_id, .. } => Some(client_message_id),
            Self::Busy(id) | Self::ShuttingDown(id) => Some(id),
            _ => None,
        }
    }
}
