//! `claudemesh send`.
//!
//! What it is for: one message, queued; with `--wait` watched until the broker or
//! the receiver has it.
//! What runs here: one command.
//! What it guarantees: the id is minted before the first attempt, so that a
//! repeat is the same message; no word claims more than is known.
//! What it must not do: wait for the broker without being asked.

mod input;
mod wait;

use std::time::Duration;

use tonic::Code;

use super::client::{Client, answer, call};
use super::discovery::DaemonArgs;
use super::failure::Failure;
use super::output::{Output, recipient_name, safe};
use super::times::parse_span;
use super::{Context, link, style};
use crate::domain::error_code::ErrorCode;
use crate::proto::pb::{Priority, SendRequest, SendResponse, SendStatus};
use crate::proto::wkt::Struct;

const EXAMPLES: &str = "\
Examples:
  claudemesh send bob 'the build is green'
  claudemesh send '#ops' 'deploying now' --priority now
  git diff | claudemesh send bob -
  claudemesh send bob hi --id release-42    repeating it sends it once
  claudemesh send bob hi --wait delivered --timeout 5min

The receiver is a member's name, its key (64 hex digits) or the first 16 or more
digits of it, or `#topic`, which posts to the topic and can be waited for until it
is accepted: its subscribers store a post each in their own time.

Ends with exit code 0 when the message is queued, or came as far as --wait says; 1
when it was refused or given up; 6 when --timeout was over first: the message
stays queued then, and goes out by itself.";

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Who gets it
    to: String,
    /// The text; `-` reads it from standard input
    message: String,
    /// How urgent it is for the receiver
    #[arg(long, value_enum, default_value_t = PriorityArg::Next)]
    priority: PriorityArg,
    /// The id of this send: a second send with it is the same message
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// The id of the message that this one answers
    #[arg(long, value_name = "ID")]
    reply_to: Option<String>,
    /// Data for the receiver, a JSON object
    #[arg(long, value_name = "JSON")]
    meta: Option<String>,
    /// Draw the attention of a member: its name or key; up to 16 times
    #[arg(long, value_name = "MEMBER")]
    mention: Vec<String>,
    /// Let the text leave this host unencrypted where it cannot be sealed
    #[arg(long)]
    allow_unencrypted: bool,
    /// Wait until the broker (accepted) or the receiver (delivered) has it
    #[arg(long, value_name = "STATE", value_enum)]
    wait: Option<wait::Until>,
    /// How long to wait at most: 30s, 5min, 2h
    #[arg(long, value_name = "SPAN", default_value = "30s", requires = "wait", allow_hyphen_values = true, value_parser = parse_span)]
    timeout: Duration,
    /// Print the daemon's answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(in crate::cli) enum PriorityArg {
    /// Interrupts the receiver
    Now,
    /// Read at the next opportunity
    Next,
    /// Read when there is nothing else to do
    Low,
}

// === impl PriorityArg ===

impl From<PriorityArg> for i32 {
    fn from(priority: PriorityArg) -> Self {
        match priority {
            PriorityArg::Now => Priority::Now,
            PriorityArg::Next => Priority::Next,
            PriorityArg::Low => Priority::Low,
        }
        .into()
    }
}

/// The text as it was given, or from standard input.
pub(in crate::cli) fn read_message(text: &str, output: &mut Output) -> Result<String, Failure> {
    if text == "-" { input::read(output) } else { Ok(text.to_owned()) }
}

pub(super) async fn run(args: Args, context: &Context, output: &mut Output) -> Result<(), Failure> {
    if args.wait == Some(wait::Until::Delivered) && args.to.starts_with('#') {
        let what = "--wait delivered is not for topics: each subscriber stores a post in its own time";
        return Err(Failure::new(ErrorCode::UsageError, what)
            .next("use --wait accepted; `claudemesh outbox status ID` tells how many have stored it"));
    }
    let message = read_message(&args.message, output)?;
    let request = request(&args, message, context)?;
    let client = Client::serving(context, &args.daemon, "send").await?;
    if let Some(until) = args.wait {
        return wait::run(until, &args, &request, context, client, output).await;
    }
    let response = send(&client, &request).await?;
    report(&args, &response, output).map_err(|failure| unsaid(failure, &response.client_message_id))?;
    tell_trouble(&args, &response, &client, output).await;
    Ok(())
}

/// A result that could not be printed; the message is queued all the same.
pub(in crate::cli) fn unsaid(failure: Failure, client_message_id: &str) -> Failure {
    let id = safe(client_message_id);
    failure.with("client_message_id", id.as_str()).next(format!("the message is queued: its id is {id}"))
}

/// Says why a queued message does not go out. Only a daemon without a link does
/// not know whether the receiver is connected: nobody else is asked.
async fn tell_trouble(args: &Args, response: &SendResponse, client: &Client, output: &mut Output) {
    if args.json || response.duplicate || response.recipient_online.is_some() {
        return;
    }
    if let Some(trouble) = link::trouble(client).await {
        output.note(format_args!("note: {trouble}\n  the message is on disk here and goes out when the link is back"));
    }
}

/// The data of `--meta`.
pub(in crate::cli) fn meta(text: Option<&str>) -> Result<Option<Struct>, Failure> {
    text.map(serde_json::from_str).transpose().map_err(|error| {
        Failure::new(ErrorCode::UsageError, format!("--meta is not a JSON object: {error}"))
            .next("such as --meta '{\"ticket\": 42}'")
    })
}

fn request(args: &Args, message: String, context: &Context) -> Result<SendRequest, Failure> {
    Ok(SendRequest {
        mentions: args.mention.clone(),
        to: args.to.clone(),
        message,
        priority: args.priority.into(),
        meta: meta(args.meta.as_deref())?,
        reply_to_id: args.reply_to.clone().unwrap_or_default(),
        // Minted here, so that a repeat after a broken connection is the same
        // message and not a second one.
        client_message_id: args.id.clone().unwrap_or_else(|| context.ids.ulid()),
        allow_unencrypted: args.allow_unencrypted,
    })
}

/// Sends, and repeats once when the connection broke on the way: the id makes
/// that safe.
async fn send(client: &Client, request: &SendRequest) -> Result<SendResponse, Failure> {
    let first = client.messaging().send(call(request.clone())).await;
    let result = match first {
        Err(status) if is_broken(status.code()) && status.details().is_empty() => {
            client.messaging().send(call(request.clone())).await
        }
        other => other,
    };
    let unknown = |code: Code| is_broken(code) || matches!(code, Code::DeadlineExceeded | Code::Cancelled);
    let is_unknown = result.as_ref().is_err_and(|status| unknown(status.code()) && status.details().is_empty());
    answer(result).map_err(|failure| {
        if is_unknown {
            let id = &request.client_message_id;
            failure.next(format!("it may be queued; repeat the command with --id {id}, which cannot send it twice"))
        } else {
            failure
        }
    })
}

/// Whether the connection broke; the library has several names for that.
fn is_broken(code: Code) -> bool {
    matches!(code, Code::Unavailable | Code::Unknown | Code::Internal)
}

fn report(args: &Args, response: &SendResponse, output: &mut Output) -> Result<(), Failure> {
    if args.json {
        return output.json(response);
    }
    let name = receiver(args, response);
    let known = if response.duplicate { "  (the same send as before)" } else { "" };
    let state = style::state(word(status(response)));
    output.line(format_args!("{state}  {}  to {name}{known}", response.client_message_id))?;
    if !response.degraded.is_empty() {
        let lost = response.degraded.join(", ");
        output.note(format_args!("note: {name} runs an older version and will not see: {}", safe(&lost)));
    }
    // Of a repeat it is not known: what was accepted once may have ended since.
    if response.recipient_online == Some(false) && !response.duplicate && status(response) != SendStatus::Delivered {
        output.note(format_args!("note: {name} is offline; the message waits for it"));
    }
    Ok(())
}

/// The receiver as people know it.
fn receiver(args: &Args, response: &SendResponse) -> String {
    let known = response.recipient.as_ref().filter(|to| !to.name.is_empty());
    known.map_or_else(|| safe(&args.to), recipient_name)
}

/// How far a message is, by the daemon's answer.
fn status(response: &SendResponse) -> SendStatus {
    if response.delivered_at.is_some() { SendStatus::Delivered } else { response.status() }
}

/// The promise that holds, in one word.
pub(in crate::cli) fn word(status: SendStatus) -> &'static str {
    match status {
        SendStatus::Inflight => "inflight",
        SendStatus::Accepted => "accepted",
        SendStatus::Delivered => "delivered",
        SendStatus::Rejected => "rejected",
        SendStatus::Expired => "expired",
        SendStatus::Dead => "dead",
        SendStatus::Aborted => "aborted",
        SendStatus::Queued | SendStatus::Unspecified => "queued",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::tests::Captured;
    use crate::proto::pb::{MessageKind, Recipient};

    fn args(to: &str) -> Args {
        Args {
            to: to.to_owned(),
            message: "hi".to_owned(),
            priority: PriorityArg::Now,
            id: Some("release-42".to_owned()),
            mention: Vec::new(),
            reply_to: None,
            meta: Some(r#"{"ticket": 42}"#.to_owned()),
            allow_unencrypted: false,
            wait: None,
            timeout: Duration::ZERO,
            json: false,
            daemon: DaemonArgs::default(),
        }
    }

    fn response(status: SendStatus) -> SendResponse {
        SendResponse {
            client_message_id: "release-42".to_owned(),
            status: status.into(),
            recipient: Some(Recipient { name: "Bob".to_owned(), ..Recipient::default() }),
            ..SendResponse::default()
        }
    }

    #[test]
    fn the_answer_is_a_promise_and_an_id() {
        let captured = Captured::default();
        report(&args("bob"), &response(SendStatus::Queued), &mut captured.output()).unwrap();
        let topic = Recipient { kind: MessageKind::Topic.into(), name: "ops".to_owned(), ..Recipient::default() };
        let post = SendResponse { recipient: Some(topic), ..response(SendStatus::Accepted) };
        report(&args("#ops"), &post, &mut captured.output()).unwrap();
        let offline = SendResponse { recipient_online: Some(false), ..response(SendStatus::Inflight) };
        report(&args("bob"), &offline, &mut captured.output()).unwrap();
        report(&args("bob"), &SendResponse { duplicate: true, ..offline }, &mut captured.output()).unwrap();
        assert_eq!(
            captured.text(),
            "queued  release-42  to Bob\n\
             accepted  release-42  to #ops\n\
             inflight  release-42  to Bob\n\
             note: Bob is offline; the message waits for it\n\
             inflight  release-42  to Bob  (the same send as before)\n"
        );
        let delivered_at = Some(crate::proto::wkt::Timestamp::default());
        let done = SendResponse { duplicate: true, delivered_at, ..response(SendStatus::Accepted) };
        let captured = Captured::default();
        report(&args("bob"), &done, &mut captured.output()).unwrap();
        assert_eq!(captured.text(), "delivered  release-42  to Bob  (the same send as before)\n");
    }

    #[test]
    fn json_is_the_daemons_answer() {
        let captured = Captured::default();
        let json = Args { json: true, ..args("bob") };
        report(&json, &response(SendStatus::Queued), &mut captured.output()).unwrap();
        let printed: serde_json::Value = serde_json::from_str(&captured.text()).unwrap();
        assert_eq!(printed["status"], "queued");
        assert_eq!(printed["recipient"]["name"], "Bob");
    }

    #[test]
    fn every_flag_reaches_the_request() {
        let context = Context::of_process();
        let full = Args { reply_to: Some("r".to_owned()), allow_unencrypted: true, ..args("bob") };
        let request = request(&full, "hi".to_owned(), &context).unwrap();
        assert_eq!((request.to.as_str(), request.message.as_str()), ("bob", "hi"));
        assert_eq!(request.priority(), Priority::Now);
        assert_eq!((request.client_message_id.as_str(), request.reply_to_id.as_str()), ("release-42", "r"));
        assert_eq!(serde_json::to_value(&request.meta).unwrap(), serde_json::json!({"ticket": 42}));
        assert!(request.allow_unencrypted);
        let minted = super::request(&Args { id: None, ..args("bob") }, String::new(), &context).unwrap();
        assert_eq!(minted.client_message_id.len(), 26);
        let wrong = Args { meta: Some("[1]".to_owned()), ..args("bob") };
        assert_eq!(super::request(&wrong, String::new(), &context).unwrap_err().exit(), 2);
    }
}
