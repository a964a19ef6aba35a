//! Why a daemon ended, for its exit code and for whoever asks later.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::broker_client::End;
use crate::domain::error_code::{ErrorCode, exit};
use crate::domain::time::UnixMillis;
use crate::proto::admin;
use crate::proto::wkt::Timestamp;
use crate::runtime::private_file;
use crate::runtime::supervisor::TaskFailure;

/// Why a daemon ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// A signal or a call asked for it.
    Asked(&'static str),
    /// A second signal came before the stop was done.
    Forced,
    /// The link to the broker is down for good.
    LinkEnded(End),
    /// A task ended that it cannot live without.
    TaskFailed(TaskFailure),
}

/// `last_exit.json`: shown by `daemon status` after the end.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct LastExit {
    /// When, Unix ms.
    pub at: i64,
    /// The process's exit code.
    pub exit_code: u8,
    /// Stable code; empty for an ordinary stop.
    pub code: String,
    /// What happened, for people.
    pub detail: String,
}

// === impl ExitReason ===

impl ExitReason {
    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Asked(_) => exit::OK,
            Self::Forced => exit::OTHER,
            Self::LinkEnded(end) => end.code().exit(),
            Self::TaskFailed(_) => exit::PANIC,
        }
    }

    /// The stable code; `None` for an ordinary stop.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Asked(_) | Self::Forced => None,
            Self::LinkEnded(end) => Some(end.code()),
            Self::TaskFailed(_) => Some(ErrorCode::InternalError),
        }
    }

    /// What happened, for people.
    pub fn detail(&self) -> String {
        match self {
            Self::Asked(by) => format!("stopped by {by}"),
            Self::Forced => "a second signal cut the stop short".to_owned(),
            Self::LinkEnded(end) => end.to_string(),
            Self::TaskFailed(failure) => match &failure.panic {
                Some(text) => format!("task {} panicked: {text}", failure.name),
                None => format!("task {} ended by itself", failure.name),
            },
        }
    }

    /// Notes the reason for `daemon status`. A failure to write it is logged:
    /// the process ends either way.
    pub(super) fn note(&self, path: &Path, now: UnixMillis) {
        let note = LastExit {
            at: now.0,
            exit_code: self.exit_code(),
            code: self.code().map_or_else(String::new, |code| code.name().to_owned()),
            detail: self.detail(),
        };
        let written = serde_json::to_vec(&note)
            .map_err(|error| error.to_string())
            .and_then(|json| private_file::write_atomic(path, &json, private_file::PRIVATE).map_err(|e| e.to_string()));
        if let Err(error) = written {
            tracing::warn!(error, "The reason of the end was not written: {error}");
        }
    }
}

// === impl LastExit ===

impl LastExit {
    /// Reads the note of the last end; `None` when there is none that can be read.
    pub fn read(path: &Path) -> Option<Self> {
        serde_json::from_str(&private_file::read_optional(path).ok()??).ok()
    }

    /// The note as the API shows it.
    pub(super) fn into_proto(self) -> admin::LastExit {
        admin::LastExit {
            exit_code: u32::from(self.exit_code),
            reason: self.code,
            detail: self.detail,
            at: Some(Timestamp::from_unix_ms(self.at)),
        }
    }
}
