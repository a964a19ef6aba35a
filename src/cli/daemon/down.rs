//! `claudemesh daemon down`.
//!
//! The daemon is asked; one that does not understand or does not answer gets
//! SIGTERM. Either way it is gone when its lock is free, and not before.

use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;

use super::{Each, process_json, running_or_joined};
use crate::cli::client::{Client, answer, call_within};
use crate::cli::discovery::not_running;
use crate::cli::failure::Failure;
use crate::cli::output::Output;
use crate::cli::{Context, process, running};
use crate::config::paths::Root;
use crate::domain::error_code::{ErrorCode, exit};
use crate::proto::admin::{ShutdownRequest, ShutdownResponse};

/// How long a busy daemon may take to answer the call.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// How long it may take to end; longer than all phases of its shutdown together.
const END_LIMIT: Duration = Duration::from_secs(40);
/// After this, the wait is explained.
const EXPLAIN: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(25);

const EXAMPLES: &str = "\
Examples:
  claudemesh daemon down                 the only running daemon
  claudemesh daemon down --mesh demo
  claudemesh daemon down --all";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Args {
    /// The mesh; the only running daemon's if left out
    #[arg(long, value_name = "MESH")]
    mesh: Option<String>,
    /// All running daemons
    #[arg(long, conflicts_with = "mesh")]
    all: bool,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

/// A daemon that has ended.
pub(super) struct Stopped {
    mesh: String,
    pid: Option<u32>,
    undelivered: u32,
}

pub(super) async fn run(args: Args, context: &Context, output: &mut Output) -> Result<u8, Failure> {
    let root = context.root()?;
    if !args.all {
        let mesh = running_or_joined(args.mesh.as_deref(), context, &root)?;
        let stopped = stop(context, &root, &mesh, output).await?;
        report(&stopped, args.json, output)?;
        return Ok(exit::OK);
    }
    let mut each = Each::new();
    for mesh in running::running(&root)? {
        match stop(context, &root, &mesh, output).await {
            Ok(stopped) => report(&stopped, args.json, output)?,
            Err(failure) => each.note(&mesh, &failure, output),
        }
    }
    Ok(each.exit)
}

fn report(stopped: &Stopped, json: bool, output: &mut Output) -> Result<(), Failure> {
    if json {
        let mut object = process_json(&stopped.mesh, stopped.pid, "stopped");
        object["undelivered"] = stopped.undelivered.into();
        return output.json(&object);
    }
    let pid = stopped.pid.map(|pid| format!("  pid {pid}")).unwrap_or_default();
    output.line(format_args!("stopped  {}{pid}", stopped.mesh))?;
    if stopped.undelivered > 0 {
        let what = if stopped.undelivered == 1 { "queued message goes" } else { "queued messages go" };
        output.note(format_args!("note: {} {what} out after the next start", stopped.undelivered));
    }
    Ok(())
}

/// Stops the mesh's daemon and waits until it is gone.
pub(super) async fn stop(context: &Context, root: &Root, mesh: &str, output: &mut Output) -> Result<Stopped, Failure> {
    let state = root.state_dir(mesh);
    if !running::is_running(&state)? {
        return Err(not_running(root, mesh));
    }
    let socket = state.sock();
    // Who holds the socket is told by the system; the file is for a daemon whose
    // socket is gone.
    let pid = match peer_pid(&socket).await {
        Some(pid) => Some(pid),
        None => running::recorded_pid(&state),
    };
    let stopping = match ask(&socket).await {
        Ok(response) => response,
        // It ended while it was asked.
        Err(_) if !running::is_running(&state)? => ShutdownResponse::default(),
        Err(failure) => {
            let Some(pid) = pid else { return Err(failure) };
            output.note(format_args!("note: the daemon did not take the call; asking process {pid} to end"));
            process::terminate(pid)?;
            ShutdownResponse::default()
        }
    };
    wait_until_gone(context, root, mesh, pid, output).await?;
    Ok(Stopped {
        mesh: mesh.to_owned(),
        pid: pid.and_then(|pid| u32::try_from(pid).ok()).or((stopping.pid > 0).then_some(stopping.pid)),
        undelivered: stopping.undelivered,
    })
}

async fn ask(socket: &Path) -> Result<ShutdownResponse, Failure> {
    let client = Client::over_socket(socket).await.map_err(|error| {
        Failure::new(ErrorCode::DaemonNotRunning, format!("no daemon answers at {}: {error}", socket.display()))
    })?;
    answer(client.lifecycle().shutdown(call_within(CALL_LIMIT, ShutdownRequest::default())).await)
}

async fn wait_until_gone(
    context: &Context,
    root: &Root,
    mesh: &str,
    pid: Option<i32>,
    output: &mut Output,
) -> Result<(), Failure> {
    let state = root.state_dir(mesh);
    let begin = context.clock.monotonic();
    let mut explained = false;
    while running::is_running(&state)? {
        let waited = context.clock.monotonic().saturating_sub(begin);
        if waited > END_LIMIT {
            return Err(Failure::new(
                ErrorCode::DeadlineExceeded,
                format!("the daemon of mesh {mesh:?} is still ending after {} s", END_LIMIT.as_secs()),
            )
            .next(format!("see what it does: claudemesh daemon logs --mesh {mesh}"))
            .next(format!(
                "{}, which loses nothing that was queued",
                pid.map_or("kill it".to_owned(), |pid| format!("kill it: kill -KILL {pid}"))
            )));
        }
        if waited > EXPLAIN && !explained {
            output.note("waiting for the daemon to finish what is under way");
            explained = true;
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

/// The process at the other end of the socket.
async fn peer_pid(socket: &Path) -> Option<i32> {
    let connect = tokio::time::timeout(Duration::from_secs(1), UnixStream::connect(socket));
    connect.await.ok()?.ok()?.peer_cred().ok()?.pid().filter(|pid| *pid > 1)
}
