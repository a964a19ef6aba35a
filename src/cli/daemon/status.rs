//! `claudemesh daemon status`: works with and without daemons, and with daemons
//! of other versions.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use serde::Serialize;
use serde_json::json;
use tonic::Code;

use super::all_joined;
use crate::cli::client::{Client, answer, call_within, no_answer};
use crate::cli::discovery::{named_mesh, not_running};
use crate::cli::failure::Failure;
use crate::cli::output::{Output, safe, time};
use crate::cli::style::state;
use crate::cli::times::{ago, span};
use crate::cli::{Context, VERSION, exit_code, link, other_version, running};
use crate::config::paths::Root;
use crate::daemon::LastExit;
use crate::domain::error_code::{ErrorCode, exit};
use crate::proto::admin::{
    GetStatusRequest, GetStatusResponse, IdentityStatus, LinkState, LinkStatus, OutboxSummary, ProcessStatus,
};
use crate::proto::pb::{GetHealthRequest, HealthState};
use crate::proto::wkt::Timestamp;

/// A status is worth waiting for this long.
const CALL_LIMIT: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "\
Examples:
  claudemesh daemon status
  claudemesh daemon status --mesh demo --json | jq .link.state

Ends with exit code 3 when the named daemon, or every daemon, is not running.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Args {
    /// Only this mesh
    #[arg(long, value_name = "MESH")]
    mesh: Option<String>,
    /// Print JSON: the daemon's answer with --mesh, else a list of all
    #[arg(long)]
    json: bool,
}

/// What is known of one daemon.
#[derive(Serialize)]
struct Row {
    mesh: String,
    running: bool,
    /// What the running one says; absent when it does not answer.
    status: Option<GetStatusResponse>,
    /// How the last process ended, when none runs.
    last_exit: Option<LastExit>,
    #[serde(skip)]
    failure: Option<Failure>,
}

pub(super) async fn run(args: Args, context: &Context, output: &mut Output) -> Result<u8, Failure> {
    let root = context.root()?;
    if let Some(mesh) = &args.mesh {
        named_mesh(Some(mesh), context.source.as_ref(), &context.cwd)?;
        return one(&root, mesh, args.json, output).await;
    }
    let mut meshes: BTreeSet<String> = running::state_dirs(&root)?.into_iter().collect();
    meshes.extend(all_joined(&root)?);
    let mut rows = Vec::with_capacity(meshes.len());
    for mesh in meshes {
        rows.push(look(&root, mesh).await?);
    }
    let code = if rows.iter().any(|row| row.running) { exit::OK } else { exit::NOT_RUNNING };
    if args.json {
        output.json(&json!({ "command_version": VERSION, "daemons": rows }))?;
        return Ok(code);
    }
    if rows.is_empty() {
        output.note("no mesh is joined; join one with the link you were given: claudemesh join 'ic://join/...'");
        return Ok(code);
    }
    table(&rows, output)?;
    Ok(code)
}

async fn one(root: &Root, mesh: &str, json: bool, output: &mut Output) -> Result<u8, Failure> {
    let row = look(root, mesh.to_owned()).await?;
    match (&row.status, json) {
        (Some(status), true) => output.json(status)?,
        (None, true) => output.json(&row)?,
        (_, false) => {}
    }
    if !row.running {
        let mut failure = not_running(root, mesh);
        if let Some(last) = &row.last_exit {
            failure = failure.next(ended(last));
        }
        return Err(failure);
    }
    if let Some(failure) = row.failure {
        return Err(failure);
    }
    if !json {
        table(std::slice::from_ref(&row), output)?;
    }
    Ok(exit::OK)
}

async fn look(root: &Root, mesh: String) -> Result<Row, Failure> {
    let state = root.state_dir(&mesh);
    let mut row = Row { running: running::is_running(&state)?, mesh, status: None, last_exit: None, failure: None };
    if !row.running {
        row.last_exit = LastExit::read(&state.last_exit());
        return Ok(row);
    }
    match Client::over_socket(&state.sock()).await {
        Ok(client) => match ask(&client).await {
            Ok(status) => row.status = Some(status),
            Err(failure) if failure.code() == ErrorCode::DeadlineExceeded.name() => {
                row.failure = Some(no_answer(&row.mesh, &state.sock(), &io::ErrorKind::TimedOut.into()));
            }
            Err(failure) => row.failure = Some(failure),
        },
        Err(error) => row.failure = Some(no_answer(&row.mesh, &state.sock(), &error)),
    }
    Ok(row)
}

/// The status; of a daemon that does not serve it, what its health tells. That
/// call is part of the frozen interface.
async fn ask(client: &Client) -> Result<GetStatusResponse, Failure> {
    match client.lifecycle().get_status(call_within(CALL_LIMIT, GetStatusRequest {})).await {
        Ok(response) => return Ok(response.into_inner()),
        Err(status) if status.code() == Code::Unimplemented => {}
        Err(status) => return Err(exit_code::of_status(&status)),
    }
    let health = answer(client.control().get_health(call_within(CALL_LIMIT, GetHealthRequest {})).await)?;
    let link = if health.connected { LinkState::Connected } else { LinkState::Backoff };
    Ok(GetStatusResponse {
        state: health.state,
        identity: Some(IdentityStatus { mesh: health.mesh, pubkey: health.member_pubkey, ..Default::default() }),
        process: Some(ProcessStatus {
            version: health.daemon_version,
            uptime_s: health.uptime_s,
            schema_version: health.schema_version,
            ..Default::default()
        }),
        link: Some(LinkStatus {
            state: link.into(),
            lag_ms: health.lag_ms,
            broker_version: health.broker_version,
            ..Default::default()
        }),
        outbox: Some(OutboxSummary { pending: health.queue_depth, inflight: health.inflight, ..Default::default() }),
        ..Default::default()
    })
}

fn table(rows: &[Row], output: &mut Output) -> Result<(), Failure> {
    let header = ["MESH", "STATE", "LINK", "LAG", "QUEUE", "INBOX", "HOOK RUNS", "PID", "UP", "VERSION"];
    output.table(header, rows.iter().map(cells).collect())?;
    for row in rows {
        for note in notes(row) {
            output.note(format_args!("{}: {note}", row.mesh));
        }
    }
    Ok(())
}

fn cells(row: &Row) -> [String; 10] {
    let dash = || "-".to_owned();
    let Some(status) = &row.status else {
        let word = if row.running { "no answer" } else { "stopped" };
        let mut cells: [String; 10] = std::array::from_fn(|_| dash());
        cells[0] = row.mesh.clone();
        cells[1] = state(word);
        return cells;
    };
    let health = match status.state() {
        HealthState::Starting => "starting",
        HealthState::Ready => "ready",
        HealthState::Degraded => "degraded",
        HealthState::Stopping => "stopping",
        HealthState::Unspecified => "-",
    };
    let link = status.link.as_ref();
    let connected = match link.map(LinkStatus::state) {
        Some(LinkState::Connected) => "connected",
        Some(LinkState::Connecting) => "connecting",
        Some(LinkState::Backoff) => "waiting",
        Some(LinkState::Closed) => "closed",
        Some(LinkState::Unspecified) => "unknown",
        None => "-",
    };
    let process = status.process.as_ref();
    [
        row.mesh.clone(),
        state(health),
        state(connected),
        link.filter(|link| link.lag_ms > 0.0).map_or_else(dash, |link| format!("{:.1} ms", link.lag_ms)),
        status.outbox.as_ref().map_or_else(dash, |outbox| (outbox.pending + outbox.inflight).to_string()),
        status.inbox.as_ref().map_or_else(dash, |inbox| inbox.rows.to_string()),
        status.hooks.as_ref().map_or_else(dash, |hooks| hooks.runs.to_string()),
        process.filter(|process| process.pid > 0).map_or_else(dash, |process| process.pid.to_string()),
        process.map_or_else(dash, |process| span(process.uptime_s)),
        process.map_or_else(dash, |process| versions(&process.version)),
    ]
}

/// The daemon's version, and this command's where it is another one.
fn versions(daemon: &str) -> String {
    if daemon == VERSION { daemon.to_owned() } else { format!("{} (command {VERSION})", safe(daemon)) }
}

/// What the operator should know beside the numbers.
fn notes(row: &Row) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(failure) = &row.failure {
        notes.push(failure.to_string());
    }
    if let Some(last) = row.last_exit.as_ref().filter(|last| last.exit_code != exit::OK) {
        notes.push(ended(last));
    }
    let Some(status) = &row.status else { return notes };
    notes.extend(status.degraded_reasons.iter().map(|reason| format!("degraded: {}", safe(reason))));
    notes.extend(status.warnings.iter().map(|warning| format!("{} ({})", safe(&warning.message), safe(&warning.code))));
    if let Some(link) = &status.link
        && let Some(trouble) = link::describe(link)
    {
        let next = link.next_attempt_at.as_ref().map(|at| format!("; next attempt at {}", time(Some(at))));
        notes.push(format!("{trouble}{}", next.unwrap_or_default()));
    }
    if let Some(outbox) = status.outbox.as_ref().filter(|outbox| outbox.dead > 0) {
        notes.push(format!("{} messages were given up", outbox.dead));
    }
    if let Some(process) = status.process.as_ref().filter(|process| process.version != VERSION) {
        notes.push(other_version(&process.version, Some(&row.mesh)));
    }
    notes
}

fn ended(last: &LastExit) -> String {
    let why = match (last.code.as_str(), last.detail.as_str()) {
        ("", "") => String::new(),
        (code, "") => format!(": {}", safe(code)),
        ("", detail) => format!(": {}", safe(detail)),
        (code, detail) => format!(": {} ({})", safe(detail), safe(code)),
    };
    let at = Timestamp::from_unix_ms(last.at);
    format!("the last daemon ended with exit code {}, {} ({}){why}", last.exit_code, time(Some(&at)), ago(Some(&at)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::tests::Captured;
    use crate::proto::admin::{HooksSummary, InboxSummary};

    fn row(status: Option<GetStatusResponse>) -> Row {
        Row { mesh: "demo".to_owned(), running: status.is_some(), status, last_exit: None, failure: None }
    }

    fn status() -> GetStatusResponse {
        GetStatusResponse {
            state: HealthState::Ready.into(),
            link: Some(LinkStatus { state: LinkState::Connected.into(), lag_ms: 1.25, ..Default::default() }),
            outbox: Some(OutboxSummary { pending: 2, inflight: 1, ..Default::default() }),
            inbox: Some(InboxSummary { rows: 7, ..Default::default() }),
            hooks: Some(HooksSummary { runs: 4, ..Default::default() }),
            process: Some(ProcessStatus {
                pid: 42,
                uptime_s: 3725,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    // Covers: R299
    #[test]
    fn the_table_shows_link_lag_queue_and_hook_runs() {
        let expected = ["demo", "ready", "connected", "1.2 ms", "3", "7", "4", "42", "1h2m", env!("CARGO_PKG_VERSION")];
        let plain = |row: &Row| cells(row).map(|cell| anstream::adapter::strip_str(&cell).to_string());
        assert_eq!(plain(&row(Some(status()))), expected);
        assert_eq!(notes(&row(Some(status()))), Vec::<String>::new());
        assert_eq!(plain(&row(None))[1], "stopped");
    }

    #[test]
    fn trouble_is_told_below_the_table() {
        let mut old = status();
        old.process.as_mut().unwrap().version = "0.1.0".to_owned();
        old.degraded_reasons = vec!["outbox_full".to_owned()];
        let mut stopped = row(None);
        let code = "replaced_by_newer_connection".to_owned();
        stopped.last_exit = Some(LastExit { at: 0, exit_code: 12, code, detail: String::new() });
        let captured = Captured::default();
        table(&[row(Some(old)), stopped], &mut captured.output()).unwrap();
        let text = captured.text();
        for part in
            ["degraded: outbox_full", "is 0.1.0", "0.1.0 (command 0.", "exit code 12", "replaced_by_newer_connection"]
        {
            assert!(text.contains(part), "{text}");
        }
    }
}
