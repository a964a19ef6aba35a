//! Who may read a topic: certified members at once, others when somebody admits
//! them, and whoever has gone never again.

use serde_json::json;

use super::{Trio, becomes, count, create, has_key, post, subscribe, topic};
use crate::support::daemon::{Daemon, unique};
use crate::support::wait;

#[tokio::test]
async fn a_member_whom_nobody_vouches_for_waits_until_it_is_admitted() {
    let trio = Trio::with_ops().await;
    let asked = subscribe(&trio.carol, "ops").await;
    assert_eq!(asked["topic"]["waiting_for_key"], true, "{asked}");
    let text = unique("sealed for now");
    post(&trio.alice, "ops", &text).await;
    trio.bob.received(&text).await;

    let waiting = wait::until("carol to wait", async || {
        let list = trio.bob.http().get("/v1/keys/topic-admissions?topic=ops").send().await.expect(200).json();
        list["admissions"].as_array()?.first().cloned()
    })
    .await;
    assert_eq!((&waiting["topic"], &waiting["member"]["display_name"]), (&json!("ops"), &json!("carol")), "{waiting}");
    assert_eq!(waiting["member"]["certified"], false, "{waiting}");
    assert_eq!(count(&trio.carol, &text).await, 0);

    // Whoever reads the topic may admit.
    let admitted = trio.bob.cli(&["topic", "admit", "ops", "carol"]).await.ok();
    assert!(admitted.stdout.starts_with("admitted"), "{}", admitted.stdout);
    has_key(&trio.carol, "ops").await;
    trio.carol.received(&text).await;
    let answer = unique("carol answers");
    post(&trio.carol, "ops", &answer).await;
    trio.alice.received(&answer).await;
    trio.bob.received(&answer).await;
    let nobody = trio.bob.cli(&["topic", "admissions"]).await.ok();
    assert_eq!(nobody.stdout, "nobody waits\n");
}

/// Comparing safety numbers is enough as well: who was verified is vouched for.
#[tokio::test]
async fn a_key_made_by_an_uncertified_member_counts_once_that_one_is_verified() {
    let trio = Trio::start().await;
    create(&trio.carol, "carols").await;
    let asked = subscribe(&trio.bob, "carols").await;
    assert_eq!(asked["topic"]["waiting_for_key"], true, "nobody vouches for carol: {asked}");
    let number = trio.carol.http().post("/v1/keys/verify", &json!({"peer": "bob"})).send().await.expect(200).json();
    let number = number["safety_number"].as_str().expect("a number").to_owned();
    let verify = json!({"peer": "carol", "safety_number": number});
    trio.bob.http().post("/v1/keys/verify", &verify).send().await.expect(200);
    // To carol, bob is certified: a plain link names the owner as well.
    has_key(&trio.bob, "carols").await;
    let text = unique("from carol");
    post(&trio.carol, "carols", &text).await;
    trio.bob.received(&text).await;
}

#[tokio::test]
async fn nothing_is_sealed_for_a_member_who_was_removed() {
    let mut trio = Trio::with_ops().await;
    subscribe(&trio.carol, "ops").await;
    trio.alice.cli(&["topic", "admit", "ops", "carol"]).await.ok();
    has_key(&trio.carol, "ops").await;
    let before = unique("before");
    post(&trio.alice, "ops", &before).await;
    trio.carol.received(&before).await;

    // Who alone may renew the key is away when carol is removed.
    trio.alice.stop().await;
    let carol = trio.carol.config_member()["memberId"].as_str().expect("an id").to_owned();
    trio.alice.cli(&["member", "revoke", "demo", &carol]).await.ok();
    let members = trio.bob.http().get("/v1/keys/pinned?limit=1000");
    wait::until("bob to know that carol was removed", async || {
        let list = members.send().await.expect(200).json();
        let carol = list["members"].as_array()?.iter().find(|member| member["display_name"] == "carol").cloned()?;
        (carol["pin_state"] == "revoked").then_some(())
    })
    .await;
    let after = unique("after");
    let id = post(&trio.bob, "ops", &after).await;
    let waits = trio.bob.outbox_status(&id, "pending").await;
    wait::until("the reason", async || {
        let row = trio.bob.outbox_status(&id, "pending").await;
        row["last_error"].as_str()?.contains("renewed").then_some(())
    })
    .await;
    assert_eq!(waits["broker_message_id"], json!(null), "{waits}");

    trio.alice.start().await;
    becomes(&trio.alice, "ops", "to be renewed", |topic| topic["epoch"] == 2).await;
    trio.alice.received(&after).await;
    let db = trio.broker.tables().await;
    let epochs = db.texts("SELECT CAST(key_epoch AS TEXT) FROM topic_message ORDER BY id").await;
    let keys = db.number("SELECT count(*) FROM topic_key WHERE epoch = 2").await;
    db.close().await;
    assert_eq!((epochs, keys), (vec!["1".to_owned(), "2".to_owned()], 2), "carol has no key of epoch 2");
}

#[tokio::test]
async fn a_key_is_renewed_by_hand_by_the_lead_and_at_most_every_ten_minutes() {
    let trio = Trio::with_ops().await;
    let refused = trio.bob.cli(&["topic", "rotate-key", "ops", "--json"]).await.exits(5);
    assert_eq!(refused.error()["code"], "permission_denied");
    let early = trio.alice.cli(&["topic", "rotate-key", "ops", "--json"]).await.exits(1);
    assert_eq!(early.error()["code"], "rate_limited");
    let db = trio.broker.tables().await;
    db.run("UPDATE topic_epoch SET created_at = created_at - 600001").await;
    db.close().await;
    let renewed = trio.alice.cli(&["topic", "rotate-key", "ops", "--json"]).await.ok().json();
    assert_eq!((&renewed["epoch"], &renewed["sealed_for"]), (&json!(2), &json!(2)), "{renewed}");
    becomes(&trio.bob, "ops", "to have the new key", |topic| topic["epoch"] == 2 && topic["waiting_for_key"] == false)
        .await;
    let text = unique("under the new key");
    post(&trio.bob, "ops", &text).await;
    trio.alice.received(&text).await;
    assert_eq!(topic(&trio.alice, "ops").await.expect("ops")["epoch"], 2);
}

/// A member with a new key of its own reads and posts on, also what was sealed
/// for its old one.
#[tokio::test]
async fn a_member_that_rotates_its_key_keeps_its_topics() {
    let mut trio = Trio::with_ops().await;
    trio.bob.cli(&["daemon", "rotate-keypair"]).await.ok();
    let text = unique("from the new key");
    post(&trio.bob, "ops", &text).await;
    trio.alice.received(&text).await;
    trio.alice.cli(&["daemon", "rotate-keypair"]).await.ok();
    let answer = unique("from the lead's new key");
    post(&trio.alice, "ops", &answer).await;
    trio.bob.received(&answer).await;
    // The lead's statements of before and of now form one chain.
    let db = trio.broker.tables().await;
    db.run("UPDATE topic_epoch SET created_at = created_at - 600001").await;
    db.close().await;
    trio.alice.cli(&["topic", "rotate-key", "ops"]).await.ok();
    becomes(&trio.bob, "ops", "to have the new key", |topic| topic["epoch"] == 2 && topic["waiting_for_key"] == false)
        .await;
    // Whoever comes new checks all of it.
    trio.bob.stop().await;
    for file in ["topic_keys.json", "key_epoch.json"] {
        std::fs::remove_file(trio.bob.file(file)).expect("it goes");
    }
    trio.bob.start().await;
    has_key(&trio.bob, "ops").await;
    let last = unique("read from the beginning");
    post(&trio.alice, "ops", &last).await;
    trio.bob.received(&last).await;
}

/// Whoever led a topic may go: the others renew its key, agree on it, and let new
/// ones in. Nothing of it depends on who looks when.
#[tokio::test]
async fn a_topic_lives_on_when_its_lead_goes() {
    let trio = Trio::start().await;
    let mut dave = Daemon::joined_by(&super::link(&trio.alice, &[]).await, "demo", "dave").await;
    dave.start().await;
    trio.bob.knows("dave").await;
    create(&trio.bob, "ops").await;
    for daemon in [&trio.alice, &dave] {
        subscribe(daemon, "ops").await;
        has_key(daemon, "ops").await;
    }
    super::unsubscribe(&trio.bob, "ops").await;
    for daemon in [&trio.alice, &dave] {
        becomes(daemon, "ops", "to be renewed", |topic| topic["epoch"] == 2 && topic["waiting_for_key"] == false).await;
    }
    for (from, to) in [(&trio.alice, &dave), (&dave, &trio.alice)] {
        let text = unique("without the lead");
        post(from, "ops", &text).await;
        to.received(&text).await;
    }
    // The lead is back, and is the lead again.
    subscribe(&trio.bob, "ops").await;
    has_key(&trio.bob, "ops").await;
    let text = unique("back");
    post(&trio.bob, "ops", &text).await;
    trio.alice.received(&text).await;
    dave.received(&text).await;
    let db = trio.broker.tables().await;
    assert_eq!(db.number("SELECT count(*) FROM topic_member WHERE role = 'lead'").await, 1);
    db.run("UPDATE topic_epoch SET created_at = created_at - 600001").await;
    db.close().await;
    trio.bob.cli(&["topic", "rotate-key", "ops"]).await.ok();
    becomes(&dave, "ops", "to follow", |topic| topic["epoch"] == 3 && topic["waiting_for_key"] == false).await;

    // The last one out: the name is free again.
    for daemon in [&trio.alice, &trio.bob, &dave] {
        super::unsubscribe(daemon, "ops").await;
    }
    assert!(topic(&trio.alice, "ops").await.is_none());
    assert_eq!(create(&dave, "ops").await["topic"]["epoch"], 1, "another topic");
}
