//! Why hooks could not be read, or a send was not let through.

use crate::config::ConfigError;
use crate::domain::error_code::ErrorCode;
use crate::domain::message::MessageError;

/// Hooks failed their caller.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// hooks.toml is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database failed.
    #[error("the hook runs could not be read or written: {0}")]
    Storage(#[from] sea_orm::DbErr),
    /// The inbox could not be read.
    #[error(transparent)]
    Inbox(#[from] crate::inbox::Error),
    /// A page token is not one that this daemon gave.
    #[error("`page_token`: it is none that this daemon gave")]
    PageToken,
    /// The pre-send hook dropped the message.
    #[error("the pre-send hook dropped the message{}; nothing was stored", reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}")))]
    Dropped {
        /// Why, in the hook's words.
        reason: Option<String>,
    },
    /// The pre-send hook did not decide.
    #[error("the pre-send hook did not decide about the message: {0}; nothing was stored")]
    Undecided(String),
    /// The pre-send hook is asked about too many sends at once.
    #[error("the pre-send hook is busy with other sends; nothing was stored, try again")]
    Busy,
    /// The pre-send hook made a message of it that cannot be sent.
    #[error("the pre-send hook changed the message to one that cannot be sent: {0}")]
    Changed(#[from] MessageError),
}

// === impl Error ===

impl Error {
    /// The stable code of this failure.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Config(_) => ErrorCode::ConfigInvalid,
            Self::Storage(_) => ErrorCode::StorageFailed,
            Self::Inbox(error) => error.code(),
            Self::PageToken => ErrorCode::InvalidArgument,
            Self::Dropped { .. } => ErrorCode::PreSendDropped,
            Self::Busy => ErrorCode::DaemonBusy,
            Self::Undecided(_) | Self::Changed(_) => ErrorCode::PreSendFailed,
        }
    }
}
