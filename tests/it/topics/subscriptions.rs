//! Subscribing, leaving, listing, and what is refused.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::{Trio, becomes, count, create, has_key, post, subscribe, topic, try_post, unsubscribe};
use crate::support::daemon::{Daemon, unique};
use crate::support::tmpfs::Tmpfs;
use crate::support::wait;

// Covers: R78, R79, R80
#[tokio::test]
async fn subscribing_and_leaving_take_effect_and_may_be_repeated() {
    let trio = Trio::start().await;
    let made = create(&trio.alice, "ops").await;
    assert_eq!((&made["topic"]["subscribed"], &made["topic"]["epoch"]), (&json!(true), &json!(1)), "{made}");
    for daemon in [&trio.alice, &trio.bob] {
        let again = daemon.http().post("/v1/topic/create", &json!({"topic": "ops"})).send().await.expect(409).json();
        assert_eq!(again["code"], "topic_exists", "once: {again}");
    }
    let listed = topic(&trio.bob, "ops").await.expect("everybody sees it");
    assert_eq!((&listed["subscribed"], &listed["unencrypted"]), (&json!(false), &json!(false)), "{listed}");
    for _ in 0..2 {
        let subscribed = subscribe(&trio.bob, "#ops").await;
        assert_eq!(subscribed["topic"]["subscribed"], true);
        assert_eq!(subscribed["topic"]["waiting_for_key"], false, "the owner certified bob: {subscribed}");
    }
    assert_eq!(topic(&trio.alice, "ops").await.expect("ops")["member_count"], 2);
    let first = unique("first");
    post(&trio.alice, "ops", &first).await;
    trio.bob.received(&first).await;

    assert_eq!(unsubscribe(&trio.bob, "ops").await["was_subscribed"], true);
    assert_eq!(unsubscribe(&trio.bob, "ops").await["was_subscribed"], false);
    becomes(&trio.alice, "ops", "to have a new key", |topic| topic["epoch"] == 2 && topic["waiting_for_key"] == false)
        .await;
    let second = unique("second");
    let id = post(&trio.alice, "ops", &second).await;
    trio.alice.outbox_status(&id, "done").await;
    let after = unique("a direct one after it");
    trio.alice.send("bob", &after).await;
    trio.bob.received(&after).await;
    assert_eq!((count(&trio.bob, &first).await, count(&trio.bob, &second).await), (1, 0), "stored ones stay");

    // Back again: with the newest key, and only what is posted from then on.
    subscribe(&trio.bob, "ops").await;
    has_key(&trio.bob, "ops").await;
    let third = unique("third");
    post(&trio.alice, "ops", &third).await;
    trio.bob.received(&third).await;
    assert_eq!(count(&trio.bob, &second).await, 0);
}

#[tokio::test]
async fn what_cannot_be_done_with_a_topic_has_a_code_and_stores_nothing() {
    let trio = Trio::with_ops().await;
    let post = async |daemon, body: serde_json::Value, status| {
        let answer = try_post(daemon, &body).await.expect(status).json();
        answer["code"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    };
    let hi = |topic: &str| json!({"topic": topic, "message": "hi"});
    assert_eq!(post(&trio.carol, hi("nix"), 404).await, "topic_not_found");
    assert_eq!(post(&trio.carol, hi("ops"), 409).await, "topic_not_subscribed", "the mesh has it");
    subscribe(&trio.carol, "ops").await;
    unsubscribe(&trio.carol, "ops").await;
    assert_eq!(post(&trio.carol, hi("ops"), 409).await, "topic_not_subscribed");
    assert_eq!(post(&trio.alice, hi(""), 400).await, "invalid_argument");
    assert_eq!(post(&trio.alice, hi("Ops"), 400).await, "invalid_argument");
    assert_eq!(post(&trio.alice, json!({"topic": "ops"}), 400).await, "invalid_argument");
    let mention = json!({"topic": "ops", "message": "hi", "mentions": ["nobody"], "client_message_id": "free"});
    assert_eq!(post(&trio.alice, mention, 404).await, "unknown_peer");
    let many = json!({"topic": "ops", "message": "hi", "mentions": vec!["bob"; 17]});
    assert_eq!(post(&trio.alice, many, 400).await, "invalid_argument");
    let large = json!({"topic": "ops", "message": "x".repeat(1_048_577)});
    assert!(try_post(&trio.alice, &large).await.status >= 400);
    // None of it used an id.
    let taken = json!({"topic": "ops", "message": "hi", "client_message_id": "free"});
    try_post(&trio.alice, &taken).await.expect(202);

    let call = async |path: &str, body, status| {
        let answer = trio.bob.http().post(path, &body).send().await.expect(status).json();
        answer["code"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    };
    assert_eq!(call("/v1/topic/subscribe", json!({"topic": "nix"}), 404).await, "topic_not_found");
    assert_eq!(call("/v1/topic/unsubscribe", json!({"topic": "nix"}), 404).await, "topic_not_found");
    let long = json!({"topic": "new", "description": "x".repeat(257)});
    assert_eq!(call("/v1/topic/create", long, 400).await, "invalid_argument");
    assert_eq!(call("/v1/topic/create", json!({"topic": "ops"}), 409).await, "topic_exists");
    assert_eq!(call("/v1/keys/rotate-topic-key", json!({"topic": "ops"}), 403).await, "permission_denied");
    let nobody = json!({"topic": "ops", "member": "carol"});
    assert_eq!(call("/v1/keys/admit-topic-member", nobody, 409).await, "no_pending_change");
}

// Covers: R25
#[tokio::test]
async fn the_state_of_topics_lies_in_three_private_files_and_is_read_again() {
    let mut trio = Trio::with_ops().await;
    let read = |name: &str| -> serde_json::Value {
        let path = trio.bob.file(name);
        let mode = std::fs::metadata(&path).expect("the file").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
        serde_json::from_str(&std::fs::read_to_string(path).expect("it reads")).expect("JSON")
    };
    let subscriptions = read("topic_subscriptions.json");
    assert_eq!(
        (&subscriptions["topics"][0]["name"], &subscriptions["topics"][0]["subscribed"]),
        (&json!("ops"), &json!(true))
    );
    assert_eq!(read("topic_keys.json")["topics"][0]["keys"]["1"].as_str().map(str::len), Some(64));
    assert_eq!(read("key_epoch.json")["topics"][0]["epoch"], 1);

    // A file that cannot be read costs nothing: the broker has sealed copies, and
    // knows who is subscribed.
    for (set_aside, name) in ["topic_keys.json", "key_epoch.json", "topic_subscriptions.json"].iter().enumerate() {
        trio.bob.stop().await;
        std::fs::write(trio.bob.file(name), "{\"version\":1,").expect("it is damaged");
        let missed = unique("while it was away");
        post(&trio.alice, "ops", &missed).await;
        trio.bob.start().await;
        trio.bob.received(&missed).await;
        has_key(&trio.bob, "ops").await;
        let aside = std::fs::read_dir(trio.bob.dir()).expect("the directory").flatten();
        let aside = aside.filter(|entry| entry.file_name().to_string_lossy().contains(".malformed-")).count();
        assert_eq!(aside, set_aside + 1, "{name}");
        let text = unique("from a daemon that lost a file");
        post(&trio.bob, "ops", &text).await;
        trio.alice.received(&text).await;
    }
}

/// Of two who make a topic of one name at the same moment one is told so.
#[tokio::test]
async fn a_name_is_one_topic_whoever_makes_it() {
    let trio = Trio::start().await;
    let create =
        async |daemon: &Daemon| daemon.http().post("/v1/topic/create", &json!({"topic": "race"})).send().await.status;
    let mut answers: [u16; 2] = tokio::join!(create(&trio.alice), create(&trio.bob)).into();
    answers.sort_unstable();
    assert_eq!(answers, [200, 409]);
    let (one, other) = (subscribe(&trio.alice, "race").await, subscribe(&trio.bob, "race").await);
    assert_eq!(one["topic"]["id"], other["topic"]["id"], "{one} {other}");
    has_key(&trio.alice, "race").await;
    has_key(&trio.bob, "race").await;
    for (from, to) in [(&trio.alice, &trio.bob), (&trio.bob, &trio.alice)] {
        let text = unique("both read it");
        post(from, "race", &text).await;
        to.received(&text).await;
    }
}

/// A hundred topics: pages by name, and a restart that reads them all.
#[tokio::test]
async fn topics_are_listed_by_name_in_pages() {
    let trio = Trio::start().await;
    for number in 0..12 {
        create(&trio.alice, &format!("t{number:02}")).await;
    }
    let mut names: Vec<String> = Vec::new();
    let mut token = String::new();
    loop {
        let path = format!("/v1/topic/list?limit=5&page_token={token}");
        let page = trio.bob.http().get(&path).send().await.expect(200);
        let link = page.header("link").map(str::to_owned);
        let page = page.json();
        names.extend(
            page["topics"]
                .as_array()
                .expect("topics")
                .iter()
                .map(|topic| topic["name"].as_str().expect("a name").to_owned()),
        );
        token = page["next_page_token"].as_str().expect("a token").to_owned();
        assert_eq!(link.is_some(), !token.is_empty());
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(names, (0..12).map(|number| format!("t{number:02}")).collect::<Vec<_>>());
    let own = trio.alice.http().get("/v1/topic/list?subscribed_only=true&limit=1000").send().await.expect(200).json();
    assert_eq!(own["topics"].as_array().map(Vec::len), Some(12));
    let none = trio.bob.http().get("/v1/topic/list?subscribed_only=true").send().await.expect(200).json();
    assert_eq!(none["topics"], json!([]));
    wait::until("the last one", async || topic(&trio.bob, "t11").await).await;
}

/// Nothing of a topic changes that this daemon cannot write down.
#[tokio::test]
async fn on_a_full_disk_subscriptions_stay_as_they_are() {
    let mut trio = Trio::with_ops().await;
    let (db, members) = (trio.broker.tables().await, "FROM topic_member ORDER BY member_id");
    let before = db.objects("member_id, joined_at", members).await;
    trio.bob.stop().await;
    // What he has moves to a small file system.
    let (directory, aside) = (trio.bob.dir(), trio.bob.home().join("aside"));
    std::fs::rename(&directory, &aside).expect("moved aside");
    std::fs::create_dir(&directory).expect("a directory");
    let disk = Tmpfs::mount(&directory, "16m");
    for entry in std::fs::read_dir(&aside).expect("a directory").map(|entry| entry.expect("an entry")) {
        if entry.file_type().expect("a type").is_file() {
            std::fs::copy(entry.path(), directory.join(entry.file_name())).expect("a copy");
        }
    }
    trio.bob.start().await;
    trio.bob.connected().await;
    let ballast = disk.fill();
    for call in [["topic", "unsubscribe", "ops"], ["topic", "create", "other"]] {
        let said = trio.bob.cli(&call).await.exits(1).all();
        assert!(said.contains("(insufficient_storage)") && said.contains("topic_keys.json"), "{said}");
    }
    let ops = topic(&trio.alice, "ops").await.expect("ops");
    assert_eq!(ops["member_count"], 2, "bob did not leave at the broker: {ops}");
    assert!(topic(&trio.alice, "other").await.is_none());
    std::fs::remove_file(ballast).expect("the ballast");
    let text = unique("still subscribed");
    post(&trio.alice, "ops", &text).await;
    trio.bob.received(&text).await;
    assert_eq!(db.objects("member_id, joined_at", members).await, before, "he was never out");
    db.close().await;
}
