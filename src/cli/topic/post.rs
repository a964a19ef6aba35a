//! `claudemesh topic post`.

use crate::cli::client::{Client, answer, call};
use crate::cli::discovery::DaemonArgs;
use crate::cli::failure::Failure;
use crate::cli::output::{Output, safe};
use crate::cli::send::{PriorityArg, meta, read_message, unsaid};
use crate::cli::{Context, link, style};
use crate::proto::pb::{PostTopicRequest, SendStatus};

const EXAMPLES: &str = "\
Examples:
  claudemesh topic post ops 'deploying now'
  claudemesh topic post ops 'who takes this?' --mention bob --mention carol
  git log -1 | claudemesh topic post releases - --id release-42

The message is sealed with the topic's newest key when it leaves this host.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Args {
    /// The topic's name
    topic: String,
    /// The text; `-` reads it from standard input
    message: String,
    /// Draw the attention of a member: its name or key; up to 16 times
    #[arg(long, value_name = "MEMBER")]
    mention: Vec<String>,
    /// How urgent it is for the receivers
    #[arg(long, value_enum, default_value_t = PriorityArg::Next)]
    priority: PriorityArg,
    /// The id of this post: a second post with it is the same message
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// The id of the message that this one answers
    #[arg(long, value_name = "ID")]
    reply_to: Option<String>,
    /// Data for the receivers, a JSON object
    #[arg(long, value_name = "JSON")]
    meta: Option<String>,
    /// Post to a topic without encryption
    #[arg(long)]
    allow_unencrypted: bool,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(in crate::cli) async fn run(args: Args, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let message = read_message(&args.message, output)?;
    let request = PostTopicRequest {
        topic: args.topic.clone(),
        message,
        priority: args.priority.into(),
        mentions: args.mention.clone(),
        meta: meta(args.meta.as_deref())?,
        reply_to_id: args.reply_to.clone().unwrap_or_default(),
        client_message_id: args.id.clone().unwrap_or_else(|| context.ids.ulid()),
        allow_unencrypted: args.allow_unencrypted,
    };
    let client = Client::serving(context, &args.daemon, "topic").await?;
    let response = answer(client.messaging().post_topic(call(request)).await)?;
    let id = response.client_message_id.as_str();
    if args.json {
        return output.json(&response).map_err(|failure| unsaid(failure, id));
    }
    let word = match response.status() {
        SendStatus::Inflight => "inflight",
        SendStatus::Accepted => "accepted",
        _ => "queued",
    };
    let topic = safe(args.topic.trim_start_matches('#'));
    let known = if response.duplicate { "  (the same post as before)" } else { "" };
    let line = format!("{}  {id}  to #{topic}{known}", style::state(word));
    output.line(line).map_err(|failure| unsaid(failure, id))?;
    if !response.degraded.is_empty() {
        let lost = safe(&response.degraded.join(", "));
        output.note(format_args!("note: the topic is not encrypted, and nobody will see: {lost}"));
    }
    if let Some(trouble) = link::trouble(&client).await {
        output.note(format_args!("note: {trouble}\n  the message is on disk here and goes out when the link is back"));
    }
    Ok(())
}
