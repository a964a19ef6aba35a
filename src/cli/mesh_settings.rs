//! `claudemesh mesh policy`, `leave` and `key`: what is asked of a mesh's broker
//! with a signature alone.

use serde_json::{Value, json};

use super::failure::Failure;
use super::output::{Output, safe, time};
use super::way::WayArgs;
use super::{Context, confirm};
use crate::domain::error_code::ErrorCode;
use crate::membership::manage::{self, Request};
use crate::membership::owner;
use crate::proto::wkt::Timestamp;

const LEAVE_EXAMPLES: &str = "\
Examples:
  claudemesh mesh leave demo
  claudemesh mesh leave demo --yes         in a script

The owner, and the last admin, would leave a mesh that nobody can change or be
removed from: that needs --force. An owner key stays in owners/ and still invites.";

const KEY_LIST_EXAMPLES: &str = "\
Examples:
  claudemesh mesh key list demo
  claudemesh mesh key list demo --json";

const KEY_REVOKE_EXAMPLES: &str = "\
Examples:
  claudemesh mesh key revoke demo 01JX4Z6Y3R8W5V2T1Q0P9N8M7K";

const POLICY_EXAMPLES: &str = "\
Examples:
  claudemesh mesh policy demo
  claudemesh mesh policy demo --set prefer-oldest
  claudemesh mesh policy demo --dedupe permanent

What happens when a member connects while it is connected: prefer-newest closes
the older connection, prefer-oldest refuses the newer one, allow-concurrent keeps
both. Only the mesh's owner changes it.";

const KEY_EXAMPLES: &str = "\
Examples:
  claudemesh mesh key create demo ci
  claudemesh mesh key list demo
  claudemesh mesh key revoke demo 01JD...

A key sends as you over the broker's HTTP, POST /v1/messages. It is shown once.";

#[derive(Debug, clap::Args)]
#[command(after_help = POLICY_EXAMPLES)]
pub(super) struct PolicyArgs {
    /// The mesh
    mesh: String,
    /// The new policy for a second connection of a member
    #[arg(long, value_enum, value_name = "POLICY")]
    set: Option<PolicyArg>,
    /// How long the broker remembers the ids of messages
    #[arg(long, value_enum, value_name = "MODE")]
    dedupe: Option<DedupeArg>,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = LEAVE_EXAMPLES)]
pub(super) struct LeaveArgs {
    /// The mesh
    mesh: String,
    /// Do it without being asked
    #[arg(short, long)]
    yes: bool,
    /// Leave as the owner, or as the last admin, too
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum KeyVerb {
    /// Make a key; it is printed this once
    Create(KeyCreateArgs),
    /// List your keys; all of the mesh for its owner and admins
    List(KeyListArgs),
    /// End a key
    Revoke(KeyRevokeArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = KEY_EXAMPLES)]
pub(super) struct KeyCreateArgs {
    /// The mesh
    mesh: String,
    /// What the key is for
    name: String,
    /// Let it send to targets that are not encrypted: * and @group
    #[arg(long)]
    allow_unencrypted: bool,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = KEY_LIST_EXAMPLES)]
pub(super) struct KeyListArgs {
    /// The mesh
    mesh: String,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = KEY_REVOKE_EXAMPLES)]
pub(super) struct KeyRevokeArgs {
    /// The mesh
    mesh: String,
    /// The key's id, as `mesh key list` shows it
    key: String,
    #[command(flatten)]
    common: CommonArgs,
}

#[derive(Debug, clap::Args)]
struct CommonArgs {
    #[command(flatten)]
    way: WayArgs,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum PolicyArg {
    /// The newer connection stays
    PreferNewest,
    /// The older connection stays
    PreferOldest,
    /// Both stay
    AllowConcurrent,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum DedupeArg {
    /// For the days that the broker is set to
    RetentionScoped,
    /// For ever
    Permanent,
}

pub(super) fn policy(args: &PolicyArgs, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let concurrency_policy = args.set.map(|policy| match policy {
        PolicyArg::PreferNewest => "prefer_newest",
        PolicyArg::PreferOldest => "prefer_oldest",
        PolicyArg::AllowConcurrent => "allow_concurrent",
    });
    let dedupe_mode = args.dedupe.map(|mode| match mode {
        DedupeArg::RetentionScoped => "retention_scoped",
        DedupeArg::Permanent => "permanent",
    });
    let request = match (concurrency_policy, dedupe_mode) {
        (None, None) => Request::Policy,
        _ => Request::SetPolicy { concurrency_policy, dedupe_mode },
    };
    let answer = ask(&args.mesh, request, &args.common, context)?;
    if args.common.json {
        return output.json(&answer);
    }
    let word = |field: &str| safe(&answer[field].as_str().unwrap_or_default().replace('_', "-"));
    output.line(format_args!("second connection  {}", word("concurrencyPolicy")))?;
    output.line(format_args!("message ids kept   {}", word("dedupeMode")))
}

pub(super) fn leave(args: &LeaveArgs, context: &Context, output: &mut Output) -> Result<(), Failure> {
    may_leave(args, context)?;
    let what = format!(
        "you leave mesh {}: your membership ends for good, what waits for you at its broker is lost, and only a new \
         invite brings you back, as another member",
        args.mesh
    );
    confirm::ask(&what, args.yes)?;
    let entry = manage::leave(&args.common.way.membership(Some(&args.mesh), context)?, &args.mesh)?;
    if args.common.json {
        return output.json(&json!({ "left": entry.slug, "mesh_id": entry.mesh_id, "member_id": entry.member_id }));
    }
    output.line(format_args!("left  {}", entry.slug))?;
    output.note("its messages stay on this host, in the mesh's directory below daemon/");
    Ok(())
}

/// Refuses what would leave the mesh without anybody who can change it.
fn may_leave(args: &LeaveArgs, context: &Context) -> Result<(), Failure> {
    let env = args.common.way.membership(Some(&args.mesh), context)?;
    if args.force {
        return Ok(());
    }
    let refused = |what: String| {
        Err(Failure::new(ErrorCode::PermissionDenied, what)
            .next(format!("if you mean it: claudemesh mesh leave {} --force", args.mesh)))
    };
    let entry = manage::entry(&env, &args.mesh)?;
    let owned = owner::find(&env.root, &args.mesh)?.is_some_and(|owner| owner.mesh_id.as_str() == entry.mesh_id);
    if owned {
        let what = format!("you own mesh {:?}: without you nobody invites to it or removes anybody from it", args.mesh);
        return refused(what);
    }
    if entry.role.as_deref() == Some("admin") {
        let members = manage::members(&env, &args.mesh)?;
        let is_other_admin = |row: &Value| {
            row["role"] == "admin" && row["revokedAt"].is_null() && row["memberId"] != entry.member_id.as_str()
        };
        if !members.iter().any(is_other_admin) {
            let what =
                format!("you are the last admin of mesh {:?}: without you nobody but its owner changes it", args.mesh);
            return refused(what);
        }
    }
    Ok(())
}

pub(super) fn key(verb: KeyVerb, context: &Context, output: &mut Output) -> Result<(), Failure> {
    match verb {
        KeyVerb::Create(args) => {
            let request = Request::CreateKey { name: args.name.clone(), allow_unencrypted: args.allow_unencrypted };
            let answer = ask(&args.mesh, request, &args.common, context)?;
            if args.common.json {
                return output.json(&answer);
            }
            output.line(safe(answer["key"].as_str().unwrap_or_default()))?;
            output.note(format_args!(
                "keep it like a password, it is not shown again; to end it: claudemesh mesh key revoke {} {}",
                args.mesh,
                safe(answer["keyId"].as_str().unwrap_or_default())
            ));
            Ok(())
        }
        KeyVerb::List(args) => {
            let answer = ask(&args.mesh, Request::Keys, &args.common, context)?;
            if args.common.json {
                return output.json(&answer);
            }
            let text = |row: &Value, field: &str| safe(row[field].as_str().unwrap_or_default());
            let at = |row: &Value, field: &str| time(row[field].as_i64().map(Timestamp::from_unix_ms).as_ref());
            let rows = answer["keys"].as_array().map(Vec::as_slice).unwrap_or_default().iter();
            let rows = rows
                .map(|row| {
                    [
                        text(row, "keyId"),
                        text(row, "name"),
                        text(row, "memberId"),
                        at(row, "createdAt"),
                        at(row, "lastUsedAt"),
                        at(row, "revokedAt"),
                    ]
                })
                .collect();
            output.table(["KEY", "NAME", "MEMBER", "CREATED", "LAST USED", "REVOKED"], rows)
        }
        KeyVerb::Revoke(args) => {
            let answer = ask(&args.mesh, Request::RevokeKey(args.key.clone()), &args.common, context)?;
            if args.common.json {
                return output.json(&answer);
            }
            output.line(format_args!("revoked  {}", args.key))
        }
    }
}

fn ask(mesh: &str, request: Request, common: &CommonArgs, context: &Context) -> Result<Value, Failure> {
    Ok(manage::request(&common.way.membership(Some(mesh), context)?, mesh, request)?)
}
