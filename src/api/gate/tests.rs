//! The gate in front of a few routes, one request at a time.

use axum::Router;
use axum::body::to_bytes;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use futures_util::FutureExt as _;
use serde_json::Value;
use tonic_types::StatusExt as _;
use tower::ServiceExt as _;

use super::*;
use crate::api::grpc;
use crate::config::ipc;
use crate::domain::time::UnixMillis;

struct Daemon {
    gate: Gate,
    token: String,
    _dir: tempfile::TempDir,
}

fn daemon() -> Daemon {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("local_token");
    let clock = Clock::manual(UnixMillis(1_700_000_000_000));
    let ids = IdSource::new(clock.clone());
    let token = LocalToken::load_or_create(&path, &ids).unwrap();
    let gate = Gate {
        guard: Guard::default(),
        token,
        public_health: false,
        limits: Limits::new(&ipc::Limits { in_flight_requests: 1, ..ipc::Limits::default() }),
        stopping: CancellationToken::new(),
        metrics: Metrics::new("demo"),
        clock,
        ids,
        hooks: crate::hooks::Family::default(),
    };
    Daemon { gate, token: std::fs::read_to_string(&path).unwrap(), _dir: dir }
}

async fn slow() -> &'static str {
    std::future::pending().await
}

async fn broken() -> &'static str {
    panic!("a defect")
}

impl Daemon {
    fn router(&self) -> Router {
        Router::new()
            .route("/v1/health", get(|| async { "well" }))
            .route("/v1/send", post(|| async { "sent" }))
            .route("/v1/slow", get(slow))
            .route("/v1/broken", get(broken))
            .route("/claudemesh.v1.MessagingService/Send", post(slow))
            .fallback(grpc::unknown)
            .layer(from_fn_with_state(Arc::new(self.gate.clone()), layer))
    }

    async fn call(&self, via: Via, line: &str, headers: &[(&str, &str)]) -> Response {
        let (method, path) = line.split_once(' ').unwrap();
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(via);
        self.router().oneshot(request).await.unwrap()
    }

    async fn unix(&self, line: &str, headers: &[(&str, &str)]) -> Response {
        self.call(Via::unix(), line, headers).await
    }

    async fn grpc(&self, path: &str, headers: &[(&str, &str)]) -> tonic::Status {
        let headers: Vec<_> =
            [("content-type", "application/grpc")].into_iter().chain(headers.iter().copied()).collect();
        let response = self.unix(&format!("POST {path}"), &headers).await;
        assert_eq!(response.status(), 200, "gRPC failures are trailers-only");
        tonic::Status::from_header_map(response.headers()).unwrap()
    }
}

async fn problem(response: Response) -> Value {
    assert_eq!(response.headers()["content-type"], PROBLEM_JSON);
    let status = response.status().as_u16();
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let body: Value = serde_json::from_slice(&to_bytes(response.into_body(), 1 << 20).await.unwrap()).unwrap();
    assert_eq!((body["status"].as_u64(), body["instance"].as_str()), (Some(status.into()), Some(id.as_str())));
    body
}

async fn code(response: Response) -> String {
    problem(response).await["code"].as_str().unwrap().to_owned()
}

fn reason(status: &tonic::Status) -> String {
    status.get_error_details().error_info().unwrap().reason.clone()
}

#[tokio::test]
async fn whatever_fails_is_a_problem_with_a_code() {
    let daemon = daemon();
    assert_eq!(code(daemon.unix("GET /nope", &[]).await).await, "route_not_found");
    assert_eq!(code(daemon.unix("GET /v1/file/list", &[]).await).await, "not_served");
    assert_eq!(code(daemon.unix("GET /v1/inbox/search?q=x", &[]).await).await, "capability_disabled");
    assert_eq!(code(daemon.unix("GET /v1/broken", &[]).await).await, "internal_error");
    let wrong_method = daemon.unix("GET /v1/send", &[]).await;
    assert_eq!(wrong_method.headers()["allow"], "POST");
    assert_eq!(code(wrong_method).await, "method_not_allowed");
}

#[tokio::test]
async fn grpc_callers_get_a_status_with_details() {
    let daemon = daemon();
    for (path, expected) in [
        ("/claudemesh.v1.FileService/ListFiles", "not_served"),
        ("/claudemesh.v1.FileService/Nope", "route_not_found"),
        ("/v1/send?token=x", "token_in_query"),
    ] {
        assert_eq!(reason(&daemon.grpc(path, &[]).await), expected, "{path}");
    }
    let late = daemon.grpc("/claudemesh.v1.MessagingService/Send", &[("grpc-timeout", "5m")]).await;
    assert_eq!((late.code(), reason(&late).as_str()), (Code::DeadlineExceeded, "deadline_exceeded"));
}

// Covers: R107-R109, R118, R119
#[tokio::test]
async fn over_tcp_every_route_needs_the_token() {
    let mut daemon = daemon();
    let bearer = format!("Bearer {}", daemon.token);
    let right = [("authorization", bearer.as_str()), ("host", "127.0.0.1:5")];
    for line in ["GET /v1/health", "POST /v1/send", "GET /v1/slow", "GET /nope"] {
        let refused = daemon.call(Via::tcp(), line, &[("host", "localhost")]).await;
        assert_eq!(refused.headers()["www-authenticate"], "Bearer realm=\"claudemesh\"");
        assert_eq!(code(refused).await, "unauthenticated", "{line}");
    }
    assert_eq!(daemon.call(Via::tcp(), "GET /v1/health", &right).await.status(), 200);
    assert_eq!(daemon.unix("GET /v1/health", &[]).await.status(), 200);
    daemon.gate.public_health = true;
    assert_eq!(daemon.call(Via::tcp(), "GET /v1/health", &[]).await.status(), 200);
    assert_eq!(daemon.call(Via::tcp(), "POST /v1/send", &[]).await.status(), 401);
}

// Covers: R122, R123
#[tokio::test]
async fn no_answer_lets_a_page_in_and_no_agent_is_demanded() {
    let daemon = daemon();
    let page = [("origin", "http://localhost")];
    for (line, headers) in [("GET /v1/health", &[][..]), ("GET /v1/health", &page), ("OPTIONS /v1/send", &page)] {
        let response = daemon.unix(line, headers).await;
        assert!(response.headers().keys().all(|name| !name.as_str().starts_with("access-control-")), "{line}");
    }
}

// Covers: R133
#[tokio::test]
async fn the_request_above_the_limit_is_refused_and_may_come_again() {
    let daemon = daemon();
    let mut first = Box::pin(daemon.unix("GET /v1/slow", &[]));
    assert!(first.as_mut().now_or_never().is_none());
    let refused = daemon.unix("GET /v1/health", &[]).await;
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(code(refused).await, "daemon_busy");
    drop(first);
    assert_eq!(daemon.unix("GET /v1/health", &[]).await.status(), 200);
}

#[tokio::test]
async fn a_daemon_that_stops_says_so_and_still_tells_how_it_is() {
    let daemon = daemon();
    daemon.gate.stopping.cancel();
    assert_eq!(code(daemon.unix("POST /v1/send", &[]).await).await, "daemon_shutting_down");
    assert_eq!(daemon.unix("GET /v1/health", &[]).await.status(), 200);
}

#[tokio::test]
async fn a_requests_id_is_the_callers_or_a_new_one() {
    let daemon = daemon();
    let id = |response: Response| response.headers()["x-request-id"].to_str().unwrap().to_owned();
    assert_eq!(id(daemon.unix("GET /v1/health", &[("x-request-id", "mine-1")]).await), "mine-1");
    for bad in ["a b", "", &"x".repeat(129)] {
        assert_eq!(id(daemon.unix("GET /v1/health", &[("x-request-id", bad)]).await).len(), 26);
    }
}

// Covers: R313
#[tokio::test]
async fn calls_are_counted_by_routes_that_exist() {
    let daemon = daemon();
    daemon.unix("GET /v1/health", &[]).await;
    daemon.unix("GET /made-up-1", &[]).await;
    daemon.grpc("/made.up/Method", &[]).await;
    daemon.call(Via::tcp(), "POST /v1/send", &[]).await;
    let text = daemon.gate.metrics.prometheus_text(&Default::default());
    for line in [
        r#"cm_daemon_ipc_request_total{mesh="demo",endpoint="/v1/health",status="200",transport="uds"} 1"#,
        r#"cm_daemon_ipc_request_total{mesh="demo",endpoint="other",status="404",transport="uds"} 1"#,
        r#"cm_daemon_ipc_request_total{mesh="demo",endpoint="other",status="unimplemented",transport="uds"} 1"#,
        r#"cm_daemon_ipc_request_total{mesh="demo",endpoint="/v1/send",status="401",transport="tcp"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in:\n{text}");
    }
    assert!(!text.contains("made"), "{text}");
}
