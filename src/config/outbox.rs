//! The outbound queue: `[outbox]`.

use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;
use crate::domain::age_limit::DEFAULT_MAX_AGE_HOURS;

/// Ten years.
const MAX_HOURS: u32 = 87_600;

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
    /// Default 23 (R350). How much more is safe depends on the broker; the start
    /// checks it (R166).
    pub max_age_hours: u32,
    /// Start although `max_age_hours` is longer than the broker remembers ids, so
    /// that a late retry may be delivered twice. Default false (R166).
    pub accept_redelivery_risk: bool,
    /// The texts of accepted sends are cleared after so many hours, and at once while
    /// the disk is full. Default 24
    /// (R198).
    pub done_retention_hours: u32,
    /// Default `strict` (R351).
    pub fsync_mode: FsyncMode,
    /// Sends that may await the broker's answer at once. Default 256.
    pub window: u32,
}

// === impl Outbox ===

impl Default for Outbox {
    fn default() -> Self {
        Self {
            max_queue_size: 5_000_000,
            max_age_hours: DEFAULT_MAX_AGE_HOURS,
            accept_redelivery_risk: false,
            done_retention_hours: 24,
            fsync_mode: FsyncMode::Strict,
            window: 256,
        }
    }
}

impl Outbox {
    /// Checks the values.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.max_queue_size == 0 {
            return Err(value("outbox.max_queue_size", &self.max_queue_size, "it must be at least 1"));
        }
        for (key, hours, least) in [
            ("outbox.max_age_hours", self.max_age_hours, 1),
            ("outbox.done_retention_hours", self.done_retention_hours, 0),
        ] {
            if !(least..=MAX_HOURS).contains(&hours) {
                return Err(value(key, &hours, &format!("it must be from {least} to {MAX_HOURS}")));
            }
        }
        if !(1..=4096).contains(&self.window) {
            return Err(value("outbox.window", &self.window, "it must be from 1 to 4096"));
        }
        Ok(())
    }

    /// How long the texts of accepted sends are kept.
    pub fn done_retention(&self) -> Duration {
        Duration::from_secs(u64::from(self.done_retention_hours) * 3600)
    }
}

fn value(key: &'static str, value: &dyn std::fmt::Display, reason: &str) -> ConfigError {
    ConfigError::Value { key, value: value.to_string(), reason: reason.to_owned() }
}
