//! Sizes, paces and paths.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::keys;
use crate::support::mesh::RawMesh;
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::raw::{Raw, plain_send, send_with_id};
use crate::support::wait;

async fn a_frame_over_the_limit_closes_with_1009(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (_, mut raw) = mesh.connected("alice").await;
    raw.send_text(&format!("{{\"type\": \"list_peers\", \"pad\": \"{}\"}}", "x".repeat(4 << 20))).await;
    raw.expect_close(1009, "").await;
}

async fn a_message_of_a_megabyte_passes_where_it_was_negotiated(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, bob) = (mesh.member("alice").await, mesh.member("bob").await);
    let url = mesh.url();
    let (mut alice_raw, _) =
        Raw::daemon(&url, &alice, "01J0000000000000000000000A", "01J0000000000000000000000B").await;
    let (mut bob_raw, answer) =
        Raw::daemon(&url, &bob, "01J0000000000000000000000C", "01J0000000000000000000000D").await;
    let inline = answer["params"]["max_payload"]["inline_bytes"].as_u64().expect("max_payload");
    assert!(inline >= 1_400_000, "{answer}");
    let mut frame = plain_send(&bob.public());
    frame["ciphertext"] = json!(keys::base64(&keys::random_bytes(1_048_576)));
    let (ack, _) = alice_raw.request(frame.clone()).await;
    assert_eq!(ack["queued"], true, "{ack}");
    assert_eq!(bob_raw.message().await["ciphertext"], frame["ciphertext"]);
}

async fn only_the_exact_path_upgrades(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    for path in ["/ws?x=y", "/ws/", "/", "/other", "//ws"] {
        let mut stream = tokio::net::TcpStream::connect(mesh.broker.address()).await.expect("a connection");
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: broker\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("the request is taken");
        let mut first = [0; 12];
        let upgraded = wait::soon("an answer or the end", stream.read(&mut first)).await.unwrap_or(0);
        assert!(!first[..upgraded].ends_with(b" 101"), "{path} was upgraded");
        if path == "/ws?x=y" {
            assert_eq!(upgraded, 0, "the socket is destroyed without an HTTP answer");
        }
    }
}

async fn an_offer_of_compression_is_not_taken(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let mut stream = tokio::net::TcpStream::connect(mesh.broker.address()).await.expect("a connection");
    let request = "GET /ws HTTP/1.1\r\nHost: broker\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("the request is taken");
    let mut head = vec![0; 4096];
    let count = wait::soon("the answer", stream.read(&mut head)).await.expect("an answer");
    let head = String::from_utf8_lossy(&head[..count]).to_ascii_lowercase();
    assert!(head.starts_with("http/1.1 101") && !head.contains("permessage-deflate"), "{head}");
}

async fn a_member_over_its_pace_is_told_when_to_come_back(backend: Backend) {
    let mesh = RawMesh::with(backend, &[("member_rate_per_s", "5")]).await;
    let bob = mesh.member("bob").await;
    let (_, mut raw) = mesh.connected("alice").await;
    let mut refused = None;
    for _ in 0..500 {
        let (ack, _) = raw.request(plain_send(&bob.public())).await;
        if ack["queued"] == false {
            refused = Some(ack);
            break;
        }
    }
    let ack = refused.expect("the pace is limited");
    assert_eq!(ack["code"], "rate_limit", "{ack}");
    assert_eq!(ack["retryable"], true, "{ack}");
    assert!(ack["retryAfterMs"].as_u64().is_some_and(|ms| ms > 0 && ms <= 60_000), "{ack}");
    assert!(ack["error"].as_str().is_some_and(|text| text.starts_with("rate_limit")), "{ack}");
}

async fn what_was_accepted_is_answered_whatever_the_budget(backend: Backend) {
    let mut mesh = RawMesh::with(backend, &[("member_rate_per_s", "1")]).await;
    let bob = mesh.member("bob").await;
    let (alice, mut raw) = mesh.connected("alice").await;
    let answer = raw.negotiate(&["rate_limit"], &[]).await;
    assert_eq!(answer["params"]["rate_limit"], json!({"version": 1, "per_s": 1, "burst": 10}), "{answer}");
    let fingerprint = "0".repeat(64);
    let (first, _) = raw.request(send_with_id(&bob.public(), "first", &fingerprint)).await;
    assert_eq!(first["queued"], true, "{first}");
    mesh.broker.kill9();
    mesh.broker.restart().await;
    let mut raw = Raw::member(&mesh.url(), &alice).await;
    let mut accepted = 0;
    loop {
        let (ack, _) = raw.request(send_with_id(&bob.public(), &format!("m{accepted}"), &fingerprint)).await;
        if ack["queued"] == false {
            assert_eq!(ack["code"], "rate_limit", "{ack}");
            break;
        }
        accepted += 1;
    }
    assert!(accepted >= 10, "{accepted}");
    for _ in 0..20 {
        let (again, _) = raw.request(send_with_id(&bob.public(), "first", &fingerprint)).await;
        assert_eq!((&again["duplicate"], &again["messageId"]), (&json!(true), &first["messageId"]), "{again}");
        let (other, _) = raw.request(send_with_id(&bob.public(), "first", &"1".repeat(64))).await;
        assert_eq!(other["code"], "idempotency_key_reused", "{other}");
    }
}

on_both_databases! {
    what_was_accepted_is_answered_whatever_the_budget,
    a_frame_over_the_limit_closes_with_1009,
    a_message_of_a_megabyte_passes_where_it_was_negotiated,
    only_the_exact_path_upgrades,
    an_offer_of_compression_is_not_taken,
    a_member_over_its_pace_is_told_when_to_come_back,
}
