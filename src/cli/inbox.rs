//! `claudemesh inbox`.

use std::time::Duration;

use super::Context;
use super::client::{Client, answer, call};
use super::discovery::DaemonArgs;
use super::failure::Failure;
use super::follow::{begin_after, follow, newest};
use super::output::{Output, member_name, safe, safe_lines, time};
use super::style::{DIM, styled};
use crate::domain::error_code::ErrorCode;
use crate::domain::time::UnixMillis;
use crate::proto::pb::stream_events_response::Event;
use crate::proto::pb::{
    EventType, InboxMessage, ListMessagesRequest, MessageKind, MessageOrder, Priority, StreamEventsRequest,
};
use crate::proto::wkt::Timestamp;

const EXAMPLES: &str = "\
Examples:
  claudemesh inbox                       the newest 20 messages, newest last
  claudemesh inbox --since 2h --from bob
  claudemesh inbox --topic ops --limit 100
  claudemesh inbox -f                    the newest, then what comes in
  claudemesh inbox --json | jq -r '.messages[].body'
  claudemesh inbox -f --json | jq -r .body

With -f nothing is missed and nothing repeats, also when the daemon restarts. -f
and --json together print one message a line.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// How many of the newest messages to show
    #[arg(short = 'n', long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Only messages that came since then: 2h, 30min, 2026-11-23T12:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only messages of this member: name, key, or first 16 or more digits of it
    #[arg(long, value_name = "MEMBER")]
    from: Option<String>,
    /// Only messages of this topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Go on with what comes in, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(super) async fn run(args: Args, context: &Context, output: &mut Output) -> Result<(), Failure> {
    let since = args.since.as_deref().map(|since| parse_since(since, context.clock.now())).transpose()?;
    let client = Client::serving(context, &args.daemon, "events").await?;
    // Before the list: what comes in between is in the one or after the other.
    let place = if args.follow { newest(&client).await? } else { None };
    let request = ListMessagesRequest {
        since,
        topic: args.topic.clone().unwrap_or_default(),
        sender: args.from.clone().unwrap_or_default(),
        limit: args.limit,
        order: MessageOrder::NewestFirst.into(),
        ..ListMessagesRequest::default()
    };
    let mut page = answer(client.inbox().list_messages(call(request.clone())).await)?;
    // A page also ends where its bytes do.
    while page.messages.len() < args.limit as usize && !page.next_page_token.is_empty() {
        let limit = args.limit.saturating_sub(u32::try_from(page.messages.len()).unwrap_or(u32::MAX));
        let page_token = std::mem::take(&mut page.next_page_token);
        let more = ListMessagesRequest { page_token, limit, ..request.clone() };
        let mut more = answer(client.inbox().list_messages(call(more)).await)?;
        page.messages.append(&mut more.messages);
        page.next_page_token = more.next_page_token;
    }
    // Asked for from the new end, shown in the order in which they came.
    page.messages.reverse();
    if args.json && !args.follow {
        return output.json(&page);
    }
    for message in &page.messages {
        show(&args, message, output)?;
    }
    if args.follow {
        let place = page.messages.pop().map(|last| last.event_id).or(place);
        return follow_after(&args, place, context, client, output).await;
    }
    if page.messages.is_empty() {
        output.note("no messages");
    }
    Ok(())
}

/// What comes in after a place, with the filters of the list.
async fn follow_after(
    args: &Args,
    place: Option<String>,
    context: &Context,
    client: Client,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut request = StreamEventsRequest {
        types: [EventType::Message, EventType::FileShared].map(i32::from).to_vec(),
        topic: args.topic.clone().unwrap_or_default(),
        sender: args.from.clone().unwrap_or_default(),
        ..StreamEventsRequest::default()
    };
    begin_after(&mut request, place);
    follow(context, client, request, output, |event, output| match &event.event {
        Some(Event::Message(message)) => show(args, message, output),
        Some(Event::FileShared(shared)) => shared.message.as_ref().map_or(Ok(()), |one| show(args, one, output)),
        Some(Event::Gap(_)) => {
            output.note("note: the inbox was replaced or pruned; what follows begins at its oldest message");
            Ok(())
        }
        _ => Ok(()),
    })
    .await
}

fn show(args: &Args, message: &InboxMessage, output: &mut Output) -> Result<(), Failure> {
    if args.json { output.json_line(message) } else { output.line(entry(message)) }
}

/// One message as people read it: time, sender, where it was sent to, text.
pub(super) fn entry(message: &InboxMessage) -> String {
    let to = match message.kind() {
        MessageKind::Topic => format!(" to #{}", safe(&message.topic)),
        MessageKind::Broadcast => " to everyone".to_owned(),
        MessageKind::Group => " to a group".to_owned(),
        MessageKind::File => " shares a file".to_owned(),
        MessageKind::Direct | MessageKind::Unspecified => String::new(),
    };
    let is_bound = message.provenance.is_some_and(|known| known.name_bound);
    let sender = member_name(&message.sender_name, &message.sender_pubkey, is_bound);
    let urgent = if message.priority() == Priority::Now { " (now)" } else { "" };
    let open = if message.unencrypted { " (unencrypted)" } else { "" };
    let when = styled(DIM, &time(message.received_at.as_ref()));
    format!("{when}  {sender}{to}{urgent}{open}: {}", safe_lines(&message.body))
}

/// A point in time, or a span before now.
fn parse_since(text: &str, now: UnixMillis) -> Result<Timestamp, Failure> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let span: Duration = humantime::parse_duration(text).map_err(|_| {
        Failure::new(ErrorCode::UsageError, format!("--since {text} is no time"))
            .next("use a span such as 90s, 2h or 7d, or a time such as 2026-11-23T12:00:00Z")
    })?;
    let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    Ok(Timestamp::from_unix_ms(now.0.saturating_sub(span).max(0)))
}

#[cfg(test)]
mod tests {
    use anstream::adapter::strip_str;

    use super::*;
    use crate::proto::pb::Provenance;

    #[test]
    fn since_is_a_span_or_a_time() {
        let now = UnixMillis(1_800_000_000_000);
        assert_eq!(parse_since("2h", now).unwrap().to_unix_ms(), Some(now.0 - 7_200_000));
        assert_eq!(parse_since("1970-01-01T00:00:01Z", now).unwrap().to_unix_ms(), Some(1000));
        assert_eq!(parse_since("9999y", now).unwrap().to_unix_ms(), Some(0));
        assert_eq!(parse_since("yesterday", now).unwrap_err().exit(), 2);
    }

    #[test]
    fn an_entry_tells_who_to_whom_and_how_safely() {
        let provenance = Some(Provenance { name_bound: true, ..Provenance::default() });
        let message = InboxMessage {
            sender_name: "bob\u{1b}".to_owned(),
            sender_pubkey: "f8ac1d51".repeat(8),
            provenance,
            body: "one\ntwo".to_owned(),
            kind: MessageKind::Topic.into(),
            topic: "ops".to_owned(),
            unencrypted: true,
            ..InboxMessage::default()
        };
        let plain = |message: &InboxMessage| strip_str(&entry(message)).to_string();
        assert_eq!(plain(&message), "-  bob\u{FFFD} to #ops (unencrypted): one\n  two");
        let unbound = InboxMessage { provenance: Some(Provenance::default()), ..message };
        assert_eq!(plain(&unbound), "-  bob\u{FFFD}?f8ac1d51 to #ops (unencrypted): one\n  two");
        let unnamed = InboxMessage { sender_pubkey: "ab".repeat(32), ..InboxMessage::default() };
        assert_eq!(plain(&unnamed), "-  abababababababab: ");
    }
}
