//! `POST /v1/messages` with an API key.

use serde_json::{Value, json};

use crate::support::http::Response;
use crate::support::keys::Key;
use crate::support::mesh::RawMesh;
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::raw::{Member, plain_send};

async fn key_of(mesh: &RawMesh, member: &Member, more: Value) -> Value {
    let mut frame = json!({"type": "api_key_create", "name": "ci"});
    for (name, value) in more.as_object().expect("an object") {
        frame[name] = value.clone();
    }
    mesh.mesh.admin(&mesh.broker, &member.key, frame).await.expect(200).json()
}

fn body(target: &str, id: Option<&str>) -> Value {
    let mut body = plain_send(target);
    body.as_object_mut().expect("an object").remove("type");
    if let Some(id) = id {
        body["client_message_id"] = json!(id);
        body["request_fingerprint"] = json!("a".repeat(64));
    }
    body
}

async fn post(mesh: &RawMesh, key: &Value, body: &Value) -> Response {
    mesh.broker.http().post("/v1/messages", body).bearer(key["key"].as_str().expect("a key")).send().await
}

// Covers: R148
async fn one_id_over_http_is_one_message_and_the_same_as_on_the_link(backend: Backend) {
    let mut mesh = RawMesh::start(backend).await;
    let (bob, mut bob_raw) = mesh.connected("bob").await;
    let alice = mesh.member("alice").await;
    let key = key_of(&mesh, &alice, json!({})).await;
    let first = post(&mesh, &key, &body(&bob.public(), Some("once"))).await.expect(201).json();
    assert_eq!((&first["duplicate"], &first["client_message_id"]), (&json!(false), &json!("once")), "{first}");
    let push = bob_raw.message().await;
    assert_eq!((&push["messageId"], &push["senderPubkey"]), (&first["messageId"], &json!(alice.public())), "{push}");
    mesh.broker.kill9();
    mesh.broker.restart().await;
    let again = post(&mesh, &key, &body(&bob.public(), Some("once"))).await.expect(200).json();
    assert_eq!((&again["duplicate"], &again["messageId"]), (&json!(true), &first["messageId"]), "{again}");
    assert_eq!(again["historyId"], first["historyId"]);

    // The header names the id as well, and wins.
    let header = mesh.broker.http().post("/v1/messages", &body(&bob.public(), Some("other")));
    let header = header.bearer(key["key"].as_str().expect("a key")).header("Idempotency-Key", "once");
    let header = header.send().await.expect(200).json();
    assert_eq!(header["messageId"], first["messageId"], "{header}");
    let mut reused = body(&bob.public(), Some("once"));
    reused["request_fingerprint"] = json!("b".repeat(64));
    let reused = post(&mesh, &key, &reused).await.expect(409).json();
    assert_eq!((&reused["code"], &reused["messageId"]), (&json!("idempotency_key_reused"), &first["messageId"]));

    let mut alice_raw = crate::support::raw::Raw::member(&mesh.url(), &alice).await;
    let mut frame = body(&bob.public(), Some("once"));
    frame["type"] = json!("send");
    let (ack, _) = alice_raw.request(frame).await;
    assert_eq!((&ack["duplicate"], &ack["messageId"]), (&json!(true), &first["messageId"]), "{ack}");
    let db = mesh.broker.tables().await;
    assert_eq!(db.number("SELECT count(*) FROM message_queue").await, 1);
    db.close().await;
}

async fn keys_are_shown_once_and_end_with_a_word_or_with_their_member(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, bob) = (mesh.member("alice").await, mesh.member("bob").await);
    let key = key_of(&mesh, &alice, json!({})).await;
    let secret = key["key"].as_str().expect("a key").to_owned();
    let db = mesh.broker.tables().await;
    let stored = db.objects("id, secret_hash, name, member_id", "FROM api_key").await;
    assert!(!json!(stored).to_string().contains(secret.splitn(3, '_').nth(2).expect("a part")), "hashed at rest");
    db.close().await;
    assert!(!mesh.broker.output().contains(&secret));

    let list = |signer: &Key| mesh.mesh.signed(signer, json!({"type": "api_key_list"}));
    let path = format!("/v1/meshes/{}/admin", mesh.mesh.id);
    let own = mesh.broker.http().post(&path, &list(&alice.key)).send().await.expect(200).json();
    assert_eq!(own["keys"][0]["keyId"], key["keyId"], "{own}");
    assert!(!own.to_string().contains(&secret));
    let others = mesh.broker.http().post(&path, &list(&bob.key)).send().await.expect(200).json();
    assert_eq!(others["keys"], json!([]), "{others}");

    let revoke = || json!({"type": "api_key_revoke", "keyId": key["keyId"]});
    assert_eq!(mesh.mesh.admin(&mesh.broker, &bob.key, revoke()).await.status, 404, "not his");
    post(&mesh, &key, &body(&bob.public(), None)).await.expect(201);
    mesh.mesh.admin(&mesh.broker, &alice.key, revoke()).await.expect(200);
    let ended = post(&mesh, &key, &body(&bob.public(), None)).await.expect(401).json();
    assert_eq!(ended["code"], "unauthenticated", "{ended}");

    let second = key_of(&mesh, &alice, json!({})).await;
    let revoke = json!({"type": "member_revoke", "memberId": alice.member_id});
    mesh.mesh.admin(&mesh.broker, &mesh.mesh.owner, revoke).await.expect(200);
    assert_eq!(post(&mesh, &second, &body(&bob.public(), None)).await.status, 401);
}

async fn what_is_wrong_is_said_and_plaintext_needs_a_key_that_allows_it(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, bob) = (mesh.member("alice").await, mesh.member("bob").await);
    let key = key_of(&mesh, &alice, json!({})).await;
    let http = mesh.broker.http();
    http.post("/v1/messages", &body(&bob.public(), None)).send().await.expect(401);
    for wrong in ["", "x", "cmk_", "cmk_x_y", &format!("{}x", key["key"].as_str().expect("a key"))] {
        http.post("/v1/messages", &body(&bob.public(), None)).bearer(wrong).send().await.expect(401);
    }
    let stranger = post(&mesh, &key, &body(&Key::random().public(), None)).await.expect(404).json();
    assert_eq!(stranger["code"], "recipient_not_found", "{stranger}");
    let mut unknown = body(&bob.public(), None);
    unknown["more"] = json!(1);
    assert_eq!(post(&mesh, &key, &unknown).await.expect(400).json()["code"], "invalid_argument");
    let mut foreign = body(&bob.public(), None);
    foreign["sender_key"] = json!(bob.public());
    assert_eq!(post(&mesh, &key, &foreign).await.expect(400).json()["code"], "sender_key_unknown");

    let refused = post(&mesh, &key, &body("*", None)).await.expect(403).json();
    assert_eq!(refused["code"], "unencrypted", "{refused}");
    let open = key_of(&mesh, &alice, json!({"allowUnencrypted": true})).await;
    post(&mesh, &open, &body("*", None)).await.expect(201);
}

async fn the_limit_answers_429_with_a_time(backend: Backend) {
    let mesh = RawMesh::with(backend, &[("member_rate_per_s", "1")]).await;
    let (alice, bob) = (mesh.member("alice").await, mesh.member("bob").await);
    let key = key_of(&mesh, &alice, json!({})).await;
    let mut limited = None;
    for n in 0..30 {
        let answer = post(&mesh, &key, &body(&bob.public(), Some(&format!("m{n}")))).await;
        if answer.status == 429 {
            limited = Some(answer);
            break;
        }
    }
    let limited = limited.expect("the limit");
    assert!(limited.header("retry-after").is_some(), "{:?}", limited.headers);
    let limited = limited.json();
    assert_eq!((&limited["code"], &limited["retryable"]), (&json!("rate_limit"), &json!(true)), "{limited}");
    // What was accepted is answered whatever the budget.
    post(&mesh, &key, &body(&bob.public(), Some("m0"))).await.expect(200);
}

on_both_databases! {
    one_id_over_http_is_one_message_and_the_same_as_on_the_link,
    keys_are_shown_once_and_end_with_a_word_or_with_their_member,
    what_is_wrong_is_said_and_plaintext_needs_a_key_that_allows_it,
    the_limit_answers_429_with_a_time,
}
