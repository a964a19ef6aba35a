//! `claudemesh verify`: whether a peer's key is really its own.

use super::client::{Client, answer, call};
use super::discovery::DaemonArgs;
use super::failure::Failure;
use super::output::{Output, member_name, safe, time};
use super::{Context, confirm};
use crate::domain::error_code::ErrorCode;
use crate::domain::message::MIN_PREFIX_DIGITS;
use crate::domain::names;
use crate::proto::admin::{
    AcceptMemberKeyRequest, AcceptNameBindingRequest, PinnedMember, VerifyPeerRequest, VerifyPeerResponse,
};
use crate::proto::pb::PinState;

const EXAMPLES: &str = "\
Examples:
  claudemesh verify bob                       show the safety number
  claudemesh verify bob --confirm             it is the number that bob sees: mark bob verified
  claudemesh verify bob --confirm='12345 ...' the same, and let the daemon compare
  claudemesh verify bob --accept              accept the key or name that the broker shows now

Both sides see the same number if nobody stands between them. Compare it over a
channel that the broker has no part in: a call, a meeting, another chat.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The peer: name, key, 16 or more digits of its key, or member id
    peer: String,
    /// Mark the peer as verified; with a number, only if it is this one
    #[arg(long, value_name = "NUMBER", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    confirm: Option<String>,
    /// Accept the changed key or name of the peer; with a key, only this one
    #[arg(long, value_name = "KEY", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    accept: Option<String>,
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
    let client = Client::serving(context, &args.daemon, "peers").await?;
    let before = verify(&client, &args.peer, "").await?;
    let member = before.member.clone().unwrap_or_default();
    let mut shown = before;
    if let Some(key) = &args.accept {
        if !args.json {
            print(&shown, output)?;
        }
        accept(&client, &member, key, &args, output).await?;
        shown = verify(&client, &member.member_id, "").await?;
    }
    if let Some(number) = &args.confirm {
        let is_given = !number.is_empty();
        let number = if is_given { number.clone() } else { shown.safety_number.clone() };
        if shown.member.as_ref().is_some_and(|member| member.pin_state() == PinState::KeyChanged) {
            let what = format!("the key of {} changed; nothing can be confirmed before that is settled", args.peer);
            return Err(Failure::new(ErrorCode::MemberKeyChanged, what)
                .next(format!("see both keys: claudemesh verify {}", args.peer)));
        }
        if !is_given {
            let name = names::shown(&member.display_name);
            let what = format!("{name} is marked as verified, if this is the number that {name} sees:\n{number}");
            confirm::ask(&what, args.yes)?;
        }
        shown = verify(&client, &member.member_id, &number).await?;
    }
    if args.json {
        return output.json(&shown);
    }
    print(&shown, output)
}

async fn verify(client: &Client, peer: &str, safety_number: &str) -> Result<VerifyPeerResponse, Failure> {
    let request = VerifyPeerRequest { peer: peer.to_owned(), safety_number: safety_number.to_owned() };
    answer(client.keys().verify_peer(call(request)).await)
}

/// Accepts what waits for a decision. Both keys were printed before.
async fn accept(
    client: &Client,
    member: &PinnedMember,
    key: &str,
    args: &Args,
    output: &mut Output,
) -> Result<(), Failure> {
    let name = names::shown(&member.display_name);
    let has_key = !member.shown_pubkey.is_empty();
    let has_name = !member.name_bound_to.is_empty();
    if !has_key && !has_name {
        let what = format!("the broker shows no other key and no taken name for {}", args.peer);
        return Err(Failure::new(ErrorCode::NoPendingChange, what));
    }
    if has_key {
        let wanted = key.to_ascii_lowercase();
        if !member.shown_pubkey.starts_with(&wanted) {
            let what = format!("the broker shows the key {} and not {}", member.shown_pubkey, safe(key));
            return Err(Failure::new(ErrorCode::NoPendingChange, what));
        }
        let pubkey = member.shown_pubkey.clone();
        let request = AcceptMemberKeyRequest { member: member.member_id.clone(), pubkey };
        answer(client.keys().accept_member_key(call(request)).await)?;
        output.note(format_args!("accepted: the key {} for {name}", member.shown_pubkey));
    }
    if has_name {
        let request =
            AcceptNameBindingRequest { name: member.display_name.clone(), member_id: member.member_id.clone() };
        answer(client.keys().accept_name_binding(call(request)).await)?;
        output.note(format_args!("accepted: the name {name} means {} alone from now on", &member.pubkey));
    }
    Ok(())
}

fn print(shown: &VerifyPeerResponse, output: &mut Output) -> Result<(), Failure> {
    let member = shown.member.clone().unwrap_or_default();
    let name = names::shown(&member.display_name);
    let marked = member_name(&member.display_name, &member.pubkey, !member.bound_name.is_empty());
    output.line(format_args!("peer           {marked}"))?;
    output.line(format_args!("key            {}", member.pubkey))?;
    output.line(format_args!("trust          {}", trust(&member)))?;
    output.line(format_args!("let in         {}", let_in(&member)))?;
    output.line(format_args!("safety number  {}", in_two_lines(&shown.safety_number)))?;
    if !member.shown_pubkey.is_empty() {
        output.line(format_args!("shown key      {}", member.shown_pubkey))?;
        output.line(format_args!("its number     {}", in_two_lines(&shown.shown_safety_number)))?;
        output.note(format_args!(
            "note: the broker shows another key for {name}, without a statement of the old one; sends to it are refused\n  \
             if its owner confirms the new key: claudemesh verify {} --accept={}",
            member.member_id,
            member.shown_pubkey.get(..16).unwrap_or_default()
        ));
    }
    if !member.name_bound_to.is_empty() {
        output.note(format_args!(
            "note: the name {name} is or was that of another member too (id {}); this one is reached by its key\n  \
             to give it the name for good: claudemesh verify {} --accept",
            member.name_bound_to,
            member.pubkey.get(..MIN_PREFIX_DIGITS).unwrap_or_default()
        ));
    }
    Ok(())
}

fn trust(member: &PinnedMember) -> String {
    match member.pin_state() {
        PinState::Verified => format!("verified on {}", time(member.verified_at.as_ref())),
        PinState::KeyChanged => "the broker shows another key".to_owned(),
        PinState::Revoked => "removed from the mesh".to_owned(),
        PinState::Pinned | PinState::Unspecified if !member.verified_pubkey.is_empty() => {
            "not verified: the key changed since it was; compare the numbers again".to_owned()
        }
        PinState::Pinned | PinState::Unspecified => "seen first here, not verified".to_owned(),
    }
}

/// Whether a certificate leads from the key to the mesh's owner.
fn let_in(member: &PinnedMember) -> &'static str {
    if member.certified { "by the mesh's owner (certified)" } else { "by the broker; nothing shows that the owner did" }
}

/// Twelve groups are more than one line of a terminal takes beside the label.
fn in_two_lines(number: &str) -> String {
    match number.match_indices(' ').nth(5) {
        Some((at, _)) => format!("{}\n               {}", &number[..at], &number[at + 1..]),
        None => number.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::output::tests::Captured;
    use super::*;

    fn shown(member: PinnedMember) -> String {
        let captured = Captured::default();
        let number = (10..22).map(|group| format!("{group}000")).collect::<Vec<_>>().join(" ");
        let response = VerifyPeerResponse {
            safety_number: number.clone(),
            shown_safety_number: if member.shown_pubkey.is_empty() { String::new() } else { number },
            member: Some(member),
        };
        print(&response, &mut captured.output()).unwrap();
        captured.text()
    }

    #[test]
    fn the_number_stands_in_two_lines_of_six_groups() {
        let text = shown(PinnedMember { display_name: "bob".to_owned(), ..PinnedMember::default() });
        assert!(text.contains("10000 11000 12000 13000 14000 15000\n               16000"), "{text}");
        assert!(text.contains("not verified"), "{text}");
    }

    #[test]
    fn a_changed_key_shows_both_keys_and_what_to_do() {
        let text = shown(PinnedMember {
            member_id: "m1".to_owned(),
            pubkey: "ab".repeat(32),
            shown_pubkey: "cd".repeat(32),
            pin_state: PinState::KeyChanged.into(),
            ..PinnedMember::default()
        });
        for part in [&"ab".repeat(32), &"cd".repeat(32), "verify m1 --accept=cdcdcdcdcdcdcdcd"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn a_rotation_takes_the_mark_away_and_says_so() {
        let verified_pubkey = "ab".repeat(32);
        let member = PinnedMember { verified_pubkey, pin_state: PinState::Pinned.into(), ..PinnedMember::default() };
        assert!(trust(&member).contains("changed since"), "{}", trust(&member));
        assert!(trust(&PinnedMember { pin_state: PinState::Verified.into(), ..member }).starts_with("verified on"));
    }
}
