//! The same calls over gRPC.

use claudemesh::proto::pb::send_stream_response::Result as Answer;
use claudemesh::proto::pb::{
    ListMessagesRequest, SendStatus, SendStreamRequest, StreamEventsRequest, stream_events_response::Event,
};
use futures_util::StreamExt as _;
use tonic::Code;
use tonic_types::StatusExt as _;

use crate::support::daemon::{Daemon, Pair, unique};
use crate::support::fake_broker::FakeBroker;
use crate::support::grpc::{self, send_request};
use crate::support::wait;

async fn queued() -> (FakeBroker, Daemon) {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    fake.link(&alice).await.drop_link();
    (fake, alice)
}

/// Code of the status, and reason and metadata of its `ErrorInfo`.
#[track_caller]
fn reason(status: &tonic::Status) -> (Code, String) {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("{status:?} holds no ErrorInfo"));
    assert_eq!(info.domain, "claudemesh", "{status:?}");
    (status.code(), info.reason.clone())
}

// Covers: R76, R143-R145
#[tokio::test]
async fn a_send_and_where_its_id_comes_from() {
    let (_fake, alice) = queued().await;
    let mut client = grpc::messaging(&alice.socket()).await;
    let mut request = tonic::Request::new(send_request("bob", "x", "from-field"));
    request.metadata_mut().insert("idempotency-key", "from-metadata".parse().expect("ASCII"));
    let answer = client.send(request).await.expect("taken").into_inner();
    assert_eq!(answer.client_message_id, "from-metadata");
    assert_eq!(answer.status(), SendStatus::Queued);
    let answer = client.send(send_request("bob", "x", "from-field")).await.expect("taken").into_inner();
    assert_eq!(answer.client_message_id, "from-field");
    let minted = client.send(send_request("bob", "x", "")).await.expect("taken").into_inner();
    assert_eq!(minted.client_message_id.len(), 26);
    let recipient = minted.recipient.expect("a recipient");
    assert_eq!((recipient.name.as_str(), recipient.member_id.as_str()), ("bob", "member-bob"));
}

#[tokio::test]
async fn refusals_carry_their_code_as_a_detail() {
    let (_fake, alice) = queued().await;
    let mut client = grpc::messaging(&alice.socket()).await;
    client.send(send_request("bob", "first", "taken")).await.expect("taken");
    for (request, code, name) in [
        (send_request("bob", "other", "taken"), Code::AlreadyExists, "outbox_pending_fingerprint_mismatch"),
        (send_request("nobody", "x", ""), Code::NotFound, "unknown_peer"),
        (send_request("", "x", ""), Code::InvalidArgument, "invalid_argument"),
        (send_request("bob", "x", "not visible\u{7f}"), Code::InvalidArgument, "idempotency_key_invalid"),
        (send_request("bob", &"x".repeat(1_048_577), ""), Code::InvalidArgument, "payload_too_large"),
    ] {
        let status = client.send(request).await.expect_err("refused");
        assert_eq!(reason(&status), (code, name.to_owned()));
    }
}

#[tokio::test]
async fn a_stream_of_sends_answers_each_by_its_index() {
    let (_fake, alice) = queued().await;
    let mut client = grpc::messaging(&alice.socket()).await;
    let mut requests: Vec<SendStreamRequest> = (0..500)
        .map(|index| SendStreamRequest {
            index,
            send: Some(send_request("bob", "x", &format!("stream-{index}"))),
            ..SendStreamRequest::default()
        })
        .collect();
    requests[7].send = Some(send_request("nobody", "x", "refused"));
    let answers = client.send_stream(tokio_stream::iter(requests)).await.expect("a stream").into_inner();
    let mut answers: Vec<_> = answers.map(|answer| answer.expect("an answer")).collect().await;
    answers.sort_by_key(|answer| answer.index);
    assert_eq!(answers.len(), 500);
    for answer in answers {
        match (answer.index, answer.result.expect("a result")) {
            (7, Answer::Error(error)) => assert_eq!(error.code, "unknown_peer"),
            (index, Answer::Response(accepted)) => assert_eq!(accepted.client_message_id, format!("stream-{index}")),
            (index, Answer::Error(error)) => panic!("{index}: {error:?}"),
        }
    }
    let db = alice.outbox_db().await;
    assert_eq!(db.number("SELECT count(*) FROM outbox").await, 499);
    db.close().await;
}

fn streamed(index: u32, to: &str) -> SendStreamRequest {
    SendStreamRequest {
        index,
        send: Some(send_request(to, "x", &format!("batch-{index}"))),
        ..SendStreamRequest::default()
    }
}

fn batched(batch: Vec<SendStreamRequest>) -> SendStreamRequest {
    SendStreamRequest { batch, ..SendStreamRequest::default() }
}

#[tokio::test]
async fn sends_of_a_batch_are_answered_in_batches() {
    let (_fake, alice) = queued().await;
    let mut client = grpc::messaging(&alice.socket()).await;
    let to = |index| if index == 70 { "nobody" } else { "bob" };
    let all: Vec<SendStreamRequest> = (0..640).map(|index| streamed(index, to(index))).collect();
    let requests: Vec<SendStreamRequest> = all.chunks(64).map(|some| batched(some.to_vec())).collect();
    let answers = client.send_stream(tokio_stream::iter(requests)).await.expect("a stream").into_inner();
    let messages: Vec<_> = answers.map(|answer| answer.expect("an answer")).collect().await;
    assert!(messages.iter().all(|one| one.result.is_none() && (1..=64).contains(&one.batch.len())));
    assert!(messages.len() < 320, "{} messages for 640 answers", messages.len());
    let mut answers: Vec<_> = messages.into_iter().flat_map(|one| one.batch).collect();
    answers.sort_by_key(|answer| answer.index);
    assert_eq!(answers.iter().map(|answer| answer.index).collect::<Vec<_>>(), (0..640).collect::<Vec<_>>());
    for answer in answers {
        match (answer.index, answer.result.expect("a result")) {
            (70, Answer::Error(error)) => {
                assert_eq!(
                    (error.code.as_str(), &error.metadata["client_message_id"][..]),
                    ("unknown_peer", "batch-70")
                );
            }
            (index, Answer::Response(accepted)) => assert_eq!(accepted.client_message_id, format!("batch-{index}")),
            (index, Answer::Error(error)) => panic!("{index}: {error:?}"),
        }
    }
    // A single one after a batch is answered, too, as the caller reads it.
    let requests = [batched(vec![streamed(1, "bob")]), streamed(2, "bob")];
    let answers = client.send_stream(tokio_stream::iter(requests)).await.expect("a stream").into_inner();
    let answers: Vec<_> = answers.map(|answer| answer.expect("an answer").batch).collect().await;
    assert_eq!(answers.iter().map(Vec::len).sum::<usize>(), 2, "{answers:?}");
}

#[tokio::test]
async fn a_batch_that_makes_no_sense_ends_the_stream_with_its_field() {
    let (_fake, alice) = queued().await;
    let mut client = grpc::messaging(&alice.socket()).await;
    let mut both = batched(vec![streamed(1, "bob")]);
    both.send = streamed(2, "bob").send;
    for (request, field) in [
        (batched((0..65).map(|index| streamed(index, "bob")).collect()), "batch"),
        (batched(vec![batched(vec![streamed(1, "bob")])]), "batch"),
        (both, "send"),
        (batched(vec![streamed(1, "bob"), streamed(1, "bob")]), "index"),
    ] {
        let mut answers = client.send_stream(tokio_stream::iter([request])).await.expect("a stream").into_inner();
        let status = wait::soon("the end", answers.next()).await.expect("an end").expect_err("refused");
        assert_eq!(reason(&status), (Code::InvalidArgument, "invalid_argument".to_owned()));
        let details = status.get_error_details();
        let violations = &details.bad_request().expect("the fields").field_violations;
        assert_eq!(violations[0].field, field, "{status:?}");
    }
}

// Covers: R90, R181
#[tokio::test]
async fn events_resume_after_an_id() {
    let Pair { broker: _broker, mesh: _mesh, alice, bob } = Pair::start().await;
    let mut texts = Vec::new();
    for number in 0..3 {
        let text = unique(&format!("message {number}"));
        alice.send("bob", &text).await;
        bob.received(&text).await;
        texts.push(text);
    }
    let mut client = grpc::events(&bob.socket()).await;
    let mut first = String::new();
    for after_first in [false, true] {
        let request = StreamEventsRequest { after: first.clone(), from_start: !after_first, ..Default::default() };
        let mut stream = client.stream_events(request).await.expect("a stream").into_inner();
        for text in &texts[usize::from(after_first)..] {
            let event = wait::soon("an event", stream.next()).await.expect("an event").expect("no failure");
            let Some(Event::Message(message)) = event.event else { panic!("{event:?}") };
            assert_eq!(&message.body, text);
            assert_eq!(event.event_id, message.event_id);
            if first.is_empty() {
                first = event.event_id;
            }
        }
    }
    let mut inbox = grpc::inbox(&bob.socket()).await;
    let page = inbox.list_messages(ListMessagesRequest { after: first, ..Default::default() }).await;
    let bodies: Vec<String> =
        page.expect("a page").into_inner().messages.into_iter().map(|message| message.body).collect();
    assert_eq!(bodies, texts[1..]);
}

/// A receiver of very many small frames must not make the connection fail.
#[tokio::test]
async fn a_fast_stream_of_small_messages_passes() {
    let Pair { broker: _broker, mesh: _mesh, alice, bob } = Pair::start().await;
    let mut events = grpc::events(&bob.socket()).await;
    let mut stream = events.stream_events(StreamEventsRequest::default()).await.expect("a stream").into_inner();
    let mut client = grpc::messaging(&alice.socket()).await;
    let requests: Vec<SendStreamRequest> = (0..1000)
        .map(|index| SendStreamRequest {
            index,
            send: Some(send_request("bob", "s", &format!("small-{index}"))),
            ..SendStreamRequest::default()
        })
        .collect();
    let mut answers = client.send_stream(tokio_stream::iter(requests)).await.expect("a stream").into_inner();
    while let Some(answer) = answers.next().await {
        answer.expect("an answer");
    }
    let mut seen = 0;
    while seen < 1000 {
        let event = wait::soon("an event", stream.next()).await.expect("the stream lives").expect("no failure");
        seen += usize::from(matches!(event.event, Some(Event::Message(_))));
    }
}

// Covers: R108
#[tokio::test]
async fn over_tcp_the_token_is_needed_as_well() {
    let (_fake, alice) = queued().await;
    let port = crate::support::broker::read_trimmed(&alice.file("http.port"));
    let endpoint = tonic::transport::Endpoint::try_from(format!("http://127.0.0.1:{port}")).expect("an address");
    let mut client = claudemesh::proto::pb::messaging_service_client::MessagingServiceClient::new(
        endpoint.connect().await.expect("a connection"),
    );
    let status = client.send(send_request("bob", "x", "")).await.expect_err("no token");
    assert_eq!(reason(&status), (Code::Unauthenticated, "unauthenticated".to_owned()));
    let mut request = tonic::Request::new(send_request("bob", "x", ""));
    let bearer = format!("Bearer {}", alice.token());
    request.metadata_mut().insert("authorization", bearer.parse().expect("ASCII"));
    client.send(request).await.expect("with the token");
}
