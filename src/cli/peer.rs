//! `claudemesh peer`.

use super::client::{Client, answer, call};
use super::discovery::DaemonArgs;
use super::failure::Failure;
use super::output::{Output, member_name, safe, time};
use super::style::state;
use super::times::ago;
use super::{Context, link};
use crate::proto::pb::{ListPeersRequest, ListPeersResponse, Peer, PeerStatus, PinState, Provenance};

/// Members asked for at once: the most that a page holds.
const PAGE: u32 = 1000;

const EXAMPLES: &str = "\
Examples:
  claudemesh peer list
  claudemesh peer list --online --json | jq -r '.peers[].display_name'

Any member can be sent to, offline ones too: the message waits.";

#[derive(Debug, clap::Subcommand)]
pub(super) enum Verb {
    /// List the members of the mesh
    List(ListArgs),
}

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ListArgs {
    /// Without members that are known to be away
    #[arg(long)]
    online: bool,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(super) async fn run(verb: Verb, context: &Context, output: &mut Output) -> Result<(), Failure> {
    match verb {
        Verb::List(args) => list(args, context, output).await,
    }
}

async fn list(args: ListArgs, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let client = Client::serving(context, &args.daemon, "peers").await?;
    let all = all_pages(&client, args.online).await?;
    if args.json {
        return output.json(&all);
    }
    let trouble = link::trouble(&client).await;
    let rows = all.peers.iter().map(row).collect();
    output.table(["NAME", "KEY", "STATUS", "LAST SEEN", "DOING"], rows)?;
    match (trouble, all.presence_as_of.as_ref()) {
        (None, _) if all.peers.iter().all(|peer| peer.online.is_some()) => {}
        (None, _) => output.note("note: who is online is not known; the broker has not said yet"),
        (Some(trouble), None) => output.note(format_args!("note: {trouble}\n  who is online is not known")),
        (Some(trouble), at) => output.note(format_args!(
            "note: {trouble}\n  who is online is not known; the broker last said at {} ({})",
            time(at),
            ago(at)
        )),
    }
    Ok(())
}

async fn all_pages(client: &Client, online: bool) -> Result<ListPeersResponse, Failure> {
    let mut all = ListPeersResponse::default();
    loop {
        let request = ListPeersRequest {
            include_offline: !online,
            limit: PAGE,
            page_token: std::mem::take(&mut all.next_page_token),
            ..ListPeersRequest::default()
        };
        let page = answer(client.peers().list_peers(call(request)).await)?;
        all.peers.extend(page.peers);
        all.presence_as_of = page.presence_as_of;
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        all.next_page_token = page.next_page_token;
    }
}

fn row(peer: &Peer) -> [String; 5] {
    let own = match pin_state(peer) {
        _ if peer.is_self => " (you)",
        PinState::Verified => " (verified)",
        _ => "",
    };
    let is_bound = peer.provenance.is_some_and(|known| known.name_bound);
    [
        format!("{}{own}", member_name(&peer.display_name, &peer.pubkey, is_bound)),
        // As many digits as `send` takes for a member.
        peer.pubkey.chars().take(16).collect(),
        state(status(peer)),
        if peer.online() { "now".to_owned() } else { ago(peer.last_seen_at.as_ref()) },
        safe(&peer.summary),
    ]
}

/// What matters most about a member: trouble with its key, then presence.
fn status(peer: &Peer) -> &'static str {
    match pin_state(peer) {
        PinState::KeyChanged => return "key changed",
        PinState::Revoked => return "removed",
        PinState::Pinned | PinState::Verified | PinState::Unspecified => {}
    }
    match peer.status() {
        _ if peer.online.is_none() => "unknown",
        _ if !peer.online() => "offline",
        PeerStatus::Working => "working",
        PeerStatus::Dnd => "dnd",
        PeerStatus::Idle => "idle",
        PeerStatus::Unspecified => "online",
    }
}

fn pin_state(peer: &Peer) -> PinState {
    peer.provenance.as_ref().map(Provenance::pin_state).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_shows_trouble_before_presence() {
        let pinned = |state: PinState, name_bound| {
            Some(Provenance { pin_state: state.into(), name_bound, ..Provenance::default() })
        };
        let peer = Peer {
            display_name: "bob".to_owned(),
            pubkey: "ab".repeat(32),
            online: Some(true),
            status: PeerStatus::Working.into(),
            provenance: pinned(PinState::Pinned, true),
            ..Peer::default()
        };
        assert_eq!(row(&peer), ["bob", "abababababababab", "working", "now", ""]);
        let offline = Peer { online: Some(false), is_self: true, ..peer.clone() };
        assert_eq!(row(&offline), ["bob (you)", "abababababababab", "\u{1b}[2moffline\u{1b}[0m", "-", ""]);
        assert_eq!(status(&Peer { online: None, ..peer.clone() }), "unknown");
        let verified = Peer { provenance: pinned(PinState::Verified, true), ..peer.clone() };
        assert_eq!(row(&verified)[0], "bob (verified)");
        let unbound = Peer { provenance: pinned(PinState::Pinned, false), ..peer.clone() };
        assert_eq!(row(&unbound)[0], "bob?abababab");
        let changed = Peer { provenance: pinned(PinState::KeyChanged, true), online: None, ..peer };
        assert_eq!(status(&changed), "key changed");
    }
}
