//! Why a broker cannot start, or ended.

use std::path::PathBuf;

use super::files;
use crate::config::ConfigError;
use crate::db;
use crate::domain::error_code::ErrorCode;
use crate::runtime::instance_lock::LockError;
use crate::runtime::listen::ListenError;
use crate::runtime::private_file::FileError;
use crate::runtime::supervisor::TaskFailure;

/// A failure of the broker as a whole.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another process serves the directory.
    #[error("a broker already runs in {}; stop it, or give another directory with --dir", .0.display())]
    AlreadyRunning(PathBuf),
    /// A file of the directory.
    #[error(transparent)]
    File(#[from] FileError),
    /// The admin token.
    #[error(transparent)]
    Token(#[from] files::Error),
    /// The address.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The database.
    #[error(transparent)]
    Database(#[from] db::Error),
    /// A task ended that the broker cannot live without.
    #[error("the task {} ended by itself{}; the log has more", .0.name, .0.panic.as_deref().map(|text| format!(": {text}")).unwrap_or_default())]
    Task(TaskFailure),
}

// === impl Error ===

impl Error {
    /// The stable code, which also gives the exit code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Config(_) => ErrorCode::ConfigInvalid,
            Self::AlreadyRunning(_) => ErrorCode::AlreadyRunning,
            Self::File(_) | Self::Token(_) => ErrorCode::StateDirUnusable,
            Self::Listen(_) => ErrorCode::ListenFailed,
            Self::Database(db::Error::SchemaNewer { .. }) => ErrorCode::SchemaNewer,
            Self::Database(db::Error::Unsafe { .. } | db::Error::Url { .. }) => ErrorCode::ConfigInvalid,
            Self::Database(_) => ErrorCode::StorageFailed,
            Self::Task(_) => ErrorCode::InternalError,
        }
    }
}

impl From<LockError> for Error {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Held { path } => {
                let path = PathBuf::from(path);
                Self::AlreadyRunning(path.parent().map(PathBuf::from).unwrap_or(path))
            }
            LockError::File(error) => Self::File(error),
        }
    }
}
