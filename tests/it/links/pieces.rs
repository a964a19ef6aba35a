//! Large frames in pieces, and what is no such frame.

use serde_json::{Value, json};

use crate::support::fake_broker::{ALL_BITS, FakeBroker};
use crate::support::mesh::RawMesh;
use crate::support::postgres::Backend;
use crate::support::raw::{Member, Raw, plain_send};
use crate::support::{keys, wait};

/// Text of one piece in bytes.
const PIECE: usize = 16 * 1024;

fn piece(data: &str, last: bool) -> Value {
    json!({"type": "piece", "data": data, "last": last})
}

async fn alice(mesh: &RawMesh, features: &[&str]) -> Raw {
    let member = mesh.member("alice").await;
    negotiated(mesh, &member, features).await
}

/// To whom nothing is pushed before the negotiation.
async fn negotiated(mesh: &RawMesh, member: &Member, features: &[&str]) -> Raw {
    let mut hello = member.hello();
    hello["instanceId"] = json!("01J0000000000000000000000A");
    hello["bootId"] = json!("01J00000000000000000000001");
    let (mut raw, _) = Raw::hello(&mesh.url(), &hello).await;
    raw.negotiate(&[], features).await;
    raw
}

/// The frame that comes next, in pieces none of which is too large.
async fn whole(raw: &mut Raw) -> Value {
    let mut whole = String::new();
    loop {
        let next = raw.expect_past_events("piece").await;
        let data = next["data"].as_str().expect("data");
        assert!(data.len() <= PIECE, "{}", data.len());
        whole.push_str(data);
        if next["last"] == true {
            return serde_json::from_str(&whole).expect("a frame");
        }
    }
}

#[tokio::test]
async fn a_frame_in_pieces_counts_when_it_is_whole_and_others_pass_it() {
    let mesh = RawMesh::start(Backend::Sqlite).await;
    let bob = mesh.member("bob").await;
    let mut raw = alice(&mesh, &["max_payload", "frame_pieces"]).await;
    let mut send = plain_send(&bob.public());
    send["_reqId"] = json!("large");
    send["ciphertext"] = json!(keys::base64(&keys::random_bytes(60_000)));
    let text = send.to_string();
    let (first, rest) = text.split_at(40_000);
    raw.send(&piece(first, false)).await;
    assert_eq!(raw.peers().await.len(), 1, "answered before the large one is whole");
    raw.send(&piece(rest, true)).await;
    let ack = raw.expect_past_events("ack").await;
    assert_eq!((&ack["_reqId"], &ack["queued"]), (&json!("large"), &json!(true)), "{ack}");

    // It comes in pieces too, none larger than one, to who asked for them.
    let mut bob_raw = negotiated(&mesh, &bob, &["max_payload", "frame_pieces"]).await;
    let push = whole(&mut bob_raw).await;
    assert_eq!((&push["type"], &push["ciphertext"]), (&json!("push"), &send["ciphertext"]));
}

/// The list of a large mesh is as long as a large message.
#[tokio::test]
async fn a_long_answer_comes_in_pieces_to_who_asked_for_them() {
    const OTHERS: usize = 120;
    let mesh = RawMesh::start(Backend::Sqlite).await;
    for number in 0..OTHERS {
        mesh.member(&format!("{number} {}", "x".repeat(50))).await;
    }
    let members = |list: &Value| list["members"].as_array().map(Vec::len);
    let mut raw = alice(&mesh, &["max_payload", "frame_pieces"]).await;
    raw.send(&json!({"type": "member_list", "_reqId": "all"})).await;
    let list = whole(&mut raw).await;
    assert_eq!((&list["_reqId"], members(&list)), (&json!("all"), Some(OTHERS + 1)));
    assert!(list.to_string().len() > PIECE, "{}", list.to_string().len());
    assert_eq!(raw.peers().await.len(), 1, "what fits a piece is a frame");

    let bob = mesh.member("bob").await;
    let mut plain = negotiated(&mesh, &bob, &["max_payload"]).await;
    let (list, _) = plain.request(json!({"type": "member_list"})).await;
    assert_eq!(members(&list), Some(OTHERS + 2), "whole to who did not ask");
}

#[tokio::test]
async fn pieces_without_end_and_pieces_of_pieces_end_the_connection() {
    let mesh = RawMesh::start(Backend::Sqlite).await;
    let features = ["max_payload", "frame_pieces"];
    let mut endless = alice(&mesh, &features).await;
    for _ in 0..200 {
        endless.try_send(&piece(&"x".repeat(PIECE), false)).await;
    }
    endless.expect_close(1009, "").await;

    let mut nested = alice(&mesh, &features).await;
    nested.send(&piece(&piece("x", true).to_string(), true)).await;
    nested.expect_close(1008, "malformed").await;
}

#[tokio::test]
async fn pieces_that_were_not_negotiated_mean_nothing() {
    let mesh = RawMesh::start(Backend::Sqlite).await;
    let mut raw = alice(&mesh, &["max_payload"]).await;
    raw.send(&piece(&json!({"type": "list_peers", "_reqId": "q"}).to_string(), true)).await;
    assert_eq!(raw.answers_so_far().await, Vec::<Value>::new());
}

/// The daemon keeps no more of a frame than the largest that it reads.
#[tokio::test]
async fn a_broker_that_sends_pieces_without_end_is_left() {
    let fake = FakeBroker::start().await;
    let mut daemon = fake.member("alice");
    daemon.configure("[reconnect]\ninitial_backoff_ms = 50\nmax_backoff_ms = 200\n");
    daemon.start().await;
    let mut client = fake.link(&daemon).await;
    let flood = async {
        loop {
            client.try_send(&piece(&"x".repeat(PIECE), false)).await;
        }
    };
    let mut again = tokio::select! {
        again = wait::soon("another connection", fake.accept()) => again,
        () = flood => unreachable!("it sends for ever"),
    };
    again.welcome().await;
    again.negotiate(ALL_BITS).await;
    again.roster().await;
    daemon.connected().await;
}

/// One sender's large message does not keep what others have waiting in the database.
#[tokio::test]
async fn what_waits_in_the_database_passes_a_large_message() {
    let mesh = RawMesh::start(Backend::Sqlite).await;
    let features = ["max_payload", "frame_pieces"];
    // The first member has the first turn.
    let mut large = alice(&mesh, &features).await;
    let carol = mesh.member("carol").await;
    let mut small = negotiated(&mesh, &carol, &features).await;
    let bob = mesh.member("bob").await;
    let mut send = plain_send(&bob.public());
    send["ciphertext"] = json!(keys::base64(&keys::random_bytes(600_000)));
    large.request(send).await;
    small.request(plain_send(&bob.public())).await;

    let mut receiver = negotiated(&mesh, &bob, &features).await;
    let (mut pieces, mut passed_after, mut ended) = (0, None, false);
    while !ended || passed_after.is_none() {
        let frame = receiver.frame().await;
        match frame["type"].as_str() {
            Some("piece") => {
                pieces += 1;
                ended |= frame["last"] == true;
            }
            Some("push") if frame["subtype"] != "system" => passed_after = Some(pieces),
            _ => {}
        }
    }
    assert!(passed_after.is_some_and(|after| after < pieces), "{passed_after:?} of {pieces}");
}
