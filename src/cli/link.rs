//! The state of the link to the broker, where a user should know it.

use std::time::Duration;

use super::client::{Client, call_within};
use super::output::safe;
use super::times::{ago, time};
use crate::proto::admin::{GetStatusRequest, LinkState, LinkStatus};
use crate::proto::pb::ErrorDetail;

/// The state is said beside a result; it is not worth waiting for long.
const LIMIT: Duration = Duration::from_secs(2);

/// What is wrong with the daemon's link. `None` while there is a link, and when
/// the daemon does not tell.
pub(super) async fn trouble(client: &Client) -> Option<String> {
    let status = client.lifecycle().get_status(call_within(LIMIT, GetStatusRequest {})).await.ok()?.into_inner();
    describe(&status.link?)
}

/// `no link to the broker since 14:03:22 (3 min ago): connection refused`.
pub(super) fn describe(link: &LinkStatus) -> Option<String> {
    let what = match link.state() {
        LinkState::Connected => return None,
        LinkState::Unspecified => {
            let heard = link.heard_at.as_ref()?;
            let since = format!("{} ({})", time(Some(heard)), ago(Some(heard)));
            return Some(format!(
                "nothing has come from the broker since {since}; whether the link is alive is not known"
            ));
        }
        LinkState::Connecting if link.last_error.is_none() => "the daemon is connecting to the broker",
        LinkState::Connecting | LinkState::Backoff => "no link to the broker",
        LinkState::Closed => "the link to the broker is closed for good",
    };
    let since = link.since.as_ref().filter(|_| link.state() != LinkState::Connecting);
    let since = since.map(|at| format!(" since {} ({})", time(Some(at)), ago(Some(at)))).unwrap_or_default();
    let why = |error: &ErrorDetail| match error.code.as_str() {
        "" => format!(": {}", safe(&error.message)),
        code => format!(": {} ({})", safe(&error.message), safe(code)),
    };
    let why = link.last_error.as_ref().map(why).unwrap_or_default();
    Some(format!("{what}{since}{why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trouble_is_described() {
        let link = |state: LinkState| LinkStatus { state: state.into(), ..LinkStatus::default() };
        assert_eq!(describe(&link(LinkState::Connected)), None);
        assert_eq!(describe(&link(LinkState::Connecting)).unwrap(), "the daemon is connecting to the broker");
        let error = ErrorDetail { message: "refused\u{1b}".to_owned(), ..ErrorDetail::default() };
        let down = LinkStatus { last_error: Some(error), ..link(LinkState::Backoff) };
        assert_eq!(describe(&down).unwrap(), "no link to the broker: refused\u{FFFD}");
    }
}
