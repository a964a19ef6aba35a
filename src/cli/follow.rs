//! Following a daemon's events, also over its restarts.

use std::time::Duration;

use tonic::{Code, Request, Status};

use super::client::{Client, answer, call};
use super::failure::Failure;
use super::output::Output;
use super::{Context, exit_code};
use crate::domain::error_code::ErrorCode;
use crate::proto::pb::{
    GetHealthRequest, HealthState, ListMessagesRequest, MessageOrder, StreamEventsRequest, StreamEventsResponse,
};

/// Pauses between attempts to reach a daemon that restarts.
const RETRY: [Duration; 4] =
    [Duration::from_millis(100), Duration::from_millis(300), Duration::from_millis(600), Duration::from_secs(1)];

/// Shows what the request asks for, until the caller is interrupted. Over a
/// restart of the daemon it goes on after the last stored message that was
/// shown, so that none is missed and none repeated.
pub(super) async fn follow(
    context: &Context,
    mut client: Client,
    mut request: StreamEventsRequest,
    output: &mut Output,
    mut show: impl FnMut(&StreamEventsResponse, &mut Output) -> Result<(), Failure>,
) -> Result<(), Failure> {
    loop {
        let ended = stream(context, &client, &mut request, output, &mut show).await?;
        if let Some(status) = ended.filter(|status| !is_restart(status)) {
            return Err(exit_code::of_status(&status));
        }
        output.note("note: the daemon stopped; waiting for it to come back");
        client = back(context, &client).await?;
    }
}

/// The place after which everything is new: that of the newest stored message.
/// `None` while nothing is stored.
pub(super) async fn newest(client: &Client) -> Result<Option<String>, Failure> {
    let order = MessageOrder::NewestFirst.into();
    let request = ListMessagesRequest { limit: 1, order, ..ListMessagesRequest::default() };
    let page = answer(client.inbox().list_messages(call(request)).await)?;
    Ok(page.messages.into_iter().next().map(|message| message.event_id))
}

/// Begins a request after a place; at the very beginning without one.
pub(super) fn begin_after(request: &mut StreamEventsRequest, place: Option<String>) {
    request.from_start = place.is_none();
    request.after = place.unwrap_or_default();
}

/// The same daemon again, as soon as it answers.
pub(super) async fn back(context: &Context, gone: &Client) -> Result<Client, Failure> {
    let mut failures = 0_usize;
    loop {
        tokio::time::sleep(RETRY[failures.min(RETRY.len() - 1)]).await;
        failures += 1;
        match gone.again(context).await {
            Ok(client) if is_serving(&client).await => return Ok(client),
            Ok(_) => {}
            Err(failure) if is_absent(&failure) => {}
            Err(failure) => return Err(failure),
        }
    }
}

/// Not one that is about to end: it takes connections, too.
async fn is_serving(client: &Client) -> bool {
    match client.control().get_health(call(GetHealthRequest {})).await {
        Ok(health) => health.get_ref().state() != HealthState::Stopping,
        Err(status) => status.code() == Code::Unimplemented,
    }
}

/// Whether a call ended because the daemon did, and not because of the request.
pub(super) fn is_restart(status: &Status) -> bool {
    let broken = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Internal | Code::Cancelled);
    let code = exit_code::of_status(status);
    code.code() == ErrorCode::DaemonShuttingDown.name() || (broken && code.code() == ErrorCode::DaemonNotRunning.name())
}

/// One connection's events. Returns why it ended; `None` when the daemon closed
/// it in order.
async fn stream(
    context: &Context,
    client: &Client,
    request: &mut StreamEventsRequest,
    output: &mut Output,
    show: &mut impl FnMut(&StreamEventsResponse, &mut Output) -> Result<(), Failure>,
) -> Result<Option<Status>, Failure> {
    let mut events = match client.events().stream_events(Request::new(request.clone())).await {
        Ok(response) => response.into_inner(),
        Err(status) => return Ok(Some(status)),
    };
    context.tell_other_version(client.mesh(), output);
    loop {
        match events.message().await {
            Ok(Some(event)) => {
                show(&event, output)?;
                if !event.event_id.is_empty() {
                    begin_after(request, Some(event.event_id));
                }
            }
            Ok(None) => return Ok(None),
            Err(status) => return Ok(Some(status)),
        }
    }
}

/// Not there, or there and not answering yet.
pub(super) fn is_absent(failure: &Failure) -> bool {
    [ErrorCode::DaemonNotRunning, ErrorCode::DeadlineExceeded].iter().any(|code| code.name() == failure.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_daemons_end_is_waited_for() {
        assert!(is_restart(&Status::unavailable("broken pipe")));
        assert!(is_restart(&Status::unknown("transport error")));
        assert!(!is_restart(&Status::invalid_argument("after")));
        assert!(!is_restart(&Status::unimplemented("x")));
    }

    #[test]
    fn a_stream_begins_after_a_place_or_at_the_beginning() {
        let mut request = StreamEventsRequest::default();
        begin_after(&mut request, None);
        assert!(request.from_start && request.after.is_empty());
        begin_after(&mut request, Some("G-1".to_owned()));
        assert_eq!((request.from_start, request.after.as_str()), (false, "G-1"));
    }
}
