//! The connection to a daemon: gRPC over its Unix socket, or over TCP with its
//! token.

use std::error::Error as _;
use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::task;
use std::time::Duration;

use futures_util::future::BoxFuture;
use http::{HeaderValue, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, transport};
use zeroize::Zeroizing;

use super::Context;
use super::discovery::{self, Address, DaemonArgs};
use super::exit_code;
use super::failure::Failure;
use super::output::safe;
use super::running;
use crate::domain::error_code::ErrorCode;
use crate::proto::API_VERSION;
use crate::proto::admin::hooks_service_client::HooksServiceClient;
use crate::proto::admin::keys_service_client::KeysServiceClient;
use crate::proto::admin::lifecycle_service_client::LifecycleServiceClient;
use crate::proto::admin::outbox_service_client::OutboxServiceClient;
use crate::proto::pb::GetVersionRequest;
use crate::proto::pb::control_service_client::ControlServiceClient;
use crate::proto::pb::event_service_client::EventServiceClient;
use crate::proto::pb::inbox_service_client::InboxServiceClient;
use crate::proto::pb::messaging_service_client::MessagingServiceClient;
use crate::proto::pb::peer_service_client::PeerServiceClient;
use crate::proto::pb::topic_service_client::TopicServiceClient;
use crate::runtime::private_file;

/// Time for the connection itself. A live daemon takes it in a millisecond; a
/// busy one in some more.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Time for the question who it is, which a busy daemon answers, too.
const VERSION_LIMIT: Duration = Duration::from_secs(10);
/// Time for one call that is no stream.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// Greatest answer in bytes: a page of the inbox with long messages.
const MAX_ANSWER: usize = 64 << 20;
/// HTTP/2 windows in bytes, as at the daemon: the defaults of 64 KiB stall
/// whatever is larger.
const WINDOW: u32 = 4 << 20;

/// The daemon's version, once an answer told it.
type Version = Arc<OnceLock<String>>;

/// A connected daemon.
#[derive(Clone, Debug)]
pub struct Client {
    service: Service,
    address: Address,
}

/// A connection with its credentials; notes the daemon's version on the way.
#[derive(Clone, Debug)]
pub struct Service {
    channel: Channel,
    /// Only for TCP; marked as sensitive.
    token: Option<HeaderValue>,
    version: Version,
}

// === impl Service ===

impl tower::Service<http::Request<Body>> for Service {
    type Response = http::Response<Body>;
    type Error = transport::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> task::Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        if let Some(token) = &self.token {
            request.headers_mut().insert(header::AUTHORIZATION, token.clone());
        }
        let answer = self.channel.call(request);
        let version = Arc::clone(&self.version);
        Box::pin(async move {
            let answer = answer.await?;
            let server = answer.headers().get(header::SERVER).and_then(|server| server.to_str().ok());
            if let Some(told) = server.and_then(|server| server.strip_prefix("claudemesh/")) {
                version.get_or_init(|| told.to_owned());
            }
            Ok(answer)
        })
    }
}

// === impl Client ===

impl Client {
    /// Finds the daemon and connects.
    pub async fn find(context: &Context, args: &DaemonArgs) -> Result<Self, Failure> {
        let address = discovery::find(args, context.source.as_ref(), &context.cwd)?;
        Self::connect(context, address).await
    }

    /// As [`Self::find`], for a command that needs a feature of the local API: a
    /// daemon of another version may lack it, and says so before anything is asked
    /// of it (R277, R408).
    pub async fn serving(context: &Context, args: &DaemonArgs, feature: &str) -> Result<Self, Failure> {
        let client = Self::find(context, args).await?;
        let version = match answer(client.control().get_version(call_within(VERSION_LIMIT, GetVersionRequest {})).await)
        {
            Ok(version) => version,
            // It takes connections and says nothing: the call would end like this one.
            Err(failure) if failure.code() == ErrorCode::DeadlineExceeded.name() => return Err(failure),
            Err(failure) if failure.code() == ErrorCode::DaemonNotRunning.name() && client.runs(context) => {
                return Err(client.closed());
            }
            // The call that matters says more than this one.
            Err(_) => return Ok(client),
        };
        let daemon = safe(&version.daemon_version);
        let lacks = if version.ipc_api != API_VERSION {
            format!("the local API {API_VERSION}; it serves {}", safe(&version.ipc_api))
        } else if !version.ipc_features.iter().any(|served| served == feature) {
            format!("{feature:?}, which this command needs")
        } else {
            return Ok(client);
        };
        Err(Failure::new(ErrorCode::NotServed, format!("the daemon (version {daemon}) does not serve {lacks}"))
            .next(format!("this program is version {}; {}", env!("CARGO_PKG_VERSION"), client.restart_hint())))
    }

    /// Whether a daemon of this mesh lives.
    fn runs(&self, context: &Context) -> bool {
        let root = context.root().ok();
        let state = root.zip(self.mesh()).map(|(root, mesh)| root.state_dir(mesh));
        state.is_some_and(|state| running::is_running(&state).unwrap_or(false))
    }

    /// It lives, and has closed the connection instead of answering.
    fn closed(&self) -> Failure {
        let mesh = self.mesh().unwrap_or_default();
        let what = format!("the daemon of mesh {mesh:?} runs, and closed the connection without an answer");
        Failure::new(ErrorCode::DaemonBusy, what)
            .next("it has too many connections or files open; try again when other programs have ended theirs")
            .next(format!("see what it says: claudemesh daemon logs --mesh {mesh}"))
    }

    fn restart_hint(&self) -> String {
        let mesh = self.mesh().map(|mesh| format!(" --mesh {mesh}")).unwrap_or_default();
        format!("start the daemon with it: claudemesh daemon restart{mesh}")
    }

    /// Connects anew to the same daemon.
    pub async fn again(&self, context: &Context) -> Result<Self, Failure> {
        Self::connect(context, self.address.clone()).await
    }

    async fn connect(context: &Context, address: Address) -> Result<Self, Failure> {
        let (channel, token) = match &address {
            Address::Socket { path, mesh } => {
                let channel = unix(path).await;
                (channel.map_err(|error| socket_failure(context, path, mesh.as_deref(), &error))?, None)
            }
            Address::Tcp { authority, token_file } => tcp(authority, token_file).await?,
        };
        let version = Arc::clone(&context.daemon_version);
        Ok(Self { service: Service { channel, token, version }, address })
    }

    /// Connects to a socket.
    pub async fn over_socket(path: &Path) -> Result<Self, io::Error> {
        let address = Address::Socket { path: path.to_owned(), mesh: None };
        let service = Service { channel: unix(path).await?, token: None, version: Version::default() };
        Ok(Self { service, address })
    }

    /// The mesh by which the daemon was found.
    pub fn mesh(&self) -> Option<&str> {
        match &self.address {
            Address::Socket { mesh, .. } => mesh.as_deref(),
            Address::Tcp { .. } => None,
        }
    }
}

async fn unix(path: &Path) -> Result<Channel, io::Error> {
    let path = path.to_owned();
    // The authority is fixed: a socket's path is none.
    endpoint(Endpoint::from_static("http://localhost"))
        .connect_with_connector(tower::service_fn(move |_| {
            let path = path.clone();
            async move { own(UnixStream::connect(path).await?).map(TokioIo::new) }
        }))
        .await
        .map_err(io_error)
}

/// Refuses a socket that another user listens at: it would get what is sent.
fn own(stream: UnixStream) -> Result<UnixStream, io::Error> {
    let (uid, own) = (stream.peer_cred()?.uid(), rustix::process::geteuid().as_raw());
    if uid == own {
        return Ok(stream);
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("the user {uid} listens there, and you are {own}")))
}

async fn tcp(authority: &str, token_file: &Path) -> Result<(Channel, Option<HeaderValue>), Failure> {
    let token = private_file::read_optional(token_file)?.map(Zeroizing::new).ok_or_else(|| {
        Failure::new(ErrorCode::ConfigInvalid, format!("CLAUDEMESH_TOKEN_FILE={} does not exist", token_file.display()))
            .next("set it to the file local_token in the daemon's state directory")
    })?;
    let value = Zeroizing::new(format!("Bearer {}", token.trim()));
    let mut token = HeaderValue::try_from(value.as_str())
        .map_err(|_| Failure::new(ErrorCode::ConfigInvalid, format!("{} holds no token", token_file.display())))?;
    token.set_sensitive(true);
    let refused = |detail: String| {
        Failure::new(ErrorCode::DaemonNotRunning, format!("no daemon answers at {authority}: {detail}"))
            .next("the address comes from CLAUDEMESH_ADDR; a daemon's port is in the file http.port")
    };
    let plain = Endpoint::from_shared(format!("http://{authority}")).map_err(|error| refused(error.to_string()))?;
    let channel = endpoint(plain).connect().await.map_err(|error| refused(io_error(error).to_string()))?;
    Ok((channel, Some(token)))
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
    /// Topics.
    topics => TopicServiceClient;
    /// Health and versions.
    control => ControlServiceClient;
    /// This member's keys and whom the daemon trusts.
    keys => KeysServiceClient;
    /// The daemon's life.
    lifecycle => LifecycleServiceClient;
    /// Hooks and what they did.
    hooks => HooksServiceClient;
    /// The outbox for operators.
    outbox => OutboxServiceClient;
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
fn io_error(error: transport::Error) -> io::Error {
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
            Failure::new(ErrorCode::PermissionDenied, format!("{} belongs to another user: {error}", path.display()))
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
