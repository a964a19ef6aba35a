//! How much of the disk the daemon may take: `[disk]`.

use std::time::Duration;

use serde::Deserialize;

use super::ConfigError;

/// `[disk]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Disk {
    /// Bytes that `outbox.db` and `inbox.db` may use together before the outbox
    /// counts as full. Default 10 GB (R366).
    pub reserved_bytes: u64,
    /// Bytes that `outbox.db` may use before it counts as full. Default 5 GB
    /// (R29).
    pub outbox_max_bytes: u64,
    /// Bytes of `inbox.db` at which a warning is shown; messages are stored all
    /// the same. Default 5 GB (R30).
    pub inbox_max_bytes: u64,
    /// The weekly VACUUM waits until nothing was sent or received for so many
    /// seconds. Default 300.
    pub vacuum_after_idle_s: u32,
}

// === impl Disk ===

impl Default for Disk {
    fn default() -> Self {
        Self {
            reserved_bytes: 10_000_000_000,
            outbox_max_bytes: 5_000_000_000,
            inbox_max_bytes: 5_000_000_000,
            vacuum_after_idle_s: 300,
        }
    }
}

impl Disk {
    /// Checks the values.
    pub fn check(&self) -> Result<(), ConfigError> {
        // An empty database takes some pages.
        const LEAST: u64 = 1 << 20;
        let sizes = [
            ("disk.reserved_bytes", self.reserved_bytes),
            ("disk.outbox_max_bytes", self.outbox_max_bytes),
            ("disk.inbox_max_bytes", self.inbox_max_bytes),
        ];
        for (key, bytes) in sizes {
            if bytes < LEAST {
                let reason = format!("it must be at least {LEAST}");
                return Err(ConfigError::Value { key, value: bytes.to_string(), reason });
            }
        }
        if !(1..=86_400).contains(&self.vacuum_after_idle_s) {
            return Err(ConfigError::Value {
                key: "disk.vacuum_after_idle_s",
                value: self.vacuum_after_idle_s.to_string(),
                reason: "it must be from 1 to 86400".to_owned(),
            });
        }
        Ok(())
    }

    /// How long a database must be left alone before its VACUUM.
    pub fn vacuum_after_idle(&self) -> Duration {
        Duration::from_secs(u64::from(self.vacuum_after_idle_s))
    }
}
