//! What the broker keeps of posts, and for how long.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{FINGERPRINT, Topic, ask, connected, done, join, knowing, legacy_topic, number, post, posted, refused};
use crate::support::mesh::RawMesh;
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::raw::{Raw, send_with_id};
use crate::support::wait;

/// Waits until the tables give this number.
async fn until_number(mesh: &RawMesh, sql: &str, wanted: i64) {
    let db = mesh.broker.tables().await;
    wait::until(sql, async || (db.number(sql).await == wanted).then_some(())).await;
    db.close().await;
}

/// The value of a metric.
async fn metric(mesh: &RawMesh, name: &str) -> Option<f64> {
    let text = mesh.broker.http().get("/metrics").send().await.expect(200).text();
    let line = text.lines().find(|line| line.starts_with(name) && !line.starts_with('#'))?;
    line.rsplit(' ').next()?.parse().ok()
}

// Covers: R137, R146
async fn a_post_goes_after_its_time_and_its_id_stays(backend: Backend) {
    let mut mesh = RawMesh::configured(backend, "[timers]\nsweep_ms = 100\n").await;
    let (alice, mut alice_raw) = connected(&mesh, "alice").await;
    let (bob, mut bob_raw) = connected(&mesh, "bob").await;
    let carol = mesh.member("carol").await;
    let topic = Topic::create(&mut alice_raw, &alice).await;
    done(&mut bob_raw, join(&topic.id)).await;
    let mut taken = Vec::new();
    for id in ["m1", "m2"] {
        taken.push(posted(&mut alice_raw, topic.post(id, 1)).await);
        let push = bob_raw.message().await;
        bob_raw.send(&json!({"type": "client_ack", "deliveryId": push["deliveryId"]})).await;
        let mut carol_raw = knowing(&mesh.url(), &carol).await;
        // One who is away has not taken the second one.
        done(&mut carol_raw, join(&topic.id)).await;
        carol_raw.close().await;
    }
    until_number(&mesh, "SELECT count(*) FROM delivery WHERE delivered_at IS NOT NULL", 2).await;
    mesh.broker.stop().await;
    mesh.broker.configure("[timers]\nsweep_ms = 100\ndelivered_ms = 1\n");
    mesh.broker.restart().await;
    until_number(&mesh, "SELECT count(*) FROM topic_message", 1).await;
    until_number(&mesh, "SELECT count(*) FROM client_message_dedupe WHERE NOT history_available", 1).await;
    // It stays for whom it waits.
    let mut carol_raw = knowing(&mesh.url(), &carol).await;
    let push = carol_raw.message().await;
    assert_eq!((&push["messageId"], &push["topic"]), (&taken[1]["messageId"], &json!("ops")), "{push}");
    let mut alice_raw = knowing(&mesh.url(), &alice).await;
    let again = posted(&mut alice_raw, topic.post("m2", 1)).await;
    assert_eq!((&again["messageId"], &again["historyAvailable"]), (&taken[1]["messageId"], &json!(true)), "{again}");
    carol_raw.send(&json!({"type": "client_ack", "deliveryId": push["deliveryId"]})).await;
    for table in ["topic_message", "delivery", "message_history"] {
        until_number(&mesh, &format!("SELECT count(*) FROM {table}"), 0).await;
    }
    mesh.broker.crash().await;
    let mut alice_raw = knowing(&mesh.url(), &alice).await;
    for (id, first) in ["m1", "m2"].into_iter().zip(&taken) {
        let again = posted(&mut alice_raw, topic.post(id, 1)).await;
        assert_eq!((&again["duplicate"], &again["messageId"]), (&json!(true), &first["messageId"]), "{again}");
        assert_eq!(again["historyAvailable"], false, "{again}");
    }
    let page = ask(&mut alice_raw, json!({"type": "topic_history", "topic": topic.id})).await;
    assert_eq!(page["messages"], json!([]), "{page}");
    let mut bob_raw = Raw::member(&mesh.url(), &bob).await;
    assert_eq!(bob_raw.answers_so_far().await, Vec::<Value>::new(), "no second delivery");
}

async fn a_post_of_which_a_part_is_missing_is_counted(backend: Backend) {
    let mesh = RawMesh::configured(backend, "[timers]\nsweep_ms = 100\ncheck_ms = 100\n").await;
    let (alice, mut alice_raw) = connected(&mesh, "alice").await;
    let (bob, mut bob_raw) = connected(&mesh, "bob").await;
    let topic = Topic::create(&mut alice_raw, &alice).await;
    done(&mut bob_raw, join(&topic.id)).await;
    let plain = legacy_topic(&mut alice_raw, "plain").await;
    for id in ["m1", "m2", "m3"] {
        posted(&mut alice_raw, topic.post(id, 1)).await;
    }
    // With an empty topic, without an id, and a message among them.
    posted(&mut alice_raw, post(&plain, "m4")).await;
    posted(&mut alice_raw, crate::support::raw::plain_send(&format!("#{plain}"))).await;
    posted(&mut alice_raw, send_with_id(&bob.public(), "m5", FINGERPRINT)).await;
    let before = metric(&mesh, "cm_broker_dedupe_orphan_check_total").await.unwrap_or(0.0);
    let orphans = format!("cm_broker_dedupe_orphan_found{{mesh_id=\"{}\"}}", mesh.mesh.id);
    wait::until("two more searches", async || {
        let runs = metric(&mesh, "cm_broker_dedupe_orphan_check_total").await?;
        (runs >= before + 2.0).then_some(())
    })
    .await;
    assert_eq!(metric(&mesh, "cm_broker_atomicity_violation_found").await, Some(0.0));
    assert_eq!(metric(&mesh, &orphans).await, None);
    let db = mesh.broker.tables().await;
    db.run("DELETE FROM topic_message WHERE client_message_id = 'm1'").await;
    db.run("DELETE FROM client_message_dedupe WHERE client_message_id = 'm2'").await;
    db.run("DELETE FROM message_history WHERE id IN (SELECT id FROM topic_message WHERE client_message_id = 'm3')")
        .await;
    db.close().await;
    wait::until("what is missing to be found", async || {
        let torn = metric(&mesh, "cm_broker_atomicity_violation_found").await;
        (metric(&mesh, &orphans).await == Some(1.0) && torn == Some(2.0)).then_some(())
    })
    .await;
}

// Covers: R154
async fn the_second_net_keeps_a_post_from_being_stored_twice(backend: Backend) {
    let mut mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = connected(&mesh, "alice").await;
    let topic = Topic::create(&mut alice_raw, &alice).await;
    posted(&mut alice_raw, topic.post("m1", 1)).await;
    mesh.broker.stop().await;
    let db = mesh.broker.tables().await;
    db.run("DELETE FROM client_message_dedupe").await;
    db.close().await;
    mesh.broker.restart().await;
    let mut alice_raw = knowing(&mesh.url(), &alice).await;
    // Whatever is answered, it is not that a second one was taken.
    let ack = ask(&mut alice_raw, topic.post("m1", 1)).await;
    assert!(ack["queued"] == false || ack["duplicate"] == true, "{ack}");
    let db = mesh.broker.tables().await;
    assert_eq!(db.number("SELECT count(*) FROM topic_message").await, 1);
    db.close().await;
}

async fn who_is_in_the_topic_reads_all_of_it_page_by_page(backend: Backend) {
    let mut mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = connected(&mesh, "alice").await;
    let bob = mesh.member("bob").await;
    let topic = Topic::create(&mut alice_raw, &alice).await;
    let mut sent = Vec::new();
    for n in 0..3 {
        let frame = topic.post(&format!("m{n}"), 1);
        sent.push((posted(&mut alice_raw, frame.clone()).await, frame));
    }
    mesh.broker.crash().await;
    let mut bob_raw = knowing(&mesh.url(), &bob).await;
    let get = |before: &Value| {
        let mut get = json!({"type": "history_get", "topicId": topic.id, "limit": 2});
        if before.is_string() {
            get["before"] = before.clone();
        }
        get
    };
    refused(&mut bob_raw, get(&Value::Null), "topic_not_found").await;
    // What was posted before it came, and nobody's copy.
    done(&mut bob_raw, join(&topic.id)).await;
    let first = ask(&mut bob_raw, get(&Value::Null)).await;
    let second = ask(&mut bob_raw, get(&first["nextBefore"])).await;
    assert_eq!((&second["type"], second.get("nextBefore")), (&json!("history_page"), None), "{second}");
    let rows: Vec<&Value> =
        [&first, &second].iter().flat_map(|page| page["messages"].as_array().expect("messages")).collect();
    assert_eq!(rows.len(), 3, "{rows:?}");
    for (row, (ack, frame)) in rows.iter().zip(sent.iter().rev()) {
        assert_eq!((&row["messageId"], &row["ciphertext"]), (&ack["messageId"], &frame["ciphertext"]), "{row}");
        assert_eq!(
            (&row["topic"], &row["topicId"], &row["keyEpoch"], &row["bodyVersion"]),
            (&json!("ops"), &json!(topic.id), &json!(1), &json!(2)),
            "{row}"
        );
        assert_eq!((&row["senderPubkey"], row.get("deliveryId")), (&json!(alice.public()), None), "{row}");
    }
    // Its own history holds only what was pushed to it.
    let own = ask(&mut bob_raw, json!({"type": "history_get"})).await;
    assert_eq!(own["messages"], json!([]), "{own}");
}

/// Who is connected and slower than the sender makes it wait; not who could not
/// read the post anyhow, or anybody could stop a topic by coming into it.
async fn only_who_has_the_key_holds_up_the_sender(backend: Backend) {
    let mesh = RawMesh::with(backend, &[("member_rate_per_s", "100000")]).await;
    let (alice, mut alice_raw) = connected(&mesh, "alice").await;
    let (bob, mut bob_raw) = connected(&mesh, "bob").await;
    let topic = Topic::create(&mut alice_raw, &alice).await;
    done(&mut bob_raw, join(&topic.id)).await;
    for number in 0..=1_000 {
        posted(&mut alice_raw, topic.post(&format!("m{number}"), 1)).await;
    }
    assert_eq!(number(&mesh, "SELECT count(*) FROM delivery WHERE expired_at IS NULL").await, 1_000);
    done(&mut alice_raw, topic.put(&[&bob])).await;
    let ack = refused(&mut alice_raw, topic.post("more", 1), "recipient_queue_full").await;
    assert_eq!(ack["retryable"], true, "{ack}");
}

/// What a receiver has no room for is given up at once.
async fn what_is_given_up_for_want_of_room_is_counted_and_told(backend: Backend) {
    const POSTS: usize = 1_300;
    let mesh = RawMesh::with(backend, &[("member_rate_per_s", "100000")]).await;
    let (alice, mut alice_raw) = connected(&mesh, "alice").await;
    alice_raw.negotiate(&["delivery_ack", "delivery_outcome"], &[]).await;
    let bob = mesh.member("bob").await;
    let topic = Topic::create(&mut alice_raw, &alice).await;
    let mut bob_raw = knowing(&mesh.url(), &bob).await;
    done(&mut bob_raw, join(&topic.id)).await;
    bob_raw.close().await;
    let mut told = HashSet::new();
    let mut accepted = 0;
    for number in 0..POSTS {
        alice_raw.send(&topic.post(&format!("m{number}"), 1)).await;
        while accepted <= number {
            accepted += usize::from(acked_or_told(&mut alice_raw, &bob.member_id, &mut told).await);
        }
    }
    while told.len() < POSTS - 1_000 {
        acked_or_told(&mut alice_raw, &bob.member_id, &mut told).await;
    }
    assert_eq!(mesh.broker.metric("cm_broker_delivery_expired_total").await, Some(300.0));
    assert!(told.iter().all(|id| id[1..].parse::<usize>().is_ok_and(|number| number >= 1_000)), "{told:?}");

    // Who comes back hears of all of it, more than fits at once.
    alice_raw.close().await;
    let db = mesh.broker.tables().await;
    db.run("UPDATE delivery SET expiry_told_at = NULL").await;
    db.close().await;
    let mut alice_raw = knowing(&mesh.url(), &alice).await;
    alice_raw.negotiate(&["delivery_ack", "delivery_outcome"], &[]).await;
    let mut again = HashSet::new();
    while again.len() < told.len() {
        acked_or_told(&mut alice_raw, &bob.member_id, &mut again).await;
    }
    assert_eq!(again, told);
}

/// Reads one frame; true for an acknowledgement. Notes whose end was told.
async fn acked_or_told(raw: &mut Raw, receiver: &str, told: &mut HashSet<String>) -> bool {
    let frame = raw.frame().await;
    match frame["type"].as_str() {
        Some("ack") => {
            assert_eq!(frame["queued"], true, "{frame}");
            return true;
        }
        Some("delivery_status") => {
            assert_eq!(
                (&frame["state"], &frame["recipientMemberId"]),
                (&json!("expired"), &json!(receiver)),
                "{frame}"
            );
            let id = frame["client_message_id"].as_str().unwrap_or_else(|| panic!("{frame}"));
            assert!(told.insert(id.to_owned()), "{id} twice");
        }
        _ => {}
    }
    false
}

on_both_databases! {
    what_is_given_up_for_want_of_room_is_counted_and_told,
    a_post_goes_after_its_time_and_its_id_stays,
    a_post_of_which_a_part_is_missing_is_counted,
    the_second_net_keeps_a_post_from_being_stored_twice,
    only_who_has_the_key_holds_up_the_sender,
    who_is_in_the_topic_reads_all_of_it_page_by_page,
}
