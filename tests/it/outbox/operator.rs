//! What operators do with the outbox, over the command line, gRPC and REST.

use claudemesh::proto::admin::outbox_service_client::OutboxServiceClient;
use claudemesh::proto::admin::{
    DropEntryRequest, GetOutboxEntryRequest, ListOutboxRequest, OutboxStatus, PruneOutboxRequest, RequeueEntryRequest,
};
use serde_json::{Value, json};

use crate::support::daemon::{Daemon, unique};
use crate::support::fake_broker::{Client, FakeBroker};
use crate::support::{grpc, keys};

async fn connected() -> (FakeBroker, Daemon, Client) {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure("[reconnect]\ninitial_backoff_ms = 20\nmax_backoff_ms = 100\n");
    alice.start().await;
    let client = fake.link(&alice).await;
    (fake, alice, client)
}

/// Sends, and lets the broker refuse it for good.
async fn dead(alice: &Daemon, client: &mut Client, text: &str) -> String {
    let id = alice.send("bob", text).await;
    let send = client.expect("send").await;
    assert_eq!(send["client_message_id"], id.as_str());
    refuse(client, &send, "recipient_revoked", false).await;
    alice.outbox_status(&id, "dead").await;
    id
}

async fn refuse(client: &mut Client, send: &Value, code: &str, retryable: bool) {
    let ack = json!({
        "type": "ack", "id": send["id"], "messageId": "", "queued": false,
        "error": code, "code": code, "retryable": retryable,
    });
    client.send(&ack).await;
}

async fn done(alice: &Daemon, client: &mut Client, text: &str) -> String {
    let id = alice.send("bob", text).await;
    let send = client.expect("send").await;
    client.ack(&send, &format!("broker-{id}")).await;
    alice.outbox_status(&id, "done").await;
    id
}

async fn requeue(alice: &Daemon, body: Value) -> crate::support::http::Response {
    alice.http().post("/v1/outbox/requeue", &body).send().await
}

// Covers: R167, R168, R170
#[tokio::test]
async fn a_dead_send_is_listed_queued_again_under_its_id_and_accepted() {
    let (fake, mut alice, mut client) = connected().await;
    let id = dead(&alice, &mut client, "given up").await;
    let waiting = alice.send("bob", "waits").await;
    let send = client.expect("send").await;

    let listed = alice.cli(&["daemon", "outbox", "--failed", "--json"]).await.ok().json();
    let entries = listed["entries"].as_array().expect("entries");
    assert_eq!(entries.len(), 1, "{listed}");
    assert_eq!(entries[0]["client_message_id"], id.as_str(), "{listed}");
    assert_eq!(entries[0]["status"], "dead", "{listed}");
    assert_eq!(entries[0]["dead_reason"], "recipient_revoked", "{listed}");
    for verb in [&["daemon", "outbox"][..], &["outbox"][..], &["outbox", "list"][..]] {
        let table = alice.cli(verb).await.ok().stdout;
        for shown in [&id, &waiting] {
            assert!(table.contains(shown.as_str()), "{table}");
        }
        assert!(table.contains("dead") && table.contains("inflight"), "{table}");
    }
    client.ack(&send, "broker-1").await;
    alice.outbox_status(&waiting, "done").await;

    let mut client = alice.anew(&fake, client).await;
    let before = keys::now_ms();
    let said = alice.cli(&["daemon", "outbox", "requeue", &id]).await.ok();
    assert!(said.stdout.starts_with("queued") && said.stdout.contains(&id), "{said:?}");
    let again = client.expect("send").await;
    assert_eq!(again["client_message_id"], id.as_str(), "the broker recognises it by its id");
    client.ack(&again, "broker-2").await;
    let row = alice.outbox_status(&id, "done").await;
    assert_eq!(row["broker_message_id"], "broker-2");
    let db = alice.outbox_db().await;
    let at = db.number(&format!("SELECT requeued_at FROM outbox WHERE client_message_id = '{id}'")).await;
    assert!(at >= before, "its age counts from the requeue: {at}");
    assert_eq!(db.number("SELECT count(*) FROM outbox").await, 2);
    db.close().await;
}

// Covers: R170
#[tokio::test]
async fn what_waits_for_a_broker_is_shown_as_pending() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    fake.link(&alice).await.drop_link();
    drop(fake);
    let id = alice.send("bob", "waits").await;
    for verb in [&["daemon", "outbox"][..], &["outbox"][..], &["outbox", "list"][..]] {
        let table = alice.cli(verb).await.ok().stdout;
        let row = table.lines().find(|line| line.contains(&id)).unwrap_or_else(|| panic!("{id} in {table}"));
        assert!(row.contains("pending") && row.contains("bob"), "{table}");
    }
    let failed = alice.cli(&["daemon", "outbox", "--failed"]).await.ok().stdout;
    assert!(!failed.contains(&id), "it has not failed: {failed}");
}

// Covers: R168
#[tokio::test]
async fn the_age_of_a_requeued_send_counts_from_the_requeue() {
    let (_fake, mut alice, mut client) = connected().await;
    let id = dead(&alice, &mut client, "old").await;
    alice.stop().await;
    let db = alice.outbox_db().await;
    let old = keys::now_ms() - 40 * 3_600_000;
    db.run(&format!("UPDATE outbox SET enqueued_at = {old}, first_transmit_at = {old}, dead_reason = 'max_age'")).await;
    db.close().await;
    drop(client);
    alice.start().await;
    requeue(&alice, json!({"id": id})).await.expect(200);
    // Two looks of the keeper, each of which gives up what is too old.
    let probe = alice.send("bob", "young").await;
    alice.outbox_status(&probe, "pending").await;
    tokio::time::timeout(std::time::Duration::from_secs(11), alice.outbox_status(&id, "dead"))
        .await
        .expect_err("it lives on");
}

#[tokio::test]
async fn a_successor_takes_everything_along_that_decides_where_it_goes() {
    let (fake, mut alice, mut client) = connected().await;
    let body = json!({
        "to": "bob", "message": "first text", "priority": "now", "meta": {"ticket": 7}, "reply_to_id": "earlier",
        "client_message_id": "first",
    });
    alice.post_send(&body).await.expect(202);
    let send = client.expect("send").await;
    refuse(&mut client, &send, "recipient_revoked", false).await;
    alice.outbox_status("first", "dead").await;

    let file = alice.home().join("patched.txt");
    std::fs::write(&file, "second text").expect("a file");
    let path = file.to_str().expect("a path");
    let said = alice
        .cli(&["daemon", "outbox", "requeue", "first", "--patch-payload", path, "--new-client-id", "second", "--json"])
        .await
        .ok()
        .json();
    let send = client.expect("send").await;
    assert_eq!(send["client_message_id"], "second");
    assert_eq!(send["targetSpec"], fake.bob.public().as_str());
    client.ack(&send, "broker-2").await;
    alice.outbox_status("second", "done").await;

    let db = alice.outbox_db().await;
    let routing = "mesh, sender_key, destination_kind, destination_ref, target_id, target_key, target_name, reply_to_id, \
                   priority, mentions, meta, auto_hops, allow_unencrypted";
    let rows = db.objects(routing, "FROM outbox ORDER BY id").await;
    assert_eq!(rows[0], rows[1], "routing and metadata are copied");
    assert_eq!(rows[0]["priority"], "now");
    let audit =
        "id, status, CAST(payload AS TEXT), aborted_by, superseded_by, aborted_at > 0, hex(request_fingerprint)";
    let rows = db.objects(audit, "FROM outbox ORDER BY id").await;
    assert_eq!(rows[0]["status"], "aborted");
    assert_eq!(rows[0]["aborted_by"], "operator");
    assert_eq!(rows[0]["superseded_by"], rows[1]["id"]);
    assert_eq!(rows[0]["aborted_at > 0"], 1);
    assert_eq!(rows[1]["CAST(payload AS TEXT)"], "second text");
    assert_ne!(rows[0]["hex(request_fingerprint)"], rows[1]["hex(request_fingerprint)"]);
    assert_eq!(said["entry"]["id"], rows[1]["id"], "{said}");
    assert_eq!(said["superseded"]["id"], rows[0]["id"], "{said}");
    db.close().await;

    // The successor is a send like any other: the same request again is a repeat.
    let _client = alice.anew(&fake, client).await;
    let mut same = body.clone();
    same["message"] = json!("second text");
    same["client_message_id"] = json!("second");
    let answer = alice.post_send(&same).await.expect(200).json();
    assert_eq!(answer["duplicate"], true, "{answer}");
    assert_eq!(alice.post_send(&body).await.expect(409).json()["code"], "outbox_aborted_fingerprint_match");
}

/// What became of the old entry is not what became of the new one.
#[tokio::test]
async fn a_successor_begins_anew() {
    let (fake, mut alice, mut client) = connected().await;
    let mut events = alice.http().get("/v1/events?types=delivery_status").stream().await;
    let old = dead(&alice, &mut client, &unique("given up")).await;
    let status = events.next_of("delivery_status").await.json()["delivery_status"].clone();
    assert_eq!(
        (&status["status"], &status["error"]["metadata"]["reason"]),
        (&json!("dead"), &json!("recipient_revoked"))
    );
    alice.stop().await;
    client.drop_link();
    let db = alice.outbox_db().await;
    db.run("UPDATE outbox SET receiver_stored_at = 5, rejected_at = 6, reject_reason = 'x', expired_at = 7, delivered_count = 3")
        .await;
    db.close().await;
    alice.start().await;
    let _client = fake.link(&alice).await;
    let entry =
        requeue(&alice, json!({"id": old, "new_client_message_id": "anew"})).await.expect(200).json()["entry"].clone();
    assert_eq!(entry["client_message_id"], "anew", "{entry}");
    for end in ["delivered_at", "rejected_at", "expired_at"] {
        assert_eq!(entry.get(end), None, "{end}: {entry}");
    }
    assert_eq!(entry["reject_reason"], "", "{entry}");
    let db = alice.outbox_db().await;
    let counts = db.objects("delivered_count", "FROM outbox ORDER BY id").await;
    db.close().await;
    assert_eq!((&counts[0]["delivered_count"], &counts[1]["delivered_count"]), (&json!(3), &json!(0)));
}

// Covers: R169
#[tokio::test]
async fn a_dropped_send_never_leaves_and_keeps_its_id() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure("[reconnect]\ninitial_backoff_ms = 20\nmax_backoff_ms = 100\n");
    alice.start().await;
    fake.link(&alice).await.drop_link();
    let text = unique("dropped");
    let id = alice.send("bob", &text).await;
    let after = alice.send("bob", "after it").await;
    alice.cli(&["daemon", "outbox", "drop", &id]).await.ok();
    let mut client = fake.connect().await;
    let send = client.expect("send").await;
    assert_eq!(send["client_message_id"], after.as_str(), "only the other one leaves");
    client.ack(&send, "broker-1").await;
    alice.outbox_status(&after, "done").await;
    let db = alice.outbox_db().await;
    let columns = "status, length(payload), aborted_by, superseded_by";
    let row = &db.objects(columns, &format!("FROM outbox WHERE client_message_id = '{id}'")).await[0];
    assert_eq!(
        row,
        &json!({"status": "aborted", "length(payload)": 0, "aborted_by": "operator", "superseded_by": null})
    );
    db.close().await;
    let _client = alice.anew(&fake, client).await;
    let answer = alice.post_send(&json!({"to": "bob", "message": text, "client_message_id": id})).await.expect(409);
    assert_eq!(answer.json()["code"], "outbox_aborted_fingerprint_match");
    let listed = alice.cli(&["outbox", "--json"]).await.ok().json();
    assert_eq!(listed["entries"], json!([]), "{listed}");
    let shown = alice.cli(&["outbox", "inspect", &id]).await.ok().stdout;
    assert!(shown.contains("aborted") && shown.contains("(cleared)"), "{shown}");
}

// Covers: R171
#[tokio::test]
async fn prune_clears_texts_only_when_confirmed_and_keeps_the_ids() {
    let (fake, mut alice, mut client) = connected().await;
    let text = unique("accepted long ago");
    let id = done(&alice, &mut client, &text).await;
    let kept = dead(&alice, &mut client, "kept").await;
    let payload = async |alice: &Daemon| {
        let db = alice.outbox_db().await;
        let bytes = db.number(&format!("SELECT length(payload) FROM outbox WHERE client_message_id = '{id}'")).await;
        db.close().await;
        bytes
    };
    let would = alice.cli(&["daemon", "outbox", "prune"]).await.ok();
    assert!(would.stdout.contains("would prune  1 entries"), "{would:?}");
    assert_eq!(payload(&alice).await, i64::try_from(text.len()).expect("short"));
    let did = alice.cli(&["daemon", "outbox", "prune", "--confirm", "--json"]).await.ok().json();
    assert_eq!(did, json!({"entries": 1, "freed_bytes": text.len().to_string(), "confirmed": true}));
    assert_eq!(payload(&alice).await, 0);
    let again = alice.cli(&["daemon", "outbox", "prune", "--confirm", "--json"]).await.ok().json();
    assert_eq!(again["entries"], 0, "{again}");
    // What recognises a repeat is there, and on disk; what failed is untouched.
    let _client = alice.anew(&fake, client).await;
    let answer =
        alice.post_send(&json!({"to": "bob", "message": text, "client_message_id": id})).await.expect(200).json();
    assert_eq!(answer["duplicate"], true, "{answer}");
    assert_eq!(answer["broker_message_id"], format!("broker-{id}"), "{answer}");
    let entry = alice.http().get(&format!("/v1/outbox/entry?id={kept}")).send().await.expect(200).json();
    assert_eq!(entry["message"], "kept", "{entry}");
}

/// A tombstone lives as long as the broker remembers, and no longer.
#[tokio::test]
async fn tombstones_go_when_nobody_can_repeat_their_ids() {
    let (fake, mut alice, mut client) = connected().await;
    let (old, young) = (done(&alice, &mut client, "old").await, done(&alice, &mut client, "young").await);
    alice.http().post("/v1/outbox/prune", &json!({"confirm": true})).send().await.expect(200);
    alice.stop().await;
    drop(client);
    let db = alice.outbox_db().await;
    for (id, days) in [(&old, 366), (&young, 364)] {
        let at = keys::now_ms() - days * 86_400_000;
        let row = ulid::Ulid::from_parts(u64::try_from(at).expect("after 1970"), 7).to_string();
        let set = format!("id = '{row}', enqueued_at = {at}, accepted_at = {at}, delivered_at = {at}");
        db.run(&format!("UPDATE outbox SET {set} WHERE client_message_id = '{id}'")).await;
    }
    alice.start().await;
    let _client = fake.link(&alice).await;
    crate::support::wait::until("the old one to be forgotten", async || {
        (db.texts("SELECT client_message_id FROM outbox").await == [young.clone()]).then_some(())
    })
    .await;
    db.close().await;
}

#[tokio::test]
async fn what_is_not_allowed_says_why_and_changes_nothing() {
    let (_fake, mut alice, mut client) = connected().await;
    let accepted = done(&alice, &mut client, "accepted").await;
    let given_up = dead(&alice, &mut client, "given up").await;
    let flying = alice.send("bob", "in flight").await;
    client.expect("send").await;
    alice.outbox_status(&flying, "inflight").await;
    let code = async |path: &str, body: Value, status: u16| {
        let answer = alice.http().post(path, &body).send().await.expect(status).json();
        answer["code"].as_str().expect("a code").to_owned()
    };
    let (requeue, drop) = ("/v1/outbox/requeue", "/v1/outbox/drop");
    for (path, body, status, expected) in [
        (requeue, json!({"id": accepted}), 409, "outbox_entry_wrong_state"),
        (requeue, json!({"id": flying}), 409, "outbox_entry_wrong_state"),
        (requeue, json!({"id": flying, "auto_client_message_id": true}), 409, "outbox_entry_wrong_state"),
        (drop, json!({"id": flying}), 409, "outbox_entry_wrong_state"),
        (drop, json!({"id": accepted}), 409, "outbox_entry_wrong_state"),
        (drop, json!({"id": "nobody"}), 404, "outbox_entry_not_found"),
        (requeue, json!({"id": "nobody"}), 404, "outbox_entry_not_found"),
        (requeue, json!({}), 400, "invalid_argument"),
        (requeue, json!({"id": given_up, "new_client_message_id": ""}), 400, "invalid_argument"),
        (requeue, json!({"id": given_up, "auto_client_message_id": false}), 400, "invalid_argument"),
        (requeue, json!({"id": given_up, "patched_message": ""}), 400, "invalid_argument"),
        (requeue, json!({"id": given_up, "patched_message": "x".repeat(1_048_577)}), 413, "payload_too_large"),
        (requeue, json!({"id": given_up, "new_client_message_id": accepted}), 409, "outbox_done_fingerprint_mismatch"),
    ] {
        assert_eq!(code(path, body.clone(), status).await, expected, "{path} {body}");
    }
    let listed = alice.http().get("/v1/outbox?statuses=sent").send().await.expect(400).json();
    assert_eq!(listed["code"], "invalid_argument", "{listed}");
    let listed = alice.http().get("/v1/outbox?page_token=x").send().await.expect(400).json();
    assert_eq!(listed["code"], "invalid_argument", "{listed}");
    let missing = alice.cli(&["outbox", "requeue", "nobody"]).await.exits(1);
    assert!(missing.stderr.contains("outbox_entry_not_found"), "{missing:?}");
    alice.outbox_status(&given_up, "dead").await;

    // Beyond the broker's memory a repeat is another message.
    alice.stop().await;
    let db = alice.outbox_db().await;
    assert_eq!(db.texts("SELECT value FROM meta WHERE key = 'dedupe_window'").await, ["365"]);
    let long_ago = keys::now_ms() - 366 * 86_400_000;
    db.run(&format!("UPDATE outbox SET first_transmit_at = {long_ago} WHERE client_message_id = '{given_up}'")).await;
    db.close().await;
    alice.start().await;
    let answer = alice.http().post(requeue, &json!({"id": given_up})).send().await.expect(409).json();
    assert_eq!(answer["code"], "dedupe_window_passed", "{answer}");
    assert!(answer["detail"].as_str().is_some_and(|text| text.contains("--auto")), "{answer}");
    alice.http().post(requeue, &json!({"id": given_up, "auto_client_message_id": true})).send().await.expect(200);
}

#[tokio::test]
async fn pages_follow_the_order_of_accept_in_every_transport() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    fake.link(&alice).await.drop_link();
    drop(fake);
    let mut expected = Vec::new();
    for number in 0..5 {
        expected.push(alice.send("bob", &format!("message {number}")).await);
    }
    let mut service = OutboxServiceClient::new(grpc::channel(&alice.socket()).await);
    let (mut over_grpc, mut token) = (Vec::new(), String::new());
    loop {
        let request = ListOutboxRequest {
            statuses: vec![OutboxStatus::Pending.into()],
            limit: 2,
            page_token: std::mem::take(&mut token),
        };
        let page = service.list_outbox(request).await.expect("a page").into_inner();
        assert!(page.entries.len() <= 2);
        over_grpc.extend(page.entries.into_iter().map(|entry| entry.client_message_id));
        if page.next_page_token.is_empty() {
            break;
        }
        token = page.next_page_token;
    }
    assert_eq!(over_grpc, expected);
    let (mut over_rest, mut path) = (Vec::new(), "/v1/outbox?limit=2&statuses=pending,inflight".to_owned());
    loop {
        let page = alice.http().get(&path).send().await.expect(200);
        let ids = page.json()["entries"].as_array().expect("entries").clone();
        over_rest.extend(ids.iter().map(|entry| entry["client_message_id"].as_str().expect("an id").to_owned()));
        let Some(link) = page.header("link") else { break };
        path = link.trim_start_matches('<').split('>').next().expect("a target").to_owned();
    }
    assert_eq!(over_rest, expected);

    // The other calls of the service, over gRPC.
    let id = expected[0].clone();
    let shown =
        service.get_outbox_entry(GetOutboxEntryRequest { id: id.clone() }).await.expect("an entry").into_inner();
    assert_eq!(shown.message, "message 0");
    let row_id = shown.entry.expect("an entry").id;
    let successor = RequeueEntryRequest {
        id: row_id.clone(),
        patched_message: Some("patched".to_owned()),
        ..RequeueEntryRequest::default()
    };
    let requeued = service.requeue_entry(successor).await.expect("a successor").into_inner();
    assert_eq!(requeued.superseded.expect("the old one").id, row_id);
    let new = requeued.entry.expect("the new one").id;
    service.drop_entry(DropEntryRequest { id: new }).await.expect("dropped");
    let pruned = service.prune_outbox(PruneOutboxRequest { confirm: true }).await.expect("pruned").into_inner();
    assert_eq!((pruned.entries, pruned.confirmed), (1, true), "the superseded one still held its text");
    let missing = service.drop_entry(DropEntryRequest { id: "nobody".to_owned() }).await.expect_err("no such entry");
    assert_eq!(missing.code(), tonic::Code::NotFound);
}
