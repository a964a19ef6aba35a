//! Events: replay, then live, without gap or repeat.

use serde_json::json;

use crate::support::daemon::{Daemon, Pair, unique};
use crate::support::http::EventStream;

async fn follow(daemon: &Daemon, query: &str, last_event_id: Option<&str>) -> EventStream {
    let mut request = daemon.http().get(&format!("/v1/events{query}")).header("Accept", "text/event-stream");
    if let Some(id) = last_event_id {
        request = request.header("Last-Event-ID", id);
    }
    let stream = request.stream().await;
    assert_eq!(stream.status, 200);
    stream
}

/// Id and text of the next message.
async fn message(stream: &mut EventStream) -> (String, String) {
    let event = stream.next_of("message").await;
    let body = event.json()["message"]["body"].as_str().expect("a body").to_owned();
    (event.id.expect("a stored message has an id"), body)
}

// Covers: R89
#[tokio::test]
async fn the_stream_is_what_a_browser_api_expects() {
    let Pair { broker: _broker, alice, bob, .. } = Pair::start().await;
    let mut stream = follow(&bob, "", None).await;
    let header = |name: &str| {
        stream.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_lowercase())
    };
    assert!(header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")), "{:?}", stream.headers);
    assert!(header("cache-control").is_some_and(|value| value.contains("no-cache")), "{:?}", stream.headers);
    assert_eq!(header("access-control-allow-origin"), None);
    // It is in force when its head is there: nothing that follows is missed.
    let text = unique("live");
    alice.send("bob", &text).await;
    let (id, body) = message(&mut stream).await;
    assert_eq!(body, text);
    assert!(id.contains('-'), "{id} is <generation>-<seq>");
}

// Covers: R181
#[tokio::test]
async fn a_stream_resumes_over_a_restart_without_gap_or_repeat() {
    let Pair { broker: _broker, alice, mut bob, .. } = Pair::start().await;
    let run = unique("run");
    let mut expected = Vec::new();
    let send = async |alice: &Daemon, number: usize| {
        let text = format!("{run} {number:02}");
        alice.send("bob", &text).await;
        text
    };
    let mut stream = follow(&bob, "", None).await;
    let mut seen = Vec::new();
    let mut last = String::new();
    for round in 0..3 {
        for number in 0..5 {
            expected.push(send(&alice, round * 10 + number).await);
        }
        // Only some are read before the daemon goes.
        while seen.len() < expected.len() - 2 {
            let (id, body) = message(&mut stream).await;
            last = id;
            seen.push(body);
        }
        if round == 1 {
            bob.kill9();
        } else {
            bob.stop().await;
        }
        drop(stream);
        expected.push(send(&alice, round * 10 + 9).await);
        bob.start().await;
        stream = follow(&bob, "", Some(&last)).await;
    }
    while seen.len() < expected.len() {
        seen.push(message(&mut stream).await.1);
    }
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn the_header_wins_over_the_parameter() {
    let Pair { broker: _broker, alice, bob, .. } = Pair::start().await;
    let mut ids = Vec::new();
    for number in 0..4 {
        let text = unique(&format!("message {number}"));
        alice.send("bob", &text).await;
        ids.push((bob.received(&text).await["event_id"].as_str().expect("an id").to_owned(), text));
    }
    let mut stream = follow(&bob, &format!("?after={}", ids[0].0), Some(&ids[2].0)).await;
    assert_eq!(message(&mut stream).await, ids[3]);
    let mut stream = follow(&bob, &format!("?after={}", ids[0].0), None).await;
    assert_eq!(message(&mut stream).await, ids[1], "exclusive");
    let mut stream = follow(&bob, "?from_start=true", None).await;
    for expected in &ids {
        assert_eq!(&message(&mut stream).await, expected);
    }
}

#[tokio::test]
async fn a_place_that_is_unknown_yields_a_gap_and_then_everything() {
    let Pair { broker: _broker, alice, bob, .. } = Pair::start().await;
    let text = unique("the oldest");
    alice.send("bob", &text).await;
    bob.received(&text).await;
    let mut stream = follow(&bob, "", Some("01J0000000000000000000000A-7")).await;
    let gap = stream.next().await.expect("an event");
    assert_eq!(gap.kind.as_deref(), Some("gap"), "{gap:?}");
    let gap = gap.json();
    assert_eq!(gap["gap"]["reason"], "unknown_position", "{gap}");
    assert_eq!(message(&mut stream).await.1, text);
}

#[tokio::test]
async fn events_can_be_chosen_by_kind() {
    let Pair { broker: _broker, alice, bob, .. } = Pair::start().await;
    let mut stream = follow(&alice, "?types=delivery_status", None).await;
    assert_eq!(stream.next().await.expect("an event").kind.as_deref(), Some("caught_up"), "no filter holds it back");
    let text = unique("follow me");
    let id = alice.send("bob", &text).await;
    bob.received(&text).await;
    let mut states = Vec::new();
    while states.last() != Some(&json!("delivered")) {
        let event = stream.next().await.expect("an event");
        assert_eq!(event.kind.as_deref(), Some("delivery_status"), "{event:?}");
        let status = &event.json()["delivery_status"];
        assert_eq!(status["client_message_id"], id.as_str());
        states.push(status["status"].clone());
    }
    assert_eq!(states, [json!("accepted"), json!("delivered")]);
}

// Covers: R32, R134
#[tokio::test]
async fn one_stream_too_many_is_refused() {
    let Pair { broker: _broker, bob, .. } = Pair::start().await;
    let mut open = Vec::new();
    for _ in 0..32 {
        open.push(follow(&bob, "", None).await);
    }
    let refused = bob.http().get("/v1/events").send().await.expect(429);
    assert_eq!(refused.json()["code"], "too_many_streams");
    assert!(refused.header("retry-after").is_some(), "{:?}", refused.headers);
    open.pop();
    crate::support::wait::until("a place", async || {
        let stream = bob.http().get("/v1/events").stream().await;
        (stream.status == 200).then_some(())
    })
    .await;
}

/// Where the replay ends is told once, with the place to go on from: also to a
/// reader who wanted live events only, and over gRPC whatever types it asked for.
#[tokio::test]
async fn a_reader_is_told_when_it_has_caught_up_and_from_where_to_resume() {
    let Pair { broker: _broker, alice, mut bob, .. } = Pair::start().await;
    // Nothing is stored yet, and nothing is missed that comes before it is back.
    let mut empty = follow(&bob, "?types=peer_join", None).await;
    let first = empty.next_of("caught_up").await;
    assert_eq!(first.json()["caught_up"], json!({}));
    let place = first.id.expect("a place");
    assert!(place.ends_with("-0"), "{place}");
    drop(empty);
    bob.stop().await;
    let texts = [unique("one"), unique("two")];
    for text in &texts {
        alice.send("bob", text).await;
    }
    bob.start().await;
    bob.received(&texts[1]).await;

    let mut stream = follow(&bob, "", Some(&place)).await;
    let mut kinds: Vec<String> = Vec::new();
    let mut last = String::new();
    while kinds.last().is_none_or(|kind| kind != "caught_up") {
        let event = stream.next().await.expect("an event");
        let kind = event.kind.unwrap_or_default();
        // Presence is live, and may come whenever it happens.
        if kind == "message" || kind == "caught_up" {
            last = event.id.expect("a place");
            kinds.push(kind);
        }
    }
    assert_eq!(kinds, ["message", "message", "caught_up"]);
    let rows = bob.inbox("").await;
    assert_eq!(rows.last().expect("a row")["event_id"], last.as_str(), "the newest place");
    // Live events follow, and it is not said again.
    let text = unique("live");
    alice.send("bob", &text).await;
    assert_eq!(message(&mut stream).await.1, text);
}
