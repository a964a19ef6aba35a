//! `claudemesh mesh`: the meshes of this user.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::Context;
use super::failure::Failure;
use super::output::{Output, safe, time};
use super::style::state;
use super::times::parse_span;
use super::way::{self, WayArgs};
use super::{join, mesh_settings, running, set_aside};
use crate::membership::config_json::ConfigJson;
use crate::membership::invite::{self, Terms};
use crate::membership::{create, owner};
use crate::proto::wkt::Timestamp;

const CREATE_EXAMPLES: &str = "\
Examples:
  claudemesh mesh create demo            on the broker that runs from this account
  claudemesh mesh create team --broker wss://mesh.example/ws --admin-token-file ./admin_token

The mesh's owner key is made here and stays here, in owners/ below the root
directory. Keep a copy of it: only its holder can invite.";

const INVITE_EXAMPLES: &str = "\
Examples:
  claudemesh mesh invite demo
  claudemesh mesh invite demo --role admin --uses 3 --expires 2h

The link goes to standard output alone. It is a secret: whoever has it can join,
so hand it over like a password. What stands behind # in it proves to the other
members, not to the broker, that you let its holder in; the broker never gets
that part. Older clients take only what stands before #: --plain leaves it out.";

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// Create a mesh on a broker and join it as its first admin
    Create(CreateArgs),
    /// Make an invite link for a mesh that you created
    Invite(InviteArgs),
    /// List the joined meshes
    List(ListArgs),
    /// Show what holds in a mesh, or change it as its owner
    Policy(mesh_settings::PolicyArgs),
    /// Leave a mesh for good
    Leave(mesh_settings::LeaveArgs),
    /// Keys that send over the broker's HTTP
    #[command(subcommand)]
    Key(mesh_settings::KeyVerb),
}

#[derive(Debug, clap::Args)]
#[command(after_help = CREATE_EXAMPLES)]
pub(super) struct CreateArgs {
    /// The mesh's name: 1 to 32 of a-z, 0-9 and -
    mesh: String,
    /// The broker's WebSocket URL; the local broker if left out
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    /// The file with the broker's admin token; the local broker's if left out
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// Your name in the mesh; the host's name if left out
    #[arg(long, value_name = "NAME")]
    display_name: Option<String>,
    #[command(flatten)]
    way: WayArgs,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = INVITE_EXAMPLES)]
pub(super) struct InviteArgs {
    /// The mesh
    mesh: String,
    /// What those who join with it may do
    #[arg(long, value_enum, default_value_t = RoleArg::Member)]
    role: RoleArg,
    /// How many may join with it
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    uses: u32,
    /// How long it can be used: 30min, 2h, 7d
    #[arg(long, value_name = "SPAN", default_value = "7d", allow_hyphen_values = true, value_parser = parse_span)]
    expires: Duration,
    /// Make a link that older clients understand, which joins without a certificate
    #[arg(long)]
    plain: bool,
    #[command(flatten)]
    way: WayArgs,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

const LIST_EXAMPLES: &str = "\
Examples:
  claudemesh mesh list
  claudemesh mesh list --json | jq -r '.meshes[].mesh'";

#[derive(Debug, clap::Args)]
#[command(after_help = LIST_EXAMPLES)]
pub(super) struct ListArgs {
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum RoleArg {
    /// Sends and receives
    Member,
    /// Also changes topics and removes members
    Admin,
}

pub(super) fn run(verb: Verb, context: &Context, output: &mut Output) -> Result<(), Failure> {
    match verb {
        Verb::Create(args) => create(args, context, output),
        Verb::Invite(args) => invite(&args, context, output),
        Verb::List(args) => list(&args, context, output),
        Verb::Policy(args) => mesh_settings::policy(&args, context, output),
        Verb::Leave(args) => mesh_settings::leave(&args, context, output),
        Verb::Key(verb) => mesh_settings::key(verb, context, output),
    }
}

fn create(args: CreateArgs, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let options = create::Options {
        broker_url: args.broker,
        admin_token_file: args.admin_token_file,
        name: None,
        display_name: args.display_name,
    };
    let env = args.way.membership(Some(&args.mesh), context)?;
    let (entry, already) = match create::create(&env, &args.mesh, &options)? {
        create::Outcome::Created(entry) => (entry, false),
        create::Outcome::AlreadyThere(entry) => (entry, true),
    };
    set_aside::other_members(&entry, context, output)?;
    way::keep(&env.link, &entry, context, output)?;
    if args.json {
        return output.json(&join::result_json(&entry, already));
    }
    let what = if already { "already created" } else { "created" };
    output.line(format_args!(
        "{what}  {}  you are {} ({})",
        entry.slug,
        join::name(&entry),
        safe(&entry.broker_url)
    ))?;
    output.note(format_args!("invite others: claudemesh mesh invite {}", entry.slug));
    join::next_steps(&entry, output);
    Ok(())
}

fn invite(args: &InviteArgs, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let env = args.way.membership(Some(&args.mesh), context)?;
    let owner = owner::find(&env.root, &args.mesh)?.ok_or_else(|| crate::membership::Error::OwnerKeyMissing {
        slug: args.mesh.clone(),
        dir: env.root.owners_dir(),
    })?;
    let role = match args.role {
        RoleArg::Member => invite::Role::Member,
        RoleArg::Admin => invite::Role::Admin,
    };
    let terms = Terms { role, uses: args.uses, lifetime: args.expires, plain: args.plain };
    let made = invite::make(&env, &owner, &terms)?;
    let expires_at = Timestamp::from_unix_ms(made.expires_at.0);
    let until = time(Some(&expires_at));
    if args.json {
        return output.json(&json!({
            "mesh": owner.slug,
            "link": made.link,
            "invite_id": made.invite_id,
            "role": role.as_str(),
            "uses": args.uses,
            "expires_at": expires_at,
        }));
    }
    output.line(&made.link)?;
    output.note(format_args!(
        "for {} {} of {}, until {until}: claudemesh join '<the link>'",
        args.uses,
        role.as_str(),
        owner.slug
    ));
    output.note("the link is a secret: hand it over like a password, by a way that the broker has no part in");
    Ok(())
}

fn list(args: &ListArgs, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let root = context.root()?;
    let meshes = ConfigJson::load(&root)?.meshes()?;
    let mut rows = Vec::with_capacity(meshes.len());
    let mut objects = Vec::with_capacity(meshes.len());
    for entry in &meshes {
        let runs = running::is_running(&root.state_dir(&entry.slug))?;
        let owned = owner::find(&root, &entry.slug)?.is_some_and(|owner| owner.mesh_id.as_str() == entry.mesh_id);
        let role = match (owned, entry.role.as_deref()) {
            (true, _) => "owner".to_owned(),
            (false, Some(role)) => safe(role),
            (false, None) => "-".to_owned(),
        };
        let daemon = if runs { state("running") } else { "-".to_owned() };
        rows.push([entry.slug.clone(), join::name(entry), role, safe(&entry.broker_url), daemon]);
        let mut object = join::json_of(entry);
        object["owned"] = owned.into();
        object["daemon_running"] = runs.into();
        objects.push(object);
    }
    if args.json {
        return output.json(&json!({ "meshes": objects }));
    }
    if rows.is_empty() {
        output.note("no mesh is joined; join one with the link you were given: claudemesh join 'ic://join/...'");
        return Ok(());
    }
    output.table(["MESH", "YOU", "ROLE", "BROKER", "DAEMON"], rows)
}
