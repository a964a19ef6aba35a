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
pub mod disk;
pub mod environment;
pub mod fleet;
pub mod hooks;
pub mod hooks_file;
pub mod inbox;
pub mod ipc;
pub mod outbox;
pub mod paths;
pub mod proxy;
pub mod source;

use std::path::{Path, PathBuf};

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
    #[error("{}{}: {detail}", path.display(), line_text(*.line))]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Counted from 1, when it is known.
        line: Option<usize>,
        /// What is wrong, and which key was perhaps meant.
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
    /// A variable of the environment cannot be used.
    #[error("the environment's {name}={value}: {reason}")]
    Variable {
        /// Its name.
        name: String,
        /// The value, without secrets.
        value: String,
        /// What is allowed.
        reason: String,
    },
    /// A value out of range, and where it stands.
    #[error("{}{}: {error}", path.display(), line_text(*.line))]
    InFile {
        /// The file.
        path: PathBuf,
        /// Counted from 1, when the key is in the file.
        line: Option<usize>,
        /// What is wrong.
        error: Box<ConfigError>,
    },
    /// The home directory is unknown.
    #[error("cannot tell the home directory: neither CLAUDEMESH_HOME nor HOME is set")]
    NoHome,
}

// === impl ConfigError ===

impl ConfigError {
    /// Says in which file, and in which line of it, the key stands.
    #[must_use]
    pub fn in_file(self, path: &Path) -> Self {
        let Self::Value { key, .. } = &self else { return self };
        let line = std::fs::read_to_string(path).ok().and_then(|text| source::line_of(&text, key));
        Self::InFile { path: path.to_owned(), line, error: Box::new(self) }
    }

    /// What the user can do about it.
    pub fn next_step(&self) -> &'static str {
        match self {
            Self::Unreadable { .. } => "check that the file is yours and can be read",
            Self::Malformed { .. } | Self::Value { .. } | Self::InFile { .. } => {
                "correct it or take it out; every key has a default, see docs/CONFIG.md"
            }
            Self::Variable { .. } => "set it to something else, or unset it",
            Self::NoHome => "set HOME, or CLAUDEMESH_HOME to the directory for all files",
        }
    }
}

fn line_text(line: Option<usize>) -> String {
    line.map_or_else(String::new, |line| format!(", line {line}"))
}
