//! The beginnings of epochs: whose they are, and that one follows the other.

use serde_json::{Value, json};

use super::{
    NAME, Topic, ask, change, connected, done, ids, join, knowing, leave, legacy_topic, new_id, number, refused, revoke,
};
use crate::support::keys::Key;
use crate::support::mesh::RawMesh;
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::raw::{Member, Raw};
use crate::support::topics::{opaque_copy, topic_key};

/// Lets the time pass that has to lie between two epochs.
async fn let_time_pass(mesh: &RawMesh) {
    change(mesh, "UPDATE topic_epoch SET created_at = created_at - 600001").await;
}

/// A topic's first statement, not sent yet.
fn founded(lead: &Member) -> Topic {
    let mut topic = Topic { id: new_id(), mesh_id: lead.mesh_id.clone(), head: Value::Null };
    topic.head = topic.statement(1, None, &[lead], lead);
    topic
}

// Covers: R400
async fn the_bits_of_encrypted_topics_are_offered(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (_, mut raw) = mesh.connected("alice").await;
    let answer = raw.negotiate(&["topic_e2e", "key_epoch"], &[]).await;
    assert_eq!(answer["missing_required"], json!([]), "{answer}");
    assert_eq!(answer["params"]["key_epoch"], json!({"version": 1, "max_concurrent_epochs": 2}), "{answer}");
    assert_eq!(answer["params"]["topic_e2e"], json!({"version": 1}), "{answer}");
}

async fn a_topic_begins_with_its_makers_statement(backend: Backend) {
    let mut mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = connected(&mesh, "alice").await;
    let (bob, mut bob_raw) = connected(&mesh, "bob").await;
    let topic = founded(&alice);
    let creation = topic.creation();
    let made = ask(&mut alice_raw, creation.clone()).await;
    assert_eq!((&made["created"], &made["topic"]["epoch"]), (&json!(true), &json!(1)), "{made}");
    assert_eq!((&made["topic"]["id"], &made["topic"]["joined"]), (&json!(topic.id), &json!(true)), "{made}");
    // A retry after a lost answer, and another one's topic of that name.
    let again = ask(&mut alice_raw, creation.clone()).await;
    assert_eq!((&again["created"], &again["topic"]["id"]), (&json!(false), &json!(topic.id)), "{again}");
    let theirs = founded(&bob);
    let other = ask(&mut bob_raw, theirs.creation()).await;
    assert_eq!((&other["created"], &other["topic"]["id"]), (&json!(false), &json!(topic.id)), "{other}");
    assert_eq!((&other["topic"]["epoch"], &other["topic"]["joined"]), (&json!(1), &json!(false)), "{other}");
    mesh.broker.crash().await;
    let mut alice_raw = knowing(&mesh.url(), &alice).await;
    let keys = ask(&mut alice_raw, topic.get()).await;
    assert_eq!(
        (&keys["type"], &keys["topicId"], &keys["more"]),
        (&json!("topic_keys"), &json!(topic.id), &json!(false))
    );
    assert_eq!(keys["epochs"], json!([topic.head]), "{keys}");
    let copy = &creation["keys"][0];
    assert_eq!(keys["keys"], json!([{"epoch": 1, "sealed": copy["sealed"], "nonce": copy["nonce"]}]), "{keys}");
    assert_eq!((&keys["members"], &keys["holders"]), (&json!([alice.member_id]), &json!([alice.member_id])), "{keys}");
    assert_eq!(number(&mesh, "SELECT count(*) FROM topic").await, 1);
}

async fn a_first_statement_that_is_not_its_senders_is_refused(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = connected(&mesh, "alice").await;
    let bob = mesh.member("bob").await;
    let topic = founded(&alice);
    let (key, stranger) = (topic_key(), Key::random());
    let members = ids(&[&alice]);
    let first = topic.epoch(1, None, &key, &members);
    let good = first.signed_by(&alice.member_id, &alice.key);
    let with = |field: &str, value: Value| {
        let mut statement = good.clone();
        statement[field] = value;
        statement
    };
    let mut renamed = first.clone();
    renamed.name = "dev";
    let mut elsewhere = first.clone();
    elsewhere.mesh_id = "another-mesh";
    let nobody = topic.epoch(1, None, &key, &[]);
    let later = topic.epoch(2, None, &key, &members);
    let follows = topic.epoch(1, Some(&good), &key, &members);
    let signed = |epoch: &crate::support::topics::Epoch<'_>| epoch.signed_by(&alice.member_id, &alice.key);
    for statement in [
        with("signature", json!("00".repeat(64))),
        with("signature", json!("")),
        with("commitment", json!("ab".repeat(32))),
        with("ts", json!(7)),
        with("members", json!([alice.member_id, bob.member_id])),
        with("signerKey", json!(bob.public())),
        // Signed, but by somebody else than who sends it.
        first.signed_by(&bob.member_id, &bob.key),
        first.signed_by(&alice.member_id, &bob.key),
        first.signed_by(&alice.member_id, &stranger),
        signed(&renamed),
        signed(&elsewhere),
        signed(&nobody),
        signed(&later),
        signed(&follows),
    ] {
        let frame = json!({"type": "topic_create", "name": NAME, "statement": statement});
        refused(&mut alice_raw, frame, "invalid").await;
    }
    // Copies of the key for others wait until those are in the topic.
    for copies in [
        json!([opaque_copy(&bob.member_id)]),
        json!([{"memberId": alice.member_id, "sealed": "AAAA", "nonce": "AAAA"}]),
    ] {
        let frame = json!({"type": "topic_create", "name": NAME, "statement": good, "keys": copies});
        refused(&mut alice_raw, frame, "invalid").await;
    }
    // Who did not negotiate, and a session, have no say.
    let frame = json!({"type": "topic_create", "name": NAME, "statement": good});
    let mut plain = Raw::member(&mesh.url(), &alice).await;
    refused(&mut plain, frame.clone(), "feature_unavailable").await;
    let (mut session, _) = Raw::hello(&mesh.url(), &alice.session_hello(&Key::random())).await;
    session.negotiate(super::BITS, &[]).await;
    refused(&mut session, frame.clone(), "feature_unavailable").await;
    assert_eq!(number(&mesh, "SELECT count(*) FROM topic").await, 0);
    assert_eq!(ask(&mut alice_raw, frame).await["created"], true);
}

async fn of_two_with_one_predecessor_the_first_stands(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let alice = mesh.member("alice").await;
    let admin = mesh.mesh.join_admin(&mesh.broker, "admin").await;
    let mut alice_raw = knowing(&mesh.url(), &alice).await;
    let mut admin_raw = knowing(&mesh.url(), &admin).await;
    let mut topic = Topic::create(&mut alice_raw, &alice).await;
    done(&mut admin_raw, join(&topic.id)).await;
    for _ in 0..5 {
        let_time_pass(&mesh).await;
        let frames = [topic.next(&[&alice, &admin], &alice), topic.next(&[&alice, &admin], &admin)];
        let (one, other) = tokio::join!(ask(&mut alice_raw, frames[0].clone()), ask(&mut admin_raw, frames[1].clone()));
        let answers = [one, other];
        let accepted: Vec<usize> = (0..2).filter(|number| answers[*number]["accepted"] == true).collect();
        assert_eq!(accepted.len(), 1, "{answers:?}");
        for answer in &answers {
            assert_eq!(
                (&answer["type"], &answer["statement"]),
                (&json!("topic_epoch"), &frames[accepted[0]]["statement"])
            );
        }
        topic.head = frames[accepted[0]]["statement"].clone();
        let mut get = topic.get();
        get["afterEpoch"] = json!(topic.head["epoch"].as_u64().expect("an epoch") - 1);
        assert_eq!(ask(&mut admin_raw, get).await["epochs"], json!([topic.head]));
    }
    // What does not follow is answered with what stands, and nothing has changed.
    let_time_pass(&mesh).await;
    let newest = topic.head.clone();
    let number = u32::try_from(newest["epoch"].as_u64().expect("an epoch")).expect("small");
    let mut forked = newest.clone();
    forked["commitment"] = json!("00".repeat(32));
    for (epoch, before) in
        [(number, Some(&newest)), (number + 2, Some(&newest)), (number + 1, Some(&forked)), (number + 1, None)]
    {
        let statement = topic.statement(epoch, before, &[&alice], &alice);
        let frame = json!({"type": "topic_epoch_new", "statement": statement, "keys": []});
        let answer = ask(&mut alice_raw, frame).await;
        assert_eq!((&answer["accepted"], &answer["statement"]), (&json!(false), &newest), "{answer}");
    }
    topic.renew(&mut alice_raw, &[&alice, &admin], &alice).await;
}

async fn an_epoch_is_the_leads_or_an_admins(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = connected(&mesh, "alice").await;
    let (bob, mut bob_raw) = connected(&mesh, "bob").await;
    let (eve, mut eve_raw) = connected(&mesh, "eve").await;
    let admin = mesh.mesh.join_admin(&mesh.broker, "admin").await;
    let mut admin_raw = knowing(&mesh.url(), &admin).await;
    let mut topic = Topic::create(&mut alice_raw, &alice).await;
    done(&mut bob_raw, join(&topic.id)).await;
    let_time_pass(&mesh).await;
    refused(&mut bob_raw, topic.next(&[&alice, &bob], &bob), "forbidden").await;
    refused(&mut eve_raw, topic.next(&[&alice], &eve), "forbidden").await;
    // An admin only where it is in.
    refused(&mut admin_raw, topic.next(&[&alice], &admin), "forbidden").await;
    done(&mut admin_raw, join(&topic.id)).await;
    // Not with another one's signature, nor for who is not in the topic.
    refused(&mut bob_raw, topic.next(&[&alice, &bob], &alice), "invalid").await;
    let mut outside = topic.next(&[&alice, &eve], &alice);
    refused(&mut alice_raw, outside.clone(), "invalid").await;
    outside["keys"] = json!([opaque_copy(&alice.member_id)]);
    refused(&mut alice_raw, outside, "invalid").await;
    let mut extra = topic.next(&[&alice], &alice);
    extra["keys"] = json!([opaque_copy(&eve.member_id)]);
    refused(&mut alice_raw, extra, "invalid").await;
    let mut torn = topic.next(&[&alice], &alice);
    torn["keys"] = json!([{"memberId": alice.member_id, "sealed": "AAAA", "nonce": "AAAA"}]);
    refused(&mut alice_raw, torn, "invalid").await;
    assert_eq!(number(&mesh, "SELECT max(epoch) FROM topic_epoch").await, 1);
    assert_eq!(number(&mesh, "SELECT epoch FROM topic").await, 1, "what was refused left nothing behind");
    topic.renew(&mut admin_raw, &[&alice, &bob, &admin], &admin).await;
    // Where no lead is left, who has the key goes on, and without any such anybody
    // who is in.
    done(&mut alice_raw, leave(&topic.id)).await;
    done(&mut eve_raw, join(&topic.id)).await;
    refused(&mut eve_raw, topic.next(&[&eve], &eve), "forbidden").await;
    topic.renew(&mut bob_raw, &[&bob, &admin], &bob).await;
    done(&mut bob_raw, leave(&topic.id)).await;
    refused(&mut eve_raw, topic.next(&[&eve], &eve), "forbidden").await;
    done(&mut admin_raw, leave(&topic.id)).await;
    topic.renew(&mut eve_raw, &[&eve], &eve).await;
    // Without keys there is no epoch.
    legacy_topic(&mut alice_raw, "plain").await;
    let mut plain = founded(&alice);
    plain.id = ask(&mut alice_raw, json!({"type": "topic_create", "name": "plain"})).await["topic"]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    refused(&mut alice_raw, plain.next(&[&alice], &alice), "invalid").await;
    let nowhere = founded(&alice);
    refused(&mut alice_raw, nowhere.next(&[&alice], &alice), "topic_not_found").await;
}

async fn epochs_follow_slowly_unless_somebody_has_gone(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = connected(&mesh, "alice").await;
    let (bob, mut bob_raw) = connected(&mesh, "bob").await;
    let (carol, mut carol_raw) = connected(&mesh, "carol").await;
    let mut topic = Topic::create(&mut alice_raw, &alice).await;
    for raw in [&mut bob_raw, &mut carol_raw] {
        done(raw, join(&topic.id)).await;
    }
    let soon = refused(&mut alice_raw, topic.next(&[&alice], &alice), "rate_limit").await;
    let after = soon["retryAfterMs"].as_u64().expect("a time");
    assert!((540_000..=600_000).contains(&after), "{soon}");
    assert_eq!(soon["retryable"], true, "{soon}");
    assert_eq!(number(&mesh, "SELECT epoch FROM topic").await, 1, "what was refused left nothing behind");
    // Who goes without the key takes nothing along.
    done(&mut carol_raw, leave(&topic.id)).await;
    refused(&mut alice_raw, topic.next(&[&alice], &alice), "rate_limit").await;
    done(&mut carol_raw, join(&topic.id)).await;
    done(&mut alice_raw, topic.put(&[&bob, &carol])).await;
    // A holder leaves; another one is revoked.
    done(&mut bob_raw, leave(&topic.id)).await;
    topic.renew(&mut alice_raw, &[&alice, &carol], &alice).await;
    refused(&mut alice_raw, topic.next(&[&alice, &carol], &alice), "rate_limit").await;
    revoke(&mesh, &carol).await;
    refused(&mut alice_raw, topic.next(&[&alice, &carol], &alice), "invalid").await;
    topic.renew(&mut alice_raw, &[&alice], &alice).await;
    refused(&mut alice_raw, topic.next(&[&alice], &alice), "rate_limit").await;
    let_time_pass(&mesh).await;
    topic.renew(&mut alice_raw, &[&alice], &alice).await;
}

on_both_databases! {
    the_bits_of_encrypted_topics_are_offered,
    a_topic_begins_with_its_makers_statement,
    a_first_statement_that_is_not_its_senders_is_refused,
    of_two_with_one_predecessor_the_first_stands,
    an_epoch_is_the_leads_or_an_admins,
    epochs_follow_slowly_unless_somebody_has_gone,
}
