//! Where an id comes from.

use serde_json::json;

use crate::support::daemon::Daemon;
use crate::support::fake_broker::FakeBroker;

async fn daemon() -> (FakeBroker, Daemon) {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    fake.link(&alice).await.drop_link();
    (fake, alice)
}

// Covers: R76, R143-R145
#[tokio::test]
async fn header_then_body_then_the_daemon() {
    let (_fake, alice) = daemon().await;
    let http = alice.http();
    let both = json!({"to": "bob", "message": "x", "client_message_id": "from-body"});
    let answer = http.post("/v1/send", &both).header("Idempotency-Key", "from-header").send().await.expect(202).json();
    assert_eq!(answer["client_message_id"], "from-header");
    let quoted =
        http.post("/v1/send", &both).header("Idempotency-Key", "\"in-quotes\"").send().await.expect(202).json();
    assert_eq!(quoted["client_message_id"], "in-quotes", "a structured field is a quoted string");
    let answer = http.post("/v1/send", &both).send().await.expect(202).json();
    assert_eq!(answer["client_message_id"], "from-body");

    let mut minted = Vec::new();
    for _ in 0..3 {
        minted.push(alice.send("bob", "x").await);
    }
    for id in &minted {
        assert_eq!(id.len(), 26, "{id}");
        assert!(id.bytes().all(|byte| b"0123456789ABCDEFGHJKMNPQRSTVWXYZ".contains(&byte)), "{id} is no ULID");
        assert!(id.as_bytes()[0] <= b'7', "{id} overflows 128 bits");
    }
    minted.dedup();
    assert_eq!(minted.len(), 3);

    let db = alice.outbox_db().await;
    let stored = db.texts("SELECT client_message_id FROM outbox ORDER BY id").await;
    let expected: Vec<&str> =
        ["from-header", "in-quotes", "from-body"].into_iter().chain(minted.iter().map(String::as_str)).collect();
    assert_eq!(stored, expected, "no row but these, in the order of accept");
    db.close().await;
}

#[tokio::test]
async fn an_id_that_no_header_can_carry_is_refused() {
    let (_fake, alice) = daemon().await;
    let long = "x".repeat(129);
    for id in ["has space", "tab\there", "non-ascii-é", long.as_str(), "\u{7f}"] {
        let body = json!({"to": "bob", "message": "x", "client_message_id": id});
        let refused = alice.post_send(&body).await.expect(400).json();
        assert_eq!(refused["code"], "idempotency_key_invalid", "{id:?}: {refused}");
    }
    for header in ["", "a b", long.as_str()] {
        let body = json!({"to": "bob", "message": "x"});
        let refused = alice.http().post("/v1/send", &body).header("Idempotency-Key", header).send().await;
        assert_eq!(refused.expect(400).json()["code"], "idempotency_key_invalid", "{header:?}");
    }
    alice.post_send(&json!({"to": "bob", "message": "x", "client_message_id": "x".repeat(128)})).await.expect(202);
    let db = alice.outbox_db().await;
    assert_eq!(db.number("SELECT count(*) FROM outbox").await, 1);
    db.close().await;
}

// Covers: R75
#[tokio::test]
async fn what_is_missing_or_malformed_is_refused_and_uses_no_id() {
    let (_fake, alice) = daemon().await;
    for (body, status) in [
        (json!({"message": "x", "client_message_id": "i"}), 400),
        (json!({"to": "bob", "client_message_id": "i"}), 400),
        (json!({"to": "", "message": "x", "client_message_id": "i"}), 400),
        (json!({"to": "bob", "message": "x", "priority": "urgent", "client_message_id": "i"}), 400),
        (json!({"to": "bob", "message": "x", "unknown_field": 1, "client_message_id": "i"}), 400),
        (json!({"to": "bob", "message": "x", "meta": [1], "client_message_id": "i"}), 400),
        (json!({"to": "bob", "message": 7, "client_message_id": "i"}), 400),
        (json!({"to": "bob", "message": "a\u{0}b", "client_message_id": "i"}), 400),
        (json!({"to": "nobody", "message": "x", "client_message_id": "i"}), 404),
        (json!({"to": "0123456789abcdef", "message": "x", "client_message_id": "i"}), 404),
        (json!({"to": "bob", "message": "x".repeat(1_048_577), "client_message_id": "i"}), 413),
        (json!([1, 2]), 400),
    ] {
        let refused = alice.post_send(&body).await;
        assert_eq!(
            refused.status,
            status,
            "{}: {}",
            &body.to_string()[..60.min(body.to_string().len())],
            refused.text()
        );
        let problem = refused.json();
        assert!(problem["code"].is_string() && problem["title"].is_string(), "{problem}");
    }
    let broken = alice.http().request("POST", "/v1/send").header("Content-Type", "application/json").body("{\"to\":");
    assert_eq!(broken.send().await.expect(400).json()["code"], "invalid_json");
    alice.post_send(&json!({"to": "bob", "message": "x", "client_message_id": "i"})).await.expect(202);
}
