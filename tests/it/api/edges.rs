//! What callers get wrong, and what they are told.

use claudemesh::proto::pb;
use claudemesh::proto::pb::messaging_service_client::MessagingServiceClient;
use claudemesh::proto::pb::peer_service_client::PeerServiceClient;
use claudemesh::proto::pb::send_stream_response::Result as Answer;
use claudemesh::proto::pb::{Candidates, ListPeersRequest, SendStreamRequest, StreamEventsRequest};
use futures_util::StreamExt as _;
use prost::Message as _;
use serde_json::{Value, json};
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::daemon::{Daemon, Pair};
use crate::support::fake_broker::FakeBroker;
use crate::support::grpc::{self, send_request};
use crate::support::wait;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

async fn daemon(config: &str) -> (FakeBroker, Daemon) {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure(config);
    alice.start().await;
    fake.link(&alice).await.drop_link();
    (fake, alice)
}

#[track_caller]
fn reason(status: &tonic::Status) -> String {
    let details = status.get_error_details();
    details.error_info().unwrap_or_else(|| panic!("{status:?} holds no ErrorInfo")).reason.clone()
}

fn candidates_of(status: &tonic::Status) -> Vec<pb::Candidate> {
    let details = tonic_types::pb::Status::decode(status.details()).expect("details").details;
    let any = details.iter().find(|any| any.type_url == "type.googleapis.com/claudemesh.v1.Candidates");
    any.map(|any| Candidates::decode(any.value.as_slice()).expect("candidates").candidates).unwrap_or_default()
}

#[tokio::test]
async fn candidates_are_the_same_in_every_transport() {
    let Pair { broker: _broker, mesh: _mesh, alice, bob } = Pair::start().await;
    let member_id = bob.config_member()["memberId"].as_str().expect("an id").to_owned();
    let expected = json!([{"pubkey": bob.public(), "name": "bob", "member_id": member_id}]);
    for answer in [
        alice.post_send(&json!({"to": "bobb", "message": "x"})).await.expect(404),
        alice.http().get("/v1/inbox?from=bobb").send().await.expect(404),
        alice.http().get("/v1/events?sender=bobb").send().await.expect(404),
        alice.http().post("/v1/keys/verify", &json!({"peer": "bobb"})).send().await.expect(404),
    ] {
        let problem = answer.json();
        assert_eq!((&problem["code"], &problem["candidates"]), (&json!("unknown_peer"), &expected), "{problem}");
        assert_eq!(problem["metadata"].get("candidates"), None, "{problem}");
    }
    // Nobody is written alike, or it is another failure.
    for body in [json!({"to": "zebra", "message": "x"}), json!({"message": "x"})] {
        assert_eq!(alice.post_send(&body).await.json()["candidates"], json!([]), "{body}");
    }
    let mut client = grpc::messaging(&alice.socket()).await;
    let status = client.send(send_request("bobb", "x", "")).await.expect_err("refused");
    assert_eq!(reason(&status), "unknown_peer");
    let found = candidates_of(&status);
    assert_eq!((found.len(), found[0].pubkey.as_str(), found[0].member_id.as_str()), (1, &*bob.public(), &*member_id));
    assert!(!status.get_error_details().error_info().expect("info").metadata.contains_key("candidates"));
    let one = SendStreamRequest { index: 1, send: Some(send_request("bobb", "x", "")), ..Default::default() };
    let mut answers = client.send_stream(tokio_stream::iter([one])).await.expect("a stream").into_inner();
    let answer = answers.next().await.expect("an answer").expect("no failure");
    let Some(Answer::Error(error)) = answer.result else { panic!("{answer:?}") };
    assert_eq!(error.candidates, found);

    let failed = alice.cli(&["send", "bobb", "x"]).await.exits(1);
    assert!(failed.stderr.contains("did you mean bob ("), "{failed:?}");
    assert!(!failed.stderr.contains("candidates:"), "said twice: {failed:?}");
    let failed = alice.cli(&["send", "bobb", "x", "--json"]).await.exits(1);
    let error: Value = serde_json::from_str(&failed.stderr).expect("one object");
    assert_eq!(error["candidates"], expected, "{error}");
}

#[tokio::test]
async fn what_no_route_knows_is_refused_in_every_query() {
    let (_fake, alice) = daemon("").await;
    for path in [
        "/v1/health",
        "/v1/metrics",
        "/metrics",
        "/v1/version",
        "/v1/compat",
        "/v1/send/some-id",
        "/healthz",
        "/readyz",
        "/v1/inbox",
        "/v1/events",
        "/v1/peers",
        "/v1/outbox",
        "/v1/outbox/entry",
        "/v1/hooks",
        "/v1/hooks/runs",
        "/v1/topic/list",
        "/v1/keys/pinned",
        "/v1/keys/topic-admissions",
    ] {
        let answer = alice.http().get(&format!("{path}?nonsense=1")).send().await.expect(400).json();
        assert_eq!(answer["code"], "unknown_field", "{path}: {answer}");
        assert_eq!(answer["errors"][0]["field"], "nonsense", "{path}: {answer}");
    }
    for path in [
        "/v1/send",
        "/v1/topic/post",
        "/v1/topic/create",
        "/v1/topic/subscribe",
        "/v1/topic/unsubscribe",
        "/v1/heartbeat",
        "/v1/outbox/requeue",
        "/v1/outbox/drop",
        "/v1/outbox/prune",
        "/v1/hooks/reload",
        "/v1/keys/rotate-keypair",
        "/v1/keys/verify",
        "/v1/keys/accept-key",
        "/v1/keys/accept-name",
        "/v1/keys/rotate-topic-key",
        "/v1/keys/admit-topic-member",
    ] {
        // Also where the body would do.
        for query in ["nonsense=1", "nonsense", "to=bob", "message=x&to=bob"] {
            let body = json!({"to": "bob", "message": "x"});
            let answer = alice.http().post(&format!("{path}?{query}"), &body).send().await.expect(400).json();
            assert_eq!(answer["code"], "unknown_field", "{path}?{query}: {answer}");
        }
        // A question mark alone asks for nothing.
        let bare = alice.http().post(&format!("{path}?"), &json!({"nonsense": 1})).send().await.expect(400).json();
        assert_eq!(
            (&bare["code"], &bare["errors"][0]["field"]),
            (&json!("unknown_field"), &json!("nonsense")),
            "{path}"
        );
    }
}

#[tokio::test]
async fn names_in_a_query_have_the_spellings_of_a_body() {
    let (_fake, alice) = daemon("").await;
    let get = async |path: &str| alice.http().get(path).send().await.expect(200).json();
    assert_eq!(get("/v1/peers?includeOffline").await["peers"].as_array().map(Vec::len), Some(2));
    let first = get("/v1/peers?include_offline=1&limit=1").await;
    let token = first["next_page_token"].as_str().expect("a token");
    let next = get(&format!("/v1/peers?includeOffline=true&limit=1&pageToken={token}")).await;
    assert_ne!(first["peers"][0]["member_id"], next["peers"][0]["member_id"]);
    for path in
        ["/v1/keys/pinned?pendingOnly=true", "/v1/hooks/runs?failedOnly=true&messageId=x", "/v1/inbox?sender=bob"]
    {
        get(path).await;
    }
    for (path, field) in [
        ("/v1/peers?from=bob", "from"),
        ("/v1/peers?includeofline=1", "includeofline"),
        ("/v1/inbox?page-token=x", "page-token"),
    ] {
        let answer = alice.http().get(path).send().await.expect(400).json();
        assert_eq!(
            (&answer["code"], &answer["errors"][0]["field"]),
            (&json!("unknown_field"), &json!(field)),
            "{path}"
        );
    }
    for path in ["/v1/inbox?from=bob&sender=bob", "/v1/peers?include_offline&includeOffline"] {
        let answer = alice.http().get(path).send().await.expect(400).json();
        assert_eq!(answer["code"], "invalid_argument", "{path}: {answer}");
    }
    // Only a query has the other name.
    let body = alice.http().post("/v1/send", &json!({"from": "bob", "to": "bob", "message": "x"}));
    assert_eq!(body.send().await.expect(400).json()["code"], "unknown_field");
}

#[tokio::test]
async fn an_empty_key_is_not_no_key() {
    let (_fake, alice) = daemon("").await;
    let body = json!({"to": "bob", "message": "x", "client_message_id": "given"});
    for key in ["", "   ", "\"\""] {
        let answer =
            alice.http().post("/v1/send", &body).header("Idempotency-Key", key).send().await.expect(400).json();
        assert_eq!(answer["code"], "idempotency_key_invalid", "{key:?}: {answer}");
    }
    let mut client = grpc::messaging(&alice.socket()).await;
    for key in ["", "\"\""] {
        let mut request = tonic::Request::new(send_request("bob", "x", "given"));
        request.metadata_mut().insert("idempotency-key", key.parse().expect("a value"));
        assert_eq!(reason(&client.send(request).await.expect_err("refused")), "idempotency_key_invalid");
    }
    let db = alice.outbox_db().await;
    assert_eq!(db.number("SELECT count(*) FROM outbox").await, 0);
    db.close().await;
}

// Covers: R114
#[tokio::test]
async fn a_token_by_any_name_is_refused_in_a_query() {
    let (_fake, alice) = daemon("").await;
    for query in
        ["access_token=x", "ACCESS_TOKEN=x", "accessToken=x", "%61ccess%5ftoken=x", "local_token", "Local_Token="]
    {
        for target in [alice.http(), alice.tcp()] {
            let answer = target.get(&format!("/v1/health?{query}")).bearer(&alice.token()).send().await.expect(400);
            assert_eq!(answer.json()["code"], "token_in_query", "{query}");
        }
    }
}

#[tokio::test]
async fn refusals_speak_no_programming_language() {
    let (_fake, alice) = daemon("").await;
    let post = |body: &str| {
        alice.http().request("POST", "/v1/send").header("Content-Type", "application/json").body(body.to_owned())
    };
    let get = |path: &str| alice.http().get(path);
    for (request, field, words) in [
        (get("/v1/inbox?limit=ten"), "limit", "a whole number from 0 to 4294967295"),
        (get("/v1/inbox?limit="), "limit", "a whole number"),
        (get("/v1/inbox?since=yesterday"), "since", "not an RFC 3339 time such as 2026"),
        (get("/v1/inbox?order=random"), "order", "one of `oldest_first`, `newest_first`"),
        (get("/v1/peers?include_offline=perhaps"), "include_offline", "true or false"),
        (get("/v1/events?types=message,nothing"), "types[1]", "one of `message`"),
        (post(r#"{"to": 5, "message": "x"}"#), "to", "a text in quotes, not 5"),
        (post(r#"{"to": "bob", "message": null}"#), "message", "a text in quotes, not null"),
        (post(r#"{"to": "bob", "message": "x", "meta": []}"#), "meta", "an object, not a list"),
        (post(r#"{"to": "bob", "message": "x", "mentions": {}}"#), "mentions", "a list, not an object"),
        (post(r#"{"to": "bob", "message": "x", "priority": 4}"#), "priority", "one of `now`, `next`, `low`"),
        (post(r#"{"to": "bob", "masage": "x"}"#), "masage", "not known"),
    ] {
        let problem = request.send().await.expect(400).json();
        assert_eq!(problem["errors"][0]["field"], field, "{problem}");
        let said = problem["errors"][0]["description"].as_str().expect("a text");
        assert!(said.contains(words), "{problem}");
        let text = problem.to_string();
        for word in ["u32", "digit found", "invalid type", "struct", "variant", "sequence", " line 1 column"] {
            assert!(!text.contains(word), "{word}: {problem}");
        }
    }
}

#[tokio::test]
async fn a_compressed_request_is_refused_with_a_reason() {
    let (_fake, alice) = daemon("").await;
    for coding in ["gzip", "deflate", "br", "identity, gzip"] {
        let request = alice.http().post("/v1/send", &json!({"to": "bob", "message": "x"}));
        let problem = request.header("Content-Encoding", coding).send().await.expect(415).json();
        assert_eq!(problem["code"], "unsupported_media_type", "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|text| text.contains("compressed")), "{problem}");
    }
    let plain = alice.http().post("/v1/send", &json!({"to": "bob", "message": "x"}));
    plain.header("Content-Encoding", "identity").send().await.expect(202);
    let mut client = grpc::messaging(&alice.socket()).await;
    let mut request = tonic::Request::new(send_request("bob", "x", ""));
    request.metadata_mut().insert("grpc-encoding", "gzip".parse().expect("ASCII"));
    let status = client.send(request).await.expect_err("refused");
    assert_eq!(reason(&status), "unsupported_media_type", "{status:?}");
    assert!(status.message().contains("compressed"), "{status:?}");
    let mut peers = PeerServiceClient::new(grpc::channel(&alice.socket()).await);
    peers.list_peers(ListPeersRequest::default()).await.expect("the connection lives");
}

/// One request over HTTP/1.1 with the body of a gRPC call.
async fn framed(alice: &Daemon, kind: &str, message: &[u8]) -> crate::support::http::Response {
    let mut body = vec![0];
    body.extend(u32::try_from(message.len()).expect("a length").to_be_bytes());
    body.extend(message);
    let request = alice.http().request("POST", "/claudemesh.v1.MessagingService/Send");
    request.header("Content-Type", kind).header("TE", "trailers").body(body).send().await
}

#[tokio::test]
async fn what_is_not_grpc_is_told_so_and_not_carried_out() {
    let (_fake, alice) = daemon("").await;
    let message = send_request("bob", "x", "").encode_to_vec();
    for kind in
        ["application/grpc-web", "application/grpc-web+proto", "application/grpc-web-text", "Application/GRPC-Web; x=y"]
    {
        let problem = framed(&alice, kind, &message).await.expect(415).json();
        assert_eq!(problem["code"], "unsupported_media_type", "{kind}: {problem}");
        assert!(problem["detail"].as_str().is_some_and(|text| text.contains("gRPC-Web")), "{kind}: {problem}");
    }
    for kind in ["application/json", "text/plain", "application/protobuf"] {
        let problem = framed(&alice, kind, &message).await.expect(415).json();
        assert!(problem["detail"].as_str().is_some_and(|text| text.contains("application/grpc")), "{kind}: {problem}");
    }
    let nothing = alice.http().post("/claudemesh.v1.MessagingService/Nothing", &json!({})).send().await.expect(404);
    assert_eq!(nothing.json()["code"], "route_not_found", "{}", nothing.text());
    let request = alice.http().request("POST", "/claudemesh.v1.MessagingService/Nothing");
    let nothing = request.header("Content-Type", "application/grpc").body([0; 5]).send().await.expect(200);
    assert_eq!(nothing.header("grpc-status"), Some("12"), "{:?}", nothing.headers);
    assert!(nothing.header("grpc-status-details-bin").is_some(), "{:?}", nothing.headers);
    let json = framed(&alice, "application/grpc+json", &message).await.expect(200);
    assert_eq!(json.header("grpc-status"), Some("3"), "{:?}", json.headers);
    assert!(json.header("grpc-status-details-bin").is_some(), "{:?}", json.headers);
    let garbled = framed(&alice, "application/grpc", &[0xff; 20]).await.expect(200);
    assert_eq!(garbled.header("grpc-status"), Some("3"), "{:?}", garbled.headers);
    assert!(garbled.header("grpc-status-details-bin").is_some(), "{:?}", garbled.headers);
    let db = alice.outbox_db().await;
    assert_eq!(db.number("SELECT count(*) FROM outbox").await, 0);
    db.close().await;
}

#[tokio::test]
async fn streams_of_sends_have_places_of_their_own() {
    let (_fake, alice) = daemon("[limits]\nevent_streams = 1\nsend_streams = 2\n").await;
    let channel = grpc::channel(&alice.socket()).await;
    let open = async || {
        let mut client = MessagingServiceClient::new(channel.clone());
        let (requests, source) = tokio::sync::mpsc::channel(1);
        let requests_of = tokio_stream::wrappers::ReceiverStream::new(source);
        client.send_stream(requests_of).await.map(|answers| (requests, answers.into_inner()))
    };
    let held = [open().await.expect("one"), open().await.expect("two")];
    let refused = open().await.expect_err("one too many");
    assert_eq!((refused.code(), reason(&refused)), (Code::ResourceExhausted, "too_many_streams".to_owned()));
    assert!(refused.message().contains("send_streams"), "{refused:?}");
    // They take nothing from those who follow events.
    let mut events = grpc::events(&alice.socket()).await;
    let stream = events.stream_events(StreamEventsRequest::default()).await.expect("an event stream");
    let refused = events.stream_events(StreamEventsRequest::default()).await.expect_err("one too many");
    assert!(refused.message().contains("event_streams"), "{refused:?}");
    drop((held, stream));
    wait::until("a place to be free", async || open().await.ok()).await;
}

#[tokio::test]
async fn a_send_is_found_in_the_log_by_its_trace() {
    let (_fake, alice) = daemon("[daemon]\nlog_level = \"debug\"\n").await;
    let traced = |path: &'static str| {
        alice
            .log()
            .into_iter()
            .filter(move |line| line["path"] == path)
            .filter_map(|line| line.get("trace_id").map(|trace| trace.as_str().unwrap_or_default().to_owned()))
            .collect::<Vec<_>>()
    };
    let post = || alice.http().post("/v1/send", &json!({"to": "bob", "message": "x"}));
    post().header("traceparent", PARENT).send().await.expect(202);
    wait::until("the trace in the log", async || (traced("/v1/send") == [TRACE]).then_some(())).await;
    for bad in ["x", &PARENT.to_uppercase(), &format!("{PARENT}-more"), &PARENT.replace(TRACE, &"0".repeat(32))] {
        post().header("traceparent", bad).send().await.expect(202);
    }
    let mut client = grpc::messaging(&alice.socket()).await;
    let mut request = tonic::Request::new(send_request("bob", "x", ""));
    request.metadata_mut().insert("traceparent", PARENT.parse().expect("ASCII"));
    client.send(request).await.expect("taken");
    let grpc_path = "/claudemesh.v1.MessagingService/Send";
    wait::until("the trace of the call", async || (traced(grpc_path) == [TRACE]).then_some(())).await;
    // The log is in order: the wrong ones came before and have none.
    assert_eq!(traced("/v1/send"), [TRACE]);

    let with = |index: u32, context: &[(&str, &str)]| SendStreamRequest {
        index,
        send: Some(send_request("bob", "x", "")),
        trace_context: context.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        batch: Vec::new(),
    };
    let large = "x".repeat(1000);
    let requests = [
        with(1, &[("traceparent", PARENT), ("tracestate", "a=b"), ("other", "y")]),
        with(2, &[("traceparent", "x")]),
        with(3, &[("traceparent", PARENT), ("tracestate", &large)]),
        with(4, &[]),
    ];
    let mut answers = client.send_stream(tokio_stream::iter(requests)).await.expect("a stream").into_inner();
    while let Some(answer) = answers.next().await {
        assert!(matches!(answer.expect("an answer").result, Some(Answer::Response(_))));
    }
    let lines = wait::until("a line for each send", async || {
        let lines: Vec<_> = alice.log().into_iter().filter(|line| line["index"].is_u64()).collect();
        (lines.len() == 4).then_some(lines)
    })
    .await;
    for line in lines {
        let expected = if line["index"] == 1 { json!(TRACE) } else { Value::Null };
        assert_eq!(line["trace_id"], expected, "{line}");
    }
}
