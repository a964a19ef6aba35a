//! Meshes, invites, joining, and the hello.

use serde_json::json;

use super::*;

async fn meshes_need_the_admin_token_and_are_made_once(backend: Backend) {
    let broker = TestBroker::start(backend).await;
    let owner = secret(3).public().to_hex();
    let body = json!({"slug": "demo", "owner_pubkey": owner}).to_string();
    for token in [None, Some("wrong")] {
        let (status, body) = broker.http("POST", "/v1/meshes", token, &body).await;
        assert_eq!(status, 401, "{body}");
    }
    let mesh_id = broker.create_mesh("demo", "prefer_newest").await;
    let token = std::fs::read_to_string(broker.path().join("admin_token")).expect("the token");
    let (status, again) = broker.http("POST", "/v1/meshes", Some(&token), &body).await;
    assert!(status == 200 && again.contains(&mesh_id), "{again}");
    let other = json!({"slug": "demo", "owner_pubkey": secret(9).public().to_hex()}).to_string();
    assert_eq!(broker.http("POST", "/v1/meshes", Some(&token), &other).await.0, 409);
    let bad = json!({"slug": "De mo", "owner_pubkey": secret(9).public().to_hex()}).to_string();
    assert_eq!(broker.http("POST", "/v1/meshes", Some(&token), &bad).await.0, 400);
}

async fn an_invite_admits_as_many_as_it_says_and_each_once(backend: Backend) {
    let broker = TestBroker::start(backend).await;
    let mesh_id = broker.create_mesh("demo", "prefer_newest").await;
    let invite = broker.invite(&mesh_id, 2).await;
    let (status, first) = broker.join(&invite, 1).await;
    assert_eq!((status, &first["ok"]), (200, &json!(true)));
    let (status, again) = broker.join(&invite, 1).await;
    assert_eq!((status, &again["memberId"], &again["alreadyMember"]), (200, &first["memberId"], &json!(true)));
    assert_eq!(broker.join(&invite, 2).await.0, 200);
    let (status, third) = broker.join(&invite, 4).await;
    assert_eq!((status, &third["error"]), (400, &json!("invite_exhausted")));

    let mut forged = invite.clone();
    forged.1.role = "admin".to_owned();
    assert_eq!(broker.join(&forged, 5).await.1["error"], "invite_bad_signature");
    let second = broker.invite(&mesh_id, 1).await;
    let mixed = ("x".repeat(40), second.1.clone());
    assert_eq!(broker.join(&mixed, 5).await.1["error"], "invite_not_found");
    assert_eq!(broker.http("POST", "/join", None, &"x".repeat(70_000)).await.0, 413);
}

async fn an_invite_is_stored_only_with_the_owners_signature(backend: Backend) {
    let broker = TestBroker::start(backend).await;
    let mesh_id = broker.create_mesh("demo", "prefer_newest").await;
    let (token, payload) = broker.invite(&mesh_id, 1).await;
    let body = json!({
        "token": token, "payload": payload, "max_uses": 50, "ts": broker.now(), "signature": "00".repeat(64),
    });
    let (status, body) = broker.http("POST", &format!("/v1/meshes/{mesh_id}/invites"), None, &body.to_string()).await;
    assert_eq!(status, 403, "{body}");
}

async fn nothing_is_served_before_a_hello_that_holds(backend: Backend) {
    let broker = TestBroker::start(backend).await;
    let members = broker.mesh("prefer_newest", &[1, 2]).await;
    let mut client = broker.connect().await;
    client.raw("this is no JSON").await;
    client.send(json!({"type": "list_peers", "_reqId": "r"})).await;
    assert_eq!(client.expect("error").await["code"], "no_hello");
    client.send(json!({"type": "unheard_of"})).await;
    assert_eq!(client.expect("error").await["code"], "no_hello");
    client.send(broker.hello(&members[0], json!({}))).await;
    let ack = client.expect("hello_ack").await;
    assert_eq!((&ack["memberDisplayName"], &ack["memberId"]), (&json!("m1"), &json!(members[0].id)));
    assert!(ack["brokerTime"].as_i64().is_some_and(|time| (time - broker.now()).abs() < 5_000), "{ack}");

    let stranger = Member { seed: 9, ..members[0].clone() };
    let refused = [
        (broker.hello(&members[0], json!({"sessionPubkey": "XY"})), "bad_session_pubkey"),
        (broker.hello(&members[0], json!({"timestamp": 1})), "timestamp_skew"),
        (broker.hello(&members[0], json!({"signature": "00"})), "malformed"),
        (broker.hello(&members[0], json!({"signature": "00".repeat(64)})), "bad_signature"),
        (broker.hello(&stranger, json!({})), "unauthorized"),
    ];
    for (hello, code) in refused {
        let mut client = broker.connect().await;
        client.send(hello).await;
        assert_eq!(client.expect("error").await["code"], code);
        assert_eq!(client.close().await, json!({"type": "CLOSE", "code": 1008, "reason": code}));
    }
}

async fn only_the_exact_path_is_upgraded_and_frames_have_a_limit(backend: Backend) {
    let broker = TestBroker::start(backend).await;
    let members = broker.mesh("prefer_newest", &[1]).await;
    for path in ["/ws?x=y", "/other"] {
        let url = format!("ws://{}{path}", broker.addr);
        let error = tokio_tungstenite::connect_async(url).await.expect_err("refused");
        assert!(!is_http_error(&error), "no HTTP answer: {error}");
    }
    assert_eq!(broker.http("GET", "/nothing", None, "").await.0, 404);
    assert_eq!(broker.http("GET", "/readyz", None, "").await.0, 200);
    let (status, health) = broker.http("GET", "/health", None, "").await;
    assert!(status == 200 && health.contains("\"db\":\"up\""), "{health}");

    let large = json!({"type": "set_summary", "summary": "x".repeat(100_000)}).to_string();
    let mut old = broker.legacy(&members[0], "old").await;
    old.raw(&large).await;
    assert_eq!(old.close().await["code"], 1009);
    let mut daemon = broker.daemon(&members[0], "i").await;
    daemon.raw(&large).await;
    daemon.send(json!({"type": "list_peers"})).await;
    daemon.expect("peers_list").await;
    let (_, metrics) = broker.http("GET", "/metrics", None, "").await;
    assert!(metrics.contains("cm_broker_hello_total 2"), "{metrics}");
}

async fn a_session_speaks_with_its_own_key_for_its_member(backend: Backend) {
    let broker = TestBroker::start(backend).await;
    let members = broker.mesh("prefer_newest", &[1, 2]).await;
    let (member, session) = (secret(1), secret(40));
    let hello = |expires: i64| {
        let (ts, mesh) = (broker.now(), &members[0].mesh_id);
        let attest = Statement::attestation(member.public(), session.public(), UnixMillis(expires));
        let text = Statement::session_hello(mesh, member.public(), session.public(), UnixMillis(ts)).expect("fields");
        json!({
            "type": "session_hello", "meshId": mesh, "parentMemberPubkey": member.public().to_hex(),
            "sessionPubkey": session.public().to_hex(), "sessionId": "launched", "pid": 1, "cwd": "/w",
            "timestamp": ts, "signature": hex::encode(text.sign(&session)),
            "parentAttestation": {
                "sessionPubkey": session.public().to_hex(), "parentMemberPubkey": member.public().to_hex(),
                "expiresAt": expires, "signature": hex::encode(attest.sign(&member)),
            },
        })
    };
    for (expires, code) in [(broker.now() - 1, "expired"), (broker.now() + 90_000_000, "ttl_too_long")] {
        let mut client = broker.connect().await;
        client.send(hello(expires)).await;
        assert_eq!(client.expect("error").await["code"], code);
    }
    let mut s = broker.connect().await;
    s.send(hello(broker.now() + 60_000)).await;
    s.expect("hello_ack").await;
    let mut b = broker.daemon(&members[1], "ib").await;
    s.send(message(&members[1].key(), "m1", "f")).await;
    s.expect("ack").await;
    let push = b.expect("push").await;
    assert_eq!(push["senderPubkey"], session.public().to_hex());
    assert_eq!(push["senderMemberPubkey"], member.public().to_hex());
    b.send(message(&session.public().to_hex(), "m2", "f")).await;
    assert_eq!(b.expect("ack").await["queued"], true);
    assert_eq!(s.expect("push").await["client_message_id"], "m2");
    b.send(json!({"type": "list_peers"})).await;
    let peers = b.expect("peers_list").await;
    let row = peers["peers"].as_array().and_then(|rows| rows.iter().find(|row| row["sessionId"] == "launched"));
    assert!(row.is_some_and(|row| row["peerRole"] == "session" && row["groups"] == json!([])), "{peers}");
}

on_both_databases! {
    meshes_need_the_admin_token_and_are_made_once,
    an_invite_admits_as_many_as_it_says_and_each_once,
    an_invite_is_stored_only_with_the_owners_signature,
    nothing_is_served_before_a_hello_that_holds,
    only_the_exact_path_is_upgraded_and_frames_have_a_limit,
    a_session_speaks_with_its_own_key_for_its_member,
}
