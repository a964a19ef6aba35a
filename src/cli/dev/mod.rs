//! `claudemesh dev`: a throw-away mesh, for trying things out and for the tests of
//! applications.
//!
//! What it is for: a broker and a daemon for each member, ready to use, with
//! commands that disturb them.
//! What runs here: the relays between daemons and broker, and the commands; broker
//! and daemons are this program again, a process each.
//! What it guarantees: whatever ends this process ends the mesh with it, and
//! removes its directory unless it was named.
//! What it must not do: touch the caller's own meshes, or hand the caller's
//! environment on.

mod child;
mod commands;
mod directory;
mod faketime;
mod lines;
mod member;
mod mesh;
mod names;
mod relay;

use std::path::{Path, PathBuf};

use serde_json::json;
use tokio::signal::unix::Signal;

use self::child::Common;
use self::directory::Directory;
use self::faketime::FakeTime;
use self::lines::Lines;
use self::mesh::Mesh;
use super::failure::Failure;
use super::output::Output;
use super::{Context, first_process, one_thread};
use crate::domain::error_code::{ErrorCode, exit};
use crate::runtime::signals::{StopSignals, reload_signal};

/// The slug of the mesh.
const MESH: &str = "dev";

const EXAMPLES: &str = "\
Examples:
  claudemesh dev                         a mesh of alice and bob, until Ctrl-C
  claudemesh dev --members ann,ben,cy --dir ./mesh
  claudemesh dev --json                  for a test: commands in, answers out

The mesh is on this host alone, in a temporary directory, and ends with this
command. With --json the first line on standard output has the members' sockets,
and each line on standard input is a command, such as
  {\"id\":1,\"do\":\"kill\",\"member\":\"alice\"}
docs/CLI.md has all of them. The end of standard input ends the mesh.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The members' names; the first one owns the mesh
    #[arg(long, value_name = "NAMES", default_value = "alice,bob")]
    members: String,
    /// Keep everything in this directory, which must be new or empty
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Let the command `clock` move the time of the mesh; needs libfaketime
    #[arg(long)]
    clock: bool,
    /// Talk to a program: JSON lines, commands on standard input
    #[arg(long)]
    json: bool,
    /// Started by this command itself: removes the directory when it has ended
    #[arg(long, hide = true, requires = "dir")]
    remove_at_end: bool,
}

/// What asks for the end.
struct Ends {
    stop: StopSignals,
    hangup: Signal,
}

// === impl Ends ===

impl Ends {
    fn listen() -> Result<Self, Failure> {
        let hear = || Ok(Self { stop: StopSignals::listen()?, hangup: reload_signal()? });
        hear().map_err(|error: std::io::Error| {
            Failure::new(ErrorCode::InternalError, format!("cannot listen for signals: {error}"))
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.stop.next() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

pub(super) fn run(args: &Args, context: &Context, output: &mut Output) -> Result<u8, Failure> {
    if let (true, Some(dir)) = (args.remove_at_end, &args.dir) {
        return directory::remove_at_end(dir).map(super::ok);
    }
    if let Some(code) = first_process::in_a_child()? {
        return Ok(code);
    }
    let runtime = one_thread()?;
    let result = runtime.block_on(Box::pin(live(args, context, output)));
    // A read of standard input may still block its thread.
    runtime.shutdown_background();
    match result {
        Ok(()) => Ok(exit::OK),
        // Nobody reads what is said.
        Err(failure) if failure.is_silent() => Ok(exit::OK),
        // The program that listens is told once, where it listens.
        Err(failure) if args.json => {
            output.json_line(&json!({ "event": "failed", "error": &failure }))?;
            Ok(failure.exit())
        }
        Err(failure) => Err(failure),
    }
}

async fn live(args: &Args, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let mut ends = Ends::listen()?;
    let names = names::parse(&args.members)?;
    let longest = names.iter().max_by_key(|name| name.len()).map_or("", String::as_str);
    let directory = Directory::make(context, args.dir.as_deref(), longest)?;
    let faketime = if args.clock { FakeTime::find(directory.path()).map(Some) } else { Ok(None) };
    let faketime = match faketime {
        Ok(faketime) => faketime,
        Err(failure) => {
            directory.end();
            return Err(failure);
        }
    };
    let common = Common { clock: context.clock.clone(), path: context.source.var("PATH"), faketime };
    let mut mesh = Mesh::new(directory, common);
    let result = tokio::select! {
        () = ends.next() => Ok(()),
        result = serve(args, &names, &mut mesh, output) => result,
    };
    mesh.end().await;
    result
}

/// Starts the mesh, and obeys until the end of standard input or, for a person,
/// until a signal.
async fn serve(args: &Args, names: &[String], mesh: &mut Mesh, output: &mut Output) -> Result<(), Failure> {
    mesh.start(names).await?;
    if !args.json {
        show(mesh, output)?;
        std::future::pending::<()>().await;
    }
    output.json_line(&mesh.to_json()?)?;
    let mut lines = Lines::of_stdin();
    while let Some(line) = lines.next().await {
        let answer = commands::answer(&line, mesh).await;
        output.json_line(&answer)?;
    }
    Ok(())
}

fn show(mesh: &Mesh, output: &mut Output) -> Result<(), Failure> {
    let sockets = mesh.sockets();
    let rows = sockets.iter().map(|(name, socket)| [name.clone(), socket.display().to_string()]).collect();
    output.table(["NAME", "SOCKET"], rows)?;
    if let [(name, socket), others @ ..] = sockets.as_slice() {
        let as_member = |socket: &Path| format!("  export CLAUDEMESH_DAEMON_SOCK={}", socket.display());
        let (to, reader) = others.first().map_or((name, socket), |(name, socket)| (name, socket));
        output.note(format_args!(
            "in another terminal, as {name}:\n{}\n  claudemesh send {to} hi\nas {to}:\n{}\n  claudemesh inbox\n\
             Ctrl-C ends the mesh",
            as_member(socket),
            as_member(reader)
        ));
    }
    Ok(())
}
