//! Commands and a daemon of another version.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use claudemesh::proto::pb;
use claudemesh::proto::pb::control_service_server::{ControlService, ControlServiceServer};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tower::ServiceExt as _;

use crate::support::cli::{Ran, run};
use crate::support::process;

/// Says what it is, and serves nothing else.
struct OtherVersion {
    socket: PathBuf,
    home: tempfile::TempDir,
    called: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Says(pb::GetVersionResponse);

#[tonic::async_trait]
impl ControlService for Says {
    async fn get_version(
        &self,
        _request: Request<pb::GetVersionRequest>,
    ) -> Result<Response<pb::GetVersionResponse>, Status> {
        Ok(Response::new(self.0.clone()))
    }

    async fn get_health(
        &self,
        _request: Request<pb::GetHealthRequest>,
    ) -> Result<Response<pb::GetHealthResponse>, Status> {
        Err(Status::unimplemented("not in this version"))
    }

    async fn get_metrics(
        &self,
        _request: Request<pb::GetMetricsRequest>,
    ) -> Result<Response<pb::GetMetricsResponse>, Status> {
        Err(Status::unimplemented("not in this version"))
    }

    async fn get_compat(
        &self,
        _request: Request<pb::GetCompatRequest>,
    ) -> Result<Response<pb::GetCompatResponse>, Status> {
        Err(Status::unimplemented("not in this version"))
    }

    async fn heartbeat(
        &self,
        _request: Request<pb::HeartbeatRequest>,
    ) -> Result<Response<pb::HeartbeatResponse>, Status> {
        Err(Status::unimplemented("not in this version"))
    }
}

impl OtherVersion {
    async fn start(ipc_api: &str, ipc_features: &[&str]) -> Self {
        let home = process::directory();
        let socket = home.path().join("sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let version = pb::GetVersionResponse {
            daemon_version: "0.8.3".to_owned(),
            ipc_api: ipc_api.to_owned(),
            ipc_features: ipc_features.iter().map(|feature| (*feature).to_owned()).collect(),
            ..pb::GetVersionResponse::default()
        };
        let routes = Routes::new(ControlServiceServer::new(Says(version)));
        let called: Arc<Mutex<Vec<String>>> = Arc::default();
        let noted = Arc::clone(&called);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (routes, noted) = (routes.clone(), Arc::clone(&noted));
                let service = tower::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    noted.lock().unwrap_or_else(PoisonError::into_inner).push(request.uri().path().to_owned());
                    let routes = routes.clone();
                    async move { Ok::<_, Infallible>(routes.oneshot(request).await.expect("an answer")) }
                });
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    // It ends when the command does.
                    let _ = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).await;
                });
            }
        });
        Self { socket, home, called, task }
    }

    async fn run(&self, verb: &[&str]) -> Ran {
        let socket = self.socket.to_str().expect("a path");
        run(self.home.path(), &[verb, &["--socket", socket]].concat()).await
    }

    fn called(&self) -> Vec<String> {
        std::mem::take(&mut *self.called.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for OtherVersion {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const VERBS: [(&[&str], &str); 5] = [
    (&["send", "bob", "hello"], "send"),
    (&["inbox"], "events"),
    (&["events"], "events"),
    (&["peer", "list"], "peers"),
    (&["verify", "bob"], "peers"),
];
const ASKED: &str = "/claudemesh.v1.ControlService/GetVersion";

// Covers: R408
#[tokio::test]
async fn a_command_whose_feature_the_daemon_lacks_says_so_and_asks_nothing_of_it() {
    for (verb, feature) in VERBS {
        let others: Vec<&str> =
            ["send", "peers", "events", "health"].into_iter().filter(|one| *one != feature).collect();
        let daemon = OtherVersion::start("v1", &others).await;
        let ran = daemon.run(verb).await;
        assert_eq!(ran.code, 1, "{verb:?}: {}", ran.stderr);
        let said =
            format!("the daemon (version 0.8.3) does not serve {feature:?}, which this command needs (not_served)");
        assert!(ran.stderr.contains(&said), "{verb:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("claudemesh daemon restart"), "{verb:?}: {}", ran.stderr);
        assert_eq!(daemon.called(), [ASKED], "{verb:?}");
    }
}

#[tokio::test]
async fn a_daemon_with_another_local_api_is_not_talked_to() {
    let daemon = OtherVersion::start("v2", &["send", "peers", "events", "health"]).await;
    for (verb, _) in VERBS {
        let ran = daemon.run(verb).await;
        assert_eq!(ran.code, 1, "{verb:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("does not serve the local API v1; it serves v2 (not_served)"), "{}", ran.stderr);
        assert_eq!(daemon.called(), [ASKED], "{verb:?}");
    }
}

/// What is asked of it is asked: here it knows no more calls.
#[tokio::test]
async fn a_daemon_that_serves_the_feature_is_asked() {
    let daemon = OtherVersion::start("v1", &["send", "peers", "events", "health"]).await;
    let ran = daemon.run(&["send", "bob", "hello"]).await;
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("the running daemon does not know this call (not_served)"), "{}", ran.stderr);
    assert_eq!(daemon.called(), [ASKED, "/claudemesh.v1.MessagingService/Send"]);
}
