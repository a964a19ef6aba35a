//! Failures of creating, inviting and joining.

use std::path::PathBuf;

use super::names::SlugError;
use crate::config::ConfigError;
use crate::config::broker_url::BrokerUrlError;
use crate::crypto::keys::KeyError;
use crate::crypto::sign::StatementError;
use crate::domain::error_code::ErrorCode;
use crate::domain::names::NameError;
use crate::runtime::ids::RandomError;
use crate::runtime::private_file::FileError;
use crate::wire::join::{InviteError, join_error};

/// Why a mesh was not created, an invite not made, or a mesh not joined.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The link cannot be used; nothing was sent.
    #[error(transparent)]
    Invite(#[from] InviteError),
    /// The broker's address cannot be used; nothing was sent.
    #[error(transparent)]
    BrokerUrl(#[from] BrokerUrlError),
    /// A setting of the way to the broker cannot be used; nothing was sent.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The mesh's name cannot be used.
    #[error(transparent)]
    Slug(#[from] SlugError),
    /// The member's name cannot be used.
    #[error(transparent)]
    Name(#[from] NameError),
    /// An id from an invite or a broker cannot be used.
    #[error("the {0} is not usable: 1 to 64 letters, digits, - and _ are")]
    Id(&'static str),
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is not what it should be. It is left alone.
    #[error("{}: {detail}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and what.
        detail: String,
    },
    /// Another program kept writing the file.
    #[error("{} is being changed by another program", path.display())]
    ConfigBusy {
        /// The file.
        path: PathBuf,
    },
    /// A stored key is damaged.
    #[error("{what} is damaged: {source}")]
    Key {
        /// Which key.
        what: String,
        /// What is wrong with it.
        source: KeyError,
    },
    /// No random bytes for a key.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// A field cannot be part of a signed text.
    #[error(transparent)]
    Statement(#[from] StatementError),
    /// Another mesh is joined under this name.
    #[error("another mesh named {slug:?} is joined already")]
    SlugTaken {
        /// The name.
        slug: String,
    },
    /// The same command runs in another process.
    #[error("another process is joining the mesh {slug:?} right now")]
    Busy {
        /// The mesh.
        slug: String,
    },
    /// No answer from the broker.
    #[error("the broker at {address} does not answer: {detail}")]
    Unreachable {
        /// Its HTTP address.
        address: String,
        /// What went wrong.
        detail: String,
    },
    /// TLS on one side only, or a certificate that is not trusted.
    #[error("TLS with the broker at {address} failed: {detail}")]
    Tls {
        /// Its HTTP address.
        address: String,
        /// What went wrong.
        detail: String,
    },
    /// What answers speaks another protocol.
    #[error("{address} does not answer like a broker: {detail}")]
    NotABroker {
        /// Its HTTP address.
        address: String,
        /// What went wrong.
        detail: String,
    },
    /// An answer that no broker gives.
    #[error("{address} answered HTTP {status}: {detail}")]
    UnexpectedAnswer {
        /// The URL.
        address: String,
        /// The status.
        status: u16,
        /// The beginning of the body.
        detail: String,
    },
    /// The broker refused the join.
    #[error("the broker at {address} refused the join: {}", explain(reason))]
    JoinRefused {
        /// Its HTTP address.
        address: String,
        /// A name of [`join_error`], or the broker's text.
        reason: String,
    },
    /// The broker refused to store an invite.
    #[error("the broker at {address} refused the invite: {reason}")]
    InviteRefused {
        /// Its HTTP address.
        address: String,
        /// The broker's text.
        reason: String,
    },
    /// The broker refused a request about a mesh.
    #[error("the broker at {address} refused the request: {reason}")]
    RequestRefused {
        /// Its HTTP address.
        address: String,
        /// The broker's text.
        reason: String,
    },
    /// No mesh of that name is joined.
    #[error("no mesh named {slug:?} is joined: it is not in {}", path.display())]
    NotJoined {
        /// The name.
        slug: String,
        /// The file with the joined meshes.
        path: PathBuf,
    },
    /// There is no admin token to create a mesh with.
    #[error("no admin token: {} does not exist", path.display())]
    AdminTokenMissing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The broker does not know the admin token.
    #[error("the broker at {address} does not know this admin token")]
    AdminTokenRefused {
        /// Its HTTP address.
        address: String,
    },
    /// The broker has a mesh of that name.
    #[error("the broker at {address} has a mesh named {slug:?} already")]
    MeshExists {
        /// Its HTTP address.
        address: String,
        /// The name.
        slug: String,
    },
    /// Only the owner makes invites.
    #[error("this user does not own a mesh named {slug:?}: no key for it in {}", dir.display())]
    OwnerKeyMissing {
        /// The mesh.
        slug: String,
        /// Where owner keys are kept.
        dir: PathBuf,
    },
    /// No broker was named and none runs here.
    #[error("no broker is known: none runs from {}", dir.display())]
    NoBroker {
        /// The local broker's directory.
        dir: PathBuf,
    },
    /// A number or time outside of what an invite can say.
    #[error("{0}")]
    Limit(&'static str),
}

// === impl Error ===

impl Error {
    /// The failure's stable code.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Invite(InviteError::Expired) => ErrorCode::InviteExpired,
            Self::Invite(_) => ErrorCode::InviteInvalid,
            Self::BrokerUrl(_)
            | Self::Config(_)
            | Self::Malformed { .. }
            | Self::ConfigBusy { .. }
            | Self::NoBroker { .. } => ErrorCode::ConfigInvalid,
            Self::Slug(_) | Self::Name(_) | Self::Limit(_) => ErrorCode::InvalidArgument,
            Self::Id(_) | Self::Statement(_) => ErrorCode::InviteInvalid,
            Self::File(_) => ErrorCode::StateDirUnusable,
            Self::Key { .. } => ErrorCode::KeyUnreadable,
            Self::Random(_) => ErrorCode::InternalError,
            Self::SlugTaken { .. } | Self::MeshExists { .. } => ErrorCode::MeshExists,
            Self::Busy { .. } | Self::InviteRefused { .. } => ErrorCode::JoinRefused,
            Self::Unreachable { .. } => ErrorCode::BrokerUnreachable,
            Self::UnexpectedAnswer { status, .. } if *status >= 500 => ErrorCode::BrokerUnreachable,
            Self::UnexpectedAnswer { .. } | Self::NotABroker { .. } => ErrorCode::NotABroker,
            Self::Tls { .. } => ErrorCode::BrokerTlsFailed,
            Self::JoinRefused { reason, .. } => match reason.as_str() {
                join_error::INVITE_EXPIRED => ErrorCode::InviteExpired,
                join_error::INVITE_BAD_SIGNATURE
                | join_error::INVITE_MESH_MISMATCH
                | join_error::INVITE_OWNER_MISMATCH => ErrorCode::InviteInvalid,
                _ => ErrorCode::JoinRefused,
            },
            Self::AdminTokenMissing { .. } | Self::AdminTokenRefused { .. } => ErrorCode::AdminTokenRefused,
            Self::OwnerKeyMissing { .. } => ErrorCode::OwnerKeyMissing,
            Self::RequestRefused { .. } => ErrorCode::RequestRefused,
            Self::NotJoined { .. } => ErrorCode::MeshNotJoined,
        }
    }

    /// What the user can do about it.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Invite(InviteError::NotAnInvite) => "pass the whole link, in quotes: claudemesh join 'ic://join/...'",
            Self::Invite(InviteError::Damaged(_)) => {
                "copy the whole link: programs that show text often cut long lines; or ask the mesh's owner for a new one"
            }
            Self::Invite(InviteError::BadLinkKey) => {
                "copy the whole link, in quotes; without # and what follows it joins too, but then other members cannot \
                 tell that the owner invited you"
            }
            Self::Invite(_) | Self::Id(_) | Self::Statement(_) => "ask the mesh's owner for a new link",
            Self::BrokerUrl(BrokerUrlError::Insecure(_)) => {
                "use a wss:// address; on a network you trust, add --allow-insecure, or set [broker] allow_insecure = true \
                 in config.toml"
            }
            Self::Config(error) => error.next_step(),
            Self::BrokerUrl(_) => "a broker URL looks like wss://mesh.example/ws or ws://127.0.0.1:7900/ws",
            Self::Slug(_) | Self::Name(_) | Self::Limit(_) => "choose another value",
            Self::File(error) => error.next_step(),
            Self::Malformed { .. } => "mend the file by hand, or move it away and join again",
            Self::ConfigBusy { .. } | Self::Busy { .. } => "try again",
            Self::Key { .. } => "restore the file from a backup, or remove the entry and join again",
            Self::Random(_) => "try again; if it stays, the system's random source does not work",
            Self::SlugTaken { .. } => {
                "meshes are told apart by name on one host; join the second one with another CLAUDEMESH_HOME"
            }
            Self::Unreachable { .. } => "check the address and that the broker runs; repeating the command is safe",
            Self::Tls { .. } => {
                "the address came with the invite: ask the mesh's owner for one whose address fits (wss:// is with TLS, \
                 ws:// without), or install the certificate's authority on this host, or name its file with --ca-file"
            }
            Self::UnexpectedAnswer { .. } | Self::NotABroker { .. } => {
                "check that this is a claudemesh broker; repeating the command is safe"
            }
            Self::JoinRefused { reason, .. } if reason == join_error::MESH_NOT_FOUND => {
                "check that this is the mesh's broker, or ask the mesh's owner for a new link"
            }
            Self::JoinRefused { .. } => "ask the mesh's owner for a new link",
            Self::InviteRefused { .. } => "check this host's clock, and that this is the broker that has the mesh",
            Self::AdminTokenMissing { .. } => {
                "only the broker's operator creates meshes; pass --admin-token-file <broker directory>/admin_token"
            }
            Self::AdminTokenRefused { .. } => "the token is in the file admin_token of that broker's directory",
            Self::MeshExists { .. } => "choose another name, or ask its owner for an invite",
            Self::OwnerKeyMissing { .. } => "make the invite on the host where the mesh was created",
            Self::RequestRefused { .. } => {
                "see who may do it with `claudemesh member list`, and check this host's clock"
            }
            Self::NotJoined { .. } => "see the joined meshes with `claudemesh mesh list`",
            Self::NoBroker { .. } => "start one with `claudemesh broker serve`, or pass --broker <URL>",
        }
    }
}

/// The broker's reasons in words.
fn explain(reason: &str) -> &str {
    match reason {
        join_error::MESH_NOT_FOUND => "it has no such mesh",
        join_error::MESH_MISSING_OWNER_KEY => "the mesh has no owner key to check the invite with",
        join_error::INVITE_NOT_FOUND => "it does not know this invite",
        join_error::INVITE_EXPIRED => "the invite has expired by the broker's clock",
        join_error::INVITE_EXHAUSTED => "the invite was used as often as it may be",
        join_error::INVITE_REVOKED => "the invite was withdrawn",
        join_error::INVITE_BAD_SIGNATURE => "the invite's signature is not the owner's",
        join_error::INVITE_MESH_MISMATCH => "the invite belongs to another mesh",
        join_error::INVITE_OWNER_MISMATCH => "the mesh has another owner than the invite says",
        join_error::MEMBER_INSERT_FAILED => "it could not store the new member",
        other => other,
    }
}
