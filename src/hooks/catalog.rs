//! The hooks that there are: files and sections brought together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::files;
use crate::config::ConfigError;
use crate::config::hooks_file::{self, FILE, Policy};
use crate::domain::hook_policy::HookKind;

/// Whether a hook runs, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It runs for its events.
    Active,
    /// Its section, or `[hooks] enabled`, switches it off.
    Disabled,
    /// It has a file and no section.
    Unconfigured,
    /// It has a section and no file that may run.
    Missing,
}

/// A hook.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Its name.
    pub name: String,
    /// Its file; `None` when there is none.
    pub path: Option<PathBuf>,
    /// Whether it runs.
    pub state: State,
    /// Why not, for people.
    pub detail: String,
    /// What it may do; `None` without a section.
    pub policy: Option<Arc<Policy>>,
}

/// All hooks, by name.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    hooks: BTreeMap<String, Hook>,
}

/// A hook that runs.
#[derive(Clone, Debug)]
pub(super) struct Active {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) policy: Arc<Policy>,
}

// === impl Catalog ===

impl Catalog {
    /// Reads a hooks directory. Without hooks.toml no hook runs (R210).
    pub(super) fn load(directory: &Path, enabled: bool, default_timeout_s: u32) -> Result<Self, ConfigError> {
        files::check_settings(directory)?;
        let policies = hooks_file::load(directory, default_timeout_s)?;
        let paths: BTreeMap<String, PathBuf> = files::found(directory).into_iter().collect();
        let is_configured = policies.is_some();
        let mut policies = policies.unwrap_or_default();
        let names: BTreeSet<String> = paths.keys().chain(policies.keys()).cloned().collect();
        if !is_configured && !names.is_empty() {
            tracing::warn!(
                "No hook runs: {} has hook files but no {FILE}; a section for each hook says what it may do",
                directory.display()
            );
        }
        let hooks = names.into_iter().map(|name| {
            let (path, policy) = (paths.get(&name).cloned(), policies.remove(&name).map(Arc::new));
            let (state, detail) = state(directory, &name, policy.as_deref(), enabled, is_configured);
            (name.clone(), Hook { name, path, state, detail, policy })
        });
        Ok(Self { hooks: hooks.collect() })
    }

    /// The hooks by name.
    pub fn hooks(&self) -> impl Iterator<Item = &Hook> {
        self.hooks.values()
    }

    /// The hook of this name, if it runs.
    pub(super) fn active(&self, name: &str) -> Option<Active> {
        self.hooks.get(name).and_then(Hook::active)
    }

    /// Every hook that runs.
    pub(super) fn all_active(&self) -> impl Iterator<Item = Active> {
        self.hooks.values().filter_map(Hook::active)
    }

    /// Whether a hook runs for stored messages. One whose file is gone counts: it may
    /// be back soon, as when an editor writes it anew.
    pub(super) fn has_message_hooks(&self) -> bool {
        let is_wanted = |hook: &Hook| matches!(hook.state, State::Active | State::Missing);
        let is_for_messages = |hook: &Hook| hook.policy.as_ref().is_some_and(|policy| policy.kind.is_for_messages());
        self.hooks.values().any(|hook| is_wanted(hook) && is_for_messages(hook))
    }

    /// The hooks that would run if their file were there: what waits for them is kept.
    pub(super) fn missing(&self) -> Vec<&str> {
        self.hooks.values().filter(|hook| hook.state == State::Missing).map(|hook| hook.name.as_str()).collect()
    }

    /// Whether a hook runs for anything but sends.
    pub(super) fn has_event_hooks(&self) -> bool {
        self.all_active().any(|hook| hook.policy.kind != HookKind::PreSend)
    }

    /// The gate before sends: one that is wanted but cannot run holds them up too.
    pub(super) fn pre_send(&self) -> Option<&Hook> {
        self.hooks.values().find(|hook| {
            matches!(hook.state, State::Active | State::Missing)
                && hook.policy.as_ref().is_some_and(|policy| policy.kind == HookKind::PreSend)
        })
    }
}

// === impl Hook ===

impl Hook {
    pub(super) fn active(&self) -> Option<Active> {
        if self.state != State::Active {
            return None;
        }
        Some(Active { name: self.name.clone(), path: self.path.clone()?, policy: Arc::clone(self.policy.as_ref()?) })
    }
}

fn state(directory: &Path, name: &str, policy: Option<&Policy>, enabled: bool, is_configured: bool) -> (State, String) {
    let settings = directory.join(FILE);
    let Some(policy) = policy else {
        let detail = if is_configured {
            format!("{} has no section [{name}]", settings.display())
        } else {
            format!("there is no {}", settings.display())
        };
        return (State::Unconfigured, detail);
    };
    if !policy.enabled {
        return (State::Disabled, format!("[{name}] of {} says enabled = false", settings.display()));
    }
    if !enabled {
        return (State::Disabled, "[hooks] enabled is false, as it is by default in a CI job".to_owned());
    }
    match files::problem(directory, &directory.join(format!("{name}.sh"))) {
        Some(problem) => {
            tracing::warn!(hook = name, "Hook {name} does not run: {problem}");
            (State::Missing, problem)
        }
        None => (State::Active, String::new()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    // Covers: R210, R216, R217, R257
    #[test]
    fn a_hook_runs_with_a_file_and_a_section_that_does_not_switch_it_off() {
        let dir = tempfile::tempdir().unwrap();
        let script = |name: &str| {
            let path = dir.path().join(format!("{name}.sh"));
            std::fs::write(&path, "#!/bin/sh\n").unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        };
        for name in ["on-dm", "on-message", "on-startup"] {
            script(name);
        }
        let states = |enabled| -> Vec<(String, State)> {
            let catalog = Catalog::load(dir.path(), enabled, 30).unwrap();
            catalog.hooks().map(|hook| (hook.name.clone(), hook.state)).collect()
        };
        let all = |state| ["on-dm", "on-message", "on-startup"].map(|name| (name.to_owned(), state)).to_vec();
        assert_eq!(states(true), all(State::Unconfigured), "no hooks.toml");
        std::fs::write(dir.path().join(FILE), "[on-dm]\n[on-message]\nenabled = false\n[pre-send]\n").unwrap();
        let expected = [
            ("on-dm", State::Active),
            ("on-message", State::Disabled),
            ("on-startup", State::Unconfigured),
            ("pre-send", State::Missing),
        ];
        assert_eq!(states(true), expected.map(|(name, state)| (name.to_owned(), state)));
        assert_eq!(states(false)[0].1, State::Disabled);
        let catalog = Catalog::load(dir.path(), true, 30).unwrap();
        assert!(catalog.has_message_hooks());
        assert!(catalog.pre_send().is_some(), "a gate without its file lets nothing through");
    }
}
