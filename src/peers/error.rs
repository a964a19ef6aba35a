//! Why the roster could not be read or kept.

use std::path::PathBuf;

use crate::domain::error_code::ErrorCode;
use crate::domain::profile::SummaryError;
use crate::runtime::private_file::FileError;

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
    /// The file of the own profile is not what it should be.
    #[error("{} is damaged: {detail}; remove it to show the profile of a new member, which others see", path.display())]
    ProfileDamaged {
        /// Where it lies.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The own profile could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A summary is not one.
    #[error(transparent)]
    Summary(#[from] SummaryError),
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
            Self::File(error) if error.is_full() => ErrorCode::InsufficientStorage,
            Self::File(_) => ErrorCode::StorageFailed,
            Self::ProfileDamaged { .. } => ErrorCode::StateDirUnusable,
            Self::Summary(_) => ErrorCode::InvalidArgument,
            Self::NothingPending(_) => ErrorCode::NoPendingChange,
            Self::Stopping => ErrorCode::DaemonShuttingDown,
            Self::Damaged { .. } => ErrorCode::OutboxCorrupt,
            Self::Link(_) => ErrorCode::BrokerUnreachable,
        }
    }
}
