//! `claudemesh profile`.

use super::client::{Client, answer, call};
use super::discovery::DaemonArgs;
use super::failure::Failure;
use super::output::{Output, safe};
use super::{Context, link};
use crate::proto::pb::{PeerStatus, SetProfileRequest, SetProfileResponse};

const EXAMPLES: &str = "\
Examples:
  claudemesh profile                              what others see of this member
  claudemesh profile --summary 'the release' --status working
  claudemesh profile --summary ''                 say nothing
  claudemesh profile --visible false              be in nobody else's list

What is set stays over restarts. A member that hides itself is in nobody else's
list; messages reach it all the same, by its name or key.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// What this member works on: one line, at most 1024 bytes; empty clears it
    #[arg(long, value_name = "TEXT")]
    summary: Option<String>,
    /// What it is doing
    #[arg(long, value_name = "STATUS", value_enum)]
    status: Option<Status>,
    /// Whether others see it in their lists
    #[arg(long, value_name = "BOOL")]
    visible: Option<bool>,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Status {
    /// Free
    Idle,
    /// Busy
    Working,
    /// Not to be disturbed
    Dnd,
}

pub(super) async fn run(args: Args, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let client = Client::serving(context, &args.daemon, "profile").await?;
    let is_change = args.summary.is_some() || args.status.is_some() || args.visible.is_some();
    let status = args.status.map(|status| match status {
        Status::Idle => PeerStatus::Idle.into(),
        Status::Working => PeerStatus::Working.into(),
        Status::Dnd => PeerStatus::Dnd.into(),
    });
    // Without a field nothing changes, and the answer is the profile as it is.
    let request = SetProfileRequest { summary: args.summary, status, visible: args.visible };
    let profile = answer(client.peers().set_profile(call(request)).await)?;
    if args.json {
        return output.json(&profile);
    }
    print(&profile, output)?;
    if is_change && let Some(trouble) = link::trouble(&client).await {
        output.note(format_args!("note: {trouble}\n  the profile is kept here; others see it once there is a link"));
    }
    Ok(())
}

fn print(profile: &SetProfileResponse, output: &mut Output) -> Result<(), Failure> {
    let status = match profile.status() {
        PeerStatus::Working => "working",
        PeerStatus::Dnd => "dnd",
        PeerStatus::Idle | PeerStatus::Unspecified => "idle",
    };
    let summary = if profile.summary.is_empty() { "-".to_owned() } else { safe(&profile.summary) };
    output.line(format_args!("summary  {summary}"))?;
    output.line(format_args!("status   {status}"))?;
    output.line(format_args!("visible  {}", if profile.visible { "yes" } else { "no" }))
}
