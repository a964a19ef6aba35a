//! What older clients know of topics.

use serde_json::{Value, json};

use super::{ask, connected, done, join, leave, legacy_topic, post, posted, refused};
use crate::support::mesh::RawMesh;
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::raw::{Raw, plain_send};

async fn a_topic_without_a_statement_has_no_keys_and_its_name_once(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let (_, mut bob_raw) = mesh.connected("bob").await;
    let create = |visibility: &str| json!({"type": "topic_create", "name": "ops", "description": "what runs", "visibility": visibility});
    let made = ask(&mut alice_raw, create("private")).await;
    assert_eq!((&made["type"], &made["created"]), (&json!("topic_created"), &json!(true)), "{made}");
    let topic = made["topic"].clone();
    assert_eq!((&topic["name"], &topic["visibility"], &topic["epoch"]), (&json!("ops"), &json!("private"), &json!(0)));
    // Older clients read back what they asked for.
    let again = ask(&mut bob_raw, create("public")).await;
    assert_eq!((&again["created"], &again["topic"]["id"]), (&json!(false), &topic["id"]), "{again}");
    assert_eq!(again["topic"]["visibility"], "public", "{again}");
    legacy_topic(&mut bob_raw, "alerts").await;
    for (raw, joined) in [(&mut alice_raw, [false, true]), (&mut bob_raw, [true, false])] {
        let list = ask(raw, json!({"type": "topic_list"})).await;
        assert_eq!(list["type"], "topic_list_response", "{list}");
        let rows = list["topics"].as_array().expect("topics");
        let names: Vec<&Value> = rows.iter().map(|row| &row["name"]).collect();
        assert_eq!(names, ["alerts", "ops"], "by name: {list}");
        for (row, joined) in rows.iter().zip(joined) {
            assert_eq!((&row["memberCount"], &row["joined"]), (&json!(1), &json!(joined)), "{row}");
        }
        assert_eq!((&rows[0]["description"], &rows[1]["description"]), (&Value::Null, &json!("what runs")));
        assert_eq!((&rows[1]["id"], &rows[1]["visibility"]), (&topic["id"], &json!("private")), "{list}");
        assert!(chrono::DateTime::parse_from_rfc3339(rows[1]["createdAt"].as_str().expect("a time")).is_ok());
    }
    for name in ["", "#ops", "two words", "a|b", "line\nend", &"x".repeat(65)] {
        refused(&mut alice_raw, json!({"type": "topic_create", "name": name}), "invalid").await;
    }
    let long = json!({"type": "topic_create", "name": "other", "description": "x".repeat(257)});
    refused(&mut alice_raw, long, "invalid").await;
    refused(&mut alice_raw, json!({"type": "topic_create", "name": "other", "visibility": "secret"}), "invalid").await;
    assert_eq!(ask(&mut alice_raw, json!({"type": "topic_list"})).await["topics"].as_array().expect("topics").len(), 2);
}

async fn coming_reading_and_going_have_no_answer_for_older_clients(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = mesh.connected("alice").await;
    let (bob, mut bob_raw) = mesh.connected("bob").await;
    let (carol, mut carol_raw) = connected(&mesh, "carol").await;
    let id = legacy_topic(&mut alice_raw, "ops").await;
    // By name and by id, and more than once; nobody becomes the lead that way.
    let mut as_lead = join("ops");
    as_lead["role"] = json!("lead");
    for frame in [as_lead, join(&id)] {
        bob_raw.send(&frame).await;
        assert_eq!(bob_raw.answers_so_far().await, Vec::<Value>::new(), "{frame}");
    }
    done(&mut carol_raw, json!({"type": "topic_join", "topic": id, "role": "observer"})).await;
    let members = ask(&mut alice_raw, json!({"type": "topic_members", "topic": "ops"})).await;
    assert_eq!((&members["type"], &members["topic"]), (&json!("topic_members_response"), &json!(id)), "{members}");
    let rows = members["members"].as_array().expect("members");
    for (row, (member, role)) in rows.iter().zip([(&alice, "lead"), (&bob, "member"), (&carol, "observer")]) {
        assert_eq!(
            (&row["memberId"], &row["pubkey"], &row["displayName"], &row["role"], &row["lastReadAt"]),
            (&json!(member.member_id), &json!(member.public()), &json!(member.name), &json!(role), &Value::Null),
            "{row}"
        );
    }
    assert_eq!(rows.len(), 3);

    bob_raw.send(&json!({"type": "topic_mark_read", "topic": "ops"})).await;
    assert_eq!(bob_raw.answers_so_far().await, Vec::<Value>::new());
    let members = ask(&mut alice_raw, json!({"type": "topic_members", "topic": "ops"})).await;
    let read: Vec<bool> =
        members["members"].as_array().expect("members").iter().map(|row| row["lastReadAt"].is_string()).collect();
    assert_eq!(read, [false, true, false], "{members}");

    bob_raw.send(&leave("ops")).await;
    assert_eq!(bob_raw.answers_so_far().await, Vec::<Value>::new());
    done(&mut carol_raw, leave(&id)).await;
    let members = ask(&mut alice_raw, json!({"type": "topic_members", "topic": &id})).await;
    assert_eq!(members["members"].as_array().expect("members").len(), 1, "{members}");

    // What fails is answered, to everybody.
    for raw in [&mut bob_raw, &mut carol_raw] {
        for kind in ["topic_join", "topic_leave", "topic_members", "topic_history", "topic_mark_read"] {
            refused(raw, json!({"type": kind, "topic": "nowhere"}), "topic_not_found").await;
        }
        refused(raw, json!({"type": "topic_join", "topic": "ops", "role": "owner"}), "invalid").await;
    }
}

async fn another_meshs_topics_are_not_there(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (_, mut alice_raw) = mesh.connected("alice").await;
    let id = legacy_topic(&mut alice_raw, "ops").await;
    let other = crate::support::mesh::Mesh::create(&mesh.broker, "other").await;
    let eve = other.join(&mesh.broker, "eve").await;
    let mut eve_raw = Raw::member(&mesh.url(), &eve).await;
    assert_eq!(ask(&mut eve_raw, json!({"type": "topic_list"})).await["topics"], json!([]));
    for topic in ["ops", &id] {
        refused(&mut eve_raw, join(topic), "topic_not_found").await;
        refused(&mut eve_raw, json!({"type": "topic_history", "topic": topic}), "topic_not_found").await;
        refused(&mut eve_raw, json!({"type": "history_get", "topicId": topic}), "topic_not_found").await;
    }
    refused(&mut eve_raw, plain_send(&format!("#{id}")), "topic_not_found").await;
    // The name is free there.
    assert_ne!(legacy_topic(&mut eve_raw, "ops").await, id);
}

async fn the_history_of_a_topic_goes_back_page_by_page(backend: Backend) {
    let mut mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = mesh.connected("alice").await;
    let (bob, mut bob_raw) = mesh.connected("bob").await;
    let id = legacy_topic(&mut alice_raw, "ops").await;
    bob_raw.send(&join(&id)).await;
    bob_raw.answers_so_far().await;
    let mut sent = Vec::new();
    for n in 0..5 {
        let frame = post(&id, &format!("m{n}"));
        let (member, raw) = if n % 2 == 0 { (&alice, &mut alice_raw) } else { (&bob, &mut bob_raw) };
        let ack = posted(raw, frame.clone()).await;
        sent.push((ack["messageId"].clone(), frame, member));
    }
    mesh.broker.crash().await;
    let mut raw = Raw::member(&mesh.url(), &alice).await;
    let mut before = None;
    for part in [&[4, 3][..], &[2, 1], &[0], &[]] {
        let mut frame = json!({"type": "topic_history", "topic": "ops", "limit": 2});
        if let Some(before) = &before {
            frame["beforeId"] = json!(before);
        }
        let page = ask(&mut raw, frame).await;
        assert_eq!((&page["type"], &page["topic"]), (&json!("topic_history_response"), &json!(id)), "{page}");
        let rows = page["messages"].as_array().expect("messages");
        assert_eq!(rows.len(), part.len(), "{page}");
        for (row, number) in rows.iter().zip(part) {
            let (message_id, frame, member) = &sent[*number];
            assert_eq!((&row["id"], &row["bodyVersion"]), (message_id, &json!(1)), "{row}");
            for field in ["nonce", "ciphertext"] {
                assert_eq!(row[field], frame[field], "{field}");
            }
            assert_eq!(
                (&row["senderMemberId"], &row["senderPubkey"], &row["senderName"]),
                (&json!(member.member_id), &json!(member.public()), &json!(member.name)),
                "{row}"
            );
        }
        before = rows.last().map(|row| row["id"].clone()).or(before);
    }
    for limit in [0, 201] {
        refused(&mut raw, json!({"type": "topic_history", "topic": "ops", "limit": limit}), "invalid").await;
    }
    let all = ask(&mut raw, json!({"type": "topic_history", "topic": "ops"})).await;
    assert_eq!(all["messages"].as_array().expect("messages").len(), 5);
}

on_both_databases! {
    a_topic_without_a_statement_has_no_keys_and_its_name_once,
    coming_reading_and_going_have_no_answer_for_older_clients,
    another_meshs_topics_are_not_there,
    the_history_of_a_topic_goes_back_page_by_page,
}
