//! The inbound history: `[inbox]`.

use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;

/// `[inbox]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Inbox {
    /// Messages older than so many days are removed. Default 30 (R352).
    pub retention_days: u32,
}

// === impl Inbox ===

impl Default for Inbox {
    fn default() -> Self {
        Self { retention_days: 30 }
    }
}

impl Inbox {
    /// Checks the values.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !(1..=3650).contains(&self.retention_days) {
            return Err(ConfigError::Value {
                key: "inbox.retention_days",
                value: self.retention_days.to_string(),
                reason: "it must be from 1 to 3650".to_owned(),
            });
        }
        Ok(())
    }

    /// How long a message is kept.
    pub fn retention(&self) -> Duration {
        Duration::from_secs(u64::from(self.retention_days) * 86_400)
    }
}
