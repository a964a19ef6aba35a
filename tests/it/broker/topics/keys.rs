//! Sealed copies of topics' keys: who brings them, who gets them, who waits.

use serde_json::{Value, json};

use super::{Topic, ask, change, connected, done, join, knowing, leave, new_id, refused, revoke};
use crate::support::keys::Key;
use crate::support::mesh::RawMesh;
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::raw::{Member, Raw};
use crate::support::topics::opaque_copy;

/// Who waits for a key that this connection's member has.
async fn pending(raw: &mut Raw) -> Vec<Value> {
    let answer = ask(raw, json!({"type": "topic_key_pending"})).await;
    assert_eq!(answer["type"], "topic_pending", "{answer}");
    let rows = answer["pending"].as_array().expect("pending").clone();
    assert!(rows.iter().all(|row| row["since"].is_i64()), "{answer}");
    rows
}

/// By member and epoch.
fn waiting(rows: &[Value]) -> Vec<(&str, u64)> {
    rows.iter()
        .map(|row| (row["memberId"].as_str().expect("an id"), row["epoch"].as_u64().expect("an epoch")))
        .collect()
}

async fn own_copies(raw: &mut Raw, topic: &Topic) -> Value {
    ask(raw, topic.get()).await["keys"].clone()
}

fn copy_of(copy: &Value, epoch: u32) -> Value {
    json!([{"epoch": epoch, "sealed": copy["sealed"], "nonce": copy["nonce"]}])
}

async fn who_has_a_key_gives_it_to_who_is_in_the_topic(backend: Backend) {
    let mut mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = connected(&mesh, "alice").await;
    let (bob, mut bob_raw) = connected(&mesh, "bob").await;
    let (carol, mut carol_raw) = connected(&mesh, "carol").await;
    let (eve, mut eve_raw) = connected(&mesh, "eve").await;
    let topic = Topic::create(&mut alice_raw, &alice).await;
    assert_eq!(pending(&mut alice_raw).await, Vec::<Value>::new());
    for raw in [&mut bob_raw, &mut carol_raw] {
        done(raw, join(&topic.id)).await;
    }
    // The longest waiting first, and only to who could help.
    let rows = pending(&mut alice_raw).await;
    assert_eq!(waiting(&rows), [(bob.member_id.as_str(), 1), (carol.member_id.as_str(), 1)]);
    assert!(rows.iter().all(|row| row["topicId"] == topic.id.as_str()), "{rows:?}");
    assert_eq!(pending(&mut bob_raw).await, Vec::<Value>::new());
    // Not by who has none, not for who is not in, not what is no copy.
    refused(&mut bob_raw, topic.put(&[&carol]), "forbidden").await;
    refused(&mut eve_raw, topic.put(&[&carol]), "forbidden").await;
    refused(&mut eve_raw, topic.get(), "topic_not_joined").await;
    refused(&mut alice_raw, topic.put(&[&bob, &eve]), "invalid").await;
    for (field, value) in [("sealed", "AAAA"), ("nonce", "AAAA"), ("sealed", "no base64"), ("memberId", "nobody")] {
        let mut put = topic.put(&[&bob]);
        put["keys"][0][field] = json!(value);
        refused(&mut alice_raw, put, "invalid").await;
    }
    let mut other = topic.put(&[&bob]);
    other["epoch"] = json!(2);
    refused(&mut alice_raw, other, "forbidden").await;
    assert_eq!(own_copies(&mut bob_raw, &topic).await, json!([]));

    let first = topic.put(&[&bob]);
    done(&mut alice_raw, first.clone()).await;
    let copy = copy_of(&first["keys"][0], 1);
    assert_eq!(own_copies(&mut bob_raw, &topic).await, copy);
    assert_eq!(waiting(&pending(&mut alice_raw).await), [(carol.member_id.as_str(), 1)]);
    // A copy that is there stays, whoever brings another one; bob gives on now.
    done(&mut alice_raw, topic.put(&[&bob])).await;
    assert_eq!(waiting(&pending(&mut bob_raw).await), [(carol.member_id.as_str(), 1)]);
    done(&mut bob_raw, topic.put(&[&bob, &carol])).await;
    assert_eq!(pending(&mut alice_raw).await, Vec::<Value>::new());
    mesh.broker.crash().await;
    let mut bob_raw = knowing(&mesh.url(), &bob).await;
    assert_eq!(own_copies(&mut bob_raw, &topic).await, copy);
    let keys = ask(&mut bob_raw, topic.get()).await;
    let mut holders = [&alice, &bob, &carol].map(|member| member.member_id.clone());
    holders.sort();
    assert_eq!(keys["holders"], json!(holders), "{keys}");
    assert_eq!(keys["members"], json!([alice.member_id, bob.member_id, carol.member_id]), "{keys}");
}

async fn a_broken_copy_is_thrown_away_and_asked_for_again(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = connected(&mesh, "alice").await;
    let (bob, mut bob_raw) = connected(&mesh, "bob").await;
    let (_, mut eve_raw) = connected(&mesh, "eve").await;
    let topic = Topic::create(&mut alice_raw, &alice).await;
    done(&mut bob_raw, join(&topic.id)).await;
    done(&mut alice_raw, topic.put(&[&bob])).await;
    let mut broken = topic.get();
    broken["broken"] = json!(1);
    // It is the asker's own that goes, and nobody else's.
    refused(&mut eve_raw, broken.clone(), "topic_not_joined").await;
    assert_eq!(own_copies(&mut bob_raw, &topic).await.as_array().expect("copies").len(), 1);
    super::news(&mut alice_raw).await;
    let answer = ask(&mut bob_raw, broken).await;
    assert_eq!((&answer["keys"], &answer["holders"]), (&json!([]), &json!([alice.member_id])), "{answer}");
    let event = alice_raw.event("topic_members_changed").await;
    assert_eq!(event["eventData"], json!({"topicId": topic.id, "epoch": 1}), "{event}");
    assert_eq!(waiting(&pending(&mut alice_raw).await), [(bob.member_id.as_str(), 1)]);
    let second = topic.put(&[&bob]);
    done(&mut alice_raw, second.clone()).await;
    assert_eq!(own_copies(&mut bob_raw, &topic).await, copy_of(&second["keys"][0], 1));
    assert_eq!(own_copies(&mut alice_raw, &topic).await.as_array().expect("copies").len(), 1);
}

async fn the_newest_epoch_is_what_one_waits_for(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = connected(&mesh, "alice").await;
    let (bob, mut bob_raw) = connected(&mesh, "bob").await;
    let (carol, mut carol_raw) = connected(&mesh, "carol").await;
    let (_, mut dora_raw) = connected(&mesh, "dora").await;
    let mut topic = Topic::create(&mut alice_raw, &alice).await;
    for raw in [&mut bob_raw, &mut carol_raw, &mut dora_raw] {
        done(raw, join(&topic.id)).await;
    }
    done(&mut alice_raw, topic.put(&[&bob, &carol])).await;
    done(&mut dora_raw, leave(&topic.id)).await;
    change(&mesh, "UPDATE topic_epoch SET created_at = 0").await;
    topic.renew(&mut alice_raw, &[&alice, &bob], &alice).await;
    assert_eq!(waiting(&pending(&mut alice_raw).await), [(carol.member_id.as_str(), 2)], "who left waits for nothing");
    assert_eq!(pending(&mut carol_raw).await, Vec::<Value>::new(), "she has the old one only");
    // Who has an old key gives that on, and not the new one.
    refused(&mut carol_raw, topic.put(&[&carol]), "forbidden").await;
    let keys = ask(&mut bob_raw, topic.get()).await;
    let epochs = |keys: &Value| {
        let copies = keys["keys"].as_array().expect("copies").clone();
        copies.into_iter().map(|copy| copy["epoch"].as_u64().expect("an epoch")).collect::<Vec<_>>()
    };
    assert_eq!(epochs(&keys), [2, 1], "{keys}");
    assert_eq!(keys["epochs"].as_array().expect("epochs").len(), 2);
    let mut later = topic.get();
    later["afterEpoch"] = json!(1);
    assert_eq!(ask(&mut bob_raw, later).await["epochs"], json!([topic.head]));
    // Who was revoked waits for nothing and is not shown.
    revoke(&mesh, &carol).await;
    assert_eq!(pending(&mut alice_raw).await, Vec::<Value>::new());
    let keys = ask(&mut alice_raw, topic.get()).await;
    assert_eq!(keys["members"], json!([alice.member_id, bob.member_id]), "{keys}");
}

async fn many_epochs_come_in_pages(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = connected(&mesh, "alice").await;
    let mut topic = Topic::create(&mut alice_raw, &alice).await;
    for _ in 0..104 {
        change(&mesh, "UPDATE topic_epoch SET created_at = 0").await;
        topic.renew(&mut alice_raw, &[&alice], &alice).await;
    }
    let first = ask(&mut alice_raw, topic.get()).await;
    let numbers = |page: &Value| {
        let epochs = page["epochs"].as_array().expect("epochs").clone();
        epochs.into_iter().map(|epoch| epoch["epoch"].as_u64().expect("an epoch")).collect::<Vec<_>>()
    };
    assert_eq!((numbers(&first), &first["more"]), ((1..=100).collect(), &json!(true)));
    let copies = first["keys"].as_array().expect("copies");
    assert_eq!((copies.len(), &copies[0]["epoch"]), (100, &json!(105)), "the newest of the asker's copies");
    let mut next = topic.get();
    next["afterEpoch"] = json!(100);
    let second = ask(&mut alice_raw, next).await;
    assert_eq!((numbers(&second), &second["more"]), ((101..=105).collect(), &json!(false)));
    assert_eq!(second["epochs"][4], topic.head);
}

async fn keys_are_for_members_who_negotiated(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = connected(&mesh, "alice").await;
    let topic = Topic::create(&mut alice_raw, &alice).await;
    let frames = |topic: &Topic, alice: &Member| {
        [topic.get(), topic.put(&[alice]), json!({"type": "topic_key_pending"}), topic.next(&[alice], alice)]
    };
    let mut plain = Raw::member(&mesh.url(), &alice).await;
    let (mut session, _) = Raw::hello(&mesh.url(), &alice.session_hello(&Key::random())).await;
    session.negotiate(super::BITS, &[]).await;
    for raw in [&mut plain, &mut session] {
        for frame in frames(&topic, &alice) {
            refused(raw, frame, "feature_unavailable").await;
        }
    }
    for kind in ["topic_key_get", "topic_key_put"] {
        let mut frame = json!({"type": kind, "topicId": new_id(), "epoch": 1});
        frame["keys"] = json!([opaque_copy(&alice.member_id)]);
        refused(&mut alice_raw, frame, "topic_not_found").await;
    }
}

on_both_databases! {
    who_has_a_key_gives_it_to_who_is_in_the_topic,
    a_broken_copy_is_thrown_away_and_asked_for_again,
    the_newest_epoch_is_what_one_waits_for,
    many_epochs_come_in_pages,
    keys_are_for_members_who_negotiated,
}
