//! `claudemesh daemon up`.
//!
//! In the background, the daemon is this program again with `--foreground`, in a
//! session of its own. The command ends when the daemon answers over its socket,
//! not when a process exists.

use std::process::Child;
use std::time::Duration;

use super::{Each, all_joined, process_json};
use crate::cli::client::{Client, call_within};
use crate::cli::discovery::joined_mesh;
use crate::cli::failure::Failure;
use crate::cli::output::{Output, safe_lines};
use crate::cli::style::state;
use crate::cli::{Context, first_process, one_thread, process, running};
use crate::config::fleet::Fleet;
use crate::config::paths::Root;
use crate::domain::error_code::{ErrorCode, exit};
use crate::membership::config_json::ConfigJson;
use crate::proto::pb::{GetHealthRequest, HealthState};
use crate::runtime::private_file;

/// How long a new daemon has to answer.
const READY_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(25);

const EXAMPLES: &str = "\
Examples:
  claudemesh daemon up                   the daemon of the only joined mesh
  claudemesh daemon up --mesh demo --name build-host
  claudemesh daemon up --all             the daemons of all joined meshes
  claudemesh daemon up --foreground      until it is stopped by a signal";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Args {
    /// The mesh; the only joined one if left out
    #[arg(long, value_name = "MESH")]
    mesh: Option<String>,
    /// The daemons of all joined meshes
    #[arg(long, conflicts_with_all = ["mesh", "foreground", "name"])]
    all: bool,
    /// Stay in the foreground, for a service manager or a container
    #[arg(long)]
    foreground: bool,
    /// Your name in the mesh; taken at the first start of the mesh's daemon
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Print the result as JSON
    #[arg(long, conflicts_with = "foreground")]
    json: bool,
    /// Started by this command itself, without a terminal
    #[arg(long, hide = true, requires = "foreground")]
    detached: bool,
    /// Started by `claudemesh dev`: ends when that process does
    #[arg(long, value_name = "PID", hide = true, requires = "foreground")]
    parent_pid: Option<u32>,
}

/// A daemon that answers.
pub(super) struct Started {
    mesh: String,
    pid: u32,
    socket: String,
}

pub(super) fn run(args: Args, context: &Context, output: &mut Output) -> Result<u8, Failure> {
    let root = context.root()?;
    if args.all {
        return one_thread()?.block_on(all(&args, context, &root, output));
    }
    let mesh = joined_mesh(&root, args.mesh.as_deref(), context.source.as_ref(), &context.cwd)?;
    if args.foreground {
        if let Some(code) = first_process::in_a_child()? {
            return Ok(code);
        }
        if args.detached {
            process::leave_session()?;
        }
        if let Some(parent) = args.parent_pid {
            process::end_with(parent)?;
        }
        return super::foreground::run(root, mesh, args.name, output);
    }
    let started = one_thread()?.block_on(start(context, &root, &mesh, args.name.as_deref()))?;
    report(&started, args.json, output)?;
    Ok(exit::OK)
}

async fn all(args: &Args, context: &Context, root: &Root, output: &mut Output) -> Result<u8, Failure> {
    let meshes = all_joined(root)?;
    if meshes.is_empty() {
        return Err(joined_mesh(root, None, context.source.as_ref(), &context.cwd)
            .err()
            .unwrap_or_else(|| Failure::new(ErrorCode::MeshNotJoined, "no mesh is joined")));
    }
    let mut each = Each::new();
    for mesh in meshes {
        // One that runs is what was asked for.
        if running::is_running(&root.state_dir(&mesh))? {
            continue;
        }
        match start(context, root, &mesh, None).await {
            Ok(started) => report(&started, args.json, output)?,
            Err(failure) => each.note(&mesh, &failure, output),
        }
    }
    Ok(each.exit)
}

pub(super) fn report(started: &Started, json: bool, output: &mut Output) -> Result<(), Failure> {
    if json {
        let mut object = process_json(&started.mesh, Some(started.pid), "running");
        object["socket"] = started.socket.as_str().into();
        return output.json(&object);
    }
    let state = state("started");
    output.line(format_args!("{state}  {}  pid {}  socket {}", started.mesh, started.pid, started.socket))
}

/// Starts the mesh's daemon in the background and waits until it answers.
pub(super) async fn start(context: &Context, root: &Root, mesh: &str, name: Option<&str>) -> Result<Started, Failure> {
    check(root, mesh)?;
    let state = root.state_dir(mesh);
    private_file::create_dir(state.path())?;
    // Not the log: its lines are JSON, and what comes here is not.
    let printed = state.path().join("stderr.log");
    let mut arguments: Vec<String> =
        ["daemon", "up", "--foreground", "--detached", "--color=never", "--mesh", mesh].map(str::to_owned).to_vec();
    arguments.extend(name.map(|name| format!("--name={name}")));
    let mut child = process::spawn_self(&arguments, root, &printed)?;
    let pid = child.id();

    let who = format!("the daemon of mesh {mesh:?}");
    let why = format!("claudemesh daemon logs --mesh {mesh}");
    let deadline = context.clock.monotonic() + READY_LIMIT;
    loop {
        if let Some(failure) = ended(&mut child, &who, &why, &printed)? {
            return Err(failure);
        }
        if is_ready(&state.sock()).await {
            let socket = state.sock().display().to_string();
            return Ok(Started { mesh: mesh.to_owned(), pid, socket });
        }
        if context.clock.monotonic() > deadline {
            let limit = READY_LIMIT.as_secs();
            return Err(Failure::new(
                ErrorCode::DeadlineExceeded,
                format!("the daemon of mesh {mesh:?} runs (pid {pid}) but did not answer within {limit} s"),
            )
            .next(format!("see what it does: claudemesh daemon logs --mesh {mesh}")));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What can be told before a process is started.
fn check(root: &Root, mesh: &str) -> Result<(), Failure> {
    let state = root.state_dir(mesh);
    if ConfigJson::load(root)?.mesh(mesh)?.is_none() && !state.keypair().exists() {
        return Err(crate::cli::discovery::not_running(root, mesh));
    }
    if running::is_running(&state)? {
        let pid = running::recorded_pid(&state).map(|pid| format!(" (pid {pid})")).unwrap_or_default();
        return Err(Failure::new(ErrorCode::AlreadyRunning, format!("the daemon of mesh {mesh:?} runs already{pid}"))
            .next(format!("see how it does: claudemesh daemon status --mesh {mesh}")));
    }
    let allowed = Fleet::load(root)?.max_daemons;
    let count = running::running(root)?.len();
    if count >= allowed as usize {
        return Err(Failure::new(
            ErrorCode::ConfigInvalid,
            format!("{count} daemons run, and max_daemons is {allowed}"),
        )
        .next(format!("raise [fleet] max_daemons in {}", root.daemons_dir().join("config.toml").display())));
    }
    Ok(())
}

/// The failure of a process that has ended instead of starting: its own words and
/// its own exit code. `why` shows more where it said nothing.
pub(in crate::cli) fn ended(
    child: &mut Child,
    who: &str,
    why: &str,
    printed: &std::path::Path,
) -> Result<Option<Failure>, Failure> {
    let status = child
        .try_wait()
        .map_err(|error| Failure::new(ErrorCode::InternalError, format!("cannot watch {who}: {error}")))?;
    let Some(status) = status else { return Ok(None) };
    let code = status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != exit::OK);
    let words = process::written(printed);
    if words.is_empty() {
        // Perhaps it had no room for its words; then there is none for these either.
        private_file::write_atomic(printed, b"(nothing)\n", private_file::PRIVATE)?;
    }
    // Of several that start at once all write to one file.
    let other_runs = (code == Some(exit::ALREADY_RUNNING)).then_some(ErrorCode::AlreadyRunning);
    let (known, what) = match other_runs.or_else(|| last_code(&words)) {
        Some(known) => (known, format!("{who} did not start")),
        None => (ErrorCode::InternalError, format!("{who} did not start ({status})")),
    };
    let mut failure = Failure::new(known, what).with_exit(code.unwrap_or(exit::OTHER));
    if words.is_empty() {
        failure = failure.next(format!("see why: {why}"));
    } else {
        failure = failure.next(safe_lines(&words));
    }
    Ok(Some(failure))
}

/// The error code in a failure's words: it ends the line, or the last of the
/// lines, that say what happened.
fn last_code(words: &str) -> Option<ErrorCode> {
    let failure = &words[words.find("error: ")?..];
    let code = |line: &str| ErrorCode::from_name(line.strip_suffix(')')?.rsplit('(').next()?);
    failure.lines().find_map(code)
}

/// Whether a daemon answers over the socket.
pub(in crate::cli) async fn is_ready(socket: &std::path::Path) -> bool {
    let Ok(client) = Client::over_socket(socket).await else { return false };
    match client.control().get_health(call_within(Duration::from_secs(2), GetHealthRequest {})).await {
        // Degraded is an answer, too: what is wrong is the status's business.
        Ok(answer) => matches!(answer.get_ref().state(), HealthState::Ready | HealthState::Degraded),
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_childs_code_is_found_in_its_words() {
        let words = "note: x\nerror: the key file is damaged: (line 3) (key_unreadable)\n  restore it";
        assert_eq!(last_code(words), Some(ErrorCode::KeyUnreadable));
        let lines = "error: config.toml: line 3\n  |\n3 | x (1)\n  unknown field (config_invalid)";
        assert_eq!(last_code(lines), Some(ErrorCode::ConfigInvalid));
        assert_eq!(last_code("thread 'main' panicked"), None);
        assert_eq!(last_code("error: strange (made_up)"), None);
    }
}
