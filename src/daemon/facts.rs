//! What a start finds, for `daemon status`.

use std::path::Path;

use tokio::net::TcpListener;

use super::{LastExit, Options, state};
use crate::api;
use crate::config::environment::{Environment, Place};
use crate::config::paths::StateDir;
use crate::config::source::ProcessEnvironment;
use crate::domain::error_code::exit;
use crate::membership::config_json::MeshEntry;
use crate::proto::admin;
use crate::proto::wkt::Timestamp;
use crate::runtime::clock::Clock;

/// What `daemon status` shows of the process.
pub(super) fn facts(
    options: &Options,
    state: &StateDir,
    entry: &MeshEntry,
    clock: &Clock,
    tcp: Option<&TcpListener>,
    warnings: Vec<admin::StatusWarning>,
) -> api::Facts {
    let text = |path: std::path::PathBuf| path.display().to_string();
    let address = tcp.and_then(|listener| listener.local_addr().ok());
    let last_exit = LastExit::read(&state.last_exit()).map(|last| admin::LastExit {
        exit_code: last.exit_code.into(),
        reason: last.code,
        detail: last.detail,
        at: Some(Timestamp::from_unix_ms(last.at)),
    });
    api::Facts {
        started_at: clock.now(),
        display_name: options.display_name.clone().or_else(|| entry.display_name.clone()).unwrap_or_default(),
        state_dir: state.path().display().to_string(),
        socket_path: text(state.sock()),
        http_address: address.map_or_else(String::new, |address| address.to_string()),
        config_path: text(state.config()),
        log_path: text(state.log()),
        broker_url: entry.broker_url.clone(),
        insecure_link: entry.broker_url.starts_with("ws://"),
        environment: environment_status(),
        last_exit,
        warnings,
    }
}

/// What the start found that the operator should know.
pub(super) fn warnings(
    state: &StateDir,
    exposed: Vec<String>,
    databases: &state::Databases,
) -> Vec<admin::StatusWarning> {
    let mut warnings: Vec<_> = exposed.into_iter().map(|text| api::warning("key_file_exposed", text)).collect();
    for warning in &warnings {
        tracing::warn!(code = warning.code, "{}", warning.message);
    }
    if let Some(kept) = &databases.inbox_set_aside {
        let text = format!(
            "the inbox was damaged and a new one was begun; the damaged one is kept as {}: sqlite3 .recover may read it",
            kept.display()
        );
        warnings.push(api::warning("inbox_set_aside", text));
    }
    if let Some(last) = LastExit::read(&state.last_exit()).filter(|last| last.exit_code != exit::OK) {
        let text = format!("the daemon before this one ended with exit code {}: {}", last.exit_code, last.detail);
        warnings.push(api::warning("last_exit", text));
    }
    warnings
}

/// Where this process runs. It is shown only: no setting depends on it.
fn environment_status() -> admin::EnvironmentStatus {
    let found = Environment::detect(&ProcessEnvironment, &|path| Path::new(path).exists());
    let detected = match found.place {
        Place::Host => admin::HostEnvironment::Host,
        Place::Container => admin::HostEnvironment::Container,
        Place::Kubernetes => admin::HostEnvironment::Kubernetes,
        Place::Ci => admin::HostEnvironment::Ci,
        Place::Runpod => admin::HostEnvironment::Runpod,
    };
    admin::EnvironmentStatus { detected: detected.into(), signal: found.signal.to_owned(), overrides: Vec::new() }
}
