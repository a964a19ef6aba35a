//! The REST form of the services: the same messages as JSON.
//!
//! What it is for: `curl`, scripts and programs without a gRPC client. The table
//! of routes is here; a file is named as its service.
//! What runs here: nothing of its own.
//! What it guarantees: bodies and query strings are read by the same rules, and
//! what is not known in them is refused. Failures are problem documents, which
//! the gate writes.
//! What it must not do: implement a call; it converts and hands on.

pub mod control;
pub mod events;
pub mod hooks;
pub mod inbox;
pub mod json;
pub mod keys;
pub mod messaging;
pub mod outbox;
pub mod peers;
pub mod topics;
mod wrong;

use axum::Router;
use axum::routing::{get, post};

pub use self::json::idempotency_key;
use super::service::Services;
use super::status::Failure;
use crate::domain::error_code::ErrorCode;

/// Routes of the API that this version does not serve, and what they belong to.
const NOT_SERVED: [(&str, &str); 3] =
    [("/v1/file/share", "files"), ("/v1/file/get", "files"), ("/v1/file/list", "files")];

/// Routes behind a capability that is off, by what they begin with (R82, R103 to
/// R105).
const GATED: [(&str, &str); 9] = [
    ("/v1/state/", "state"),
    ("/v1/memory/", "memory"),
    ("/v1/vector/", "vector"),
    ("/v1/graph/", "graph"),
    ("/v1/task/", "tasks"),
    ("/v1/scheduling/", "scheduling"),
    ("/v1/mcp/", "mcp_host"),
    ("/v1/skill/", "skill_share"),
    ("/v1/inbox/search", "inbox_fts"),
];

/// The routes that are served.
pub fn router(services: Services) -> Router {
    Router::new()
        .route("/v1/send", post(messaging::send))
        .route("/v1/send/{client_message_id}", get(messaging::get_send))
        .route("/v1/topic/post", post(messaging::post_topic))
        .route("/v1/topic/create", post(topics::create))
        .route("/v1/topic/subscribe", post(topics::subscribe))
        .route("/v1/topic/unsubscribe", post(topics::unsubscribe))
        .route("/v1/topic/list", get(topics::list))
        .route("/v1/inbox", get(inbox::list))
        .route("/v1/events", get(events::stream))
        .route("/v1/peers", get(peers::list))
        .route("/v1/profile", post(peers::set_profile))
        .route("/v1/outbox", get(outbox::list))
        .route("/v1/outbox/entry", get(outbox::entry))
        .route("/v1/outbox/requeue", post(outbox::requeue))
        .route("/v1/outbox/drop", post(outbox::drop_entry))
        .route("/v1/outbox/prune", post(outbox::prune))
        .route("/v1/hooks", get(hooks::list))
        .route("/v1/hooks/runs", get(hooks::runs))
        .route("/v1/hooks/reload", post(hooks::reload))
        .route("/v1/health", get(control::health))
        .route("/v1/metrics", get(control::metrics))
        .route("/metrics", get(control::metrics))
        .route("/v1/version", get(control::version))
        .route("/v1/compat", get(control::compat))
        .route("/v1/heartbeat", post(control::heartbeat))
        .route("/v1/keys/rotate-keypair", post(keys::rotate_keypair))
        .route("/v1/keys/pinned", get(keys::list_pinned))
        .route("/v1/keys/verify", post(keys::verify))
        .route("/v1/keys/accept-key", post(keys::accept_key))
        .route("/v1/keys/accept-name", post(keys::accept_name))
        .route("/v1/keys/rotate-topic-key", post(keys::rotate_topic_key))
        .route("/v1/keys/topic-admissions", get(keys::list_topic_admissions))
        .route("/v1/keys/admit-topic-member", post(keys::admit_topic_member))
        .route("/healthz", get(control::alive))
        .route("/readyz", get(control::ready))
        .with_state(services)
}

/// The failure of a path that no route takes.
pub fn unknown(path: &str) -> Failure {
    if let Some((_, what)) = NOT_SERVED.iter().find(|(route, _)| *route == path) {
        return Failure::not_served(what);
    }
    if let Some((_, gate)) = GATED.iter().find(|(begin, _)| path.starts_with(begin)) {
        let text = format!("{path} belongs to the capability `{gate}`, which is off");
        return Failure::new(ErrorCode::CapabilityDisabled, text).with("capability", *gate);
    }
    Failure::new(ErrorCode::RouteNotFound, format!("there is no {path}"))
}
