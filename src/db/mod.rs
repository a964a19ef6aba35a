//! Connections to the databases, and their schemas. No feature's SQL.
//!
//! What it is for: outbox, inbox and broker open their databases here, with the
//! same care. SQLite: one writer connection, another one for the task that
//! writes in batches (`own_writer.rs`), a separate pool of read-only connections,
//! WAL, `synchronous=FULL`, so that a commit which returned survives a power cut.
//! PostgreSQL (broker only): refused where the server is configured to lose
//! commits.
//! What runs here: nothing on its own; each caller owns its pools.
//! What it guarantees: database files are private (0600) before SQLite opens
//! them; a schema this binary does not know is refused before any write; every
//! error names the file or the server.
//! What it must not do: know a table of a feature, or retry anything but a
//! busy database.

use std::path::PathBuf;

pub mod connect;
pub mod integrity;
pub mod migrate;
pub mod own_writer;
pub mod script;
pub mod tx;
pub mod wal;

pub use connect::{CheckpointMode, Sqlite};
pub use own_writer::OwnWriter;

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file or its directory cannot be read, created or renamed.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The engine refused or failed.
    #[error("database {database}: cannot {action}: {source}")]
    Engine {
        /// What was tried, as a verb.
        action: &'static str,
        /// File or server, without credentials.
        database: String,
        /// The engine's answer.
        source: sea_orm::DbErr,
    },
    /// The schema holds changes that this binary does not know.
    #[error(
        "database {database} was written by a newer release: it holds schema version {version}, which this binary \
         does not know; install the newer release again, or restore a backup made before the upgrade"
    )]
    SchemaNewer {
        /// File or server, without credentials.
        database: String,
        /// The first unknown migration.
        version: String,
    },
    /// A PostgreSQL server that may lose commits it has confirmed.
    #[error(
        "database {database}: the server runs with {setting} = {value}, so a confirmed message could be lost; \
         set {setting} = on and start again"
    )]
    Unsafe {
        /// The server, without credentials.
        database: String,
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: String,
    },
    /// A URL that names no supported database.
    #[error("database_url {url} is not supported: use sqlite:<path>{}", if cfg!(feature = "postgres") { " or postgres://" } else { "" })]
    Url {
        /// The URL, without credentials.
        url: String,
    },
}

impl Error {
    /// True if a retry of the same operation may succeed without any repair.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Engine { source, .. } if tx::is_retryable(source))
    }

    /// True if the disk is full.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Engine { source, .. } => tx::is_full(source),
            Self::File { source, .. } => source.kind() == std::io::ErrorKind::StorageFull,
            _ => false,
        }
    }
}
