//! `claudemesh daemon rotate-keypair`: a new key for this member.

use super::client::{Client, answer, call};
use super::discovery::DaemonArgs;
use super::failure::Failure;
use super::output::{Output, time};
use super::{Context, confirm};
use crate::proto::admin::RotateKeypairRequest;

const EXAMPLES: &str = "\
Examples:
  claudemesh daemon rotate-keypair
  claudemesh daemon rotate-keypair --json | jq -r .new_pubkey

Peers follow by themselves, because the old key signs for the new one. Messages
sealed for the old key are opened for some days more. Whoever has verified this
member has to compare the safety number again.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Do it without being asked
    #[arg(short, long)]
    yes: bool,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(super) async fn run(args: Args, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let client = Client::find(context, &args.daemon).await?;
    let what =
        "this member gets a new key, and the old one ends: whoever has verified it compares the safety number again";
    confirm::ask(what, args.yes)?;
    let rotated = answer(client.keys().rotate_keypair(call(RotateKeypairRequest {})).await)?;
    if args.json {
        return output.json(&rotated);
    }
    output.line(format_args!("old key  {}", rotated.old_pubkey))?;
    output.line(format_args!("new key  {}", rotated.new_pubkey))?;
    output.line(format_args!("the old key opens messages until {}", time(rotated.grace_ends_at.as_ref())))
}
