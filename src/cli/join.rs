//! `claudemesh join`.

use serde_json::json;

use super::failure::Failure;
use super::output::{Output, safe};
use super::way::{self, WayArgs};
use super::{Context, set_aside};
use crate::config::broker_url::BrokerUrl;
use crate::domain::message::MIN_PREFIX_DIGITS;
use crate::membership::config_json::MeshEntry;
use crate::membership::join;

const EXAMPLES: &str = "\
Examples:
  claudemesh join 'ic://join/eyJ2Ijox...'
  claudemesh join 'https://mesh.example/join/eyJ2Ijox...' --display-name build-host

The link is checked before anything is sent. Running it again is safe: a mesh
that is joined already stays as it is.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The invite link, in quotes
    link: String,
    /// Your name in the mesh; the host's name if left out
    #[arg(long, value_name = "NAME")]
    display_name: Option<String>,
    #[command(flatten)]
    way: WayArgs,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: Args, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let options = join::Options { display_name: args.display_name };
    let env = args.way.membership(None, context)?;
    let (entry, already, name_taken) = match join::join(&env, &args.link, &options)? {
        join::Outcome::Joined { entry, name_taken } => (entry, false, name_taken),
        join::Outcome::AlreadyJoined(entry) => (entry, true, false),
    };
    set_aside::other_members(&entry, context, output)?;
    way::keep(&env.link, &entry, context, output)?;
    if args.json {
        return output.json(&result_json(&entry, already));
    }
    if already {
        output.line(format_args!("already joined  {}  as {}", entry.slug, name(&entry)))?;
    } else {
        output.line(format_args!("joined  {}  as {}", entry.slug, name(&entry)))?;
    }
    if name_taken {
        let name = name(&entry);
        output.note(format_args!(
            "note: another member is or was called {name} too, so that sends to the name are refused; tell the others your \
             key {}, which they accept with: claudemesh verify KEY --accept",
            entry.pubkey.get(..MIN_PREFIX_DIGITS).unwrap_or_default()
        ));
    }
    next_steps(&entry, output);
    Ok(())
}

/// The entry, and whether it was there before.
pub(super) fn result_json(entry: &MeshEntry, already: bool) -> serde_json::Value {
    let mut object = json_of(entry);
    object["already_joined"] = already.into();
    object
}

/// The entry without its secret key.
pub(super) fn json_of(entry: &MeshEntry) -> serde_json::Value {
    json!({
        "mesh": entry.slug,
        "mesh_id": entry.mesh_id,
        "member_id": entry.member_id,
        "pubkey": entry.pubkey,
        "display_name": entry.display_name,
        "role": entry.role,
        "broker_url": entry.broker_url,
    })
}

pub(super) fn name(entry: &MeshEntry) -> String {
    entry.display_name.as_deref().map_or_else(|| entry.pubkey.chars().take(16).collect(), safe)
}

/// What makes the mesh usable.
pub(super) fn next_steps(entry: &MeshEntry, output: &mut Output) {
    if BrokerUrl::parse(&entry.broker_url, true).is_ok_and(|url| !url.is_protected()) {
        output.note(format_args!("note: the link to {} is not encrypted", safe(&entry.broker_url)));
    }
    output.note(format_args!("next: claudemesh daemon up --mesh {}", entry.slug));
}
