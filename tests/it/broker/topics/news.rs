//! Who hears of what happens in a topic.

use serde_json::json;

use super::{Topic, change, connected, done, join, leave, news};
use crate::support::mesh::RawMesh;
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::raw::Raw;

async fn news_of_a_topic_go_to_who_is_in_it_and_knows_them(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = connected(&mesh, "alice").await;
    let (bob, mut bob_raw) = connected(&mesh, "bob").await;
    let (_, mut outside_raw) = connected(&mesh, "outside").await;
    let mut topic = Topic::create(&mut alice_raw, &alice).await;
    // In the topic, and of before.
    let old = mesh.member("old").await;
    let mut old_raw = Raw::member(&mesh.url(), &old).await;
    old_raw.send(&join(&topic.id)).await;
    old_raw.answers_so_far().await;
    let told = |topic: &Topic| json!({"topicId": topic.id, "epoch": topic.head["epoch"]});
    let event = alice_raw.event("topic_members_changed").await;
    assert_eq!((&event["eventData"], &event["subtype"]), (&told(&topic), &json!("system")), "{event}");

    done(&mut bob_raw, join(&topic.id)).await;
    assert_eq!(alice_raw.event("topic_members_changed").await["eventData"], told(&topic));
    // Again, and nothing has changed.
    done(&mut bob_raw, join(&topic.id)).await;
    assert_eq!(news(&mut alice_raw).await, Vec::<String>::new());

    done(&mut alice_raw, topic.put(&[&bob])).await;
    assert_eq!(bob_raw.event("topic_key_available").await["eventData"], told(&topic));
    assert_eq!(news(&mut alice_raw).await, Vec::<String>::new(), "only who was given a key");

    change(&mesh, "UPDATE topic_epoch SET created_at = 0").await;
    topic.renew(&mut alice_raw, &[&alice, &bob], &alice).await;
    assert_eq!(bob_raw.event("topic_epoch").await["eventData"], told(&topic));
    // What was not taken is no news.
    let refused = topic.next(&[&alice], &alice);
    super::refused(&mut alice_raw, refused, "rate_limit").await;
    assert_eq!(news(&mut bob_raw).await, Vec::<String>::new());

    done(&mut bob_raw, leave(&topic.id)).await;
    assert_eq!(alice_raw.event("topic_members_changed").await["eventData"], told(&topic));
    assert_eq!(news(&mut bob_raw).await, Vec::<String>::new(), "who is out hears no more");
    done(&mut bob_raw, leave(&topic.id)).await;
    for raw in [&mut alice_raw, &mut outside_raw, &mut old_raw] {
        assert_eq!(news(raw).await, Vec::<String>::new());
    }
}

on_both_databases! {
    news_of_a_topic_go_to_who_is_in_it_and_knows_them,
}
