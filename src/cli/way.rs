//! The way to a broker, as commands take it.

use std::path::PathBuf;

use super::Context;
use super::failure::Failure;
use super::output::Output;
use crate::config::broker_client::BrokerLink;
use crate::config::daemon::{DaemonConfig, TEMPLATE};
use crate::config::proxy::ProxyUrl;
use crate::membership;
use crate::membership::config_json::MeshEntry;
use crate::membership::names::check_slug;
use crate::runtime::private_file::{self, PRIVATE};

/// Added to `[broker]` of the mesh's settings.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct WayArgs {
    /// Accept an unencrypted broker (ws://) on another host
    #[arg(long, help_heading = "The way to the broker")]
    allow_insecure: bool,
    /// Check the broker's certificate against the authorities in this file (PEM)
    #[arg(long, value_name = "FILE", help_heading = "The way to the broker")]
    ca_file: Option<PathBuf>,
    /// Reach the broker through this proxy; "none" for that of the environment
    #[arg(long, value_name = "URL", help_heading = "The way to the broker")]
    proxy: Option<String>,
}

// === impl WayArgs ===

impl WayArgs {
    /// What the calls to the broker of a mesh need. The mesh's own settings hold where
    /// there are any.
    pub(super) fn membership(&self, mesh: Option<&str>, context: &Context) -> Result<membership::Env, Failure> {
        let root = context.root()?;
        let mut link = match mesh {
            Some(mesh) if check_slug(mesh).is_ok() => DaemonConfig::load(&root.state_dir(mesh).config())?.broker,
            _ => BrokerLink::default(),
        };
        link.allow_insecure |= self.allow_insecure;
        if let Some(file) = &self.ca_file {
            link.ca_file = Some(context.cwd.join(file));
        }
        if let Some(proxy) = &self.proxy {
            link.proxy = Some(ProxyUrl(proxy.clone()));
        }
        Ok(membership::Env {
            root,
            clock: context.clock.clone(),
            ids: context.ids.clone(),
            link,
            environment: context.source.clone(),
        })
    }
}

/// Gives the way on to the daemon of a mesh that was just joined.
pub(super) fn keep(
    link: &BrokerLink,
    entry: &MeshEntry,
    context: &Context,
    output: &mut Output,
) -> Result<(), Failure> {
    if *link == BrokerLink::default() {
        return Ok(());
    }
    let state = context.root()?.state_dir(&entry.slug);
    let (path, section) = (state.config(), section(link));
    if private_file::read_optional(&path)?.is_some() {
        if DaemonConfig::load(&path)?.broker != *link {
            output.note(format_args!(
                "note: for the daemon to go the same way, put this into {}:\n{section}",
                path.display()
            ));
        }
        return Ok(());
    }
    private_file::create_dir(state.path())?;
    // A proxy's URL may hold a password.
    Ok(private_file::write_atomic(&path, format!("{TEMPLATE}\n{section}").as_bytes(), PRIVATE)?)
}

fn section(link: &BrokerLink) -> String {
    let mut lines = "[broker]\n".to_owned();
    let mut line = |key: &str, value: toml::Value| lines.push_str(&format!("{key} = {value}\n"));
    if link.allow_insecure {
        line("allow_insecure", true.into());
    }
    if let Some(file) = &link.ca_file {
        line("ca_file", file.display().to_string().into());
    }
    if let Some(proxy) = &link.proxy {
        line("proxy", proxy.0.clone().into());
    }
    lines
}
