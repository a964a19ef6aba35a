//! The command line: every verb, as a client of a daemon where it needs one.
//!
//! What it is for: `claudemesh <noun> <verb>`, one file per noun.
//! What runs here: one command; `daemon up --foreground` and `broker serve` run
//! until they are stopped.
//! What it guarantees: results go to standard output, all else to standard
//! error; an error says what happened, what to do, and its code; the exit code
//! is that of the error table.
//! What it must not do: decide about messages, or print a secret that was not
//! asked for.

mod broker;
pub mod client;
mod daemon;
pub mod discovery;
mod events;
pub mod exit_code;
pub mod failure;
mod inbox;
mod join;
mod key;
mod mesh;
pub mod output;
mod peer;
mod process;
pub mod running;
mod send;
#[cfg(test)]
mod tests;
mod verify;

use std::path::PathBuf;

use clap::{CommandFactory as _, Parser, Subcommand};

use self::failure::Failure;
use self::output::Output;
use crate::config::paths::Root;
use crate::config::source::{ProcessEnvironment, Source};
use crate::domain::error_code::{ErrorCode, exit};
use crate::membership;
use crate::runtime::clock::Clock;
use crate::runtime::ids::IdSource;
use crate::runtime::private_file;

const EXAMPLES: &str = "\
Examples:
  claudemesh join 'ic://join/...'        join the mesh of an invite link
  claudemesh daemon up                   start the daemon of the joined mesh
  claudemesh peer list                   see who is there
  claudemesh send bob 'the build is green'
  claudemesh inbox                       read what came in
  claudemesh events -f --json            follow what happens

A message is `queued` when it is on disk here, `accepted` when the broker has it,
`delivered` when the receiver's daemon has stored it.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 daemon not running, 4 already
running, 5 refused, 10 wrong configuration, 11 to 18 why a daemon ended for good,
70 a defect.";

#[derive(Debug, Parser)]
#[command(name = "claudemesh", version, about, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Queue a message for a member, a topic or everyone
    Send(send::Args),
    /// Show received messages
    Inbox(inbox::Args),
    /// Show or follow what happens in the mesh
    Events(events::Args),
    /// Show the members of the mesh
    #[command(subcommand)]
    Peer(peer::Verb),
    /// Compare a peer's key with its owner; accept a changed key or name
    Verify(verify::Args),
    /// Join a mesh with an invite link
    Join(join::Args),
    /// Create meshes, invite members, list joined meshes
    #[command(subcommand)]
    Mesh(mesh::Verb),
    /// Start, stop and inspect daemons
    #[command(subcommand)]
    Daemon(daemon::Verb),
    /// Serve meshes to their members
    #[command(subcommand)]
    Broker(broker::Verb),
    /// Print a script that completes commands in your shell
    Completions(CompletionsArgs),
}

#[derive(Debug, clap::Args)]
struct CompletionsArgs {
    /// The shell
    shell: clap_complete::Shell,
}

/// What every command needs.
pub struct Context {
    source: Box<dyn Source>,
    cwd: PathBuf,
    clock: Clock,
    ids: IdSource,
}

// === impl Context ===

impl Context {
    fn of_process() -> Self {
        // A working directory that is gone names no mesh; that is all it is for.
        let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        let clock = Clock::system();
        Self { source: Box::new(ProcessEnvironment), cwd, ids: IdSource::new(clock.clone()), clock }
    }

    fn root(&self) -> Result<Root, Failure> {
        Ok(Root::find(self.source.as_ref())?)
    }

    fn membership(&self) -> Result<membership::Env, Failure> {
        Ok(membership::Env { root: self.root()?, clock: self.clock.clone(), ids: self.ids.clone() })
    }
}

/// Runs the command line of this process. Returns the exit code.
pub fn run() -> u8 {
    // Before any file: nothing that is created here is readable to others.
    private_file::restrict_umask();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A help text that nobody reads is no failure.
            let _ = error.print();
            return if error.use_stderr() { exit::USAGE } else { exit::OK };
        }
    };
    let mut output = Output::standard();
    match dispatch(cli.verb, &Context::of_process(), &mut output) {
        Ok(code) => code,
        Err(failure) => {
            if !failure.is_silent() {
                output.note(&failure);
            }
            failure.exit()
        }
    }
}

fn dispatch(verb: Verb, context: &Context, output: &mut Output) -> Result<u8, Failure> {
    match verb {
        Verb::Send(args) => client_runtime()?.block_on(send::run(args, context, output)).map(ok),
        Verb::Inbox(args) => client_runtime()?.block_on(inbox::run(args, context, output)).map(ok),
        Verb::Events(args) => client_runtime()?.block_on(events::run(args, context, output)).map(ok),
        Verb::Peer(verb) => client_runtime()?.block_on(peer::run(verb, context, output)).map(ok),
        Verb::Verify(args) => client_runtime()?.block_on(verify::run(args, context, output)).map(ok),
        Verb::Join(args) => join::run(args, context, output).map(ok),
        Verb::Mesh(verb) => mesh::run(verb, context, output).map(ok),
        Verb::Daemon(verb) => daemon::run(verb, context, output),
        Verb::Broker(verb) => broker::run(verb, context, output),
        Verb::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "claudemesh", &mut script);
            output.line(String::from_utf8_lossy(&script)).map(ok)
        }
    }
}

fn ok((): ()) -> u8 {
    exit::OK
}

/// Says that the process ends because of a defect, and gives its exit code. The
/// panic itself is on standard error already.
pub fn report_panic() -> u8 {
    Output::standard().note("claudemesh ended because of a defect; please report what is printed above");
    exit::PANIC
}

/// For what runs until it is stopped.
fn server_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(ErrorCode::InternalError, format!("cannot start: {error}")))
}

/// One thread is enough for a command that waits for answers.
fn client_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(ErrorCode::InternalError, format!("cannot start: {error}")))
}
