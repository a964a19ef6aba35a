//! Why the inbox could not be read or written.

use crate::domain::error_code::ErrorCode;

/// The inbox could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database failed.
    #[error("the inbox could not be read or written: {0}")]
    Storage(#[from] sea_orm::DbErr),
    /// The disk is full, but for what the rest needs.
    #[error("the disk is full")]
    NoRoom,
    /// A message of this member to itself was not stored; the log says why.
    #[error("the inbox did not store it")]
    NotStored,
    /// A page token or position is not one that this daemon gave.
    #[error("`{field}`: {reason}")]
    Position {
        /// Which field.
        field: &'static str,
        /// What is wrong.
        reason: String,
    },
}

// === impl Error ===

impl Error {
    /// The stable code of this failure.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Storage(_) | Self::NotStored | Self::NoRoom => ErrorCode::StorageFailed,
            Self::Position { .. } => ErrorCode::InvalidArgument,
        }
    }
}
