//! The command line: every verb, as a client of a daemon where it needs one.
//!
//! What it is for: `claudemesh <noun> <verb>`, one file per noun.
//! What runs here: one command; `daemon up --foreground`, `broker serve` and `dev`
//! run until they are stopped.
//! What it guarantees: results go to standard output, all else to standard
//! error; an error says what happened, what to do, and its code; the exit code
//! is that of the error table.
//! What it must not do: decide about messages, or print a secret that was not
//! asked for.

mod broker;
pub mod client;
mod confirm;
mod daemon;
mod dev;
pub mod discovery;
mod events;
pub mod exit_code;
mod explain;
pub mod failure;
mod first_process;
mod follow;
mod hook;
mod inbox;
mod join;
mod key;
mod link;
mod member;
mod mesh;
mod mesh_settings;
pub mod output;
mod peer;
mod process;
mod profile;
pub mod running;
mod send;
mod set_aside;
mod style;
#[cfg(test)]
mod tests;
mod times;
mod topic;
mod usage;
mod verify;
mod way;

use std::cell::Cell;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use self::failure::Failure;
use self::output::{Output, safe};
use self::usage::Wishes;
use crate::config::ConfigError;
use crate::config::paths::Root;
use crate::config::source::{ProcessEnvironment, Source};
use crate::domain::error_code::{ErrorCode, exit};
use crate::runtime::clock::Clock;
use crate::runtime::ids::IdSource;
use crate::runtime::private_file;

const EXAMPLES: &str = "\
Examples:
  claudemesh join 'ic://join/...'        join the mesh of an invite link
  claudemesh daemon up                   start the daemon of the joined mesh
  claudemesh peer list                   see who is there
  claudemesh send bob 'the build is green'
  claudemesh inbox -f                    read what came in, and what comes in
  claudemesh daemon status               see how it does
  claudemesh explain unknown_peer        what an error means and what to do

A message is `queued` when it is on disk here, `accepted` when the broker has it,
`delivered` when the receiver's daemon has stored it.

With --json a verb prints JSON alone on standard output and, if it fails, one JSON
object on standard error.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 daemon not running, 4 already
running, 5 refused, 6 waited in vain, 10 wrong configuration, 11 to 18 why a
daemon ended for good, 70 a defect.";

const COMPLETIONS_EXAMPLES: &str = "\
Install:
  bash   claudemesh completions bash > ~/.local/share/bash-completion/completions/claudemesh
  zsh    claudemesh completions zsh > ~/.zfunc/_claudemesh    (with ~/.zfunc in fpath)
  fish   claudemesh completions fish > ~/.config/fish/completions/claudemesh.fish

For this shell only: source <(claudemesh completions bash)";

/// The version of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Debug, Parser)]
#[command(name = "claudemesh", version, about, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// Use colours: auto (on a terminal), always or never
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        value_enum,
        hide_possible_values = true,
        default_value_t = clap::ColorChoice::Auto
    )]
    color: clap::ColorChoice,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Queue a message for a member or a topic
    Send(Box<send::Args>),
    /// Show received messages
    Inbox(inbox::Args),
    /// Show what waits to be sent and what was given up, and repair it
    Outbox(daemon::outbox::Args),
    /// Show or follow what happens in the mesh
    Events(events::Args),
    /// Show the members of the mesh
    #[command(subcommand)]
    Peer(peer::Verb),
    /// Show or change what others see of this member
    Profile(profile::Args),
    /// Post to topics, subscribe to them, and say who may read them
    #[command(subcommand)]
    Topic(topic::Verb),
    /// Compare a peer's key with its owner; accept a changed key or name
    Verify(verify::Args),
    /// Show hooks and what they did
    #[command(subcommand)]
    Hook(hook::Verb),
    /// Join a mesh with an invite link
    Join(join::Args),
    /// List and revoke the members of a mesh
    #[command(subcommand)]
    Member(member::Verb),
    /// Create meshes, invite members, change what holds in them
    #[command(subcommand)]
    Mesh(mesh::Verb),
    /// Start, stop and inspect daemons
    #[command(subcommand)]
    Daemon(daemon::Verb),
    /// Serve meshes to their members
    #[command(subcommand)]
    Broker(broker::Verb),
    /// Run a throw-away mesh, for tests and for trying things out
    Dev(dev::Args),
    /// Explain an error code, or list all
    Explain(explain::Args),
    /// Print a script that completes commands in your shell
    Completions(CompletionsArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = COMPLETIONS_EXAMPLES)]
struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: clap_complete::Shell,
}

/// What every command needs.
pub struct Context {
    source: Arc<dyn Source>,
    cwd: PathBuf,
    clock: Clock,
    ids: IdSource,
    /// The version of the daemon that was talked to, once it is known.
    daemon_version: Arc<OnceLock<String>>,
    other_version_told: Cell<bool>,
}

// === impl Context ===

impl Context {
    fn of_process() -> Self {
        // A working directory that is gone names no mesh; that is all it is for.
        let cwd = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/"));
        Self::new(Arc::new(ProcessEnvironment), cwd)
    }

    fn new(source: Arc<dyn Source>, cwd: PathBuf) -> Self {
        let clock = Clock::system();
        let ids = IdSource::new(clock.clone());
        Self { source, cwd, clock, ids, daemon_version: Arc::default(), other_version_told: Cell::new(false) }
    }

    /// Says once that the daemon is of another version than this command.
    fn tell_other_version(&self, mesh: Option<&str>, output: &mut Output) {
        let Some(version) = self.daemon_version.get() else { return };
        if version != VERSION && !self.other_version_told.replace(true) {
            output.note(format_args!("note: {}", other_version(version, mesh)));
        }
    }

    fn root(&self) -> Result<Root, Failure> {
        Ok(Root::find(self.source.as_ref())?)
    }
}

/// Runs the command line of this process. Returns the exit code.
pub fn run() -> u8 {
    // Before any file: nothing that is created here is readable to others.
    private_file::restrict_umask();
    // Nor is anything that the caller has open handed on: a daemon outlives its caller,
    // and hooks are not to be trusted with it.
    close_fds::set_fds_cloexec(3, &[]);
    let args: Vec<OsString> = std::env::args_os().collect();
    let wishes = Wishes::of(&args);
    let mut output = Output::standard(wishes.json, wishes.color);
    let matches = Cli::command().color(wishes.color).try_get_matches_from(args);
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return answer_line(&error, &mut output),
    };
    let context = Context::of_process();
    if let Some(failure) = hook::without_home(&cli.verb, context.source.as_ref()) {
        output.failure(&failure);
        return failure.exit();
    }
    let result = readable(context.source.as_ref()).and_then(|()| dispatch(cli.verb, &context, &mut output));
    context.tell_other_version(None, &mut output);
    match result {
        Ok(code) => code,
        Err(failure) => {
            output.failure(&failure);
            failure.exit()
        }
    }
}

/// Refuses an environment that would be read as if a variable were not set.
fn readable(source: &dyn Source) -> Result<(), Failure> {
    let Some(name) = source.unreadable() else { return Ok(()) };
    // It may be a password.
    let value = "[not shown]".to_owned();
    Err(ConfigError::Variable { name, value, reason: "it is not UTF-8".to_owned() }.into())
}

/// Answers a line that is no command: help that was asked for, or what is wrong.
fn answer_line(error: &clap::Error, output: &mut Output) -> u8 {
    if let Some(failure) = usage::failure(error) {
        output.failure(&failure);
        return failure.exit();
    }
    // A help text that nobody reads is no failure.
    let _ = error.print();
    if error.use_stderr() { exit::USAGE } else { exit::OK }
}

fn dispatch(verb: Verb, context: &Context, output: &mut Output) -> Result<u8, Failure> {
    match verb {
        Verb::Send(args) => one_thread()?.block_on(Box::pin(send::run(*args, context, output))).map(ok),
        Verb::Inbox(args) => one_thread()?.block_on(Box::pin(inbox::run(args, context, output))).map(ok),
        Verb::Outbox(args) => one_thread()?.block_on(Box::pin(daemon::outbox::run(args, context, output))).map(ok),
        Verb::Events(args) => one_thread()?.block_on(Box::pin(events::run(args, context, output))).map(ok),
        Verb::Peer(verb) => one_thread()?.block_on(peer::run(verb, context, output)).map(ok),
        Verb::Profile(args) => one_thread()?.block_on(profile::run(args, context, output)).map(ok),
        Verb::Topic(verb) => one_thread()?.block_on(Box::pin(topic::run(verb, context, output))).map(ok),
        Verb::Verify(args) => one_thread()?.block_on(verify::run(args, context, output)).map(ok),
        Verb::Hook(verb) => one_thread()?.block_on(hook::run(verb, context, output)).map(ok),
        Verb::Join(args) => join::run(args, context, output).map(ok),
        Verb::Member(verb) => member::run(verb, context, output).map(ok),
        Verb::Mesh(verb) => mesh::run(verb, context, output).map(ok),
        Verb::Daemon(verb) => daemon::run(verb, context, output),
        Verb::Broker(verb) => broker::run(verb, context, output),
        Verb::Dev(args) => dev::run(&args, context, output),
        Verb::Explain(args) => explain::run(&args, output).map(ok),
        Verb::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "claudemesh", &mut script);
            output.line(String::from_utf8_lossy(&script)).map(ok)
        }
    }
}

/// What is said when a daemon is of another version than this command.
fn other_version(daemon: &str, mesh: Option<&str>) -> String {
    let mesh = mesh.map(|mesh| format!(" --mesh {mesh}")).unwrap_or_default();
    let daemon = safe(daemon);
    format!("the daemon is {daemon}, this command {VERSION}; bring them together: claudemesh daemon restart{mesh}")
}

fn ok((): ()) -> u8 {
    exit::OK
}

/// Says that the process ends because of a defect, and gives its exit code. The
/// panic itself is on standard error already.
pub fn report_panic() -> u8 {
    Output::standard(false, clap::ColorChoice::Auto)
        .note("claudemesh ended because of a defect; please report what is printed above");
    exit::PANIC
}

/// For the broker, whose connections are many.
fn server_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        // The library reads a variable otherwise, and panics at a wrong one.
        .worker_threads(std::thread::available_parallelism().map_or(1, usize::from))
        .enable_all()
        .build()
        .map_err(|error| Failure::new(ErrorCode::InternalError, format!("cannot start: {error}")))
}

/// One thread is enough for a command that waits for answers, and for a daemon,
/// whose tasks hand small things to each other; the databases have threads of their
/// own. `docs/PERFORMANCE.md` has both beside each other.
fn one_thread() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(ErrorCode::InternalError, format!("cannot start: {error}")))
}
