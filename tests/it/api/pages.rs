//! Pages of lists: tokens that mean one place in one list, and sizes that every
//! client takes.

use claudemesh::proto::pb::inbox_service_client::InboxServiceClient;
use claudemesh::proto::pb::{ListMessagesRequest, MessageOrder};
use prost::Message as _;
use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Pair, unique};
use crate::support::fake_broker::FakeBroker;
use crate::support::grpc;
use crate::support::wait;

/// Lists with what is listed and a filter.
const LISTS: [(&str, &str, &str); 5] = [
    ("/v1/inbox", "messages", ""),
    ("/v1/peers", "peers", ""),
    ("/v1/topic/list", "topics", ""),
    ("/v1/outbox", "entries", "statuses=done&"),
    ("/v1/keys/pinned", "members", ""),
];

async fn get(daemon: &Daemon, path: &str) -> Value {
    daemon.http().get(path).send().await.expect(200).json()
}

#[track_caller]
fn refuses_the_token(answer: &Value, what: &str) {
    assert_eq!(answer["code"], "invalid_argument", "{what}: {answer}");
    assert_eq!(answer["errors"][0]["field"], "page_token", "{what}: {answer}");
}

/// A pair in which every list of bob's has two items at least.
async fn full() -> (Pair, String) {
    let pair = Pair::start().await;
    for topic in ["ops", "dev"] {
        let path = "/v1/topic/create";
        pair.bob.http().post(path, &json!({"topic": topic})).send().await.expect(200);
    }
    for text in [unique("one"), unique("two")] {
        pair.alice.send("bob", &text).await;
        pair.bob.received(&text).await;
    }
    for _ in 0..2 {
        let id = pair.bob.send("alice", "an answer").await;
        pair.bob.outbox_status(&id, "done").await;
    }
    let first = get(&pair.bob, "/v1/inbox?limit=1").await;
    let event_id = first["messages"][0]["event_id"].as_str().expect("an event id").to_owned();
    (pair, event_id)
}

#[tokio::test]
async fn a_page_token_leads_on_in_its_own_list_alone() {
    let (pair, event_id) = full().await;
    let bob = &pair.bob;
    let mut tokens = Vec::new();
    for (path, items, filter) in LISTS {
        let page = get(bob, &format!("{path}?{filter}limit=1")).await;
        let token = page["next_page_token"].as_str().expect("a token").to_owned();
        assert!(!token.is_empty(), "{path}: {page}");
        let next = get(bob, &format!("{path}?{filter}limit=2&page_token={token}")).await;
        assert_ne!(page[items][0], next[items][0], "{path}");
        tokens.push((path, filter, token));
    }
    for (path, filter, token) in &tokens {
        // Of another list, damaged, cut, and what is no token at all.
        let others = tokens.iter().filter(|(other, ..)| other != path).map(|(.., token)| token.clone());
        let mut damaged = token.clone().into_bytes();
        let last = damaged.len() - 2;
        damaged[last] = if damaged[last] == b'A' { b'B' } else { b'A' };
        let damaged = String::from_utf8(damaged).expect("ASCII");
        let wrong = [damaged, token[..token.len() - 4].to_owned(), event_id.clone(), "x".to_owned(), "%00".to_owned()];
        for token in others.chain(wrong) {
            let answer = bob.http().get(&format!("{path}?{filter}page_token={token}")).send().await.expect(400).json();
            refuses_the_token(&answer, &format!("{path} {token}"));
        }
    }
    // Of the same list with other filters.
    let token = |path: &str| tokens.iter().find(|(own, ..)| *own == path).expect("a token").2.clone();
    for (path, filters) in [
        ("/v1/inbox", "sender=alice"),
        ("/v1/inbox", "order=newest_first"),
        ("/v1/inbox", "topic=ops"),
        ("/v1/inbox", "since=2020-01-01T00:00:00Z"),
        ("/v1/peers", "include_offline=true"),
        ("/v1/peers", "roles=session"),
        ("/v1/outbox", "statuses=pending"),
        ("/v1/keys/pinned", "pending_only=true"),
    ] {
        let answer = bob.http().get(&format!("{path}?{filters}&page_token={}", token(path))).send().await;
        refuses_the_token(&answer.expect(400).json(), &format!("{path}?{filters}"));
    }
    // The place of a message is the `after` of a list, whatever its filters.
    let after = get(bob, &format!("/v1/inbox?after={event_id}&sender=alice")).await;
    assert_eq!(after["messages"].as_array().map(Vec::len), Some(1), "{after}");
}

#[tokio::test]
async fn a_token_goes_from_rest_to_grpc_and_the_limit_may_change() {
    let (pair, _) = full().await;
    let page = get(&pair.bob, "/v1/inbox?limit=1&sender=alice").await;
    let page_token = page["next_page_token"].as_str().expect("a token").to_owned();
    let mut inbox = grpc::inbox(&pair.bob.socket()).await;
    let request = ListMessagesRequest { sender: "alice".to_owned(), page_token, limit: 50, ..Default::default() };
    let rest = inbox.list_messages(request.clone()).await.expect("a page").into_inner();
    assert_eq!((rest.messages.len(), rest.next_page_token.as_str()), (1, ""));
    let newest = ListMessagesRequest { order: MessageOrder::NewestFirst.into(), ..request };
    let refused = inbox.list_messages(newest).await.expect_err("other filters");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused:?}");
}

// Covers: R132
#[tokio::test]
async fn a_client_with_default_limits_reads_an_inbox_of_large_messages() {
    const MESSAGES: usize = 9;
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let mut client = fake.link(&alice).await;
    for number in 0..MESSAGES {
        // Control characters: one byte here and in gRPC, six in JSON.
        let text = format!("{number:02}{}", "\u{1}".repeat(900_000));
        client.push_from(&fake.bob, &format!("m{number}"), Some(&format!("c{number}")), &text).await;
    }
    wait::until("all to be stored", async || {
        (get(&alice, "/v1/health").await, alice.inbox("").await.len()).1.eq(&MESSAGES).then_some(())
    })
    .await;
    // As every generated client is made: at most 4 MiB.
    let mut inbox = InboxServiceClient::new(grpc::channel(&alice.socket()).await);
    let (mut seen, mut page_token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let request = ListMessagesRequest { page_token, ..Default::default() };
        let page = inbox.list_messages(request).await.expect("a page").into_inner();
        assert!(page.encoded_len() <= 3_670_016, "{}", page.encoded_len());
        pages += 1;
        seen.extend(page.messages.iter().map(|message| message.body[..2].to_owned()));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    let expected: Vec<String> = (0..MESSAGES).map(|number| format!("{number:02}")).collect();
    assert_eq!((seen, pages), (expected, 3));
    let json = alice.http().get("/v1/inbox").send().await.expect(200);
    assert!((5_000_000..=10_000_000).contains(&json.body.len()), "{}", json.body.len());
    assert_ne!(json.json()["next_page_token"], "");
}
