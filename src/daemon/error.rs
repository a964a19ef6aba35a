//! Why a daemon did not start. Every text says what to do next.

use crate::config::ConfigError;
use crate::domain::error_code::ErrorCode;
use crate::runtime::instance_lock::LockError;
use crate::runtime::listen::ListenError;
use crate::runtime::private_file::FileError;
use crate::{api, db, hooks, identity, inbox, membership, outbox, peers, telemetry};

/// A daemon did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another daemon of this mesh runs.
    #[error("a daemon of mesh {mesh} runs already{}; stop it with `claudemesh daemon down --mesh {mesh}`", pid_text(*.pid))]
    AlreadyRunning {
        /// The mesh's slug.
        mesh: String,
        /// Its process id, when it is known.
        pid: Option<u32>,
    },
    /// The mesh was not joined.
    #[error("mesh {mesh} is not joined here{}; join it with `claudemesh join <link>`", joined_text(.joined))]
    NotJoined {
        /// The mesh's slug.
        mesh: String,
        /// The slugs that are joined.
        joined: Vec<String>,
    },
    /// A setting is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The joined meshes could not be read.
    #[error(transparent)]
    Membership(Box<membership::Error>),
    /// The key or another identity file could not be read.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// A file of the state directory could not be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The lock could not be used.
    #[error(transparent)]
    Lock(LockError),
    /// A socket could not be bound.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A database could not be opened.
    #[error(transparent)]
    Database(Box<db::Error>),
    /// The outbox database is damaged.
    #[error(
        "the outbox {path} is damaged ({complaint}); nothing was changed. Run `claudemesh daemon recover --mesh {mesh}`"
    )]
    OutboxCorrupt {
        /// The file.
        path: String,
        /// The engine's first complaint.
        complaint: String,
        /// The mesh's slug.
        mesh: String,
    },
    /// The state was written by a newer version.
    #[error("{path} says schema version {found}, this program knows {known}; install the newer claudemesh again")]
    SchemaNewer {
        /// The file.
        path: String,
        /// The version in it.
        found: String,
        /// The version of this program.
        known: u32,
    },
    /// The outbox could not be read.
    #[error(transparent)]
    Outbox(Box<outbox::Error>),
    /// The inbox could not be read.
    #[error(transparent)]
    Inbox(#[from] inbox::Error),
    /// The pinned members could not be read.
    #[error(transparent)]
    Peers(#[from] peers::Error),
    /// The hooks could not be read.
    #[error(transparent)]
    Hooks(#[from] hooks::Error),
    /// The local interface could not be put together.
    #[error(transparent)]
    Api(#[from] api::Error),
    /// The log could not be opened.
    #[error(transparent)]
    Logging(#[from] telemetry::logging::Error),
    /// The operating system refused something else.
    #[error("cannot {action}: {source}")]
    System {
        /// What was attempted, as a verb.
        action: &'static str,
        /// What it said.
        source: std::io::Error,
    },
}

// === impl Error ===

impl Error {
    /// The stable code of this failure, which also gives the exit code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::AlreadyRunning { .. } => ErrorCode::AlreadyRunning,
            Self::NotJoined { .. } => ErrorCode::MeshNotJoined,
            Self::Config(_) => ErrorCode::ConfigInvalid,
            Self::Membership(error) => error.code(),
            Self::Identity(error) => error.code(),
            Self::Hooks(error) => error.code(),
            Self::File(_) | Self::Lock(_) | Self::Logging(_) => ErrorCode::StateDirUnusable,
            Self::Listen(ListenError::PathTooLong { .. }) => ErrorCode::SocketPathTooLong,
            Self::Listen(_) => ErrorCode::ListenFailed,
            Self::Database(error) if matches!(**error, db::Error::SchemaNewer { .. }) => ErrorCode::SchemaNewer,
            Self::Database(_) => ErrorCode::StateDirUnusable,
            Self::SchemaNewer { .. } => ErrorCode::SchemaNewer,
            Self::OutboxCorrupt { .. } => ErrorCode::OutboxCorrupt,
            Self::Outbox(error) => error.code(),
            Self::Inbox(error) => error.code(),
            Self::Peers(error) => error.code(),
            Self::Api(_) | Self::System { .. } => ErrorCode::InternalError,
        }
    }
}

impl Error {
    /// What the user can do about it, where the text does not say it already.
    pub fn next_step(&self) -> Option<&'static str> {
        Some(match self {
            Self::Config(error) | Self::Hooks(hooks::Error::Config(error)) => error.next_step(),
            Self::Membership(error) => error.next_step(),
            Self::Identity(error) => return error.next_step(),
            Self::File(error) | Self::Lock(LockError::File(error)) => error.next_step(),
            Self::Listen(ListenError::Bind { .. }) => "check that the directory is yours and on a local file system",
            Self::Database(error) if error.is_full() => {
                "free some space there and try again; what is stored there is kept"
            }
            Self::Database(error) if matches!(**error, db::Error::SchemaNewer { .. }) => return None,
            Self::Database(_) | Self::Outbox(_) | Self::Inbox(_) | Self::Peers(_) | Self::Hooks(_) => {
                "check the disk and the owner of the file, then start again; nothing in it was changed"
            }
            Self::Logging(_) => "check that the file is yours and the disk not full",
            Self::Api(_) | Self::System { .. } => "try again; if it stays, please report it",
            Self::AlreadyRunning { .. }
            | Self::NotJoined { .. }
            | Self::Lock(LockError::Held { .. })
            | Self::Listen(_)
            | Self::OutboxCorrupt { .. }
            | Self::SchemaNewer { .. } => return None,
        })
    }
}

// The large errors are boxed: every step of the start returns this type.
macro_rules! boxed {
    ($($variant:ident($error:ty),)*) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::$variant(Box::new(error))
            }
        })*
    };
}

boxed! {
    Membership(membership::Error),
    Outbox(outbox::Error),
    Database(db::Error),
}

fn pid_text(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" (pid {pid})"))
}

fn joined_text(joined: &[String]) -> String {
    if joined.is_empty() { " (no mesh is)".to_owned() } else { format!(" (joined: {})", joined.join(", ")) }
}
