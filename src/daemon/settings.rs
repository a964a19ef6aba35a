//! The settings of a running daemon, and what a new reading of them changes.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::config::ConfigError;
use crate::config::daemon::DaemonConfig;
use crate::proto::admin;
use crate::telemetry::logging;

/// The settings in force.
#[derive(Debug)]
pub(super) struct Settings {
    path: PathBuf,
    log: logging::Control,
    // A std mutex: held for a comparison, never across an await.
    current: Mutex<DaemonConfig>,
}

// === impl Settings ===

impl Settings {
    pub(super) fn new(path: PathBuf, current: DaemonConfig, log: logging::Control) -> Self {
        Self { path, log, current: Mutex::new(current) }
    }

    /// Opens the log again, reads the file again and applies what may change while running (R372).
    /// Settings with errors change nothing.
    pub(super) fn reload(&self) -> Result<admin::ReloadResponse, ConfigError> {
        // Whoever moves the log away asks for this, too.
        if let Err(error) = self.log.reopen() {
            tracing::warn!(error = %error, "The log was not opened again: {error}");
        }
        let new = DaemonConfig::load(&self.path).inspect_err(|error| {
            tracing::warn!(error = %error, "The settings were not read again: {error}");
        })?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let mut applied = Vec::new();
        if new.daemon.log_level != current.daemon.log_level {
            match self.log.set_level(&new.daemon.log_level) {
                Ok(()) => {
                    applied.push("daemon.log_level".to_owned());
                    current.daemon.log_level.clone_from(&new.daemon.log_level);
                }
                Err(error) => tracing::warn!(error = %error, "The log level was not changed: {error}"),
            }
        }
        // Kept as they are in force, so that they are named until the restart.
        let changed = [
            ("ipc", new.ipc != current.ipc),
            ("limits", new.limits != current.limits),
            ("outbox", new.outbox != current.outbox),
            ("inbox", new.inbox != current.inbox),
            ("disk", new.disk != current.disk),
            ("broker", new.broker != current.broker),
            ("reconnect", new.reconnect != current.reconnect),
            ("features", new.features != current.features),
            ("crypto", new.crypto != current.crypto),
            ("hooks", new.hooks != current.hooks),
        ];
        let restart_required: Vec<String> =
            changed.into_iter().filter(|(_, differs)| *differs).map(|(section, _)| section.to_owned()).collect();
        tracing::info!(applied = ?applied, restart_required = ?restart_required, "The settings were read again");
        Ok(admin::ReloadResponse { applied, restart_required })
    }
}
