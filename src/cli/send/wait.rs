//! `send --wait`: the message is watched on its way.
//!
//! The daemon's events are subscribed to before the message is queued, so that
//! none about it is missed. Where they may have been missed all the same (the
//! daemon was restarted, or the subscriber too slow) the send is repeated: its id
//! makes that a question, and the answer tells how far it is.

use std::time::Duration;

use tokio::time::Instant;
use tonic::{Request, Streaming};

use super::{Args, receiver, report, send, status, tell_trouble, word};
use crate::cli::client::Client;
use crate::cli::failure::Failure;
use crate::cli::output::{Output, safe};
use crate::cli::{Context, exit_code, follow, link, style};
use crate::domain::error_code::ErrorCode;
use crate::proto::pb::stream_events_response::Event;
use crate::proto::pb::{
    DeliveryStatus, EventType, GetSendRequest, SendRequest, SendResponse, SendStatus, StreamEventsRequest,
    StreamEventsResponse,
};
use crate::proto::wkt::Timestamp;

/// An accepted message whose delivery is being written down at this moment is
/// asked for once more after this time.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Longer than anybody waits, and short enough to be added to a time.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Until {
    /// The broker has it
    Accepted,
    /// The receiver's daemon has stored it
    Delivered,
}

/// A message on its way.
struct Watch<'a> {
    until: Until,
    args: &'a Args,
    request: &'a SendRequest,
    client: Client,
    /// What is known of it.
    answer: SendResponse,
}

pub(super) async fn run(
    until: Until,
    args: &Args,
    request: &SendRequest,
    context: &Context,
    client: Client,
    output: &mut Output,
) -> Result<(), Failure> {
    let end = Instant::now() + args.timeout.min(LONGEST);
    let (client, events, answer) = begin_to_watch(client, request, context, end).await?;
    if !args.json {
        report(args, &answer, output)?;
        tell_trouble(args, &answer, &client, output).await;
    }
    let mut watch = Watch { until, args, request, client, answer };
    let reached = tokio::time::timeout_at(end, watch.until_reached(events, context, output)).await;
    match reached {
        Ok(Ok(())) if args.json => {
            watch.answer.status = status(&watch.answer).into();
            output.json(&watch.answer)
        }
        Ok(result) => result,
        Err(_) => Err(watch.timed_out().await),
    }
}

/// Subscribes, then queues the message; over an end of the daemon too. One that
/// was killed before it answered may have queued it, and the id keeps the repeat
/// from being a second message.
async fn begin_to_watch(
    mut client: Client,
    request: &SendRequest,
    context: &Context,
    end: Instant,
) -> Result<(Client, Streaming<StreamEventsResponse>, SendResponse), Failure> {
    loop {
        let begun = async {
            let events = subscribe(&client).await?;
            Ok((events, send(&client, request).await?))
        };
        let failure = match begun.await {
            Ok((events, answer)) => return Ok((client, events, answer)),
            Err(failure) => failure,
        };
        if !follow::is_absent(&failure) && failure.code() != ErrorCode::DaemonShuttingDown.name() {
            return Err(failure);
        }
        client = match tokio::time::timeout_at(end, follow::back(context, &client)).await {
            Ok(back) => back?,
            Err(_) => return Err(failure),
        };
    }
}

// === impl Watch ===

impl Watch<'_> {
    async fn until_reached(
        &mut self,
        mut events: Streaming<StreamEventsResponse>,
        context: &Context,
        output: &mut Output,
    ) -> Result<(), Failure> {
        let mut ask_again = self.answer.duplicate;
        while !self.is_reached() {
            let event = tokio::select! {
                event = events.message() => event,
                () = tokio::time::sleep(ASK_AGAIN), if ask_again => {
                    ask_again = false;
                    self.ask(output).await?;
                    continue;
                }
            };
            match event.map(|event| event.and_then(|event| Some((event.time, event.event?)))) {
                Ok(Some((at, Event::DeliveryStatus(news))))
                    if news.client_message_id == self.answer.client_message_id =>
                {
                    self.take(&news, at, output)?;
                }
                // Some news was left out.
                Ok(Some((_, Event::Gap(_)))) => self.ask(output).await?,
                Ok(Some(_)) => {}
                Err(status) if !follow::is_restart(&status) => return Err(exit_code::of_status(&status)),
                Ok(None) | Err(_) => {
                    self.client = follow::back(context, &self.client).await?;
                    events = subscribe(&self.client).await?;
                    self.ask(output).await?;
                }
            }
        }
        Ok(())
    }

    fn is_reached(&self) -> bool {
        let far = rank(status(&self.answer));
        match self.until {
            Until::Accepted => far >= rank(SendStatus::Accepted),
            Until::Delivered => far >= rank(SendStatus::Delivered),
        }
    }

    /// Asks how far it is, by sending it again under its id.
    async fn ask(&mut self, output: &mut Output) -> Result<(), Failure> {
        let before = status(&self.answer);
        let answer = send(&self.client, self.request).await?;
        if rank(status(&answer)) > rank(before) {
            // Whether this command's send was a repeat was told by its first answer.
            self.answer = SendResponse { duplicate: self.answer.duplicate, ..answer };
            self.tell(output)?;
        }
        if self.until == Until::Delivered { self.check_ended().await } else { Ok(()) }
    }

    /// Fails when its receiver will not have it, which no answer to a send tells.
    async fn check_ended(&self) -> Result<(), Failure> {
        let id = self.answer.client_message_id.clone();
        let asked = self.client.messaging().get_send(Request::new(GetSendRequest { client_message_id: id })).await;
        // Where this is not served the news are waited for.
        let Ok(sent) = asked.map(tonic::Response::into_inner) else { return Ok(()) };
        let (id, name) = (&self.answer.client_message_id, receiver(self.args, &self.answer));
        let code = match sent.status() {
            SendStatus::Rejected => ErrorCode::MessageRejected,
            SendStatus::Expired => ErrorCode::DeliveryExpired,
            _ => return Ok(()),
        };
        let error = sent.error.unwrap_or_default();
        let text = format!("the message {id} to {name} does not arrive: {}", safe(&error.message));
        let failure = Failure::new(code, text).with("client_message_id", id.as_str());
        Err(error.metadata.iter().fold(failure, |failure, (name, value)| failure.with(name, value.as_str())))
    }

    /// Takes news about it.
    fn take(&mut self, news: &DeliveryStatus, at: Option<Timestamp>, output: &mut Output) -> Result<(), Failure> {
        let id = &self.answer.client_message_id;
        let name = receiver(self.args, &self.answer);
        let why = news.error.as_ref().map(|error| format!(": {}", safe(&error.message))).unwrap_or_default();
        let failed = |code: ErrorCode, what: &str| {
            let text = format!("the message {id} to {name} {what}{why}");
            let facts = news.error.iter().flat_map(|error| &error.metadata);
            let failure = Failure::new(code, text).with("client_message_id", id.as_str());
            Err(facts.fold(failure, |failure, (name, value)| failure.with(name, value.as_str())))
        };
        match news.status() {
            SendStatus::Dead => failed(ErrorCode::OutboxDeadFingerprintMatch, "was given up"),
            SendStatus::Aborted => failed(ErrorCode::OutboxAbortedFingerprintMatch, "was aborted by the operator"),
            // The broker had it, which is what was waited for, or is not enough.
            SendStatus::Rejected if self.until == Until::Delivered => {
                failed(ErrorCode::MessageRejected, "was set aside by its receiver")
            }
            SendStatus::Expired if self.until == Until::Delivered => {
                failed(ErrorCode::DeliveryExpired, "was not taken by its receiver in time")
            }
            further if rank(further) > rank(status(&self.answer)) => {
                self.answer.status = further.into();
                self.answer.delivered_at = at.filter(|_| further == SendStatus::Delivered);
                for (known, told) in [
                    (&mut self.answer.broker_message_id, &news.broker_message_id),
                    (&mut self.answer.history_id, &news.history_id),
                ] {
                    if !told.is_empty() {
                        known.clone_from(told);
                    }
                }
                self.tell(output)
            }
            _ => Ok(()),
        }
    }

    /// One more line for people; JSON is printed once, at the end.
    fn tell(&self, output: &mut Output) -> Result<(), Failure> {
        if self.args.json {
            return Ok(());
        }
        let state = style::state(word(status(&self.answer)));
        let name = receiver(self.args, &self.answer);
        output.line(format_args!("{state}  {}  to {name}", self.answer.client_message_id))
    }

    async fn timed_out(&self) -> Failure {
        let (id, name) = (&self.answer.client_message_id, receiver(self.args, &self.answer));
        let limit = humantime::format_duration(self.args.timeout);
        let state = word(status(&self.answer));
        let wanted = match self.until {
            Until::Accepted => "accepted by the broker",
            Until::Delivered => "delivered",
        };
        let text = format!("the message {id} to {name} was not {wanted} within {limit}; it is {state}");
        let mut failure =
            Failure::new(ErrorCode::WaitTimeout, text).with("client_message_id", id.as_str()).with("status", state);
        if let Some(trouble) = link::trouble(&self.client).await {
            failure = failure.next(trouble);
        } else if self.answer.recipient_online == Some(false) {
            failure = failure.next(format!("{name} was offline when it was sent"));
        }
        failure
            .next("nothing is lost: it goes on by itself")
            .next(format!("wait on: repeat the command with --id {id}, which cannot send it twice"))
            .next("or follow it: claudemesh events -f --type delivery_status")
    }
}

/// From now on, what becomes of own sends.
async fn subscribe(client: &Client) -> Result<Streaming<StreamEventsResponse>, Failure> {
    let types = vec![EventType::DeliveryStatus.into()];
    let request = StreamEventsRequest { types, ..StreamEventsRequest::default() };
    let response = client.events().stream_events(Request::new(request)).await;
    response.map(tonic::Response::into_inner).map_err(|status| exit_code::of_status(&status))
}

/// How far a state is on the way. What ended the way has its own handling.
fn rank(status: SendStatus) -> u8 {
    match status {
        SendStatus::Unspecified | SendStatus::Dead | SendStatus::Aborted => 0,
        SendStatus::Queued => 1,
        SendStatus::Inflight => 2,
        SendStatus::Accepted | SendStatus::Expired | SendStatus::Rejected => 3,
        SendStatus::Delivered => 4,
    }
}
