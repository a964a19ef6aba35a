//! `HooksService`: which hooks there are and what they did.

use super::Services;
use crate::api::convert::{self, timestamp};
use crate::api::page::{Encoding, Page};
use crate::api::status::Failure;
use crate::config::hooks_file::{FsPolicy, NetworkPolicy, Policy, Sandbox};
use crate::domain::error_code::ErrorCode;
use crate::hooks::{self, Filter, Hook, State};
use crate::proto::admin;

// === impl Services ===

impl Services {
    /// A page of hooks, by name.
    pub fn list_hooks(
        &self,
        mut request: admin::ListHooksRequest,
        encoding: Encoding,
    ) -> Result<admin::ListHooksResponse, Failure> {
        let page = Page::of(&mut request, encoding)?;
        let deps = &self.0.deps.hooks;
        let catalog = deps.catalog();
        let rest = catalog.hooks().filter(|hook| page.takes(&hook.name));
        let items = rest.map(|hook| (hook.name.clone(), shown(hook, &deps.counts(&hook.name))));
        let (hooks, next_page_token) = page.fill(items, false);
        Ok(admin::ListHooksResponse {
            hooks,
            next_page_token,
            directory: deps.directory().display().to_string(),
            enabled: deps.summary().enabled,
        })
    }

    /// A page of ended runs, the newest first.
    pub async fn list_hook_runs(
        &self,
        mut request: admin::ListHookRunsRequest,
        encoding: Encoding,
    ) -> Result<admin::ListHookRunsResponse, Failure> {
        let page = Page::of(&mut request, encoding)?;
        let filter = Filter {
            hook: request.hook,
            message_id: request.message_id,
            failed_only: request.failed_only,
            before: page.after.clone().unwrap_or_default(),
            // One more than asked tells whether there is a next page.
            limit: page.limit + 1,
        };
        let found = self.0.deps.hooks.runs(&filter).await?;
        let items = found.into_iter().map(|(id, run)| (id, convert::hook_run(&run)));
        let (runs, next_page_token) = page.fill(items, false);
        Ok(admin::ListHookRunsResponse { runs, next_page_token })
    }

    /// Reads the hooks again. A file with errors changes nothing.
    pub fn reload_hooks(&self) -> Result<admin::ReloadHooksResponse, Failure> {
        let hooks = &self.0.deps.hooks;
        let wrong = |error: crate::config::ConfigError| Failure::new(ErrorCode::ConfigInvalid, error.to_string());
        hooks.apply(hooks.load().map_err(wrong)?);
        let catalog = hooks.catalog();
        let names = |active: bool| {
            let wanted = catalog.hooks().filter(|hook| (hook.state == State::Active) == active);
            wanted.map(|hook| hook.name.clone()).collect()
        };
        Ok(admin::ReloadHooksResponse { active: names(true), inactive: names(false) })
    }

    /// Hooks in numbers, for the status.
    pub(super) fn hooks_summary(&self) -> admin::HooksSummary {
        let hooks::Summary { enabled, active, runs, failures, queued } = self.0.deps.hooks.summary();
        admin::HooksSummary { enabled, active, runs, failures, queued }
    }
}

fn shown(hook: &Hook, counts: &hooks::Counts) -> admin::Hook {
    let state = match hook.state {
        State::Active => admin::HookState::Active,
        State::Disabled => admin::HookState::Disabled,
        State::Unconfigured => admin::HookState::Unconfigured,
        State::Missing => admin::HookState::Missing,
    };
    let shown = admin::Hook {
        name: hook.name.clone(),
        path: hook.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
        state: state.into(),
        detail: hook.detail.clone(),
        runs: counts.runs,
        failures: counts.failures,
        last_run_at: counts.last_at.map(timestamp),
        ..admin::Hook::default()
    };
    hook.policy.as_deref().map_or_else(|| shown.clone(), |policy| with_policy(shown.clone(), policy))
}

fn with_policy(hook: admin::Hook, policy: &Policy) -> admin::Hook {
    let network_policy = match policy.network_policy {
        NetworkPolicy::Deny => admin::NetworkPolicy::Deny,
        NetworkPolicy::Allow => admin::NetworkPolicy::Allow,
        NetworkPolicy::Allowlist => admin::NetworkPolicy::Allowlist,
    };
    let fs_policy = match policy.fs_policy {
        FsPolicy::Readonly => admin::FsPolicy::Readonly,
        FsPolicy::Rw => admin::FsPolicy::Rw,
        FsPolicy::Sandbox => admin::FsPolicy::Sandbox,
    };
    let sandbox = match policy.sandbox {
        None => "",
        Some(Sandbox::Bubblewrap) => "bubblewrap",
        Some(Sandbox::SandboxExec) => "sandbox-exec",
    };
    admin::Hook {
        timeout_s: u32::try_from(policy.timeout.as_secs()).unwrap_or(u32::MAX),
        output_size_limit: u32::try_from(policy.output_size_limit).unwrap_or(u32::MAX),
        redact_payload: policy.redact_payload.clone(),
        allow_reply: policy.allow_reply,
        accept_auto: policy.accept_auto,
        capability_scopes: policy.scopes.iter().map(ToString::to_string).collect(),
        network_policy: network_policy.into(),
        network_allowlist: policy.network_allowlist.clone(),
        fs_policy: fs_policy.into(),
        sandbox: sandbox.to_owned(),
        user_cli: policy.user_cli,
        audit: policy.audit,
        ..hook
    }
}
