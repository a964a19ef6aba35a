//! `claudemesh daemon`: one daemon a mesh.
//!
//! What it is for: starting, stopping, watching and reading the log of daemons.
//! What runs here: one command; the daemon itself with `up --foreground`.
//! What it guarantees: a daemon is up when it answers and gone when its lock is
//! free; both hold for daemons of other versions, too.
//! What it must not do: touch the files of a daemon that runs.

mod down;
pub(in crate::cli) mod foreground;
mod logs;
pub(in crate::cli) mod outbox;
mod recover;
mod sent;
mod status;
pub(in crate::cli) mod up;

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt as _;

use serde_json::json;

use super::client::{Client, answer, call};
use super::discovery::{DaemonArgs, joined_mesh, named_mesh};
use super::failure::Failure;
use super::output::{Output, safe};
use super::{Context, inbox, key, ok, one_thread, running};
use crate::config::daemon::DaemonConfig;
use crate::config::paths::{Root, StateDir};
use crate::domain::error_code::{ErrorCode, exit};
use crate::membership::config_json::ConfigJson;
use crate::proto::admin::ReloadRequest;
use crate::runtime::private_file::{self, FileError};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Start a daemon in the background
    Up(up::Args),
    /// Stop a daemon; what is queued goes out after the next start
    Down(down::Args),
    /// Stop a daemon if it runs, and start it
    Restart(RestartArgs),
    /// Show all daemons, or one
    #[command(alias = "ps")]
    Status(status::Args),
    /// Let a daemon read its config.toml again
    Reload(ReloadArgs),
    /// Show a daemon's log
    Logs(logs::Args),
    /// Show received messages; the same as `claudemesh inbox`
    Inbox(inbox::Args),
    /// Show what waits to be sent and what was given up, and repair it
    Outbox(outbox::Args),
    /// Make a new key for this member and register it at the broker
    RotateKeypair(key::Args),
    /// Check the databases of a stopped daemon, and set damaged ones aside
    Recover(recover::Args),
}

const RESTART_EXAMPLES: &str = "\
Examples:
  claudemesh daemon restart --mesh demo

Needed after an update of the program, and for settings that reload does not take.
The settings are checked before the daemon is stopped.";

#[derive(Debug, clap::Args)]
#[command(after_help = RESTART_EXAMPLES)]
pub(super) struct RestartArgs {
    /// The mesh; the only running daemon's if left out
    #[arg(long, value_name = "MESH")]
    mesh: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

const RELOAD_EXAMPLES: &str = "\
Examples:
  claudemesh daemon reload --mesh demo

The link and the sockets stay. A file with errors changes nothing.";

#[derive(Debug, clap::Args)]
#[command(after_help = RELOAD_EXAMPLES)]
pub(super) struct ReloadArgs {
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(super) fn run(verb: Verb, context: &Context, output: &mut Output) -> Result<u8, Failure> {
    match verb {
        Verb::Up(args) => up::run(args, context, output),
        Verb::Down(args) => one_thread()?.block_on(down::run(args, context, output)),
        Verb::Restart(args) => one_thread()?.block_on(restart(args, context, output)).map(ok),
        Verb::Status(args) => one_thread()?.block_on(status::run(args, context, output)),
        Verb::Reload(args) => one_thread()?.block_on(reload(args, context, output)).map(ok),
        Verb::Logs(args) => one_thread()?.block_on(logs::run(args, context, output)).map(ok),
        Verb::Inbox(args) => one_thread()?.block_on(Box::pin(inbox::run(args, context, output))).map(ok),
        Verb::Outbox(args) => one_thread()?.block_on(Box::pin(outbox::run(args, context, output))).map(ok),
        Verb::RotateKeypair(args) => one_thread()?.block_on(Box::pin(key::run(args, context, output))).map(ok),
        Verb::Recover(args) => one_thread()?.block_on(recover::run(args, context, output)),
    }
}

async fn restart(args: RestartArgs, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let root = context.root()?;
    let mesh = running_or_joined(args.mesh.as_deref(), context, &root)?;
    let state = root.state_dir(&mesh);
    if running::is_running(&state)? {
        can_follow(&state)?;
        down::stop(context, &root, &mesh, output).await?;
    }
    let started = up::start(context, &root, &mesh, None).await?;
    up::report(&started, args.json, output)
}

async fn reload(args: ReloadArgs, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let client = Client::find(context, &args.daemon).await?;
    let response = answer(client.lifecycle().reload(call(ReloadRequest {})).await)?;
    if args.json {
        return output.json(&response);
    }
    match response.applied.as_slice() {
        [] => output.line("reloaded  nothing changed that applies at once")?,
        keys => output.line(format_args!("reloaded  in force: {}", safe(&keys.join(", "))))?,
    }
    if !response.restart_required.is_empty() {
        output.note(format_args!(
            "note: after the next start only: {} (claudemesh daemon restart)",
            safe(&response.restart_required.join(", "))
        ));
    }
    Ok(())
}

/// Whether a daemon can start in the place of the one that runs, which is not stopped
/// for one that cannot.
fn can_follow(state: &StateDir) -> Result<(), Failure> {
    let path = state.path();
    let read = |source| FileError { action: "read", path: path.to_owned(), source };
    let (owner, own) = (std::fs::metadata(path).map_err(read)?.uid(), rustix::process::geteuid().as_raw());
    if owner != own {
        let what = format!("{} belongs to the user {owner}, and you are {own}", path.display());
        return Err(Failure::new(ErrorCode::PermissionDenied, what).next("restart the daemon as its own user"));
    }
    let ipc = DaemonConfig::load(&state.config())?.ipc;
    let held = private_file::read_optional(&state.http_port())?.and_then(|port| port.trim().parse().ok());
    if ipc.tcp_enabled && ipc.http_port != 0 && Some(ipc.http_port) != held {
        let address = SocketAddr::from((ipc.http_bind, ipc.http_port));
        TcpListener::bind(address).map_err(|error| {
            Failure::new(ErrorCode::ListenFailed, format!("cannot listen at {address}: {error}"))
                .next("another program may have the port; [ipc] http_port in config.toml names it")
        })?;
    }
    Ok(())
}

/// The mesh of a command that works on a daemon whether it runs or not: named,
/// the only running one, or the only joined one.
fn running_or_joined(explicit: Option<&str>, context: &Context, root: &Root) -> Result<String, Failure> {
    if let Some(mesh) = named_mesh(explicit, context.source.as_ref(), &context.cwd)? {
        return Ok(mesh);
    }
    let mut running = running::running(root)?;
    match running.len() {
        0 => joined_mesh(root, None, context.source.as_ref(), &context.cwd),
        1 => Ok(running.remove(0)),
        _ => Err(Failure::new(ErrorCode::MeshRequired, "several daemons run")
            .next(format!("name a mesh with --mesh: {}", running.join(", ")))),
    }
}

/// Does something for each mesh, prints each failure, and gives the exit code of
/// the first.
struct Each {
    exit: u8,
}

// === impl Each ===

impl Each {
    fn new() -> Self {
        Self { exit: exit::OK }
    }

    fn note(&mut self, mesh: &str, failure: &Failure, output: &mut Output) {
        output.failure_of(mesh, failure);
        if self.exit == exit::OK {
            self.exit = failure.exit();
        }
    }
}

/// All joined meshes, by name.
fn all_joined(root: &Root) -> Result<Vec<String>, Failure> {
    let mut meshes: Vec<String> = ConfigJson::load(root)?.meshes()?.into_iter().map(|entry| entry.slug).collect();
    meshes.sort();
    Ok(meshes)
}

/// A daemon that was started or stopped, for `--json`.
fn process_json(mesh: &str, pid: Option<u32>, state: &str) -> serde_json::Value {
    json!({ "mesh": mesh, "pid": pid, "state": state })
}
