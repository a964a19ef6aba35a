//! The link to the broker: `[broker]`, `[reconnect]` and `[features]`.

use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;
use crate::domain::retry::Backoff;

/// `[broker]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct BrokerLink {
    /// `ws://` to an address that is not loopback is refused unless this is
    /// true. Default false.
    pub allow_insecure: bool,
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
