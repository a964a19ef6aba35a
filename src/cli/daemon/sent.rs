//! `claudemesh outbox status`: how far one send has come.

use crate::cli::client::{Client, answer, call};
use crate::cli::discovery::DaemonArgs;
use crate::cli::failure::Failure;
use crate::cli::output::{Output, recipient_name, safe};
use crate::cli::send::word;
use crate::cli::times::{ago, time};
use crate::cli::{Context, style};
use crate::proto::pb::{GetSendRequest, GetSendResponse};

const EXAMPLES: &str = "\
Examples:
  claudemesh outbox status release-42
  claudemesh outbox status release-42 --json | jq -r .status

The state is one of queued, inflight, accepted (the broker has it), delivered (the
receiver's daemon has stored it), rejected (it could not use it), expired, dead
(given up here) and aborted.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The id that the send was made under: its client message id
    id: String,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(super) async fn run(args: Args, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let client = Client::serving(context, &args.daemon, "send").await?;
    let request = GetSendRequest { client_message_id: args.id };
    let sent = answer(client.messaging().get_send(call(request)).await)?;
    if args.json {
        return output.json(&sent);
    }
    output.line(line(&sent))?;
    for (what, at) in [("queued", &sent.queued_at), ("accepted", &sent.accepted_at), ("delivered", &sent.delivered_at)]
    {
        if at.is_some() {
            output.line(format_args!("  {what:9}  {}  ({})", time(at.as_ref()), ago(at.as_ref())))?;
        }
    }
    if let Some(count) = sent.delivered_count {
        let s = if count == 1 { "" } else { "s" };
        output.line(format_args!("  stored by {count} subscriber{s} so far"))?;
    }
    match &sent.error {
        Some(error) => output.note(format_args!("note: {} ({})", safe(&error.message), safe(&error.code))),
        None if !sent.last_error.is_empty() => {
            output.note(format_args!(
                "note: the last of {} transmits failed: {}",
                sent.attempts,
                safe(&sent.last_error)
            ));
        }
        None => {}
    }
    Ok(())
}

fn line(sent: &GetSendResponse) -> String {
    let recipient = sent.recipient.clone().unwrap_or_default();
    let name = recipient_name(&recipient);
    format!("{}  {}  to {name}", style::state(word(sent.status())), safe(&sent.client_message_id))
}
