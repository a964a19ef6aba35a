//! `claudemesh topic`: named channels of the mesh.
//!
//! What it is for: subscribing and posting, and deciding who may read a topic.
//! What runs here: one command.
//! What it guarantees: a topic that the broker can read, or whose key is not here,
//! is called that; a post's id is minted before the first attempt.
//! What it must not do: make a topic because a name was misspelt.

mod keys;
mod post;

use super::Context;
use super::client::{Client, answer, call};
use super::discovery::DaemonArgs;
use super::failure::Failure;
use super::output::{Output, safe};
use crate::proto::pb::{
    CreateTopicRequest, ListTopicsRequest, ListTopicsResponse, SubscribeTopicRequest, Topic, UnsubscribeTopicRequest,
};

/// Topics asked for at once: the most that a page holds.
const PAGE: u32 = 1000;

const LIST_EXAMPLES: &str = "\
Examples:
  claudemesh topic list
  claudemesh topic list --subscribed --json | jq -r '.topics[].name'

KEY says whether this member can read the topic: `epoch 3` is the number of its
newest key; `waiting` means that no member who holds the key has given it to this
one yet; `unencrypted` that the broker can read what is posted there.";

const CREATE_EXAMPLES: &str = "\
Examples:
  claudemesh topic create ops --description 'what runs and what does not'
  claudemesh topic create releases

The topic is encrypted: its key is made here, and given only to members whom the
mesh's owner certified, or whom you admit. This member is subscribed to it.";

const SUBSCRIBE_EXAMPLES: &str = "\
Examples:
  claudemesh topic subscribe ops
  claudemesh inbox --topic ops

Messages that are posted from now on come to the inbox.";

const UNSUBSCRIBE_EXAMPLES: &str = "\
Examples:
  claudemesh topic unsubscribe ops

What is stored stays. The others get a new key, so that this member cannot read
what is posted later.";

#[derive(Debug, clap::Subcommand)]
pub(in crate::cli) enum Verb {
    /// Make an encrypted topic and subscribe to it
    Create(CreateArgs),
    /// Get what is posted to a topic
    Subscribe(NameArgs),
    /// Get no more of a topic
    Unsubscribe(LeaveArgs),
    /// List the topics of the mesh
    List(ListArgs),
    /// Queue a message for the subscribers of a topic
    Post(Box<post::Args>),
    /// List members who wait for a topic's key
    Admissions(keys::AdmissionsArgs),
    /// Give a topic's key to a member who waits for it
    Admit(keys::AdmitArgs),
    /// Give a topic a new key
    RotateKey(keys::RotateArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = CREATE_EXAMPLES)]
pub(in crate::cli) struct CreateArgs {
    /// The topic's name: a-z, 0-9, `-`, `_` and `.`
    name: String,
    /// What it is for, at most 256 bytes
    #[arg(long, value_name = "TEXT", default_value = "")]
    description: String,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = SUBSCRIBE_EXAMPLES)]
pub(in crate::cli) struct NameArgs {
    /// The topic's name
    name: String,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = UNSUBSCRIBE_EXAMPLES)]
pub(in crate::cli) struct LeaveArgs {
    /// The topic's name
    name: String,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = LIST_EXAMPLES)]
pub(in crate::cli) struct ListArgs {
    /// Only topics that this member is subscribed to
    #[arg(long)]
    subscribed: bool,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(in crate::cli) async fn run(verb: Verb, context: &Context, output: &mut Output) -> Result<(), Failure> {
    match verb {
        Verb::Create(args) => create(args, context, output).await,
        Verb::Subscribe(args) => subscribe(args, context, output).await,
        Verb::Unsubscribe(args) => unsubscribe(args, context, output).await,
        Verb::List(args) => list(args, context, output).await,
        Verb::Post(args) => post::run(*args, context, output).await,
        Verb::Admissions(args) => keys::admissions(args, context, output).await,
        Verb::Admit(args) => keys::admit(args, context, output).await,
        Verb::RotateKey(args) => keys::rotate(args, context, output).await,
    }
}

async fn create(args: CreateArgs, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let client = Client::serving(context, &args.daemon, "topic").await?;
    let request = CreateTopicRequest { topic: args.name, description: args.description };
    let response = answer(client.topics().create_topic(call(request)).await)?;
    if args.json {
        return output.json(&response);
    }
    let name = safe(&response.topic.unwrap_or_default().name);
    output.line(format_args!("created  {name}  encrypted; others subscribe with: claudemesh topic subscribe {name}"))
}

async fn subscribe(args: NameArgs, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let client = Client::serving(context, &args.daemon, "topic").await?;
    let response = answer(client.topics().subscribe_topic(call(SubscribeTopicRequest { topic: args.name })).await)?;
    if args.json {
        return output.json(&response);
    }
    let topic = response.topic.unwrap_or_default();
    output.line(format_args!("subscribed  {}", safe(&topic.name)))?;
    if topic.waiting_for_key {
        output.note(
            "note: its key is not here yet. A member who reads the topic gives it by itself, if the mesh's owner\n  \
             certified this one; else somebody has to run `claudemesh topic admit`. Until then messages wait sealed",
        );
    }
    if topic.unencrypted {
        output.note("note: the topic is not encrypted; the broker can read what is posted there");
    }
    Ok(())
}

async fn unsubscribe(args: LeaveArgs, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let client = Client::serving(context, &args.daemon, "topic").await?;
    let request = UnsubscribeTopicRequest { topic: args.name.clone() };
    let response = answer(client.topics().unsubscribe_topic(call(request)).await)?;
    if args.json {
        return output.json(&response);
    }
    let name = safe(args.name.trim_start_matches('#'));
    let word = if response.was_subscribed { "unsubscribed" } else { "not subscribed before" };
    output.line(format_args!("{word}  {name}"))
}

async fn list(args: ListArgs, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let client = Client::serving(context, &args.daemon, "topic").await?;
    let mut all = ListTopicsResponse::default();
    loop {
        let page_token = std::mem::take(&mut all.next_page_token);
        let request = ListTopicsRequest { subscribed_only: args.subscribed, limit: PAGE, page_token };
        let page = answer(client.topics().list_topics(call(request)).await)?;
        all.topics.extend(page.topics);
        if page.next_page_token.is_empty() {
            break;
        }
        all.next_page_token = page.next_page_token;
    }
    if args.json {
        return output.json(&all);
    }
    if all.topics.is_empty() {
        let which = if args.subscribed { "no subscriptions" } else { "no topics" };
        return output.line(format_args!("{which}; make one with: claudemesh topic create NAME"));
    }
    let rows = all.topics.iter().map(row).collect();
    output.table(["NAME", "SUBSCRIBED", "KEY", "MEMBERS", "DESCRIPTION"], rows)
}

fn row(topic: &Topic) -> [String; 5] {
    [
        safe(&topic.name),
        if topic.subscribed { "yes" } else { "no" }.to_owned(),
        key(topic),
        // Who is in it the broker has not said yet.
        if topic.member_count == 0 { "-".to_owned() } else { topic.member_count.to_string() },
        safe(&topic.description),
    ]
}

fn key(topic: &Topic) -> String {
    match topic {
        Topic { unencrypted: true, .. } => "unencrypted".to_owned(),
        Topic { waiting_for_key: true, .. } => "waiting".to_owned(),
        Topic { epoch, .. } => format!("epoch {epoch}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_whether_the_topic_can_be_read() {
        let topic = Topic { name: "ops".to_owned(), epoch: 3, member_count: 2, subscribed: true, ..Topic::default() };
        assert_eq!(row(&topic), ["ops", "yes", "epoch 3", "2", ""]);
        assert_eq!(row(&Topic { member_count: 0, ..topic.clone() })[3], "-");
        assert_eq!(key(&Topic { waiting_for_key: true, ..topic.clone() }), "waiting");
        assert_eq!(key(&Topic { unencrypted: true, ..topic }), "unencrypted");
    }
}
