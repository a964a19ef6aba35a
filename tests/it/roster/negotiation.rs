//! The agreement on features, as the daemon sees it.

use std::time::{Duration, Instant};

use claudemesh::proto::pb::StreamEventsRequest;
use claudemesh::proto::pb::stream_events_response::Event;
use serde_json::{Value, json};

use crate::support::daemon::Daemon;
use crate::support::fake_broker::{ALL_BITS, FakeBroker};
use crate::support::{grpc, keys, wait};

fn good() -> Value {
    json!({
        "client_message_id_dedupe": {"version": 1, "mode": "retention_scoped", "dedupe_retention_days": 365},
        "concurrent_connection_policy": {"version": 1, "default_policy": "prefer_newest"},
        "member_keypair_rotated_event": {"version": 1},
        "max_payload": {"version": 1, "inline_bytes": 1_572_864, "blob_bytes": 0},
        "delivery_ack": {"version": 1},
    })
}

async fn started(settings: &str) -> (FakeBroker, Daemon) {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure(settings);
    alice.start().await;
    (fake, alice)
}

async fn status(daemon: &Daemon) -> Value {
    daemon.cli(&["daemon", "status", "--json"]).await.json()
}

fn last_exit(daemon: &Daemon) -> Value {
    let text = std::fs::read_to_string(daemon.file("last_exit.json")).expect("last_exit.json");
    serde_json::from_str(&text).expect("it is JSON")
}

// Covers: R404, R406
#[tokio::test]
async fn a_required_bit_with_parameters_that_cannot_be_used_counts_as_missing() {
    for (bit, params) in [
        ("client_message_id_dedupe", json!({"version": 1, "mode": "retention_scoped"})),
        ("client_message_id_dedupe", json!({"version": 1, "mode": "retention_scoped", "dedupe_retention_days": 0})),
        ("client_message_id_dedupe", json!({"version": 9, "mode": "permanent"})),
        ("concurrent_connection_policy", Value::Null),
    ] {
        let (fake, mut alice) = started("").await;
        let mut events = alice.http().get("/v1/events").stream().await;
        let mut stream = grpc::events(&alice.socket()).await;
        let mut stream = stream.stream_events(StreamEventsRequest::default()).await.expect("a stream").into_inner();
        let mut client = fake.accept().await;
        client.welcome().await;
        let mut all = good();
        all[bit] = params.clone();
        client.answer_features(ALL_BITS, &all).await;
        let (code, reason) = client.closed().await;
        assert_eq!((code, reason.as_str()), (4010, "feature_unavailable"), "{bit} {params}: {:?}", client.received);
        let said = client.received.iter().find(|frame| frame["type"] == "close_reason").expect("a reason goes first");
        assert_eq!((&said["kind"], &said["feature"]), (&json!("feature_unavailable"), &json!(bit)), "{said}");
        let told = events.next_of("feature_negotiation_failed").await.json();
        assert_eq!(told["feature_negotiation_failed"]["feature"], bit, "{told}");
        assert_eq!(told["feature_negotiation_failed"]["missing_required"], json!([bit]), "{told}");
        let mut next = async || wait::soon("the event", stream.message()).await.expect("it goes on").expect("an event");
        assert!(matches!(next().await.event, Some(Event::CaughtUp(_))));
        let told = next().await;
        assert!(matches!(told.event, Some(Event::FeatureNegotiationFailed(failed)) if failed.feature == bit));
        assert_eq!(alice.ended().await, 15, "{}", alice.output());
        let exit = last_exit(&alice);
        assert_eq!((&exit["code"], &exit["exit_code"]), (&json!("feature_unavailable"), &json!(15)), "{exit}");
        assert!(exit["detail"].as_str().is_some_and(|detail| detail.contains(bit)), "{exit}");
        let log = alice.log();
        let line = log.iter().find(|line| line.to_string().contains("feature_unavailable")).expect("a forensic line");
        assert!(line.to_string().contains(bit), "{line}");
    }
}

#[tokio::test]
async fn a_bad_optional_bit_falls_back_to_the_default_and_is_logged() {
    let (fake, alice) = started("").await;
    let mut client = fake.accept().await;
    client.welcome().await;
    let mut params = good();
    params["max_payload"] = json!({"version": 1, "inline_bytes": 1, "blob_bytes": 0});
    params["concurrent_connection_policy"] = json!({"version": 1, "default_policy": "prefer_tallest"});
    client.answer_features(ALL_BITS, &params).await;
    client.roster().await;
    alice.connected().await;
    let lines: Vec<String> = alice.log().iter().map(ToString::to_string).collect();
    let logged: Vec<_> = lines.iter().filter(|line| line.contains("feature_optional_param_invalid")).collect();
    assert!(logged.iter().any(|line| line.contains("max_payload")), "{lines:?}");
    assert!(logged.iter().any(|line| line.contains("concurrent_connection_policy")), "{lines:?}");
    let version = alice.http().get("/v1/version").send().await.expect(200).json();
    let bits = version["broker_features_negotiated"].as_array().expect("bits");
    assert!(!bits.contains(&json!("max_payload")), "{version}");
    assert!(bits.contains(&json!("concurrent_connection_policy")), "{version}");
    // The base protocol's frame holds less than 64 KiB.
    let refused = alice.post_send(&json!({"to": "bob", "message": "x".repeat(60_000)})).await.expect(413).json();
    assert_eq!(refused["code"], "payload_too_large", "{refused}");
}

#[tokio::test]
async fn a_broker_that_stalls_once_is_tried_again() {
    let (fake, mut alice) = started("").await;
    let mut client = fake.accept().await;
    client.welcome().await;
    let since = Instant::now();
    let (code, reason) = client.closed().await;
    assert_eq!((code, reason.as_str()), (1000, "negotiation_timeout"));
    let waited = since.elapsed();
    assert!((Duration::from_secs(4)..Duration::from_secs(8)).contains(&waited), "{waited:?}");
    alice.process().assert_running();
    let mut next = fake.connect().await;
    alice.connected().await;
    next.push_from(&fake.bob, "m1", Some("c1"), "after the stall").await;
    alice.received("after the stall").await;
}

// Covers: R404
#[tokio::test]
async fn three_silent_connects_with_answered_pings_end_the_daemon() {
    let (fake, mut alice) = started("[reconnect]\ninitial_backoff_ms = 10\nmax_backoff_ms = 10\n").await;
    for number in 1..=3 {
        alice.process().assert_running();
        let mut client = fake.accept().await;
        client.welcome().await;
        // Reading on answers the pings.
        let (code, _) = client.closed().await;
        assert_eq!(code, 1000, "connect {number}");
    }
    assert_eq!(alice.ended().await, 15, "{}", alice.output());
    let exit = last_exit(&alice);
    assert!(exit["detail"].as_str().is_some_and(|detail| detail.contains("answers pings")), "{exit}");
}

#[tokio::test]
async fn a_broker_that_had_the_bits_is_borne_also_over_a_restart() {
    let (fake, mut alice) = started("[reconnect]\ninitial_backoff_ms = 10\nmax_backoff_ms = 10\n").await;
    let client = fake.link(&alice).await;
    client.drop_link();
    for restart in [false, true] {
        if restart {
            alice.kill9();
            alice.start().await;
        }
        for _ in 0..2 {
            let mut client = fake.accept().await;
            client.welcome().await;
            client.negotiate(&["concurrent_connection_policy"]).await;
            assert_eq!(client.closed().await.0, 4010);
            alice.process().assert_running();
        }
        let link = status(&alice).await;
        assert!(link.to_string().contains("client_message_id_dedupe"), "the reason is in the status: {link}");
    }
    let _client = fake.link(&alice).await;
}

// Covers: R402
#[tokio::test]
async fn where_nothing_is_required_traffic_starts_at_once() {
    let (fake, alice) = started("[features]\nrequire = []\n").await;
    let mut client = fake.accept().await;
    client.peers = json!([{"pubkey": fake.bob.public(), "memberPubkey": fake.bob.public(), "displayName": "bob"}]);
    client.welcome().await;
    let since = Instant::now();
    let asked = client.expect("list_peers").await;
    assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
    let question = client.expect("feature_negotiation_request").await;
    assert_eq!(question["require"], json!([]));
    client.answer_lists(&asked).await;
    alice.knows("bob").await;
    alice.send("bob", "to an old broker").await;
    let sent = client.expect("send").await;
    let own = client.hello["pubkey"].as_str().expect("pubkey").to_owned();
    let open = |frame: &Value| {
        let bytes = |field: &str| keys::from_base64(frame[field].as_str().expect("base64"));
        keys::open(&fake.bob, &own, &bytes("nonce"), &bytes("ciphertext"))
    };
    assert_eq!(open(&sent).as_deref(), Some(&b"to an old broker"[..]));
    client.ack(&sent, "m1").await;
    // An answer that comes late is taken all the same.
    let answer = json!({
        "type": "feature_negotiation_response",
        "supported": ["max_payload"],
        "params": good(),
        "missing_required": [],
    });
    client.send(&answer).await;
    wait::until("the late answer to be in force", async || {
        let version = alice.http().get("/v1/version").send().await.expect(200).json();
        (version["broker_features_negotiated"] == json!(["max_payload"])).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_the_broker_says_of_a_close_is_shown() {
    let (fake, mut alice) = started("").await;
    let mut client = fake.link(&alice).await;
    let reason = |kind: &str, code: u16, detail: &str| json!({"type": "close_reason", "kind": kind, "code": code, "detail": detail, "retryable": code == 4001});
    client.send(&reason("kicked", 4001, "the rack is moved")).await;
    client.close(4001, "kicked").await;
    wait::until("the reason in the status", async || {
        status(&alice).await.to_string().contains("the rack is moved").then_some(())
    })
    .await;
    let mut client = fake.connect().await;
    client.send(&reason("member_revoked", 4005, "the owner asked for it")).await;
    client.close(4005, "member_revoked").await;
    assert_eq!(alice.ended().await, 14, "{}", alice.output());
    let exit = last_exit(&alice);
    assert!(exit["detail"].as_str().is_some_and(|detail| detail.contains("the owner asked for it")), "{exit}");
}

// Covers: R388
#[tokio::test]
async fn news_that_the_own_member_was_removed_ends_the_daemon() {
    let (fake, mut alice) = started("").await;
    let mut events = alice.http().get("/v1/events").stream().await;
    let mut client = fake.link(&alice).await;
    let news = json!({
        "type": "push", "messageId": "n1", "meshId": "FakeMesh", "senderPubkey": "system", "priority": "low",
        "nonce": "", "ciphertext": "", "createdAt": "2026-01-01T00:00:00.000Z", "subtype": "system",
        "event": "member_revoked",
        "eventData": {"memberId": client.hello["memberId"], "pubkey": client.hello["pubkey"], "revokedAt": 1},
    });
    client.send(&news).await;
    let told = events.next_of("member_revoked").await.json();
    assert_eq!(told["member_revoked"]["is_self"], true, "{told}");
    assert_eq!(alice.ended().await, 14, "{}", alice.output());
    assert!(!alice.socket().exists());
    assert!(alice.log().iter().any(|line| line.to_string().contains("member_revoked")));
}

// Covers: R417
#[tokio::test]
async fn strict_frames_refuse_what_is_not_known() {
    for strict in [false, true] {
        let (fake, mut alice) = started(&format!("[features]\nstrict_frames = {strict}\n")).await;
        let mut client = fake.link(&alice).await;
        let own = client.hello["pubkey"].as_str().expect("pubkey").to_owned();
        let (nonce, sealed) = keys::seal(&fake.bob, &own, b"with something new");
        let mut push =
            crate::support::fake_broker::push_frame(&client.hello, &fake.bob, "m1", Some("c1"), &nonce, &sealed);
        push["somethingNew"] = json!(1);
        client.send(&push).await;
        client.push_from(&fake.bob, "m2", Some("c2"), "known").await;
        alice.received("known").await;
        let stored = alice.inbox("").await.iter().any(|row| row["body"] == "with something new");
        assert_eq!(stored, !strict, "strict_frames = {strict}");
        alice.process().assert_running();
    }
}
