//! What hooks are given of the daemon, and how they are read again with the settings.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Options;
use super::settings::Settings;
use crate::config::ConfigError;
use crate::config::daemon::DaemonConfig;
use crate::config::environment::Environment;
use crate::config::paths::StateDir;
use crate::config::source::{ProcessEnvironment, Source as _};
use crate::db::connect::Sqlite;
use crate::domain::hook_policy::Own;
use crate::events::Hub;
use crate::hooks::{Deps, Handle, Places};
use crate::identity::Identity;
use crate::proto::admin;
use crate::runtime::clock::Clock;
use crate::runtime::ids::IdSource;
use crate::telemetry::metrics::Metrics;
use crate::{inbox, outbox, peers};

/// The parts that hooks work with.
pub(super) struct Setup<'a> {
    pub(super) options: &'a Options,
    pub(super) state: &'a StateDir,
    pub(super) config: &'a DaemonConfig,
    pub(super) db: Sqlite,
    pub(super) identity: Identity,
    pub(super) peers: peers::Handle,
    pub(super) inbox: inbox::Handle,
    pub(super) outbox: outbox::Handle,
    pub(super) hub: Hub,
    pub(super) ids: IdSource,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
}

/// What hooks are given.
pub(super) fn deps(setup: Setup<'_>) -> Deps {
    let Setup { options, state, config, identity, peers, .. } = setup;
    let environment = Environment::detect(&ProcessEnvironment, &|path| Path::new(path).exists());
    let home = ProcessEnvironment.var("HOME");
    let mut hidden = vec![options.root.path().to_owned()];
    // A root elsewhere does not make the usual one less worth hiding.
    hidden.extend(home.as_ref().map(|home| PathBuf::from(home).join(".claudemesh")));
    hidden.dedup();
    Deps {
        mesh: options.mesh.clone(),
        config: config.hooks.clone(),
        enabled: config.hooks.is_enabled(environment.place),
        places: Places { hooks: state.hooks(), run: state.run(), socket: state.sock(), hidden },
        home,
        path: ProcessEnvironment.var("PATH"),
        db: setup.db,
        inbox: setup.inbox,
        outbox: setup.outbox,
        hub: setup.hub,
        ids: setup.ids,
        clock: setup.clock,
        metrics: setup.metrics,
        judge: {
            let peers = peers.clone();
            Arc::new(move || peers.judge())
        },
        accountable: {
            let peers = peers.clone();
            Arc::new(move |sender| peers.accountable(sender))
        },
        own: Arc::new(move || {
            let own = identity.member_id();
            let name =
                peers.members().iter().find(|member| member.member_id == *own).map(|own| own.display_name.clone());
            Own { name: name.unwrap_or_default(), member_id: own.to_string() }
        }),
    }
}

/// Reads settings and hooks again. With an error in either nothing changes.
pub(super) fn reload(settings: &Settings, hooks: &Handle) -> Result<admin::ReloadResponse, ConfigError> {
    let catalog = hooks.load().inspect_err(|error| {
        tracing::warn!(error = %error, "The hooks were not read again: {error}");
    })?;
    let reloaded = settings.reload()?;
    hooks.apply(catalog);
    Ok(reloaded)
}
