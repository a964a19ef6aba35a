//! Topics of a mesh that two brokers serve over one PostgreSQL database.

use serde_json::json;

use super::{Topic, ask, change, done, join, knowing, posted, refused};
use crate::support::broker::Broker;
use crate::support::mesh::{Mesh, RawMesh};
use crate::support::postgres::Backend;

const SCANS: &str = "[timers]\nscan_ms = 200\n";

async fn two_nodes() -> (RawMesh, Broker) {
    let broker = Broker::configured(Backend::Postgres, SCANS).await;
    let mesh = Mesh::create(&broker, "demo").await;
    let second = broker.second_node(SCANS).await;
    (RawMesh { broker, mesh }, second)
}

#[tokio::test]
async fn a_topic_is_the_same_at_both_nodes_a_scan_later() {
    if !Backend::Postgres.is_there() {
        return;
    }
    let (mesh, second) = two_nodes().await;
    let alice = mesh.member("alice").await;
    let mut alice_raw = knowing(&mesh.url(), &alice).await;
    let mut topic = Topic::create(&mut alice_raw, &alice).await;
    // A member whom only the second broker has seen.
    let bob = mesh.mesh.at(&second).join(&second, "bob").await;
    let mut bob_raw = knowing(&second.url(), &bob).await;
    done(&mut bob_raw, join(&topic.id)).await;
    let event = alice_raw.event("topic_members_changed").await;
    assert_eq!(event["eventData"], json!({"topicId": topic.id, "epoch": 1}), "{event}");

    let ack = posted(&mut alice_raw, topic.post("m1", 1)).await;
    let push = bob_raw.message().await;
    assert_eq!((&push["messageId"], &push["topic"]), (&ack["messageId"], &json!("ops")), "{push}");
    assert_eq!((&push["keyEpoch"], &push["redelivery"]), (&json!(1), &json!(false)), "{push}");
    // And the other way; one id of one sender at either.
    let back = posted(&mut bob_raw, topic.post("m1", 1)).await;
    assert_eq!(alice_raw.message().await["messageId"], back["messageId"]);
    let mut alice_there = knowing(&second.url(), &alice).await;
    let again = posted(&mut alice_there, topic.post("m1", 1)).await;
    assert_eq!((&again["duplicate"], &again["messageId"]), (&json!(true), &ack["messageId"]), "{again}");

    // Keys that are given at the one are there at the other, which tells of them.
    done(&mut alice_raw, topic.put(&[&bob])).await;
    bob_raw.event("topic_members_changed").await;
    assert_eq!(ask(&mut bob_raw, topic.get()).await["keys"].as_array().expect("copies").len(), 1);
    change(&mesh, "UPDATE topic_epoch SET created_at = 0").await;
    topic.renew(&mut alice_raw, &[&alice, &bob], &alice).await;
    let renewed = loop {
        let event = bob_raw.event("topic_members_changed").await;
        if event["eventData"]["epoch"] == 2 {
            break event;
        }
    };
    assert_eq!(renewed["eventData"]["topicId"], topic.id.as_str(), "{renewed}");
    // The compare and set is the database's.
    let mut late = topic.next(&[&alice, &bob], &bob);
    late["statement"] = topic.statement(2, None, &[&alice, &bob], &bob);
    refused(&mut bob_raw, late, "forbidden").await;
    change(&mesh, "UPDATE topic_epoch SET created_at = 0").await;
    let frames = [topic.next(&[&alice], &alice), topic.next(&[&alice, &bob], &alice)];
    let (one, other) = tokio::join!(ask(&mut alice_raw, frames[0].clone()), ask(&mut alice_there, frames[1].clone()));
    let accepted = [&one, &other].into_iter().filter(|answer| answer["accepted"] == true).count();
    assert_eq!((accepted, &one["statement"]), (1, &other["statement"]), "{one} {other}");
}
