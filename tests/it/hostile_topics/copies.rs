//! Copies of a key that do not hold it, and whom a key is given to.

use serde_json::{Value, json};

use super::{Liar, TOPIC, epoch};
use crate::support::keys;
use crate::support::topics::{open, sealed_copy, topic_key};

#[tokio::test]
async fn a_copy_that_does_not_hold_the_key_is_thrown_away_and_asked_for_again() {
    let (mut liar, alice) = Liar::start().await;
    let (key, evil) = (topic_key(), topic_key());
    liar.epochs = vec![epoch(1, None, &key).signed_by("member-bob", &liar.bob)];
    let mut for_carol = sealed_copy(&liar.bob, "member-alice", &liar.carol.public(), &key);
    for_carol["epoch"] = json!(1);
    let noise = json!({"epoch": 1, "sealed": keys::base64(&[7; 80]), "nonce": keys::base64(&[7; 24])});
    let torn = json!({"epoch": 1, "sealed": "AAAA", "nonce": "!"});
    let mut held = Vec::new();
    // One that opens and holds another key, and such as do not open.
    for (number, lie) in [liar.copy(1, &evil), for_carol, noise, torn].into_iter().enumerate() {
        liar.copies = vec![lie.clone()];
        if number == 0 {
            liar.subscribe(&alice).await;
        } else {
            liar.event("topic_key_available").await;
        }
        let wanted = number + 1;
        let broken = |liar: &Liar| {
            let asked = liar.frames_of("topic_key_get");
            asked.iter().filter(|frame| frame["broken"] == 1 && frame["topicId"] == TOPIC).count()
        };
        while broken(&liar) < wanted {
            let frame = liar.client.next().await.expect("alice stays");
            liar.answer(frame).await;
        }
        let topic = liar.listed(&alice).await;
        assert_eq!(topic["waiting_for_key"], true, "{lie}: {topic}");
        held.push(liar.post(&alice, "a secret").await);
        liar.stays(&alice, &held[0], "its key is not here yet").await;
    }
    liar.copies = vec![liar.copy(1, &key)];
    liar.event("topic_key_available").await;
    while liar.sent().len() < held.len() {
        liar.next_sent().await;
    }
    for sent in liar.sent() {
        assert!(open(&key, &sent).is_some() && open(&evil, &sent).is_none(), "{sent}");
    }
}

#[tokio::test]
async fn the_broker_cannot_name_who_gets_a_key() {
    let (mut liar, alice, key) = Liar::with_topic().await;
    // It says that carol, and somebody whom it invented, are in the topic and wait.
    liar.inside.extend(["member-carol", "member-ghost"]);
    liar.shown().await;
    assert_eq!(liar.frames_of("topic_key_put"), Vec::<Value>::new());
    // Dora is certified by somebody else than the owner of alice's invite.
    let dora = keys::Key::random();
    let forged = crate::support::mesh::certificate(super::MESH, &keys::Key::random(), &dora.public(), "admin");
    liar.members.push(super::member("member-dora", &dora, Some(forged)));
    liar.inside.push("member-dora");
    liar.event("something_new").await;
    liar.serving(alice.knows("dora")).await;
    liar.shown().await;
    assert_eq!(liar.frames_of("topic_key_put"), Vec::<Value>::new());
    // Only when the operator says so, and only for her own key.
    liar.serving(alice.cli(&["topic", "admit", "ops", "carol"])).await.ok();
    let put = liar.frames_of("topic_key_put").pop().expect("a copy");
    let copies = put["keys"].as_array().expect("keys");
    assert_eq!((copies.len(), &copies[0]["memberId"], &put["epoch"]), (1, &json!("member-carol"), &json!(1)), "{put}");
    let (sealed, nonce) = (&copies[0]["sealed"], &copies[0]["nonce"]);
    let bytes = |text: &Value| keys::from_base64(text.as_str().expect("base64"));
    let opened = keys::open(&liar.carol, &liar.alice.public(), &bytes(nonce), &bytes(sealed)[32..]);
    assert_eq!(opened.as_deref(), Some(key.as_slice()));
    assert_eq!(keys::open(&dora, &liar.alice.public(), &bytes(nonce), &bytes(sealed)[32..]), None);
}
