//! What each route answers, over both transports.

use serde_json::{Value, json};

use crate::support::broker::read_trimmed;
use crate::support::daemon::{Daemon, Pair};
use crate::support::fake_broker::FakeBroker;
use crate::support::mesh::Mesh;

async fn get(daemon: &Daemon, path: &str) -> Value {
    daemon.http().get(path).send().await.expect(200).json()
}

// Covers: R98, R303
#[tokio::test]
async fn health_has_its_fields_with_and_without_a_link() {
    let Pair { mut broker, mesh: _mesh, alice, bob: _bob } = Pair::start().await;
    let connected = get(&alice, "/v1/health").await;
    assert_eq!(connected["connected"], true, "{connected}");
    assert_eq!(connected["broker_version"], env!("CARGO_PKG_VERSION"), "{connected}");
    assert!(connected["lag_ms"].as_f64().is_some_and(|lag| lag > 0.0), "{connected}");
    broker.stop().await;
    let apart = crate::support::wait::until("the loss to be noticed", async || {
        Some(get(&alice, "/v1/health").await).filter(|health| health["connected"] == false)
    })
    .await;
    for health in [&connected, &apart] {
        assert_eq!(health["mesh"], "demo", "{health}");
        assert_eq!(health["member_pubkey"], alice.public().as_str(), "{health}");
        assert_eq!(health["daemon_version"], env!("CARGO_PKG_VERSION"), "{health}");
        assert_eq!(health["broker_version"], env!("CARGO_PKG_VERSION"), "{health}");
        let schema: u32 = read_trimmed(&alice.file("schema_version")).parse().expect("a number");
        assert_eq!(health["schema_version"], schema, "{health}");
        for number in ["lag_ms", "queue_depth", "inflight", "uptime_s"] {
            assert!(health[number].is_number(), "{number} in {health}");
        }
    }
}

// Covers: R100, R407
#[tokio::test]
async fn version_says_what_is_served() {
    let Pair { broker: _broker, mesh: _mesh, alice, bob: _bob } = Pair::start().await;
    let version = get(&alice, "/v1/version").await;
    assert_eq!(version["daemon_version"], "0.9.0", "{version}");
    assert_eq!(version["ipc_api"], "v1", "{version}");
    assert_eq!(
        version["ipc_features"],
        json!(["send", "topic", "inbox", "peers", "profile", "events", "health"]),
        "{version}"
    );
    assert!(version["schema_version"].is_u64(), "{version}");
    let bits = version["broker_features_negotiated"].as_array().expect("broker_features_negotiated");
    assert!(bits.contains(&json!("client_message_id_dedupe")), "{version}");
}

// Covers: R102, R409
#[tokio::test]
async fn compat_is_published() {
    let Pair { broker: _broker, mesh: _mesh, alice, bob: _bob } = Pair::start().await;
    let expected = json!({
        "daemon": "0.9.0",
        "compatible_brokers": ["0.7.x", "0.8.x", "0.9.x"],
        "required_broker_features": ["client_message_id_dedupe", "concurrent_connection_policy"],
        "compatible_clis": ["0.9.x"],
        "compatible_sdks": {"python": ">=0.9.0,<1.0.0", "go": ">=0.9.0,<1.0.0", "ts": ">=0.9.0,<1.0.0"},
    });
    assert_eq!(get(&alice, "/v1/compat").await, expected);
}

// Covers: R99, R101
#[tokio::test]
async fn heartbeat_and_metrics() {
    let Pair { broker: _broker, mesh: _mesh, alice, bob: _bob } = Pair::start().await;
    let beat = alice.http().post("/v1/heartbeat", &json!({})).send().await.expect(200);
    assert_eq!(beat.json(), json!({}));
    let metrics = alice.http().get("/v1/metrics").send().await.expect(200);
    let kind = metrics.header("content-type").expect("a content type").to_owned();
    assert!(kind.starts_with("text/plain") || kind.starts_with("application/openmetrics-text"), "{kind}");
    let mut families = 0;
    for line in metrics.text().lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            families += 1;
            let parts: Vec<&str> = family.split(' ').collect();
            assert!(["counter", "gauge", "histogram", "unknown", "info"].contains(&parts[1]), "{line}");
        } else if !line.starts_with('#') && !line.is_empty() {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            assert!(name.starts_with(|letter: char| letter.is_ascii_lowercase()), "{line}");
            value.parse::<f64>().unwrap_or_else(|_| panic!("{line} ends in no number"));
        }
    }
    assert!(families > 5, "{}", metrics.text());
}

// Covers: R83
#[tokio::test]
async fn peers_are_of_the_own_mesh_only() {
    let Pair { broker, mesh: _mesh, alice, bob } = Pair::start().await;
    let other = Mesh::create(&broker, "other").await;
    let eve = Daemon::join(&broker, &other, "eve").await;
    eve.connected().await;
    for path in ["/v1/peers", "/v1/peers?mesh=demo", "/v1/peers?include_offline=true"] {
        let peers = get(&alice, path).await;
        let rows = peers["peers"].as_array().expect("peers");
        let names: Vec<&Value> = rows.iter().map(|row| &row["display_name"]).collect();
        assert_eq!(names, [&json!("alice"), &json!("bob")], "{path}: {peers}");
        assert_eq!((&rows[0]["is_self"], &rows[1]["is_self"]), (&json!(true), &json!(false)));
        assert_eq!(rows[1]["pubkey"], bob.public().as_str());
        assert_eq!(rows[1]["online"], true);
    }
    let foreign = alice.http().get("/v1/peers?mesh=other").send().await.expect(404);
    assert_eq!(foreign.json()["code"], "mesh_not_found");
    assert!(!foreign.text().contains("eve"));
}

// Covers: R106
#[tokio::test]
async fn socket_and_tcp_answer_alike() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    fake.link(&alice).await.drop_link();
    alice.post_send(&json!({"to": "bob", "message": "x", "client_message_id": "one"})).await.expect(202);
    let token = alice.token();
    let send = |message: &str| json!({"to": "bob", "message": message, "client_message_id": "one"});
    let mut pairs = Vec::new();
    for path in
        ["/v1/version", "/v1/compat", "/v1/inbox", "/v1/peers?include_offline=true", "/v1/nothing", "/v1/inbox?limit=x"]
    {
        pairs.push((alice.http().get(path), alice.tcp().get(path)));
    }
    for message in ["x", "other"] {
        pairs.push((alice.http().post("/v1/send", &send(message)), alice.tcp().post("/v1/send", &send(message))));
    }
    for (socket, tcp) in pairs {
        let (socket, tcp) = (socket.send().await, tcp.bearer(&token).send().await);
        let body = |answer: &crate::support::http::Response| {
            let mut body = answer.json();
            // The id of the request is each request's own.
            body.as_object_mut().map(|body| body.remove("instance"));
            body
        };
        assert_eq!((socket.status, body(&socket)), (tcp.status, body(&tcp)));
    }
}

// Covers: R103, R105
#[tokio::test]
async fn what_is_off_is_not_served() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    for path in [
        "/v1/state/set",
        "/v1/state/get",
        "/v1/state/list",
        "/v1/memory/remember",
        "/v1/memory/recall",
        "/v1/vector/store",
        "/v1/vector/search",
        "/v1/vector/delete",
        "/v1/graph/query",
        "/v1/task/create",
        "/v1/task/claim",
        "/v1/task/complete",
        "/v1/scheduling/remind",
        "/v1/mcp/register",
        "/v1/mcp/call",
        "/v1/skill/deploy",
        "/v1/skill/share",
    ] {
        for request in [alice.http().get(path), alice.http().post(path, &json!({}))] {
            let refused = request.send().await;
            assert_eq!(refused.status, 404, "{path}");
            assert_eq!(refused.json()["code"], "capability_disabled", "{path}");
        }
    }
}

#[tokio::test]
async fn every_refusal_is_a_problem_document() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let http = alice.http();
    let send =
        |kind: &str, body: &str| http.request("POST", "/v1/send").header("Content-Type", kind).body(body.to_owned());
    for (request, status, code) in [
        (http.get("/nothing"), 404, "route_not_found"),
        (http.get("/v1/send"), 405, "method_not_allowed"),
        (http.request("DELETE", "/v1/inbox"), 405, "method_not_allowed"),
        (send("text/plain", "{}"), 415, "unsupported_media_type"),
        (send("application/json", "{"), 400, "invalid_json"),
        (send("application/json", "{\"to\": \"bob\", \"masage\": \"x\"}"), 400, "unknown_field"),
        (http.get("/v1/inbox?unknown=1"), 400, "unknown_field"),
    ] {
        let answer = request.send().await;
        assert_eq!(answer.status, status, "{code}: {}", answer.text());
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{code}");
        let problem = answer.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["type"], format!("urn:claudemesh:error:{code}"), "{problem}");
        for field in ["title", "detail", "instance"] {
            assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{field} in {problem}");
        }
        assert_eq!(answer.header("x-request-id"), problem["instance"].as_str(), "{code}");
    }
}
