//! The outbound queue: `[outbox]`.

use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;

/// How a commit reaches the disk.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum FsyncMode {
    /// Sends that wait together share one synced commit. The default.
    #[default]
    Strict,
    /// Collects for up to 50 ms first; the answer still comes after the synced
    /// commit.
    #[serde(rename = "batched_50ms")]
    Batched50ms,
    /// No sync: a power failure loses what was answered. Warned at start.
    Off,
}

/// `[outbox]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Outbox {
    /// Rows that may wait. Default 5000000 (R349).
    pub max_queue_size: u64,
    /// A send that the broker has not accepted after so many hours is given up.
    /// Default 23 (R350).
    pub max_age_hours: u32,
    /// Default `strict` (R351).
    pub fsync_mode: FsyncMode,
    /// Sends that may await the broker's answer at once. Default 256.
    pub window: u32,
}

// === impl Outbox ===

impl Default for Outbox {
    fn default() -> Self {
        Self { max_queue_size: 5_000_000, max_age_hours: 23, fsync_mode: FsyncMode::Strict, window: 256 }
    }
}

impl Outbox {
    /// Checks the values.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.max_queue_size == 0 {
            return Err(value("outbox.max_queue_size", &self.max_queue_size, "it must be at least 1"));
        }
        // Beyond 23 h a retry may leave the time for which every broker
        // promises to recognise it.
        if !(1..=23).contains(&self.max_age_hours) {
            return Err(value("outbox.max_age_hours", &self.max_age_hours, "it must be from 1 to 23"));
        }
        if !(1..=4096).contains(&self.window) {
            return Err(value("outbox.window", &self.window, "it must be from 1 to 4096"));
        }
        Ok(())
    }

    /// The age limit.
    pub fn max_age(&self) -> Duration {
        Duration::from_secs(u64::from(self.max_age_hours) * 3600)
    }
}

fn value(key: &'static str, value: &dyn std::fmt::Display, reason: &str) -> ConfigError {
    ConfigError::Value { key, value: value.to_string(), reason: reason.to_owned() }
}
