//! Keys: `[crypto]`.

use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;

/// The longest grace in days.
const MAX_GRACE_DAYS: u32 = 30;

/// `[crypto]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Crypto {
    /// Days for which a key that was rotated out still opens messages, and for
    /// which a peer's old key still counts as the peer's. 1 to 30; default 7
    /// (R371).
    pub key_grace_period_days: u32,
}

// === impl Crypto ===

impl Default for Crypto {
    fn default() -> Self {
        Self { key_grace_period_days: 7 }
    }
}

impl Crypto {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if !(1..=MAX_GRACE_DAYS).contains(&self.key_grace_period_days) {
            return Err(ConfigError::Value {
                key: "crypto.key_grace_period_days",
                value: self.key_grace_period_days.to_string(),
                reason: format!("it must be from 1 to {MAX_GRACE_DAYS}"),
            });
        }
        Ok(())
    }

    /// The grace.
    pub fn grace(&self) -> Duration {
        Duration::from_secs(u64::from(self.key_grace_period_days) * 86_400)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Covers: R371
    #[test]
    fn a_week_unless_the_file_says_otherwise() {
        assert_eq!(Crypto::default().grace(), Duration::from_secs(7 * 86_400));
        for (days, allowed) in [(0, false), (1, true), (30, true), (31, false)] {
            assert_eq!(Crypto { key_grace_period_days: days }.check().is_ok(), allowed, "{days}");
        }
    }
}
