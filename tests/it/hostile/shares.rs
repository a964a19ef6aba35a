//! What one member may take up at the broker.

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Pair, unique};
use crate::support::keys::{Key, now_ms};
use crate::support::mesh::Mesh;
use crate::support::raw::{Member, Raw};
use crate::support::sqlite::Db;
use crate::support::wait;

/// Bytes of a page of a list, and of what one row may add.
const PAGE: usize = (512 + 64) * 1024;

/// A change of the member's key that both keys have signed.
pub(super) fn rotation(member: &Member, seq: u64, old: &Key, new: &Key) -> Value {
    let (ts, from, to) = (now_ms(), old.public(), new.public());
    let signed = format!("claudemesh-key-rotation|v1|{}|{}|{seq}|{from}|{to}|{ts}", member.mesh_id, member.member_id);
    json!({"type": "member_rotate", "statement": {
        "memberId": member.member_id,
        "seq": seq,
        "oldPubkey": from,
        "newPubkey": to,
        "ts": ts,
        "oldSignature": old.sign(&signed),
        "newSignature": new.sign(&signed),
    }})
}

/// All rows of a list, none of whose pages is larger than a page may be.
async fn pages(raw: &mut Raw, kind: &str, rows: &str) -> Vec<Value> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let (page, _) = raw.request(json!({"type": kind, "after": after})).await;
        assert!(page.to_string().len() <= PAGE, "{} bytes", page.to_string().len());
        all.extend(page[rows].as_array().expect("rows").clone());
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut after),
            None => return all,
        }
    }
}

async fn talk(one: &Daemon, to: &str, other: &Daemon) {
    let text = unique("still here");
    one.send(to, &text).await;
    other.received(&text).await;
}

#[tokio::test]
async fn who_rotates_all_the_time_is_stopped_and_its_chain_stays_short() {
    let Pair { broker, mesh, alice, bob } = Pair::start().await;
    let mallory = mesh.join(&broker, "mallory").await;
    let mut raw = Raw::member(&broker.url(), &mallory).await;
    let mut key = mallory.key.clone();
    let mut done = 0;
    for hour in 0..7 {
        for _ in 0..6 {
            let next = Key::random();
            let (answer, _) = raw.request(rotation(&mallory, done + 1, &key, &next)).await;
            assert_eq!(answer["type"], "member_rotated", "{answer}");
            (key, done) = (next, done + 1);
        }
        let (refused, _) = raw.request(rotation(&mallory, done + 1, &key, &Key::random())).await;
        assert_eq!(
            (&refused["code"], &refused["retryable"]),
            (&json!("rate_limit"), &json!(true)),
            "{hour}: {refused}"
        );
        // An hour later.
        let db = Db::open(&broker.database()).await;
        db.run("UPDATE member_key SET registered_at = registered_at - 3600000").await;
        db.close().await;
    }
    let members = pages(&mut raw, "member_list", "members").await;
    let row = members.iter().find(|row| row["memberId"] == mallory.member_id.as_str()).expect("a row");
    let chain = row["rotations"].as_array().expect("a chain");
    assert_eq!((chain.len(), &chain[31]["seq"]), (32, &json!(done)));
    // Also for who reads it anew, and the others have followed.
    let late = Daemon::join(&broker, &mesh, "late").await;
    late.knows("mallory").await;
    talk(&late, "bob", &bob).await;
    talk(&alice, "bob", &bob).await;
}

#[tokio::test]
async fn sessions_and_profiles_of_one_member_leave_the_lists_readable() {
    let Pair { broker, mesh, alice, bob } = Pair::start().await;
    let mallory = mesh.join(&broker, "mallory").await;
    let long = "\u{1}\"".repeat(1_000);
    let mut open = Vec::new();
    for number in 0..80 {
        let mut hello = mallory.session_hello(&Key::random());
        for field in ["displayName", "hostname", "peerType", "channel", "model", "cwd"] {
            hello[field] = json!(&long[..600]);
        }
        hello["groups"] = json!(vec![json!({"name": &long[..100], "role": &long[..100]}); 60]);
        let mut session = Raw::connect(&broker.url()).await;
        session.send(&hello).await;
        let answer = session.frame().await;
        if answer["type"] == "error" {
            assert_eq!((&answer["code"], number), (&json!("capacity"), 64), "{answer}");
            break;
        }
        let texts: Vec<String> = (0..64).map(|n| format!("{n}{}", &long[..100])).collect();
        let profile = json!({"type": "set_profile", "avatar": long, "title": long, "bio": long, "capabilities": texts});
        session.request(profile).await;
        session.send(&json!({"type": "set_summary", "summary": long})).await;
        session.send(&json!({"type": "set_stats", "stats": {"x": &long[..1_500]}})).await;
        open.push(session);
    }
    assert_eq!(open.len(), 64);
    let mut raw = Raw::member(&broker.url(), &mesh.join(&broker, "reader").await).await;
    let rows = pages(&mut raw, "list_peers", "peers").await;
    assert!(rows.len() >= 64, "{}", rows.len());
    let bytes = rows.iter().map(|row| row.to_string().len()).max().expect("rows");
    assert!(bytes < 40 * 1024, "{bytes}");
    let named = rows.iter().all(|row| !row["displayName"].as_str().expect("a name").chars().any(char::is_control));
    assert!(named, "no control characters in names");
    // The others read it too, and one that comes now.
    let late = Daemon::join(&broker, &mesh, "late").await;
    late.knows("bob").await;
    talk(&late, "bob", &bob).await;
    talk(&alice, "bob", &bob).await;
}

/// The list of members is larger than any answer that is read, and somebody is removed.
#[tokio::test]
async fn a_member_is_removed_by_requests_that_stay_small() {
    let broker = crate::support::broker::Broker::start().await;
    let mut alice = Daemon::unjoined("demo", "alice");
    let (url, token) = (broker.url(), broker.admin_token_file().display().to_string());
    let create = ["mesh", "create", "demo", "--broker", &url, "--admin-token-file", &token, "--display-name", "alice"];
    alice.cli(&create).await.ok();
    let link = alice.cli(&["mesh", "invite", "demo"]).await.ok().stdout.trim().to_owned();
    let mut broker = broker;
    let mut bob = Daemon::joined_by(&link, "demo", "bob").await;
    broker.stop().await;
    let db = Db::open(&broker.database()).await;
    let statement = json!({"capabilities": vec!["x".repeat(60); 60], "ts": 1, "signature": "0".repeat(128)});
    let keys: Vec<Value> = (0..3000).map(|_| json!(Key::random().public())).collect();
    db.run(&format!(
        "INSERT INTO member (id, mesh_id, pubkey, display_name, role, joined_at, capabilities) \
         SELECT 'M' || key, (SELECT id FROM mesh), value, 'm' || key, 'member', 1, '{statement}' FROM json_each('{}')",
        json!(keys)
    ))
    .await;
    db.run(
        "INSERT INTO member_key (mesh_id, pubkey, member_id, seq, registered_at) \
         SELECT mesh_id, pubkey, id, 0, 1 FROM member WHERE id LIKE 'M%' AND pubkey NOT IN (SELECT pubkey FROM member_key)",
    )
    .await;
    db.close().await;
    broker.restart().await;
    let list = alice.cli(&["member", "list", "demo", "--json"]).await.ok();
    assert!(list.stdout.len() > 8 << 20, "{}", list.stdout.len());
    assert_eq!(list.json()["members"].as_array().map(Vec::len), Some(3002));
    alice.start().await;
    bob.start().await;
    alice.connected().await;
    wait::until("the last of them", async || (alice.cli(&["verify", "m2999"]).await.code == 0).then_some(())).await;
    alice.send("bob", "before").await;
    bob.received("before").await;
    let key = bob.public();
    alice.cli(&["member", "revoke", "demo", &key[..16], "--yes"]).await.ok();
    wait::until("the end of bob", async || {
        let refused = alice.cli(&["send", "bob", "after"]).await;
        refused.stderr.contains("was removed").then_some(())
    })
    .await;
}

#[tokio::test]
async fn topics_and_keys_of_one_member_leave_the_others_theirs() {
    let Pair { broker, mesh, alice, bob: _bob } = Pair::start().await;
    let mallory = mesh.join(&broker, "mallory").await;
    let mut raw = Raw::member(&broker.url(), &mallory).await;
    let mut made = 0;
    for number in 0..120 {
        let (answer, _) = raw.request(json!({"type": "topic_create", "name": format!("t{number}")})).await;
        made += usize::from(answer["type"] == "topic_created");
    }
    assert_eq!(made, 100);
    let key = async || {
        let frame = json!({"type": "api_key_create", "name": "ci"});
        mesh.admin(&broker, &mallory.key, frame).await
    };
    for _ in 0..20 {
        key().await.expect(200);
    }
    let refused = key().await.expect(403).json();
    assert!(refused.to_string().contains("revoke one"), "{refused}");
    alice.cli(&["topic", "create", "ours"]).await.ok();
    let seen = members_as_owner(&mesh, &broker).await;
    let held = &seen.iter().find(|row| row["memberId"] == mallory.member_id.as_str()).expect("a row")["holds"];
    assert_eq!(
        (&held["topics"], &held["apiKeys"], &held["connections"]),
        (&json!(100), &json!(20), &json!(1)),
        "{held}"
    );
}

async fn members_as_owner(mesh: &Mesh, broker: &crate::support::broker::Broker) -> Vec<Value> {
    let answer = mesh.admin(broker, &mesh.owner, json!({"type": "members_get", "after": ""})).await.expect(200).json();
    answer["members"].as_array().expect("members").clone()
}

#[tokio::test]
async fn who_shows_and_hides_itself_all_the_time_is_slowed_and_a_removal_is_known_at_once() {
    let Pair { broker, mesh, alice, bob } = Pair::start().await;
    let mallory = mesh.join(&broker, "mallory").await;
    let (mut raw, _) = Raw::daemon(&broker.url(), &mallory, "01J0000000000000000000000A", "boot").await;
    alice.knows("mallory").await;
    // What it is already changes nothing, and is not counted.
    let (mut shown, mut changed) = (true, 0);
    for _ in 0..200 {
        let (answer, _) = raw.request(json!({"type": "set_visible", "visible": !shown})).await;
        if answer["code"].is_null() {
            (shown, changed) = (!shown, changed + 1);
        } else {
            assert_eq!(answer["code"], "rate_limit", "{answer}");
        }
    }
    assert!((10..40).contains(&changed), "{changed}");
    let member_id = bob.config_member()["memberId"].as_str().expect("an id").to_owned();
    mesh.admin(&broker, &mesh.owner, json!({"type": "member_revoke", "memberId": member_id})).await.expect(200);
    wait::until("the end of bob", async || {
        let refused = alice.cli(&["send", "bob", "after"]).await;
        refused.stderr.contains("was removed").then_some(())
    })
    .await;
}
