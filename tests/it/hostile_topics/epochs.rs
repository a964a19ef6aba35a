//! Epochs that do not count: made by nobody, by the wrong one, or beside the chain.

use serde_json::{Value, json};

use super::{Liar, MESH, NAME, TOPIC, epoch, member};
use crate::support::keys::Key;
use crate::support::mesh::certificate;
use crate::support::topics::{commitment, open, topic_key};

/// A member that the broker invented has the key of whatever it signs.
#[tokio::test]
async fn a_topic_that_a_ghost_founded_is_not_used_until_the_operator_vouches_for_it() {
    for is_listed in [false, true] {
        let (mut liar, alice) = Liar::start().await;
        let (key, ghost) = (topic_key(), Key::random());
        let (id, signer) =
            if is_listed { ("member-carol", liar.carol.clone()) } else { ("member-ghost", ghost.clone()) };
        liar.epochs = vec![epoch(1, None, &key).signed_by(id, &signer)];
        liar.copies = vec![liar.copy(1, &key)];
        let topic = liar.subscribe(&alice).await;
        assert_eq!((&topic["subscribed"], &topic["waiting_for_key"]), (&json!(true), &json!(true)), "{topic}");
        let post = liar.post(&alice, "a secret").await;
        let why = if is_listed { "without the owner's certificate" } else { "whom this daemon does not know" };
        liar.stays(&alice, &post, why).await;
        assert_eq!(liar.sent(), Vec::<Value>::new());
        // Nor is the key kept, or told to anybody.
        assert_eq!(liar.frames_of("topic_key_put"), Vec::<Value>::new());
        let kept = std::fs::read_to_string(alice.file("topic_keys.json")).unwrap_or_default();
        assert!(!kept.contains(&hex::encode(key)), "{kept}");
        if is_listed {
            liar.serving(alice.cli(&["verify", "carol", "--confirm"])).await.ok();
            let sent = liar.next_sent().await;
            assert_eq!((&sent["id"], &sent["keyEpoch"]), (&json!(post), &json!(1)), "{sent}");
            let opened = open(&key, &sent).expect("sealed with the topic's key");
            assert!(opened.windows(8).any(|window| window == b"a secret"));
        }
    }
}

#[tokio::test]
async fn a_first_statement_that_was_altered_is_not_adopted() {
    let (mut liar, alice) = Liar::start().await;
    let key = topic_key();
    let good = epoch(1, None, &key).signed_by("member-bob", &liar.bob);
    let with = |field: &str, value: Value| {
        let mut statement = good.clone();
        statement[field] = value;
        statement
    };
    let mut elsewhere = epoch(1, None, &key);
    elsewhere.mesh_id = "AnotherMesh";
    let lies = [
        with("signature", json!("00".repeat(64))),
        with("commitment", json!(commitment(TOPIC, 1, &topic_key()))),
        with("members", json!(["member-alice", "member-bob", "member-carol"])),
        with("signerKey", json!(liar.carol.public())),
        with("signer", json!("member-carol")),
        elsewhere.signed_by("member-bob", &liar.bob),
        // Bob's name under another key, which the broker has.
        epoch(1, None, &key).signed_by("member-bob", &liar.carol),
        epoch(1, Some(&good), &key).signed_by("member-bob", &liar.bob),
    ];
    liar.copies = vec![liar.copy(1, &key)];
    let mut held = Vec::new();
    for (number, lie) in lies.iter().enumerate() {
        liar.epochs = vec![lie.clone()];
        let topic = if number == 0 {
            liar.subscribe(&alice).await
        } else {
            liar.shown().await;
            liar.listed(&alice).await
        };
        assert_eq!(topic["waiting_for_key"], true, "{lie}: {topic}");
        held.push(liar.post(&alice, "a secret").await);
        liar.stays(&alice, &held[0], "its key ").await;
    }
    assert_eq!(liar.sent(), Vec::<Value>::new());
    liar.epochs = vec![good];
    liar.shown().await;
    while liar.sent().len() < held.len() {
        liar.next_sent().await;
    }
    assert!(liar.sent().iter().all(|sent| open(&key, sent).is_some()), "{:?}", liar.sent());
}

#[tokio::test]
async fn a_topic_under_another_name_is_refused() {
    let (mut liar, alice) = Liar::start().await;
    let key = topic_key();
    let mut other = epoch(1, None, &key);
    other.name = "dev";
    // Bob made this topic indeed, but it is not the one that alice asks for.
    liar.epochs = vec![other.signed_by("member-bob", &liar.bob)];
    liar.copies = vec![liar.copy(1, &key)];
    let topic = liar.subscribe(&alice).await;
    assert_eq!((&topic["name"], &topic["waiting_for_key"]), (&json!(NAME), &json!(true)), "{topic}");
    let id = liar.post(&alice, "a secret").await;
    liar.stays(&alice, &id, "under another name").await;
    // Another topic's statement under this one's name and id.
    let mut other = epoch(1, None, &key);
    other.topic_id = "01J00000000000000000000000";
    liar.epochs = vec![other.signed_by("member-bob", &liar.bob)];
    liar.shown().await;
    liar.stays(&alice, &id, "under another name").await;
    assert_eq!(liar.sent(), Vec::<Value>::new());
}

#[tokio::test]
async fn a_subscribed_name_stays_with_its_topic_and_keeps_its_keys() {
    let (mut liar, alice, _) = Liar::with_topic().await;
    // Another topic in its place, and the same one without keys.
    let row = liar.row.clone();
    for (field, value) in [("id", json!("01J00000000000000000000000")), ("epoch", json!(0))] {
        liar.row = row.clone();
        liar.row[field] = value;
        let http = alice.http();
        let body = json!({"topic": NAME});
        let answer = liar.serving(http.post("/v1/topic/subscribe", &body).send()).await.expect(409).json();
        assert_eq!(answer["code"], "topic_key_missing", "{answer}");
    }
    let topic = liar.listed(&alice).await;
    assert_eq!(topic["unencrypted"], false, "{topic}");
    let id = liar.post(&alice, "still sealed").await;
    let sent = match liar.sent().pop() {
        Some(sent) => sent,
        None => liar.next_sent().await,
    };
    assert_eq!((&sent["id"], &sent["keyEpoch"], &sent["topicId"]), (&json!(id), &json!(1), &json!(TOPIC)), "{sent}");
}

#[tokio::test]
async fn an_epoch_that_does_not_follow_is_not_adopted_and_nothing_is_sealed_meanwhile() {
    let (mut liar, alice, first_key) = Liar::with_topic().await;
    let first = liar.epochs[0].clone();
    let (bob, carol) = (liar.bob.clone(), liar.carol.clone());
    // Dora has the owner's word, and signs for another one.
    let dora = Key::random();
    let of_dora = certificate(MESH, &liar.owner, &dora.public(), "member");
    liar.members.push(member("member-dora", &dora, Some(of_dora)));
    liar.event("something_new").await;
    liar.serving(alice.knows("dora")).await;
    let evil = topic_key();
    let forked = epoch(1, None, &evil).signed_by("member-bob", &bob);
    let mut renamed = epoch(2, Some(&first), &evil);
    renamed.name = "dev";
    let mut unsigned = epoch(2, Some(&first), &evil).signed_by("member-bob", &bob);
    unsigned["ts"] = json!(7);
    let lies = [
        (epoch(2, Some(&forked), &evil).signed_by("member-bob", &bob), "does not follow"),
        (epoch(2, None, &evil).signed_by("member-bob", &bob), "does not follow"),
        (unsigned, "not signed"),
        (renamed.signed_by("member-bob", &bob), "under another name"),
        (epoch(2, Some(&first), &evil).signed_by("member-carol", &carol), "without the owner's certificate"),
        (epoch(2, Some(&first), &evil).signed_by("member-ghost", &Key::random()), "does not know"),
        (epoch(2, Some(&first), &evil).signed_by("member-bob", &dora), "does not know"),
    ];
    liar.row["epoch"] = json!(2);
    liar.inside.push("member-dora");
    liar.copies.push(liar.copy(2, &evil));
    let mut held = Vec::new();
    for (lie, why) in &lies {
        liar.epochs = vec![first.clone(), lie.clone()];
        liar.shown().await;
        let topic = liar.listed(&alice).await;
        assert_eq!(topic["waiting_for_key"], true, "{lie}: {topic}");
        held.push(liar.post(&alice, "a secret").await);
        liar.stays(&alice, &held[0], why).await;
    }
    assert_eq!(liar.sent(), Vec::<Value>::new());
    let good_key = topic_key();
    liar.epochs = vec![first.clone(), epoch(2, Some(&first), &good_key).signed_by("member-bob", &bob)];
    liar.copies = vec![liar.copy(1, &first_key), liar.copy(2, &good_key)];
    liar.shown().await;
    while liar.sent().len() < held.len() {
        liar.next_sent().await;
    }
    for sent in liar.sent() {
        assert_eq!(sent["keyEpoch"], 2, "{sent}");
        assert!(open(&good_key, &sent).is_some() && open(&evil, &sent).is_none() && open(&first_key, &sent).is_none());
    }
    // One is left out. What was shown once is not taken back by hiding it: nothing
    // is sealed for an epoch that may be over.
    let good = liar.epochs.clone();
    let skipped = epoch(4, Some(&good[1]), &evil).signed_by("member-bob", &bob);
    liar.epochs.push(skipped);
    liar.row["epoch"] = json!(4);
    liar.shown().await;
    let id = liar.post(&alice, "a secret").await;
    liar.stays(&alice, &id, "does not follow").await;
    liar.epochs = good;
    liar.row["epoch"] = json!(2);
    liar.shown().await;
    liar.stays(&alice, &id, "it has a newer key").await;
}

/// Brokers keep 200 epochs. A daemon that was away for more of them goes on with one
/// that somebody it trusts has signed, and with no other.
#[tokio::test]
async fn after_a_long_absence_the_first_that_a_trusted_member_signed_counts() {
    let (mut liar, alice, _) = Liar::with_topic().await;
    let (bob, carol, ghost) = (liar.bob.clone(), liar.carol.clone(), Key::random());
    let (evil, good) = (topic_key(), topic_key());
    liar.row["epoch"] = json!(300);
    liar.copies.push(liar.copy(300, &evil));
    let before = epoch(299, None, &evil).signed_by("member-bob", &bob);
    for (signer, key) in [("member-ghost", &ghost), ("member-carol", &carol)] {
        liar.epochs = vec![epoch(300, Some(&before), &evil).signed_by(signer, key)];
        liar.shown().await;
        assert_eq!(liar.listed(&alice).await["waiting_for_key"], true, "{signer}");
    }
    let id = liar.post(&alice, "a secret").await;
    liar.stays(&alice, &id, "without the owner's certificate").await;
    // What begins anew is a chain like any other.
    let of_carol = epoch(299, Some(&before), &evil).signed_by("member-carol", &carol);
    let other = epoch(299, Some(&before), &good).signed_by("member-bob", &bob);
    liar.epochs = vec![of_carol.clone(), epoch(300, Some(&other), &good).signed_by("member-bob", &bob)];
    liar.shown().await;
    assert_eq!(liar.listed(&alice).await["waiting_for_key"], true);
    liar.epochs[1] = epoch(300, Some(&of_carol), &good).signed_by("member-bob", &bob);
    liar.copies = vec![liar.copy(300, &good)];
    liar.shown().await;
    while liar.sent().is_empty() {
        liar.next_sent().await;
    }
    let sent = liar.sent().remove(0);
    assert_eq!((&sent["id"], &sent["keyEpoch"]), (&json!(id), &json!(300)), "{sent}");
    assert!(open(&good, &sent).is_some());
}
