//! Why the identity could not be read or made.

use std::path::PathBuf;

use crate::crypto::keys::KeyError;
use crate::domain::error_code::ErrorCode;
use crate::runtime::ids::RandomError;
use crate::runtime::private_file::FileError;

/// An identity file is missing, damaged or not writable.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is not what it should be.
    #[error("{} is damaged: {detail}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// The key in it cannot be used.
    #[error("{} holds no usable key: {source}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with the key.
        source: KeyError,
    },
    /// It belongs to another member.
    #[error("{} belongs to member {found}, the mesh was joined as {expected}", path.display())]
    OtherMember {
        /// The file.
        path: PathBuf,
        /// The member in the file.
        found: String,
        /// The member that was joined.
        expected: String,
    },
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] RandomError),
}

// === impl Error ===

impl Error {
    /// The stable code of this failure.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Damaged { .. } | Self::Key { .. } | Self::OtherMember { .. } => ErrorCode::KeyUnreadable,
            Self::File(_) => ErrorCode::StateDirUnusable,
            Self::Random(_) => ErrorCode::InternalError,
        }
    }

    /// What the user can do about it.
    pub fn next_step(&self) -> Option<&'static str> {
        Some(match self {
            Self::Damaged { path, .. } | Self::Key { path, .. } if path.ends_with("keypair.json") => {
                "move the file away and start again: it is made anew from config.json"
            }
            Self::Damaged { .. } | Self::Key { .. } => {
                "restore the file from a backup, or move it away and start again"
            }
            Self::OtherMember { .. } => {
                "the mesh was joined anew: move the state directory away, or restore the config.json of before"
            }
            Self::File(error) => error.next_step(),
            Self::Random(_) => "try again; if it stays, the system's random source does not work",
        })
    }
}
