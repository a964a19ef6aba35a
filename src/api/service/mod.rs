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

pub use self::inbox::Measure;
use super::Deps;
use super::limits::Limits;
use super::link::LinkView;
use super::status::Failure;
use crate::domain::error_code::ErrorCode;
use crate::domain::message::Destination;
use crate::domain::roster::{self, ResolveError};
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
        roster::find(&destination, &self.0.deps.peers.members()).map(|member| member.member_id.to_string()).map_err(
            |error| {
                let code = match error {
                    ResolveError::Ambiguous { .. } => ErrorCode::AmbiguousPeer,
                    _ => ErrorCode::UnknownPeer,
                };
                Failure::new(code, error.to_string())
            },
        )
    }
}

/// A topic's name without its sign; `None` when no topic is named.
fn topic_name(text: &str) -> Option<String> {
    let name = text.strip_prefix('#').unwrap_or(text);
    (!name.is_empty()).then(|| name.to_owned())
}
