//! `claudemesh daemon outbox`, also `claudemesh outbox`: what waits to be sent,
//! what was given up, and what to do about it.

use std::path::PathBuf;

use super::sent;
use crate::cli::client::{Client, answer, call};
use crate::cli::discovery::DaemonArgs;
use crate::cli::failure::Failure;
use crate::cli::output::{Output, safe, safe_lines, time};
use crate::cli::{Context, confirm};
use crate::domain::error_code::ErrorCode;
use crate::proto::admin::requeue_entry_request::Successor;
use crate::proto::admin::{
    DropEntryRequest, GetOutboxEntryRequest, ListOutboxRequest, OutboxEntry, OutboxStatus, PruneOutboxRequest,
    RequeueEntryRequest,
};

const EXAMPLES: &str = "\
Examples:
  claudemesh daemon outbox                     what waits, and what was given up
  claudemesh daemon outbox --failed --json
  claudemesh daemon outbox inspect ID          one entry with its text
  claudemesh daemon outbox status CLIENT-ID    how far it has come
  claudemesh daemon outbox requeue ID          try a dead one again
  claudemesh daemon outbox requeue ID --patch-payload shorter.txt
  claudemesh daemon outbox drop ID             retire it; its id stays taken
  claudemesh daemon outbox prune --confirm     clear the texts of what was accepted

An entry is named by the ID of the list, or by its client message id.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(in crate::cli) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Only entries that were given up
    #[arg(long)]
    failed: bool,
    /// All entries, also accepted and retired ones
    #[arg(long, conflicts_with = "failed")]
    all: bool,
    /// How many of the oldest to show
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List entries, as without a verb
    #[command(after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Show one entry with its text and metadata
    #[command(after_help = INSPECT_EXAMPLES)]
    Inspect(EntryArgs),
    /// Show how far a send has come, without its text
    Status(sent::Args),
    /// Queue a dead entry again
    #[command(after_help = REQUEUE_EXAMPLES)]
    Requeue(RequeueArgs),
    /// Retire an entry: it is not sent, its text is cleared, its id stays taken
    #[command(after_help = DROP_EXAMPLES)]
    Drop(DropArgs),
    /// Clear the texts of accepted and retired entries
    #[command(after_help = PRUNE_EXAMPLES)]
    Prune(PruneArgs),
}

const LIST_EXAMPLES: &str = "\
Examples:
  claudemesh daemon outbox list
  claudemesh daemon outbox list --failed --json";

const INSPECT_EXAMPLES: &str = "\
Examples:
  claudemesh daemon outbox inspect 01M89TKANP3MJJR7BRPQ2J4J1H
  claudemesh daemon outbox inspect release-42 --json";

const REQUEUE_EXAMPLES: &str = "\
Examples:
  claudemesh daemon outbox requeue release-42
  claudemesh daemon outbox requeue release-42 --patch-payload shorter.txt
  claudemesh daemon outbox requeue release-42 --new-client-id release-42-again

Under its own id the broker recognises what it had already. With another id or
another text the entry is retired and a successor goes to the same receiver.";

const DROP_EXAMPLES: &str = "\
Examples:
  claudemesh daemon outbox drop release-42

For entries that wait or were given up. One in flight may have arrived already.";

const PRUNE_EXAMPLES: &str = "\
Examples:
  claudemesh daemon outbox prune             says how much would be freed
  claudemesh daemon outbox prune --confirm";

#[derive(Debug, clap::Args)]
struct EntryArgs {
    /// The entry: its id in the list, or its client message id
    id: String,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
struct DropArgs {
    /// Do it without being asked
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    entry: EntryArgs,
}

#[derive(Debug, clap::Args)]
struct RequeueArgs {
    #[command(flatten)]
    entry: EntryArgs,
    /// Send this file's text instead, under a new id
    #[arg(long, value_name = "FILE")]
    patch_payload: Option<PathBuf>,
    /// Send it under this id; the entry itself is retired
    #[arg(long, value_name = "ID", conflicts_with = "auto")]
    new_client_id: Option<String>,
    /// Send it under a new id that the daemon chooses; the entry itself is retired
    #[arg(long)]
    auto: bool,
}

#[derive(Debug, clap::Args)]
struct PruneArgs {
    /// Do it; without this it is only said what would be done
    #[arg(long)]
    confirm: bool,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(in crate::cli) async fn run(args: Args, context: &Context, output: &mut Output) -> Result<(), Failure> {
    match args.verb {
        None => list(args.list, context, output).await,
        Some(Verb::List(args)) => list(args, context, output).await,
        Some(Verb::Inspect(args)) => inspect(args, context, output).await,
        Some(Verb::Status(args)) => sent::run(args, context, output).await,
        Some(Verb::Requeue(args)) => requeue(args, context, output).await,
        Some(Verb::Drop(args)) => drop_entry(args, context, output).await,
        Some(Verb::Prune(args)) => prune(args, context, output).await,
    }
}

async fn list(args: ListArgs, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let statuses: &[OutboxStatus] = if args.failed {
        &[OutboxStatus::Dead]
    } else if args.all {
        &[OutboxStatus::Pending, OutboxStatus::Inflight, OutboxStatus::Done, OutboxStatus::Dead, OutboxStatus::Aborted]
    } else {
        &[]
    };
    let client = Client::find(context, &args.daemon).await?;
    let request = ListOutboxRequest {
        statuses: statuses.iter().map(|status| (*status).into()).collect(),
        limit: args.limit,
        page_token: String::new(),
    };
    let response = answer(client.outbox().list_outbox(call(request)).await)?;
    if args.json {
        return output.json(&response);
    }
    if response.entries.is_empty() {
        output.note(if args.failed { "nothing was given up" } else { "nothing waits and nothing was given up" });
        return Ok(());
    }
    let header = ["ID", "STATE", "TO", "QUEUED", "TRIES", "BYTES", "CLIENT ID", "WHY"];
    output.table(header, response.entries.iter().map(cells).collect())?;
    if !response.next_page_token.is_empty() {
        output.note(format_args!("these are the oldest {}; show more with --limit", response.entries.len()));
    }
    Ok(())
}

fn cells(entry: &OutboxEntry) -> [String; 8] {
    let lost = lost(entry);
    let why = [&entry.dead_reason, &lost, &entry.last_error].into_iter().find(|why| !why.is_empty());
    [
        safe(&entry.id),
        word(entry.status()).to_owned(),
        safe(&entry.to),
        time(entry.queued_at.as_ref()),
        entry.attempts.to_string(),
        entry.size_bytes.to_string(),
        safe(&entry.client_message_id),
        why.map(|why| safe(why)).unwrap_or_default(),
    ]
}

/// That its receiver set it aside, and why, or did not take it in time; empty when
/// neither is known.
fn lost(entry: &OutboxEntry) -> String {
    match entry {
        // By another device of its receiver.
        OutboxEntry { delivered_at: Some(_), .. } => String::new(),
        OutboxEntry { rejected_at: Some(_), reject_reason, .. } => {
            format!("set aside by its receiver: {reject_reason}")
        }
        OutboxEntry { expired_at: Some(_), .. } => "not taken by its receiver in time".to_owned(),
        _ => String::new(),
    }
}

async fn inspect(args: EntryArgs, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let client = Client::find(context, &args.daemon).await?;
    let request = GetOutboxEntryRequest { id: args.id };
    let response = answer(client.outbox().get_outbox_entry(call(request)).await)?;
    if args.json {
        return output.json(&response);
    }
    let entry = response.entry.unwrap_or_default();
    let to = entry.recipient.as_ref().map(|recipient| recipient.pubkey.as_str()).unwrap_or_default();
    for (name, value) in [
        ("id", safe(&entry.id)),
        ("client id", safe(&entry.client_message_id)),
        ("state", word(entry.status()).to_owned()),
        ("to", format!("{} {}", safe(&entry.to), safe(to))),
        ("queued", time(entry.queued_at.as_ref())),
        ("first sent", time(entry.first_transmit_at.as_ref())),
        ("accepted", time(entry.accepted_at.as_ref())),
        ("delivered", time(entry.delivered_at.as_ref())),
        ("set aside", time(entry.rejected_at.as_ref())),
        ("not taken", time(entry.expired_at.as_ref())),
        ("why", safe(&entry.reject_reason)),
        ("requeued", time(entry.requeued_at.as_ref())),
        ("given up", time(entry.dead_at.as_ref())),
        ("retired", time(entry.aborted_at.as_ref())),
        ("successor", safe(&entry.superseded_by)),
        ("tries", entry.attempts.to_string()),
        ("last error", safe(&entry.last_error)),
        ("broker id", safe(&entry.broker_message_id)),
    ] {
        if !value.trim().is_empty() && value != "-" {
            output.line(format_args!("{name:<11} {value}"))?;
        }
    }
    let text = if entry.size_bytes == 0 { "(cleared)".to_owned() } else { safe_lines(&response.message) };
    output.line(format_args!("text\n  {text}"))
}

async fn requeue(args: RequeueArgs, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let patched_message = args.patch_payload.as_ref().map(read_text).transpose()?;
    let successor = match args.new_client_id {
        Some(id) => Some(Successor::NewClientMessageId(id)),
        None => args.auto.then_some(Successor::AutoClientMessageId(true)),
    };
    let client = Client::find(context, &args.entry.daemon).await?;
    let request = RequeueEntryRequest { id: args.entry.id, successor, patched_message };
    let response = answer(client.outbox().requeue_entry(call(request)).await)?;
    if args.entry.json {
        return output.json(&response);
    }
    let entry = response.entry.unwrap_or_default();
    output.line(format_args!("queued  {}  to {}", safe(&entry.client_message_id), safe(&entry.to)))?;
    if let Some(old) = &response.superseded {
        output.note(format_args!("note: {} is retired; its place takes {}", safe(&old.id), safe(&entry.id)));
    }
    Ok(())
}

fn read_text(path: &PathBuf) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| {
        Failure::new(ErrorCode::UsageError, format!("{} cannot be read as UTF-8 text: {error}", path.display()))
    })
}

async fn drop_entry(args: DropArgs, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let DropArgs { yes, entry: args } = args;
    let client = Client::find(context, &args.daemon).await?;
    confirm::ask(&format!("the send {} is given up and its text cleared", safe(&args.id)), yes)?;
    let response = answer(client.outbox().drop_entry(call(DropEntryRequest { id: args.id })).await)?;
    if args.json {
        return output.json(&response);
    }
    let entry = response.entry.unwrap_or_default();
    output.line(format_args!("dropped  {}  to {}", safe(&entry.client_message_id), safe(&entry.to)))
}

async fn prune(args: PruneArgs, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let client = Client::find(context, &args.daemon).await?;
    let request = PruneOutboxRequest { confirm: args.confirm };
    let response = answer(client.outbox().prune_outbox(call(request)).await)?;
    if args.json {
        return output.json(&response);
    }
    let (entries, bytes) = (response.entries, response.freed_bytes);
    if response.confirmed {
        return output.line(format_args!("pruned  {entries} entries  {bytes} bytes"));
    }
    output.line(format_args!("would prune  {entries} entries  {bytes} bytes"))?;
    output.note("nothing was changed; do it with --confirm. Ids stay known, so repeats are still recognised");
    Ok(())
}

fn word(status: OutboxStatus) -> &'static str {
    match status {
        OutboxStatus::Pending => "pending",
        OutboxStatus::Inflight => "inflight",
        OutboxStatus::Done => "done",
        OutboxStatus::Dead => "dead",
        OutboxStatus::Aborted => "aborted",
        OutboxStatus::Unspecified => "-",
    }
}
