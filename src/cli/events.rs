//! `claudemesh events`.

use super::Context;
use super::client::{Client, answer, call};
use super::discovery::DaemonArgs;
use super::failure::Failure;
use super::follow::follow;
use super::inbox;
use super::output::{Output, member_name, recipient_name, safe, time};
use super::style::{self, DIM, styled};
use crate::domain::names;
use crate::proto::pb::stream_events_response::Event;
use crate::proto::pb::{DeliveryStatus, EventType, ListMessagesRequest, StreamEventsRequest, StreamEventsResponse};

/// Messages asked for at once.
const PAGE: u32 = 500;

const EXAMPLES: &str = "\
Examples:
  claudemesh events                      stored messages so far, oldest first
  claudemesh events -f                   what happens from now on
  claudemesh events -f --after 01JX-42   everything since that event, then live
  claudemesh events -f --json --type message --type peer_join

Stored messages have an id; with --after nothing is missed and nothing repeats,
also when the daemon restarts in between.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Go on with what happens, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Only what came after this event
    #[arg(long, value_name = "EVENT_ID")]
    after: Option<String>,
    /// Only events of this type, such as message; can be repeated
    #[arg(long = "type", value_name = "TYPE", value_parser = parse_type, requires = "follow")]
    types: Vec<EventType>,
    /// Print one event a line as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(super) async fn run(args: Args, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let client = Client::serving(context, &args.daemon, "events").await?;
    if args.follow { follow_live(&args, context, client, output).await } else { stored(&args, &client, output).await }
}

/// What the inbox holds; ends at its end.
async fn stored(args: &Args, client: &Client, output: &mut Output) -> Result<(), Failure> {
    let mut page_token = String::new();
    loop {
        let request = ListMessagesRequest {
            after: args.after.clone().unwrap_or_default(),
            limit: PAGE,
            page_token,
            ..ListMessagesRequest::default()
        };
        let page = answer(client.inbox().list_messages(call(request)).await)?;
        for message in page.messages {
            let event = StreamEventsResponse {
                event_id: message.event_id.clone(),
                time: message.received_at,
                event: Some(Event::Message(message)),
            };
            show(args, &event, output)?;
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(());
        }
    }
}

/// What happens from now on, or since an event.
async fn follow_live(args: &Args, context: &Context, client: Client, output: &mut Output) -> Result<(), Failure> {
    let types = args.types.iter().map(|one| i32::from(*one)).collect();
    let after = args.after.clone().unwrap_or_default();
    let request = StreamEventsRequest { types, after, ..StreamEventsRequest::default() };
    follow(context, client, request, output, |event, output| show(args, event, output)).await
}

fn show(args: &Args, event: &StreamEventsResponse, output: &mut Output) -> Result<(), Failure> {
    if args.json {
        return output.json_line(event);
    }
    match describe(event) {
        Some(line) => output.line(line),
        // A kind of event that came after this program.
        None => Ok(()),
    }
}

fn describe(event: &StreamEventsResponse) -> Option<String> {
    let text = match event.event.as_ref()? {
        Event::Message(message) => return Some(inbox::entry(message)),
        Event::FileShared(shared) => return shared.message.as_ref().map(inbox::entry),
        Event::PeerJoin(peer) => {
            format!("{} connected", member_name(&peer.display_name, &peer.pubkey, peer.name_bound))
        }
        Event::PeerLeave(peer) => format!("{} is gone", member_name(&peer.display_name, &peer.pubkey, peer.name_bound)),
        Event::DaemonDisconnect(lost) => format!("the link to the broker was lost: {}", safe(&lost.reason)),
        Event::DaemonReconnect(back) => format!("the link to the broker is back after {} ms", back.away_ms),
        Event::HookExecuted(run) => match run.exit_code {
            Some(code) => format!("hook {} ended with exit code {code}", safe(&run.hook)),
            None => format!("hook {} did not run to its end", safe(&run.hook)),
        },
        Event::FeatureNegotiationFailed(failed) => {
            format!("the broker lacks {}: {}", safe(&failed.feature), safe(&failed.detail))
        }
        Event::Gap(gap) => format!("events are missing here ({})", short(&gap.reason())),
        Event::DeliveryStatus(status) => return Some(delivery(event, status)),
        Event::OutboxPressureHigh(pressure) => {
            format!("the outbox is filling up: {:.0} % ({})", pressure.used_pct, safe(&pressure.measure))
        }
        Event::OutboxPressureCleared(_) => "the outbox has room again".to_owned(),
        Event::MemberKeyChanged(changed) => {
            let name = member_name(&changed.display_name, &changed.pinned_pubkey, changed.name_bound);
            format!("the broker shows another key for {name}; sends to it are refused")
        }
        Event::NameBindingChanged(changed) => {
            format!(
                "another member claims the name {}, which means nobody until you accept it for one",
                names::shown(&changed.name)
            )
        }
        Event::MemberKeypairRotated(rotated) => {
            let name = member_name(&rotated.display_name, &rotated.new_pubkey, rotated.name_bound);
            format!("{name} has a new key")
        }
        Event::MemberRenamed(renamed) => {
            let name = member_name(&renamed.new_name, &renamed.pubkey, renamed.name_bound);
            format!("{} is now {name}", names::shown(&renamed.old_name))
        }
        // Nobody who reads along needs to know where the replay ended.
        Event::CaughtUp(_) => return None,
        Event::MemberRevoked(revoked) => {
            let name = member_name(&revoked.display_name, &revoked.pubkey, revoked.name_bound);
            format!("{name} was removed from the mesh")
        }
        Event::PeerFeatureDowngrade(peer) => {
            let mark = if peer.name_bound { String::new() } else { format!(" (id {})", safe(&peer.member_id)) };
            let name = names::shown(&peer.display_name);
            format!("{name}{mark} is shown without {}", safe(&peer.missing_capabilities.join(", ")))
        }
    };
    Some(format!("{}  {text}", styled(DIM, &time(event.time.as_ref()))))
}

fn delivery(event: &StreamEventsResponse, status: &DeliveryStatus) -> String {
    let to = status.recipient.as_ref().map(|to| format!("  to {}", recipient_name(to))).unwrap_or_default();
    let why = status.error.as_ref().map(|error| format!(": {}", safe(&error.message))).unwrap_or_default();
    let when = styled(DIM, &time(event.time.as_ref()));
    format!("{when}  {}  {}{to}{why}", style::state(&short(&status.status())), safe(&status.client_message_id))
}

/// An enum's short name, as in JSON.
fn short(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn parse_type(text: &str) -> Result<EventType, String> {
    match serde_json::from_value(text.into()) {
        Ok(EventType::Unspecified) => Err("no type of event".to_owned()),
        Ok(known) => Ok(known),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::*;
    use crate::proto::pb::{PeerJoin, SendStatus};

    #[test]
    fn types_are_named_as_in_json() {
        assert_eq!(parse_type("peer_join"), Ok(EventType::PeerJoin));
        assert!(parse_type("peer").unwrap_err().contains("`message`"));
        assert!(parse_type("unspecified").is_err());
    }

    #[test]
    fn events_are_one_line_each() {
        let join = PeerJoin { display_name: "bo\nb".to_owned(), pubkey: "ab".repeat(32), ..PeerJoin::default() };
        let event = StreamEventsResponse { event: Some(Event::PeerJoin(join)), ..StreamEventsResponse::default() };
        let plain = |event: &StreamEventsResponse| strip_str(&describe(event).unwrap()).to_string();
        assert_eq!(plain(&event), "-  bo\u{FFFD}b?abababab connected");
        let status = DeliveryStatus {
            client_message_id: "id-1".to_owned(),
            status: SendStatus::Delivered.into(),
            ..DeliveryStatus::default()
        };
        let event = StreamEventsResponse { event: Some(Event::DeliveryStatus(status)), ..event };
        assert_eq!(plain(&event), "-  delivered  id-1");
        assert_eq!(describe(&StreamEventsResponse::default()), None);
    }
}
