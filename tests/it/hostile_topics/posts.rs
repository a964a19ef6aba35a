//! Posts that are not what they say.

use serde_json::{Value, json};

use super::{Liar, member, post};
use crate::support::daemon::Daemon;
use crate::support::keys::{Key, random_bytes};
use crate::support::topics::{Post, TopicKey, seal, topic_key};
use crate::support::wait;

impl Liar {
    /// A good post of bob's arrives, after everything that was pushed before.
    async fn delivers(&mut self, alice: &Daemon, key: &TopicKey, text: &str) -> Value {
        let id = hex::encode(random_bytes(8));
        let sealed = seal(key, &post(&id, text).envelope(&self.bob, Some(&self.bob)));
        self.push(&format!("m-{id}"), &id, &sealed, json!({})).await;
        self.serving(alice.received(text)).await
    }
}

/// Why a message was set aside.
async fn reason(alice: &Daemon, message_id: &str) -> Option<String> {
    let db = alice.inbox_db().await;
    let sql = format!("SELECT reason FROM inbox_quarantine WHERE broker_message_id = '{message_id}'");
    let reason = db.texts(&sql).await.pop();
    db.close().await;
    reason
}

/// Whoever has the topic's key can seal with it: the broker with a member's help.
#[tokio::test]
async fn a_post_without_its_authors_signature_or_for_another_place_is_set_aside() {
    let (mut liar, alice, key) = Liar::with_topic().await;
    let (bob, carol) = (liar.bob.clone(), liar.carol.clone());
    let evil = topic_key();
    let good = post("c0", "forged");
    let signed = |post: Post<'_>| post.envelope(&bob, Some(&bob));
    let mut altered = signed(good.clone());
    let at = altered.windows(6).position(|window| window == b"forged").expect("the text");
    altered[at] = b'F';
    let pushes = [
        ("envelope_refused", seal(&key, &good.envelope(&bob, None)), json!({})),
        ("envelope_refused", seal(&key, &good.envelope(&bob, Some(&carol))), json!({})),
        ("envelope_refused", seal(&key, &altered), json!({})),
        // Carol's own, under bob's name outside.
        ("envelope_refused", seal(&key, &good.envelope(&carol, Some(&carol))), json!({})),
        ("envelope_refused", seal(&key, &signed(Post { topic_id: "AnotherTopic", ..good.clone() })), json!({})),
        ("envelope_refused", seal(&key, &signed(Post { epoch: 2, ..good.clone() })), json!({})),
        ("envelope_refused", seal(&key, &signed(Post { mesh_id: "AnotherMesh", ..good.clone() })), json!({})),
        ("envelope_refused", seal(&key, &signed(good.clone())), json!({"client_message_id": "another"})),
        ("envelope_malformed", seal(&key, b"forged"), json!({})),
        ("envelope_malformed", seal(&key, &signed(good.clone())[..60]), json!({})),
        ("not_opened", seal(&evil, &signed(good.clone())), json!({})),
        ("not_subscribed", seal(&key, &signed(good.clone())), json!({"topicId": "AnotherTopic"})),
        ("wrong_mesh", seal(&key, &signed(good.clone())), json!({"meshId": "AnotherMesh"})),
    ];
    for (number, (_, sealed, more)) in pushes.iter().enumerate() {
        liar.push(&format!("m{number}"), "c0", sealed, more.clone()).await;
    }
    let row = liar.delivers(&alice, &key, "good").await;
    assert_eq!((&row["topic"], &row["sender_name"]), (&json!("ops"), &json!("bob")), "{row}");
    for (number, (wanted, _, more)) in pushes.iter().enumerate() {
        assert_eq!(reason(&alice, &format!("m{number}")).await.as_deref(), Some(*wanted), "{number} {more}");
    }
    // None of them took the place of the real one.
    let sealed = seal(&key, &signed(good.clone()));
    for message_id in ["again-1", "again-2"] {
        liar.push(message_id, "c0", &sealed, json!({})).await;
    }
    liar.delivers(&alice, &key, "last").await;
    let shown: Vec<Value> = alice.inbox("").await.iter().map(|row| row["body"].clone()).collect();
    assert_eq!(shown.iter().filter(|body| **body == "forged").count(), 1, "{shown:?}");
    assert_eq!(shown.len(), 3, "{shown:?}");
}

#[tokio::test]
async fn clear_text_in_an_encrypted_topic_is_set_aside() {
    let (mut liar, alice, key) = Liar::with_topic().await;
    let clear = (random_bytes(24), b"in clear".to_vec());
    let pushes = [
        ("topic_is_encrypted", json!({"keyEpoch": null, "bodyVersion": 1})),
        ("topic_is_encrypted", json!({"keyEpoch": null, "bodyVersion": 2})),
        ("not_opened", json!({"bodyVersion": 1})),
    ];
    for (number, (_, more)) in pushes.iter().enumerate() {
        liar.push(&format!("m{number}"), &format!("c{number}"), &clear, more.clone()).await;
    }
    // What was seen encrypted once stays so, whatever the broker shows later.
    liar.row["epoch"] = json!(0);
    liar.event("something_new").await;
    liar.shown().await;
    assert_eq!(liar.listed(&alice).await["unencrypted"], false);
    liar.push("m3", "c3", &clear, json!({"keyEpoch": null, "bodyVersion": 1})).await;
    liar.delivers(&alice, &key, "good").await;
    for (number, (wanted, _)) in pushes.iter().enumerate() {
        assert_eq!(reason(&alice, &format!("m{number}")).await.as_deref(), Some(*wanted), "{number}");
    }
    assert_eq!(reason(&alice, "m3").await.as_deref(), Some("topic_is_encrypted"));
    assert!(alice.inbox("").await.iter().all(|row| row["body"] != "in clear"));
    // Nor does it send any, also when its caller would have allowed it.
    let http = alice.http();
    let body = json!({"topic": "ops", "message": "sealed all the same", "allow_unencrypted": true});
    let answer = liar.serving(http.post("/v1/topic/post", &body).send()).await.expect(202).json();
    let sent = match liar.sent().pop() {
        Some(sent) => sent,
        None => liar.next_sent().await,
    };
    assert_eq!((&sent["id"], &sent["keyEpoch"]), (&answer["client_message_id"], &json!(1)), "{sent}");
    assert!(crate::support::topics::open(&key, &sent).is_some(), "{sent}");
}

#[tokio::test]
async fn a_post_of_a_key_that_is_not_pinned_waits_for_it() {
    let (mut liar, alice, key) = Liar::with_topic().await;
    let dora = Key::random();
    let sealed = seal(&key, &post("c1", "from dora").envelope(&dora, Some(&dora)));
    let from =
        json!({"senderPubkey": dora.public(), "senderMemberPubkey": dora.public(), "senderMemberId": "member-dora"});
    liar.push("m1", "c1", &sealed, from).await;
    // Known, but not yet with a key of this epoch.
    let later = topic_key();
    let sealed = seal(&later, &Post { epoch: 2, ..post("c2", "from later") }.envelope(&liar.bob, Some(&liar.bob)));
    liar.push("m2", "c2", &sealed, json!({"keyEpoch": 2})).await;
    liar.delivers(&alice, &key, "good").await;
    let db = alice.inbox_db().await;
    let waiting = db.texts("SELECT broker_message_id FROM inbox_waiting ORDER BY broker_message_id").await;
    assert_eq!(waiting, ["m1", "m2"]);
    assert_eq!(db.number("SELECT count(*) FROM inbox_quarantine").await, 0);
    assert_eq!(alice.inbox("").await.len(), 1);
    // The broker's word on members is enough for a name, as with direct messages.
    liar.members.push(member("member-dora", &dora, None));
    liar.event("something_new").await;
    let row = liar.serving(alice.received("from dora")).await;
    assert_eq!((&row["sender_name"], &row["topic"]), (&json!("dora"), &json!("ops")), "{row}");
    let first = liar.epochs[0].clone();
    liar.epochs.push(super::epoch(2, Some(&first), &later).signed_by("member-bob", &liar.bob));
    liar.copies.push(liar.copy(2, &later));
    liar.event("topic_epoch").await;
    liar.serving(alice.received("from later")).await;
    wait::until("nothing to wait", async || (db.number("SELECT count(*) FROM inbox_waiting").await == 0).then_some(()))
        .await;
    db.close().await;
}
