//! The connection to a daemon: gRPC over its Unix socket, or over TCP with its
//! token.

use std::error::Error as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use zeroize::Zeroizing;

use super::Context;
use super::discovery::{self, Address, DaemonArgs};
use super::exit_code;
use super::failure::Failure;
use super::running;
use crate::domain::error_code::ErrorCode;
use crate::proto::admin::keys_service_client::KeysServiceClient;
use crate::proto::admin::lifecycle_service_client::LifecycleServiceClient;
use crate::proto::pb::control_service_client::ControlServiceClient;
use crate::proto::pb::event_service_client::EventServiceClient;
use crate::proto::pb::inbox_service_client::InboxServiceClient;
use crate::proto::pb::messaging_service_client::MessagingServiceClient;
use crate::proto::pb::peer_service_client::PeerServiceClient;
use crate::runtime::private_file;

/// Time for the connection itself. A live daemon takes it in a millisecond; a
/// busy one in some more.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Time for one call that is no stream.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// Greatest answer in bytes: a page of the inbox with long messages.
const MAX_ANSWER: usize = 64 << 20;
/// HTTP/2 windows in bytes, as at the daemon: the defaults of 64 KiB stall
/// whatever is larger.
const WINDOW: u32 = 4 << 20;

/// A connection with its credentials.
pub type Service = InterceptedService<Channel, Credentials>;

/// A connected daemon.
#[derive(Clone, Debug)]
pub struct Client {
    service: Service,
}

/// The token of TCP connections; sockets need none.
#[derive(Clone)]
pub struct Credentials(Option<MetadataValue<Ascii>>);

// === impl Credentials ===

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Credentials([redacted])" } else { "Credentials(none)" })
    }
}

// === impl Client ===

impl Client {
    /// Finds the daemon and connects.
    pub async fn find(context: &Context, args: &DaemonArgs) -> Result<Self, Failure> {
        let address = discovery::find(args, context.source.as_ref(), &context.cwd)?;
        match &address {
            Address::Socket { path, mesh } => {
                Self::over_socket(path).await.map_err(|error| socket_failure(context, path, mesh.as_deref(), &error))
            }
            Address::Tcp { authority, token_file } => Self::over_tcp(authority, token_file).await,
        }
    }

    /// Connects to a socket.
    pub async fn over_socket(path: &Path) -> Result<Self, io::Error> {
        let path = path.to_owned();
        // The authority is fixed: a socket's path is none.
        let channel = endpoint(Endpoint::from_static("http://localhost"))
            .connect_with_connector(tower::service_fn(move |_| {
                let path = path.clone();
                async move { UnixStream::connect(path).await.map(TokioIo::new) }
            }))
            .await
            .map_err(io_error)?;
        Ok(Self { service: InterceptedService::new(channel, Credentials(None)) })
    }

    async fn over_tcp(authority: &str, token_file: &Path) -> Result<Self, Failure> {
        let token = private_file::read_optional(token_file)?.map(Zeroizing::new).ok_or_else(|| {
            Failure::new(
                ErrorCode::ConfigInvalid,
                format!("CLAUDEMESH_TOKEN_FILE={} does not exist", token_file.display()),
            )
            .next("set it to the file local_token in the daemon's state directory")
        })?;
        let value = Zeroizing::new(format!("Bearer {}", token.trim()));
        let mut token = MetadataValue::try_from(value.as_str())
            .map_err(|_| Failure::new(ErrorCode::ConfigInvalid, format!("{} holds no token", token_file.display())))?;
        token.set_sensitive(true);
        let refused = |detail: String| {
            Failure::new(ErrorCode::DaemonNotRunning, format!("no daemon answers at {authority}: {detail}"))
                .next("the address comes from CLAUDEMESH_ADDR; a daemon's port is in the file http.port")
        };
        let uri = format!("http://{authority}");
        let plain = Endpoint::from_shared(uri).map_err(|error| refused(error.to_string()))?;
        let channel = endpoint(plain).connect().await.map_err(|error| refused(io_error(error).to_string()))?;
        Ok(Self { service: InterceptedService::new(channel, Credentials(Some(token))) })
    }
}

macro_rules! services {
    ($($(#[$doc:meta])* $name:ident => $client:ident;)*) => {
        impl Client {
            $($(#[$doc])* pub fn $name(&self) -> $client<Service> {
                $client::new(self.service.clone()).max_decoding_message_size(MAX_ANSWER)
            })*
        }
    };
}

services! {
    /// Sending.
    messaging => MessagingServiceClient;
    /// Stored messages.
    inbox => InboxServiceClient;
    /// Events.
    events => EventServiceClient;
    /// Members.
    peers => PeerServiceClient;
    /// Health and versions.
    control => ControlServiceClient;
    /// This member's keys and whom the daemon trusts.
    keys => KeysServiceClient;
    /// The daemon's life.
    lifecycle => LifecycleServiceClient;
}

/// A request with the time limit of calls that are no streams. The daemon is
/// told and gives up, too.
pub fn call<T>(message: T) -> Request<T> {
    call_within(CALL_LIMIT, message)
}

/// A request with a time limit.
pub fn call_within<T>(limit: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(limit);
    request
}

/// The answer of a call.
pub fn answer<T>(result: Result<tonic::Response<T>, Status>) -> Result<T, Failure> {
    result.map(tonic::Response::into_inner).map_err(|status| exit_code::of_status(&status))
}

fn endpoint(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT_LIMIT)
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10))
}

/// The system's error inside the transport's.
fn io_error(error: tonic::transport::Error) -> io::Error {
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(found) = inner.downcast_ref::<io::Error>() {
            return io::Error::new(found.kind(), found.to_string());
        }
        cause = inner.source();
    }
    io::Error::other(error.to_string())
}

/// What is said of a daemon that lives and does not serve its socket.
pub fn no_answer(mesh: &str, socket: &Path, error: &io::Error) -> Failure {
    let what = format!("the daemon of mesh {mesh:?} runs but does not answer at {}: {error}", socket.display());
    Failure::new(ErrorCode::DeadlineExceeded, what)
        .next(format!("see what it does: claudemesh daemon logs --mesh {mesh}"))
        .next(format!("or start it anew: claudemesh daemon restart --mesh {mesh}"))
}

fn socket_failure(context: &Context, path: &Path, mesh: Option<&str>, error: &io::Error) -> Failure {
    match (error.kind(), mesh) {
        (io::ErrorKind::PermissionDenied, _) => {
            Failure::new(ErrorCode::DaemonNotRunning, format!("{} belongs to another user", path.display()))
                .next("a daemon serves only the user who started it")
        }
        (io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused, Some(mesh)) => match context.root() {
            Ok(root) if running::is_running(&root.state_dir(mesh)).unwrap_or(false) => no_answer(mesh, path, error),
            Ok(root) => discovery::not_running(&root, mesh),
            Err(failure) => failure,
        },
        _ => Failure::new(ErrorCode::DaemonNotRunning, format!("no daemon answers at {}: {error}", path.display()))
            .next("see which run: claudemesh daemon status"),
    }
}
