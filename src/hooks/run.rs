//! One run of a hook, from its event to what is known of its end.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::catalog::Active;
use super::confine::{Plan, View};
use super::files;
use super::process::{self, Bounds, Captured, Ended};
use super::token::{Grant, RunAccess};
use super::{Inner, reply};
use crate::domain::capability::Trigger;
use crate::domain::event::HookRun;
use crate::domain::hook_input::bounded;
use crate::runtime::private_file;

/// Bytes of a hook's standard error that the log shows, at level `debug`.
const SHOWN: usize = 2048;

/// What a hook is run for.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) hook: Active,
    pub(super) message_id: String,
    /// The event; not redacted yet.
    pub(super) input: Value,
    pub(super) trigger: Trigger,
}

/// What a run came to.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) run: HookRun,
    /// The object on its standard output.
    pub(super) answer: Option<Map<String, Value>>,
    /// The daemon stops, so it was cut off.
    pub(super) cut_off: bool,
}

/// The socket of a run, in a directory of its own. Gone when dropped.
struct OwnSocket {
    directory: PathBuf,
    access: RunAccess,
    open: CancellationToken,
}

// === impl Inner ===

impl Inner {
    /// Runs a hook to its end.
    pub(super) async fn run(&self, job: &Job) -> Ran {
        let mut run = HookRun {
            hook: job.hook.name.clone(),
            message_id: job.message_id.clone(),
            started_at: self.deps.clock.now(),
            ..HookRun::default()
        };
        let started = self.deps.clock.monotonic();
        let (ended, answer) = match self.execute(job, &mut run).await {
            Ok(ended) => {
                let answer = reply::object(&ended.stdout.kept);
                (ended, answer)
            }
            Err(problem) => {
                tracing::warn!(hook = run.hook, "Hook {} did not start: {problem}", run.hook);
                run.start_error = problem;
                (Ended::default(), None)
            }
        };
        let took = self.deps.clock.monotonic().saturating_sub(started).as_millis();
        run.duration_ms = u32::try_from(took).unwrap_or(u32::MAX);
        run.exit_code = ended.status.and_then(|status| status.code());
        run.signal = ended.status.and_then(|status| status.signal());
        run.timed_out = ended.timed_out;
        self.tell_outputs(&mut run, job, &ended);
        Ran { run, answer, cut_off: ended.stopped }
    }

    async fn execute(&self, job: &Job, run: &mut HookRun) -> Result<Ended, String> {
        let policy = &job.hook.policy;
        if let Some(problem) = files::problem(&self.deps.places.hooks, &job.hook.path) {
            return Err(problem);
        }
        let socket = if policy.user_cli { None } else { Some(self.open_socket(job)?) };
        let name = format!("{}-{}", job.hook.name, job.message_id);
        let binary = std::env::current_exe().map_err(|error| format!("this program's path is not known: {error}"))?;
        let view = View {
            hook: &job.hook,
            run: &name,
            socket: socket.as_ref().map(|socket| socket.directory.as_path()),
            binary: &binary,
            hidden: &self.deps.places.hidden,
        };
        let plan = self.tools().await.plan(&view)?;
        for (weak, reason) in &plan.weak {
            tracing::warn!(
                hook = run.hook,
                reason,
                "Hook {} runs although its {weak} cannot be enforced here ({reason})",
                run.hook
            );
            self.deps.metrics.hook_unenforceable(&run.hook, reason);
            run.unenforced.push((*weak).to_owned());
        }
        let mut command = self.command(job, &plan, &binary, socket.as_ref());
        let (child, member) = self
            .family
            .start(&mut command, &job.hook.name, policy.user_cli)
            .map_err(|error| format!("{} cannot be started: {error}", plan.program.display()))?;
        let mut input = job.input.clone();
        policy.redactions.apply(&mut input);
        let input = bounded(&input, usize::try_from(self.deps.config.stdin_max_bytes).unwrap_or(usize::MAX));
        let bounds =
            Bounds { timeout: policy.timeout, keep: policy.output_size_limit, group: policy.killpg_on_timeout };
        let ended = process::attend(child, input.into_bytes(), bounds, &self.stop).await;
        drop(member);
        let access = socket.as_ref().map(|socket| &socket.access);
        run.capability_calls = access.map_or(0, RunAccess::calls);
        show_stderr(&run.hook, &ended.stderr, access.and_then(RunAccess::token));
        Ok(ended)
    }

    /// Exactly what a hook gets to see of its surroundings (R229 to R235).
    fn command(&self, job: &Job, plan: &Plan, binary: &Path, socket: Option<&OwnSocket>) -> Command {
        let (policy, places) = (&job.hook.policy, &self.deps.places);
        let mut command = Command::new(&plan.program);
        command
            .args(&plan.arguments)
            .current_dir(&places.hooks)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("CLAUDEMESH_MESH", &self.deps.mesh)
            .env("CLAUDEMESH_HOOK_NAME", &job.hook.name)
            .env("CLAUDEMESH_EVENT_ID", &job.message_id)
            .env("CLAUDEMESH_DAEMON_SOCK", socket.map_or_else(|| places.socket.clone(), OwnSocket::path))
            .env("CLAUDEMESH_BIN", binary);
        if let Some(token) = socket.and_then(|socket| socket.access.token()) {
            command.env("CLAUDEMESH_CAPABILITY_TOKEN", token);
        }
        if let (true, Some(home)) = (policy.pass_home || policy.user_cli, &self.deps.home) {
            command.env("HOME", home);
        }
        command
    }

    /// A socket for this run alone, in a directory that only this user enters.
    fn open_socket(&self, job: &Job) -> Result<OwnSocket, String> {
        let random = self.deps.ids.random::<4>().map_err(|error| error.to_string())?;
        let directory = self.deps.places.run.join(hex::encode(random));
        let grant = Grant {
            hook: &job.hook.name,
            message_id: &job.message_id,
            scopes: &job.hook.policy.scopes,
            trigger: &job.trigger,
        };
        let access = RunAccess::new(&grant, &self.deps.clock, &self.deps.ids, &self.deps.metrics)
            .map_err(|error| error.to_string())?;
        private_file::create_dir(&directory).map_err(|error| error.to_string())?;
        let socket = OwnSocket { directory, access, open: self.stop.child_token() };
        let open = self.opener.get().ok_or("the daemon is not up yet")?;
        open(socket.access.clone(), socket.path(), socket.open.clone())?;
        Ok(socket)
    }

    /// Notes the lengths of the outputs, and says what was dropped (R247).
    fn tell_outputs(&self, run: &mut HookRun, job: &Job, ended: &Ended) {
        let limit = job.hook.policy.output_size_limit;
        for (name, output) in [("standard output", &ended.stdout), ("standard error", &ended.stderr)] {
            let kept = output.kept.len();
            if output.total > kept as u64 {
                tracing::warn!(
                    hook = run.hook,
                    kept,
                    bytes = output.total,
                    "Hook {} wrote {} bytes of {name}; what exceeds output_size_limit = {limit} was dropped",
                    run.hook,
                    output.total
                );
            }
        }
        run.stdout_bytes = u32::try_from(ended.stdout.total).unwrap_or(u32::MAX);
        run.stderr_bytes = u32::try_from(ended.stderr.total).unwrap_or(u32::MAX);
    }
}

/// For whoever writes a hook. It may hold texts of messages, so only when asked
/// for; never the token.
fn show_stderr(hook: &str, stderr: &Captured, token: Option<&str>) {
    if stderr.kept.is_empty() {
        return;
    }
    let text = String::from_utf8_lossy(&stderr.kept[..stderr.kept.len().min(SHOWN)]).into_owned();
    let text = token.map_or_else(|| text.clone(), |token| text.replace(token, "***"));
    tracing::debug!(hook, stderr = text, "Hook {hook} wrote on standard error");
}

// === impl OwnSocket ===

impl OwnSocket {
    fn path(&self) -> PathBuf {
        self.directory.join("s")
    }
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        self.access.end();
        self.open.cancel();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
