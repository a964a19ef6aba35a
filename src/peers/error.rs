//! Why the roster could not be read or kept.

use crate::domain::error_code::ErrorCode;

/// The roster could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database failed.
    #[error("the pinned members could not be read or written: {0}")]
    Storage(#[from] sea_orm::DbErr),
    /// A stored row is not what it should be.
    #[error("the pinned member {member_id} is damaged: {detail}")]
    Damaged {
        /// Which row.
        member_id: String,
        /// What is wrong with it.
        detail: String,
    },
    /// There is nothing to accept.
    #[error(transparent)]
    NothingPending(#[from] crate::domain::trust::NothingPending),
    /// The daemon is stopping.
    #[error("the daemon is stopping")]
    Stopping,
    /// The broker did not answer.
    #[error(transparent)]
    Link(#[from] crate::broker_client::Error),
}

// === impl Error ===

impl Error {
    /// The stable code of this failure.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Storage(_) => ErrorCode::StorageFailed,
            Self::NothingPending(_) => ErrorCode::NoPendingChange,
            Self::Stopping => ErrorCode::DaemonShuttingDown,
            Self::Damaged { .. } => ErrorCode::OutboxCorrupt,
            Self::Link(_) => ErrorCode::BrokerUnreachable,
        }
    }
}
