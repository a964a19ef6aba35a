//! Reading the settings again while everything runs.

use std::sync::{Arc, Mutex, PoisonError};

use crate::api::Reload;
use crate::config::daemon::DaemonConfig;
use crate::config::paths::StateDir;
use crate::proto::admin::ReloadResponse;
use crate::telemetry::logging;

/// Makes the function that reads `config.toml` again, applies what may change
/// while the daemon runs, and names the rest. Bad settings change nothing.
pub(super) fn reload(state: &StateDir, config: &DaemonConfig, log: logging::Control) -> Reload {
    let path = state.config();
    // A std mutex: held for a comparison, never across an await.
    let started = Mutex::new(config.clone());
    Arc::new(move || {
        let new = DaemonConfig::load(&path)?;
        let mut old = started.lock().unwrap_or_else(PoisonError::into_inner);
        let mut response = ReloadResponse { restart_required: needs_restart(&old, &new), ..ReloadResponse::default() };
        if old.daemon.log_level != new.daemon.log_level {
            match log.set_level(&new.daemon.log_level) {
                Ok(()) => {
                    response.applied.push("daemon.log_level".to_owned());
                    old.daemon.log_level.clone_from(&new.daemon.log_level);
                }
                Err(error) => tracing::warn!(error = %error, "The log level was not changed: {error}"),
            }
        }
        tracing::info!(applied = ?response.applied, restart = ?response.restart_required, "The settings were read again");
        Ok(response)
    })
}

/// The sections that differ from those that the daemon was started with.
fn needs_restart(old: &DaemonConfig, new: &DaemonConfig) -> Vec<String> {
    let sections = [
        ("ipc", old.ipc != new.ipc),
        ("limits", old.limits != new.limits),
        ("outbox", old.outbox != new.outbox),
        ("inbox", old.inbox != new.inbox),
        ("broker", old.broker != new.broker),
        ("reconnect", old.reconnect != new.reconnect),
        ("features", old.features != new.features),
    ];
    sections.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name.to_owned()).collect()
}
