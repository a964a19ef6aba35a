//! Every call, implemented once on the API's types.
//!
//! What it is for: the folders `grpc` and `rest` only bring requests here and
//! answers back, so that both transports do the same (R106). A file is named as
//! the service that it implements.
//! What runs here: nothing of its own; streams live with their connection.
//! What it guarantees: what a caller wrote is checked before it is used, and
//! what cannot be done is a failure with a stable code.
//! What it must not do: know a transport.

pub mod control;
pub mod events;
pub mod hooks;
pub mod inbox;
pub mod keys;
pub mod lifecycle;
pub mod messaging;
pub mod outbox;
pub mod peers;
mod pre_send;
pub mod topics;

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::Deps;
use super::limits::Limits;
use super::link::LinkView;
use super::status::Failure;
use crate::domain::error_code::ErrorCode;
use crate::domain::message::Destination;
use crate::domain::roster;
use crate::runtime::task_kind::Phase;

/// All services. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Services(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    deps: Deps,
    limits: Limits,
    link: LinkView,
}

// === impl Services ===

impl Services {
    /// The services of a daemon.
    pub fn new(deps: Deps, limits: Limits, link: LinkView) -> Self {
        Self(Arc::new(Inner { deps, limits, link }))
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Whether new work is refused.
    pub fn is_stopping(&self) -> bool {
        self.0.deps.supervisor.token(Phase::Ingress).is_cancelled()
    }

    /// The signal on which open streams end.
    fn streams_stop(&self) -> CancellationToken {
        self.0.deps.supervisor.token(Phase::Streams)
    }

    /// The id of the member that a filter means.
    fn sender(&self, field: &'static str, text: &str) -> Result<String, Failure> {
        let destination = Destination::parse(text).map_err(|error| Failure::field(field, error.to_string()))?;
        if !matches!(destination, Destination::Key(_) | Destination::NameOrPrefix(_)) {
            return Err(Failure::field(field, "it must be a member's key, name or key prefix"));
        }
        // Also of someone to whom nothing may be sent.
        let members = self.0.deps.peers.members();
        Ok(roster::find(&destination, &members)?.member_id.to_string())
    }

    /// The name of the topic that a filter means; `None` without a filter. Known is
    /// one that this member is subscribed to or has messages of.
    async fn topic_filter(&self, text: &str) -> Result<Option<String>, Failure> {
        let Some(name) = named_topic(text)? else { return Ok(None) };
        if self.0.deps.topics.subscribed_to(&name) || self.0.deps.inbox.has_topic(&name).await? {
            return Ok(Some(name));
        }
        let text = format!(
            "this member is not subscribed to #{name} and has no message of it; see which topics there are: \
             `claudemesh topic list`"
        );
        Err(Failure::new(ErrorCode::TopicNotFound, text))
    }
}

/// The topic that a filter names; `None` without a filter.
fn named_topic(text: &str) -> Result<Option<String>, Failure> {
    let name = topic_name(text);
    if name.is_none() && !text.is_empty() {
        return Err(Failure::field("topic", "there is no name after the `#`"));
    }
    Ok(name)
}

/// A topic's name without its sign; `None` when no topic is named.
fn topic_name(text: &str) -> Option<String> {
    let name = text.strip_prefix('#').unwrap_or(text);
    (!name.is_empty()).then(|| name.to_owned())
}
