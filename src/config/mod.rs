//! Settings: one file per concern, each with its keys, defaults and checks.
//!
//! What it is for: the daemon's `config.toml`, the broker's `broker.toml`, and
//! where the files of both lie.
//! What runs here: nothing.
//! What it guarantees: an unknown key or a value out of range is an error that
//! names the file, the key and what is allowed; no setting is ignored.
//! What it must not do: read the process environment except through
//! [`source::Source`].

pub mod broker;
pub mod broker_client;
pub mod broker_url;
pub mod crypto;
pub mod daemon;
pub mod fleet;
pub mod inbox;
pub mod ipc;
pub mod outbox;
pub mod paths;
pub mod source;

use std::path::PathBuf;

/// A setting is wrong.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is not the TOML that is expected: syntax, unknown key, type.
    #[error("{}: {detail}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line, column and what is wrong.
        detail: String,
    },
    /// A value is out of range.
    #[error("`{key}` = {value}: {reason}")]
    Value {
        /// The key with its section, such as `ipc.http_bind`.
        key: &'static str,
        /// The value as given.
        value: String,
        /// What is allowed.
        reason: String,
    },
    /// The home directory is unknown.
    #[error("cannot tell the home directory: neither CLAUDEMESH_HOME nor HOME is set")]
    NoHome,
}
