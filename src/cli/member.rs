//! `claudemesh member`: who belongs to a mesh, as its broker has it.

use serde_json::{Value, json};

use super::failure::Failure;
use super::output::{Output, safe, time};
use super::way::WayArgs;
use super::{Context, confirm};
use crate::domain::error_code::ErrorCode;
use crate::domain::names;
use crate::membership::manage::{self, Request};
use crate::proto::wkt::Timestamp;

const EXAMPLES: &str = "\
Examples:
  claudemesh member list demo
  claudemesh member revoke demo 2f6c1a9be01d44c7

Only the mesh's owner and its admins revoke. What waits for the member ends, its
connections are closed, and its key opens no connection any more.";

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// List the members that the broker has, revoked ones included
    List(ListArgs),
    /// End a membership
    Revoke(RevokeArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ListArgs {
    /// The mesh
    mesh: String,
    #[command(flatten)]
    way: WayArgs,
    /// Print the broker's answer as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct RevokeArgs {
    /// The mesh
    mesh: String,
    /// The member: its key, the first 16 digits of it or more, or its id
    member: String,
    /// Do it without being asked
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    way: WayArgs,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(verb: Verb, context: &Context, output: &mut Output) -> Result<(), Failure> {
    match verb {
        Verb::List(args) => list(&args, context, output),
        Verb::Revoke(args) => revoke(&args, context, output),
    }
}

fn list(args: &ListArgs, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let env = args.way.membership(Some(&args.mesh), context)?;
    let all = manage::members(&env, &args.mesh)?;
    if args.json {
        return output.json(&json!({ "type": "members_list", "members": all }));
    }
    let text = |row: &Value, field: &str| safe(row[field].as_str().unwrap_or_default());
    let at = |row: &Value, field: &str| time(row[field].as_i64().map(Timestamp::from_unix_ms).as_ref());
    let rows = all
        .iter()
        .map(|row| {
            let key: String = text(row, "pubkey").chars().take(16).collect();
            [
                names::shown(row["displayName"].as_str().unwrap_or_default()),
                key,
                text(row, "role"),
                at(row, "joinedAt"),
                at(row, "revokedAt"),
                holds(&row["holds"]),
            ]
        })
        .collect();
    output.table(["NAME", "KEY", "ROLE", "JOINED", "REVOKED", "HOLDS"], rows)
}

/// What a member takes up at the broker; nothing for who may not know.
fn holds(row: &Value) -> String {
    let number = |field: &str| row[field].as_u64().unwrap_or_default();
    let kinds = [("connections", "connection"), ("waiting", "waiting"), ("topics", "topic"), ("apiKeys", "API key")];
    let said = kinds.into_iter().filter_map(|(field, name)| {
        let ending = if number(field) == 1 || name == "waiting" { "" } else { "s" };
        let bytes =
            if name == "waiting" { format!(" ({} KiB)", number("waitingBytes").div_ceil(1024)) } else { String::new() };
        (number(field) > 0).then(|| format!("{} {name}{ending}{bytes}", number(field)))
    });
    let said: Vec<String> = said.collect();
    if said.is_empty() { "-".to_owned() } else { said.join(", ") }
}

fn revoke(args: &RevokeArgs, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let env = args.way.membership(Some(&args.mesh), context)?;
    let answer = manage::request(&env, &args.mesh, Request::Member(args.member.clone()))?;
    let wanted = args.member.to_ascii_lowercase();
    let is_it = |row: &&Value| {
        let key = row["pubkey"].as_str().unwrap_or_default();
        row["memberId"] == args.member.as_str() || key == wanted || (wanted.len() >= 16 && key.starts_with(&wanted))
    };
    let found: Vec<&Value> = rows(&answer).iter().filter(is_it).collect();
    let member = match found.as_slice() {
        [member] => *member,
        [] => {
            let text = format!("mesh {:?} has no member {:?}", args.mesh, args.member);
            return Err(Failure::new(ErrorCode::UnknownPeer, text).next(format!(
                "name it by its key, the first 16 digits of it or more: claudemesh member list {}",
                args.mesh
            )));
        }
        _ => {
            let text = format!("{:?} is the beginning of several members' keys; give more digits", args.member);
            return Err(Failure::new(ErrorCode::AmbiguousPeer, text));
        }
    };
    let member_id = member["memberId"].as_str().unwrap_or_default().to_owned();
    let name = names::shown(member["displayName"].as_str().unwrap_or_default());
    let what = format!(
        "{name} ({}) is removed from mesh {} for good: what waits for it ends, and its key connects no more",
        safe(member["pubkey"].as_str().unwrap_or_default()),
        args.mesh
    );
    confirm::ask(&what, args.yes)?;
    manage::request(&env, &args.mesh, Request::RevokeMember(member_id))?;
    if args.json {
        return output.json(&json!({ "revoked": member["memberId"], "pubkey": member["pubkey"] }));
    }
    output.line(format_args!("revoked  {name}"))
}

fn rows(answer: &Value) -> &[Value] {
    answer["members"].as_array().map(Vec::as_slice).unwrap_or_default()
}
