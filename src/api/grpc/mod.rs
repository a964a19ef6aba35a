//! The gRPC form of the services, with health checks and reflection.
//!
//! What it is for: the generated clients, `grpcurl` and every other gRPC client.
//! What runs here: nothing of its own.
//! What it guarantees: every failure carries `google.rpc.ErrorInfo`; a method
//! that is defined but not served says so.
//! What it must not do: implement a call; it converts and hands on.

pub mod control;
pub mod events;
pub mod hooks;
pub mod inbox;
pub mod keys;
pub mod lifecycle;
pub mod messaging;
pub mod outbox;
pub mod peers;
pub mod topics;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use tonic::codegen::{Body as HttpBody, Service as _, StdError};
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::{Request as Call, Response as Answer, Status};
use tonic_health::ServingStatus;
use tonic_health::server::health_reporter;

use super::call::Protocol;
use super::limits::MAX_GRPC_MESSAGE;
use super::rest;
use super::service::Services;
use super::status::Failure;
use crate::domain::error_code::ErrorCode;
use crate::proto::admin::hooks_service_server::{HooksServiceServer, SERVICE_NAME as HOOKS};
use crate::proto::admin::keys_service_server::{KeysServiceServer, SERVICE_NAME as KEYS};
use crate::proto::admin::lifecycle_service_server::{LifecycleServiceServer, SERVICE_NAME as LIFECYCLE};
use crate::proto::admin::outbox_service_server::{OutboxServiceServer, SERVICE_NAME as OUTBOX};
use crate::proto::pb::control_service_server::{ControlServiceServer, SERVICE_NAME as CONTROL};
use crate::proto::pb::event_service_server::{EventServiceServer, SERVICE_NAME as EVENTS};
use crate::proto::pb::inbox_service_server::{InboxServiceServer, SERVICE_NAME as INBOX};
use crate::proto::pb::messaging_service_server::{MessagingServiceServer, SERVICE_NAME as MESSAGING};
use crate::proto::pb::peer_service_server::{PeerServiceServer, SERVICE_NAME as PEERS};
use crate::proto::pb::topic_service_server::{SERVICE_NAME as TOPICS, TopicServiceServer};
use crate::proto::{FILE_DESCRIPTOR_SET, METHODS};

pub use tonic_health::server::HealthReporter;

/// The services that are served; the empty name stands for the daemon.
const SERVED: [&str; 11] = ["", MESSAGING, TOPICS, INBOX, EVENTS, PEERS, CONTROL, LIFECYCLE, OUTBOX, KEYS, HOOKS];
/// The standard services, which reflection lists too.
const STANDARD: [&str; 1] = ["grpc.health.v1.Health"];

/// The gRPC side of the services. Cheap to clone.
#[derive(Clone, Debug)]
struct Grpc(Services);

/// Defines the services of this API and the way from a path to one of them. Not an
/// axum router: its boxes and copies were a tenth of what the daemon's thread did for
/// a call (`docs/PERFORMANCE.md`).
macro_rules! methods {
    ($($field:ident: $server:ident = $name:ident),+ $(,)?) => {
        /// The services of this API.
        #[derive(Clone, Debug)]
        pub struct Methods {
            $($field: $server<Grpc>,)+
        }

        impl Methods {
            /// For these services.
            pub fn new(services: Services) -> Self {
                let grpc = Grpc(services);
                Self {
                    $($field: $server::new(grpc.clone())
                        .max_decoding_message_size(MAX_GRPC_MESSAGE)
                        .max_encoding_message_size(MAX_GRPC_MESSAGE),)+
                }
            }

            /// Whether one of them takes the path.
            pub fn takes(&self, path: &str) -> bool {
                [$($name),+].contains(&service_of(path))
            }

            /// Calls the method that the path names.
            pub async fn call<B>(&self, request: http::Request<B>) -> Response
            where
                B: HttpBody + Send + 'static,
                B::Error: Into<StdError> + Send + 'static,
            {
                let answer = match service_of(request.uri().path()) {
                    $($name => self.$field.clone().call(request),)+
                    _ => return unknown(request).await,
                };
                answer.await.unwrap_or_else(|never| match never {}).map(Body::new)
            }
        }
    };
}

methods! {
    messaging: MessagingServiceServer = MESSAGING,
    topics: TopicServiceServer = TOPICS,
    inbox: InboxServiceServer = INBOX,
    events: EventServiceServer = EVENTS,
    peers: PeerServiceServer = PEERS,
    control: ControlServiceServer = CONTROL,
    lifecycle: LifecycleServiceServer = LIFECYCLE,
    outbox: OutboxServiceServer = OUTBOX,
    keys: KeysServiceServer = KEYS,
    hooks: HooksServiceServer = HOOKS,
}

/// The service of `/package.Service/Method`.
fn service_of(path: &str) -> &str {
    path.strip_prefix('/').and_then(|path| path.split_once('/')).map_or("", |(service, _)| service)
}

/// The routes of the standard services.
pub async fn standard() -> Result<(Router, HealthReporter), tonic_reflection::server::Error> {
    let (health, health_service) = health_reporter();
    for name in SERVED {
        health.set_service_status(name, ServingStatus::Serving).await;
    }
    let routes = Routes::new(health_service)
        .add_service(reflection().build_v1()?)
        // Older tools ask for this one only.
        .add_service(reflection().build_v1alpha()?);
    Ok((routes.prepare().into_axum_router(), health))
}

/// Tells health checks that the daemon goes.
pub async fn set_not_serving(health: &HealthReporter) {
    for name in SERVED {
        health.set_service_status(name, ServingStatus::NotServing).await;
    }
}

/// The answer to a path that nothing takes, in either protocol.
pub async fn unknown<B>(request: http::Request<B>) -> Response {
    let path = request.uri().path();
    let failure = match Protocol::of(request.headers()) {
        Protocol::Grpc if METHODS.contains(&path) => Failure::not_served(path),
        Protocol::Grpc => Failure::new(ErrorCode::RouteNotFound, format!("there is no method {path}")),
        Protocol::Rest => rest::unknown(path),
    };
    failure.into_response()
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    let builder = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        // Without it, tools show the details of failures as raw bytes.
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET);
    SERVED
        .into_iter()
        .filter(|name| !name.is_empty())
        .chain(STANDARD)
        .fold(builder, |all, name| all.with_service_name(name))
}

/// The answer of a service as tonic takes it.
pub(super) fn answer<T>(result: Result<T, Failure>) -> Result<Answer<T>, Status> {
    result.map(Answer::new).map_err(|failure| failure.to_status())
}

/// The idempotency key of a call (R143); `None` when there is none.
pub(super) fn idempotency_key(metadata: &MetadataMap) -> Result<Option<String>, Failure> {
    let mut keys = metadata.get_all("idempotency-key").iter();
    match (keys.next(), keys.next()) {
        (None, _) => Ok(None),
        (Some(key), None) => rest::idempotency_key(key.as_bytes()).map(Some),
        (Some(_), Some(_)) => {
            Err(Failure::new(ErrorCode::IdempotencyKeyInvalid, "there is more than one idempotency-key"))
        }
    }
}

/// A failure of the transport while a caller's stream is read.
fn broken_stream(status: Status) -> Failure {
    match status.code() {
        tonic::Code::OutOfRange => Failure::new(
            ErrorCode::PayloadTooLarge,
            format!("a message of the stream is larger than {MAX_GRPC_MESSAGE} bytes"),
        ),
        _ => Failure::new(ErrorCode::InvalidArgument, format!("the stream cannot be read: {}", status.message())),
    }
}

impl Grpc {
    fn deadline<T>(call: &Call<T>) -> Option<super::deadline::Deadline> {
        call.extensions().get().copied()
    }
}
