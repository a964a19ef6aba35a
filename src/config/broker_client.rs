//! The link to the broker: `[broker]`, `[reconnect]` and `[features]`.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;
use super::proxy::ProxyUrl;
use crate::domain::retry::Backoff;

/// `[broker]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct BrokerLink {
    /// `ws://` to an address that is not loopback is refused unless this is
    /// true. Default false.
    pub allow_insecure: bool,
    /// A file with the certificate authorities (PEM) that the broker's certificate is
    /// checked against, in place of the system's. An absolute path. Default: none.
    pub ca_file: Option<PathBuf>,
    /// The proxy through which the broker is reached: `http://`, `socks5://` or
    /// `socks5h://`, or `none`. Default: what the environment says.
    pub proxy: Option<ProxyUrl>,
}

/// `[reconnect]` (R354 to R357).
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Reconnect {
    /// First pause in milliseconds. Default 500.
    pub initial_backoff_ms: u64,
    /// Longest pause in milliseconds, before jitter. Default 30000.
    pub max_backoff_ms: u64,
    /// Factor from one pause to the next. Default 2.0.
    pub backoff_multiplier: f64,
    /// Deviation from a pause, in percent of it. Default 25.
    pub jitter_pct: u32,
}

/// `[features]` (R368 to R370).
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Features {
    /// The daemon does not run against a broker that lacks one of these.
    /// Default: `client_message_id_dedupe`, `concurrent_connection_policy`.
    pub require: Vec<String>,
    /// Used when the broker has them. Default: `mesh_skill_share`, `mcp_host`.
    pub optional: Vec<String>,
    /// Refuse frames with unknown top-level keys instead of counting the keys.
    /// Default false.
    pub strict_frames: bool,
}

// === impl BrokerLink ===

impl BrokerLink {
    /// Whether it can be used.
    pub fn check(&self) -> Result<(), ConfigError> {
        if let Some(path) = &self.ca_file
            && !path.is_absolute()
        {
            return Err(ConfigError::Value {
                key: "broker.ca_file",
                value: path.display().to_string(),
                reason: "it must be an absolute path".to_owned(),
            });
        }
        if let Some(path) = &self.ca_file {
            let found = rustls_native_certs::load_certs_from_paths(Some(path), None);
            if found.certs.is_empty() {
                return Err(ConfigError::Value {
                    key: "broker.ca_file",
                    value: path.display().to_string(),
                    reason: found
                        .errors
                        .first()
                        .map_or_else(|| "it holds no certificate".to_owned(), ToString::to_string),
                });
            }
        }
        self.proxy.as_ref().map_or(Ok(()), ProxyUrl::check)
    }
}

// === impl Reconnect ===

impl Default for Reconnect {
    fn default() -> Self {
        Self { initial_backoff_ms: 500, max_backoff_ms: 30_000, backoff_multiplier: 2.0, jitter_pct: 25 }
    }
}

impl Reconnect {
    /// The checked schedule.
    pub fn backoff(&self) -> Result<Backoff, ConfigError> {
        let value = |key, value: String, reason: &str| ConfigError::Value { key, value, reason: reason.to_owned() };
        if !(10..=self.max_backoff_ms).contains(&self.initial_backoff_ms) {
            let text = self.initial_backoff_ms.to_string();
            return Err(value("reconnect.initial_backoff_ms", text, "it must be from 10 up to max_backoff_ms"));
        }
        if self.max_backoff_ms > 3_600_000 {
            return Err(value("reconnect.max_backoff_ms", self.max_backoff_ms.to_string(), "at most 3600000 (1 h)"));
        }
        if !(1.0..=10.0).contains(&self.backoff_multiplier) {
            let text = self.backoff_multiplier.to_string();
            return Err(value("reconnect.backoff_multiplier", text, "it must be from 1.0 to 10.0"));
        }
        if self.jitter_pct > 100 {
            return Err(value("reconnect.jitter_pct", self.jitter_pct.to_string(), "it must be from 0 to 100"));
        }
        Ok(Backoff {
            initial: Duration::from_millis(self.initial_backoff_ms),
            max: Duration::from_millis(self.max_backoff_ms),
            multiplier: self.backoff_multiplier,
            jitter_pct: self.jitter_pct,
        })
    }
}

// === impl Features ===

impl Default for Features {
    fn default() -> Self {
        Self {
            require: vec!["client_message_id_dedupe".to_owned(), "concurrent_connection_policy".to_owned()],
            optional: vec!["mesh_skill_share".to_owned(), "mcp_host".to_owned()],
            strict_frames: false,
        }
    }
}
