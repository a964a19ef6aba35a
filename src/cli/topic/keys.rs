//! `claudemesh topic admissions`, `admit` and `rotate-key`: who may read a topic.

use crate::cli::Context;
use crate::cli::client::{Client, answer, call};
use crate::cli::discovery::DaemonArgs;
use crate::cli::failure::Failure;
use crate::cli::output::{Output, member_name, safe};
use crate::cli::times::ago;
use crate::proto::admin::{
    AdmitTopicMemberRequest, ListTopicAdmissionsRequest, ListTopicAdmissionsResponse, RotateTopicKeyRequest,
    TopicAdmission,
};

/// Entries asked for at once: the most that a page holds.
const PAGE: u32 = 1000;

const ADMISSIONS_EXAMPLES: &str = "\
Examples:
  claudemesh topic admissions
  claudemesh topic admissions ops --json

Members whom the mesh's owner certified get a topic's key by themselves. The others
are listed here until somebody admits them.";

const ADMIT_EXAMPLES: &str = "\
Examples:
  claudemesh verify carol            compare the safety number first
  claudemesh topic admit ops carol

From then on the member reads what is posted to the topic.";

const ROTATE_EXAMPLES: &str = "\
Examples:
  claudemesh topic rotate-key ops

Only for the member who made the topic and for admins of the mesh. A topic gets a
new key by itself when a member leaves it or is removed from the mesh. At most one
in 10 minutes otherwise.";

#[derive(Debug, clap::Args)]
#[command(after_help = ADMISSIONS_EXAMPLES)]
pub(in crate::cli) struct AdmissionsArgs {
    /// Only of this topic
    topic: Option<String>,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = ADMIT_EXAMPLES)]
pub(in crate::cli) struct AdmitArgs {
    /// The topic's name
    topic: String,
    /// The member: its name, key or id
    member: String,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = ROTATE_EXAMPLES)]
pub(in crate::cli) struct RotateArgs {
    /// The topic's name
    topic: String,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(in crate::cli) async fn admissions(
    args: AdmissionsArgs,
    context: &Context,
    output: &mut Output,
) -> Result<(), Failure> {
    let client = Client::serving(context, &args.daemon, "topic").await?;
    let mut all = ListTopicAdmissionsResponse::default();
    loop {
        let request = ListTopicAdmissionsRequest {
            topic: args.topic.clone().unwrap_or_default(),
            limit: PAGE,
            page_token: std::mem::take(&mut all.next_page_token),
        };
        let page = answer(client.keys().list_topic_admissions(call(request)).await)?;
        all.admissions.extend(page.admissions);
        if page.next_page_token.is_empty() {
            break;
        }
        all.next_page_token = page.next_page_token;
    }
    if args.json {
        return output.json(&all);
    }
    if all.admissions.is_empty() {
        return output.line("nobody waits");
    }
    output.table(["TOPIC", "MEMBER", "KEY", "WAITING"], all.admissions.iter().map(row).collect())
}

pub(in crate::cli) async fn admit(args: AdmitArgs, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let client = Client::serving(context, &args.daemon, "topic").await?;
    let request = AdmitTopicMemberRequest { topic: args.topic.clone(), member: args.member.clone() };
    let response = answer(client.keys().admit_topic_member(call(request)).await)?;
    if args.json {
        return output.json(&response);
    }
    let (topic, member) = (safe(args.topic.trim_start_matches('#')), safe(&args.member));
    output.line(format_args!("admitted  {member} reads {topic} from now on"))
}

pub(in crate::cli) async fn rotate(args: RotateArgs, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let client = Client::serving(context, &args.daemon, "topic").await?;
    let response =
        answer(client.keys().rotate_topic_key(call(RotateTopicKeyRequest { topic: args.topic.clone() })).await)?;
    if args.json {
        return output.json(&response);
    }
    let topic = safe(args.topic.trim_start_matches('#'));
    output.line(format_args!("{topic} has key epoch {}, sealed for {} members", response.epoch, response.sealed_for))
}

fn row(one: &TopicAdmission) -> [String; 4] {
    let member = one.member.clone().unwrap_or_default();
    [
        safe(&one.topic),
        member_name(&member.display_name, &member.pubkey, !member.bound_name.is_empty()),
        member.pubkey.chars().take(16).collect(),
        ago(one.waiting_since.as_ref()),
    ]
}
