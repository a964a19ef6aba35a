//! `claudemesh hook`, and what a verb needs when a hook runs it.

use super::client::{Client, answer, call};
use super::discovery::DaemonArgs;
use super::failure::Failure;
use super::output::{Output, safe, time};
use super::style::state;
use super::times::ago;
use super::{Context, Verb as AnyVerb};
use crate::config::source::Source;
use crate::domain::error_code::ErrorCode;
use crate::proto::admin::{
    Hook, HookState, ListHookRunsRequest, ListHookRunsResponse, ListHooksRequest, ListHooksResponse, ReloadHooksRequest,
};
use crate::proto::pb::HookRun;

/// Entries asked for at once: the most that a page holds.
const PAGE: u32 = 1000;

const LIST_EXAMPLES: &str = "\
Examples:
  claudemesh hook list
  claudemesh hook list --json | jq -r '.hooks[] | select(.state != \"active\") | .detail'

A hook is a file <hook>.sh in the hooks directory with a section [<hook>] in hooks.toml.";

const RUNS_EXAMPLES: &str = "\
Examples:
  claudemesh hook runs --failed
  claudemesh hook runs --hook on-dm -n 5 --json

The newest run comes first. What a hook wrote is not kept.";

const RELOAD_EXAMPLES: &str = "\
Examples:
  claudemesh hook reload
  claudemesh hook reload --json | jq -r '.inactive[]'

With an error in hooks.toml nothing changes.";

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// List the hooks, and why one does not run
    List(ListArgs),
    /// List runs that ended
    Runs(RunsArgs),
    /// Read hooks.toml and the hooks directory again
    Reload(ReloadArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = LIST_EXAMPLES)]
pub(super) struct ListArgs {
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = RUNS_EXAMPLES)]
pub(super) struct RunsArgs {
    /// Only runs of this hook
    #[arg(long, value_name = "HOOK")]
    hook: Option<String>,
    /// Only runs for this message or event, by its CLAUDEMESH_EVENT_ID
    #[arg(long, value_name = "ID")]
    message: Option<String>,
    /// Only runs that did not end with exit code 0
    #[arg(long)]
    failed: bool,
    /// Show at most so many
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=i64::from(PAGE)))]
    limit: u32,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = RELOAD_EXAMPLES)]
pub(super) struct ReloadArgs {
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(super) async fn run(verb: Verb, context: &Context, output: &mut Output) -> Result<(), Failure> {
    match verb {
        Verb::List(args) => list(args, context, output).await,
        Verb::Runs(args) => runs(args, context, output).await,
        Verb::Reload(args) => reload(args, context, output).await,
    }
}

/// Why a verb cannot work here: a hook without HOME has no configuration of its user.
/// What asks no daemon works all the same.
pub(super) fn without_home(verb: &AnyVerb, source: &dyn Source) -> Option<Failure> {
    if matches!(verb, AnyVerb::Explain(_) | AnyVerb::Completions(_)) {
        return None;
    }
    let hook = source.var("CLAUDEMESH_HOOK_NAME").filter(|_| source.var("HOME").is_none())?;
    let hook = safe(&hook);
    let text = format!("the hook {hook} has no HOME, so this verb has no configuration to work with");
    Some(
        Failure::new(ErrorCode::HookWithoutHome, text)
            .next(format!("to let it do what its user may do, set user_cli = true in [{hook}] of hooks.toml")),
    )
}

async fn list(args: ListArgs, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let client = Client::find(context, &args.daemon).await?;
    let mut all = ListHooksResponse::default();
    loop {
        let request = ListHooksRequest { limit: PAGE, page_token: std::mem::take(&mut all.next_page_token) };
        let page = answer(client.hooks().list_hooks(call(request)).await)?;
        all.hooks.extend(page.hooks);
        (all.directory, all.enabled, all.next_page_token) = (page.directory, page.enabled, page.next_page_token);
        if all.next_page_token.is_empty() {
            break;
        }
    }
    if args.json {
        return output.json(&all);
    }
    output.table(["HOOK", "STATE", "RUNS", "FAILED", "LAST", "WHY NOT"], all.hooks.iter().map(hook_row).collect())?;
    if all.hooks.is_empty() {
        output.note(format_args!("note: there are no hooks in {}", safe(&all.directory)));
    }
    Ok(())
}

async fn runs(args: RunsArgs, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let client = Client::find(context, &args.daemon).await?;
    let request = ListHookRunsRequest {
        hook: args.hook.unwrap_or_default(),
        message_id: args.message.unwrap_or_default(),
        failed_only: args.failed,
        limit: args.limit,
        page_token: String::new(),
    };
    let found: ListHookRunsResponse = answer(client.hooks().list_hook_runs(call(request)).await)?;
    if args.json {
        return output.json(&found);
    }
    output.table(
        ["STARTED", "HOOK", "EXIT", "MS", "REPLIED", "MESSAGE", "NOTE"],
        found.runs.iter().map(run_row).collect(),
    )
}

async fn reload(args: ReloadArgs, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let client = Client::find(context, &args.daemon).await?;
    let reloaded = answer(client.hooks().reload_hooks(call(ReloadHooksRequest {})).await)?;
    if args.json {
        return output.json(&reloaded);
    }
    let names = |names: &[String]| {
        if names.is_empty() { "none".to_owned() } else { safe(&names.join(", ")) }
    };
    output.line(format_args!("active: {}", names(&reloaded.active)))?;
    output.line(format_args!("inactive: {}", names(&reloaded.inactive)))
}

fn hook_row(hook: &Hook) -> [String; 6] {
    let shown = match hook.state() {
        HookState::Active => "active",
        HookState::Disabled => "disabled",
        HookState::Unconfigured => "unconfigured",
        HookState::Missing => "missing",
        HookState::Unspecified => "unknown",
    };
    [
        safe(&hook.name),
        state(shown),
        hook.runs.to_string(),
        hook.failures.to_string(),
        hook.last_run_at.as_ref().map_or_else(|| "-".to_owned(), |at| ago(Some(at))),
        safe(&hook.detail),
    ]
}

fn run_row(run: &HookRun) -> [String; 7] {
    let exit = match run.exit_code {
        _ if run.timed_out => "timeout".to_owned(),
        Some(code) => code.to_string(),
        None if run.signal > 0 => format!("signal {}", run.signal),
        None => "not started".to_owned(),
    };
    let note = if run.unenforced.is_empty() {
        safe(&run.start_error)
    } else {
        format!("not enforced: {}", safe(&run.unenforced.join(", ")))
    };
    [
        time(run.started_at.as_ref()),
        safe(&run.hook),
        exit,
        run.duration_ms.to_string(),
        if run.replied { "yes" } else { "no" }.to_owned(),
        safe(&run.message_id),
        note,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_how_a_run_ended() {
        let exit = |run: HookRun| run_row(&run)[2].clone();
        assert_eq!(exit(HookRun { exit_code: Some(3), ..HookRun::default() }), "3");
        assert_eq!(exit(HookRun { signal: 15, timed_out: true, ..HookRun::default() }), "timeout");
        assert_eq!(exit(HookRun { signal: 9, ..HookRun::default() }), "signal 9");
        let failed = run_row(&HookRun { start_error: "no file".to_owned(), ..HookRun::default() });
        assert_eq!((failed[2].as_str(), failed[6].as_str()), ("not started", "no file"));
    }
}
