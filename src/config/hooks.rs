//! Scripts that run for events: `[hooks]`. What each of them may do stands in
//! `hooks.toml`, see `hooks_file`.

use serde::Deserialize;

use super::ConfigError;
use super::environment::Place;

/// `[hooks]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct Hooks {
    /// Hooks run at all. Default true, and false in a job of continuous
    /// integration (R358).
    pub enabled: Option<bool>,
    /// Runs at once. Default 8 (R34, R359).
    pub concurrency: u32,
    /// Runs that wait for a place at most. Default 1000.
    pub queue: u32,
    /// Seconds that a run may take when its section does not say. Default 30
    /// (R360).
    pub default_timeout_s: u32,
    /// Greatest input of a run in bytes. Default 262144 (R361).
    pub stdin_max_bytes: u32,
    /// Messages of one sender that run hooks in a minute; 0 is no limit. Default
    /// 30.
    pub sender_rate_per_min: u32,
    /// Messages from before the inbox was made anew after damage run hooks too.
    /// Default false.
    pub run_after_recovery: bool,
}

// === impl Hooks ===

impl Default for Hooks {
    fn default() -> Self {
        Self {
            enabled: None,
            concurrency: 8,
            queue: 1000,
            default_timeout_s: 30,
            stdin_max_bytes: 262_144,
            sender_rate_per_min: 30,
            run_after_recovery: false,
        }
    }
}

impl Hooks {
    /// Checks the values.
    pub fn check(&self) -> Result<(), ConfigError> {
        let range = |key, value: u32, low: u32, high: u32| {
            if (low..=high).contains(&value) {
                return Ok(());
            }
            let reason = format!("it must be from {low} to {high}");
            Err(ConfigError::Value { key, value: value.to_string(), reason })
        };
        range("hooks.concurrency", self.concurrency, 1, 256)?;
        range("hooks.queue", self.queue, 1, 100_000)?;
        range("hooks.default_timeout_s", self.default_timeout_s, 1, 3600)?;
        range("hooks.stdin_max_bytes", self.stdin_max_bytes, 1024, 8 << 20)?;
        range("hooks.sender_rate_per_min", self.sender_rate_per_min, 0, 100_000)
    }

    /// Whether hooks run where this process is: a job gets its hooks from whoever
    /// wrote the change that it checks, so there they have to be asked for.
    pub fn is_enabled(&self, place: Place) -> bool {
        self.enabled.unwrap_or(place != Place::Ci)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Covers: R358-R361
    #[test]
    fn the_defaults_and_where_hooks_are_off() {
        let default = Hooks::default();
        assert_eq!((default.concurrency, default.default_timeout_s, default.stdin_max_bytes), (8, 30, 256 * 1024));
        for place in [Place::Host, Place::Container, Place::Kubernetes, Place::Runpod] {
            assert!(default.is_enabled(place), "{place:?}");
        }
        assert!(!default.is_enabled(Place::Ci));
        assert!(Hooks { enabled: Some(true), ..Hooks::default() }.is_enabled(Place::Ci));
        assert!(!Hooks { enabled: Some(false), ..Hooks::default() }.is_enabled(Place::Host));
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        for (wrong, key) in [
            (Hooks { concurrency: 0, ..Hooks::default() }, "hooks.concurrency"),
            (Hooks { queue: 0, ..Hooks::default() }, "hooks.queue"),
            (Hooks { default_timeout_s: 3601, ..Hooks::default() }, "hooks.default_timeout_s"),
            (Hooks { stdin_max_bytes: 1023, ..Hooks::default() }, "hooks.stdin_max_bytes"),
        ] {
            assert!(wrong.check().unwrap_err().to_string().contains(key));
        }
    }
}
