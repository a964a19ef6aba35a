//! The daemon's `config.toml` as a whole, and `[daemon]`.

use std::path::Path;

use serde::Deserialize;

use super::ConfigError;
use super::broker_client::{BrokerLink, Features, Reconnect};
use super::crypto::Crypto;
use super::disk::Disk;
use super::hooks::Hooks;
use super::inbox::Inbox;
use super::ipc::{Ipc, Limits};
use super::outbox::Outbox;
use super::source;

/// What `config.toml` holds before anyone has edited it.
pub const TEMPLATE: &str = "\
# Settings of this mesh's daemon. Every key has a default; the ones most often
# changed are shown. `claudemesh daemon reload` applies [daemon] log_level at
# once; the rest is read at the next start.

[daemon]
# log_level = \"info\"            # error, warn, info, debug or trace

[ipc]
# tcp_enabled = true            # loopback HTTP beside the Unix socket
# http_port = 0                 # 0: chosen by the system, see the file http.port

[outbox]
# max_age_hours = 23            # a send that was not accepted by then is given up

[inbox]
# retention_days = 30
";

/// All settings of a daemon.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct DaemonConfig {
    /// `[daemon]`.
    pub daemon: DaemonSection,
    /// `[ipc]`.
    pub ipc: Ipc,
    /// `[limits]`.
    pub limits: Limits,
    /// `[outbox]`.
    pub outbox: Outbox,
    /// `[inbox]`.
    pub inbox: Inbox,
    /// `[disk]`.
    pub disk: Disk,
    /// `[broker]`.
    pub broker: BrokerLink,
    /// `[reconnect]`.
    pub reconnect: Reconnect,
    /// `[features]`.
    pub features: Features,
    /// `[crypto]`.
    pub crypto: Crypto,
    /// `[hooks]`.
    pub hooks: Hooks,
}

/// `[daemon]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct DaemonSection {
    /// `error`, `warn`, `info`, `debug` or `trace`. Default `info` (R340).
    pub log_level: String,
}

// === impl DaemonSection ===

impl Default for DaemonSection {
    fn default() -> Self {
        Self { log_level: "info".to_owned() }
    }
}

// === impl DaemonConfig ===

impl DaemonConfig {
    /// Reads and checks the file; a missing file gives the defaults.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let config: Self = source::read_toml(path)?;
        config.check().map_err(|error| error.in_file(path))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if !["error", "warn", "info", "debug", "trace"].contains(&self.daemon.log_level.as_str()) {
            return Err(ConfigError::Value {
                key: "daemon.log_level",
                value: self.daemon.log_level.clone(),
                reason: "it must be error, warn, info, debug or trace".to_owned(),
            });
        }
        self.broker.check()?;
        self.ipc.check()?;
        self.limits.check()?;
        self.outbox.check()?;
        self.inbox.check()?;
        self.crypto.check()?;
        self.disk.check()?;
        self.hooks.check()?;
        self.reconnect.backoff().map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<DaemonConfig, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        DaemonConfig::load(&path)
    }

    #[test]
    fn the_template_gives_the_defaults() {
        assert_eq!(load(TEMPLATE).unwrap(), DaemonConfig::default());
    }

    #[test]
    fn unknown_keys_and_bad_values_are_named() {
        for (text, expected) in [
            ("[daemon]\nlog_levle = \"debug\"", "log_levle"),
            ("[nope]", "nope"),
            ("[daemon]\nlog_level = \"loud\"", "daemon.log_level"),
            ("[ipc]\nhttp_bind = \"0.0.0.0\"", "ipc.http_bind"),
            ("[ipc]\nuds_mode = \"0666\"", "ipc.uds_mode"),
            ("[outbox]\nmax_age_hours = 0", "outbox.max_age_hours"),
            ("[disk]\nreserved_bytes = 1", "disk.reserved_bytes"),
            ("[reconnect]\njitter_pct = 101", "reconnect.jitter_pct"),
            ("[hooks]\nconcurrency = 0", "hooks.concurrency"),
            ("[crypto]\nkey_grace_period_days = 31", "crypto.key_grace_period_days"),
        ] {
            let error = load(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
