//! A member's new key: at the broker, at its peers, on its own disk.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};

use super::pinned;
use crate::support::daemon::{Daemon, Pair, unique};
use crate::support::fake_broker::{ALL_BITS, Client, FakeBroker, push_frame};
use crate::support::keys::{self, Key};
use crate::support::mesh::RawMesh;
use crate::support::postgres::Backend;
use crate::support::raw::{Member, Raw};
use crate::support::sqlite::Db;
use crate::support::wait;

pub(super) fn json_file(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(super) async fn rotate(daemon: &Daemon) -> Value {
    daemon.cli(&["daemon", "rotate-keypair", "--json"]).await.ok().json()
}

pub(super) async fn follows(daemon: &Daemon, name: &str, key: &str) {
    wait::until(&format!("the new key of {name}"), async || {
        (pinned(daemon, name).await["pubkey"] == key).then_some(())
    })
    .await;
}

/// Messages go both ways.
pub(super) async fn talk(one: &Daemon, one_name: &str, other: &Daemon, other_name: &str) {
    let (there, back) = (unique("there"), unique("back"));
    one.send(other_name, &there).await;
    other.received(&there).await;
    other.send(one_name, &back).await;
    one.received(&back).await;
}

// Covers: R373, R374, R375, R379, R24, R399
#[tokio::test]
async fn a_new_key_reaches_the_broker_the_peers_and_the_disk() {
    let Pair { broker, mesh, mut alice, bob } = Pair::start().await;
    let mut events = bob.http().get("/v1/events").stream().await;
    let (old, old_config) = (alice.public(), alice.config_member());
    let rotated = rotate(&alice).await;
    let new = rotated["new_pubkey"].as_str().expect("new_pubkey").to_owned();
    assert_eq!((&rotated["old_pubkey"], &rotated["rotation_seq"]), (&json!(old), &json!(1)), "{rotated}");

    let told = events.next_of("member_keypair_rotated").await.json();
    let change = &told["member_keypair_rotated"];
    assert_eq!((&change["old_pubkey"], &change["new_pubkey"]), (&json!(old), &json!(new)), "{told}");
    follows(&bob, "alice", &new).await;

    // At the broker: the same member, the old key rotated out and not revoked.
    let member_id = old_config["memberId"].as_str().expect("memberId");
    let db = Db::open(&broker.database()).await;
    let member = db.objects("id, pubkey, revoked_at", &format!("FROM member WHERE id = '{member_id}'")).await;
    assert_eq!(member, [json!({"id": member_id, "pubkey": new, "revoked_at": null})]);
    let rest = format!("FROM member_key WHERE member_id = '{member_id}' ORDER BY seq");
    let chain = db.objects("pubkey, seq, rotated_out_at", &rest).await;
    assert_eq!((&chain[0]["pubkey"], &chain[1]["pubkey"]), (&json!(old), &json!(new)), "{chain:?}");
    assert!(chain[0]["rotated_out_at"].is_number() && chain[1]["rotated_out_at"].is_null(), "{chain:?}");
    db.close().await;

    // On the disk: both files have the new key, the archive the old one.
    let stored = json_file(&alice.file("keypair.json"));
    let config = alice.config_member();
    assert_eq!((&stored["ed25519_pubkey"], &config["pubkey"]), (&json!(new), &json!(new)));
    assert_eq!(stored["ed25519_secret_key"], config["secretKey"]);
    assert_eq!(stored["member_id"], member_id);
    assert!(!alice.file("keypair.next.json").exists());
    let path = alice.file("keypair-archive.json");
    assert_eq!(std::fs::metadata(&path).expect("an archive").permissions().mode() & 0o777, 0o600);
    let archive = json_file(&path);
    assert_eq!((&archive["schema_version"], &archive["max_archived_keys"]), (&json!(1), &json!(8)), "{archive}");
    let kept = &archive["keys"][0];
    assert_eq!((archive["keys"].as_array().map(Vec::len), &kept["ed25519_pubkey"]), (Some(1), &json!(old)));
    assert!(kept["key_id"].as_str().is_some_and(|id| id.starts_with("k_") && id.len() == 28), "{kept}");
    let days = (kept["expires_at"].as_i64().expect("ms") - kept["rotated_out_at"].as_i64().expect("ms")) / 86_400_000;
    assert_eq!(days, 7);
    assert!(kept.get("ed25519_secret_key").is_none(), "only the half that opens is kept");

    // The broker was given no secret.
    let secrets = [&config["secretKey"], &old_config["secretKey"], &kept["x25519_privkey"]];
    for suffix in ["", "-wal"] {
        let file = std::path::PathBuf::from(format!("{}{suffix}", broker.database().display()));
        let bytes = std::fs::read(file).unwrap_or_default();
        for secret in secrets {
            let secret = &secret.as_str().expect("a secret")[..64];
            assert!(!bytes.windows(64).any(|window| window == secret.as_bytes()), "a secret is at the broker");
        }
    }

    talk(&alice, "alice", &bob, "bob").await;
    // A rotated-out key says no hello.
    let seed: [u8; 32] =
        hex::decode(&old_config["secretKey"].as_str().expect("hex")[..64]).expect("hex").try_into().expect("32 bytes");
    let ghost = Member {
        mesh_id: mesh.id.clone(),
        member_id: member_id.to_owned(),
        key: Key::from_seed(seed),
        name: "alice".to_owned(),
    };
    let mut raw = Raw::connect(&broker.url()).await;
    raw.send(&ghost.hello()).await;
    let refused = raw.frame().await;
    assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!("unauthorized")), "{refused}");

    // The second rotation, a restart, and the chain from the first key on.
    let second = rotate(&alice).await;
    assert_eq!(second["rotation_seq"], 2, "{second}");
    alice.stop().await;
    alice.start().await;
    alice.connected().await;
    follows(&bob, "alice", second["new_pubkey"].as_str().expect("new_pubkey")).await;
    assert_eq!(json_file(&path)["keys"].as_array().map(Vec::len), Some(2));
    let carol = Daemon::join(&broker, &mesh, "carol").await;
    carol.connected().await;
    carol.knows("alice").await;
    assert_eq!(pinned(&carol, "alice").await["rotated_out_pubkeys"], json!([new, old]), "the whole chain");
    talk(&alice, "alice", &bob, "bob").await;
    let health = alice.http().get("/v1/health").send().await.expect(200).json();
    assert_eq!(health["member_pubkey"], second["new_pubkey"], "{health}");
}

/// What waits at the broker under an old key of the sender, and what waits in
/// the outbox while the receiver rotates, arrives.
#[tokio::test]
async fn rows_that_wait_survive_a_rotation_of_either_side() {
    let Pair { broker: _broker, mesh: _mesh, alice, mut bob } = Pair::start().await;
    bob.stop().await;
    let before = unique("under the old key");
    let id = alice.send("bob", &before).await;
    alice.outbox_status(&id, "done").await;
    rotate(&alice).await;
    let after = unique("under the new key");
    alice.send("bob", &after).await;
    bob.start().await;
    bob.received(&before).await;
    bob.received(&after).await;

    // Now the receiver rotates while the sender queues.
    let mut texts = Vec::new();
    for number in 0..20 {
        let text = unique(&format!("while rotating {number}"));
        alice.send("bob", &text).await;
        texts.push(text);
        if number == 9 {
            rotate(&bob).await;
        }
    }
    for text in &texts {
        bob.received(text).await;
    }
    let bodies: Vec<Value> = bob.inbox("").await.into_iter().map(|row| row["body"].clone()).collect();
    for text in &texts {
        assert_eq!(bodies.iter().filter(|body| *body == text).count(), 1, "{text} once");
    }
    let sender = bob.received(&before).await["sender_member_id"].clone();
    assert!(sender.is_string());
    assert_eq!(sender, bob.received(&after).await["sender_member_id"], "one member under both keys");
}

pub(super) async fn linked() -> (FakeBroker, Daemon, Client) {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let client = fake.link(&alice).await;
    (fake, alice, client)
}

/// Rotates against the fake broker, which registers the key and gets the new
/// hello. The new connection.
pub(super) async fn rotate_with(fake: &FakeBroker, alice: &Daemon, mut client: Client) -> Client {
    let asked = rotate(alice);
    let answered = async {
        let request = client.expect("member_rotate").await;
        let statement = &request["statement"];
        let [seq, ts] = [&statement["seq"], &statement["ts"]];
        let [old, new] = ["oldPubkey", "newPubkey"].map(|field| statement[field].as_str().expect("a key").to_owned());
        let signed = format!("claudemesh-key-rotation|v1|FakeMesh|member-alice|{seq}|{old}|{new}|{ts}");
        for (key, field) in [(&old, "oldSignature"), (&new, "newSignature")] {
            assert!(keys::verifies(key, &signed, statement[field].as_str().expect("hex")), "{field} of {statement}");
        }
        assert!(!request.to_string().contains("privkey") && !request.to_string().contains("secret"), "{request}");
        let answer = json!({
            "type": "member_rotated", "memberId": "member-alice", "seq": seq, "pubkey": new, "_reqId": request["_reqId"],
        });
        client.send(&answer).await;
        (new, statement.clone())
    };
    let (rotated, (new, statement)) = tokio::join!(asked, answered);
    assert_eq!(rotated["new_pubkey"], new, "{rotated}");
    let mut next = fake.accept().await;
    assert_eq!(next.hello["pubkey"], new, "the new key says hello");
    let mut chain = client.own_row["rotations"].as_array().cloned().unwrap_or_default();
    chain.push(statement);
    next.own_row = json!({"rotations": chain});
    next.welcome().await;
    next.negotiate(ALL_BITS).await;
    next.roster().await;
    next
}

pub(super) fn sealed_for(fake: &FakeBroker, client: &Client, key: &str, id: &str, text: &str) -> Value {
    let (nonce, sealed) = keys::seal(&fake.bob, key, text.as_bytes());
    let mut push = push_frame(&client.hello, &fake.bob, id, Some(id), &nonce, &sealed);
    push["recipientKey"] = json!(key);
    push
}

pub(super) async fn metric(daemon: &Daemon, name: &str) -> f64 {
    let text = daemon.http().get("/v1/metrics").send().await.expect(200).text();
    let lines = text.lines().filter(|line| line.starts_with(name) && !line.starts_with('#'));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

// Covers: R376, R377, R378
#[tokio::test]
async fn old_keys_open_until_their_end_and_are_erased_then() {
    let (fake, mut alice, client) = linked().await;
    let first = client.hello["pubkey"].as_str().expect("pubkey").to_owned();
    let client = rotate_with(&fake, &alice, client).await;
    let second = client.hello["pubkey"].as_str().expect("pubkey").to_owned();
    let mut client = rotate_with(&fake, &alice, client).await;
    client.send(&sealed_for(&fake, &client, &first, "m1", "for the first key")).await;
    client.send(&sealed_for(&fake, &client, &second, "m2", "for the second key")).await;
    alice.received("for the first key").await;
    alice.received("for the second key").await;
    assert_eq!(metric(&alice, "cm_daemon_decrypt_archived_total").await, 2.0);
    assert_eq!(metric(&alice, "cm_daemon_decrypt_stale_total").await, 0.0);

    // A message sealed by this member and sent back under bob's name is refused
    // whichever own key it names.
    let mut reflected = sealed_for(&fake, &client, &first, "m3", "reflected");
    reflected["senderPubkey"] = json!(second);
    client.send(&reflected).await;

    // The end of both, by the file's own word.
    alice.stop().await;
    drop(client);
    let path = alice.file("keypair-archive.json");
    let mut archive = json_file(&path);
    for key in archive["keys"].as_array_mut().expect("keys") {
        key["expires_at"] = json!(keys::now_ms() - 1);
    }
    std::fs::write(&path, archive.to_string()).expect("the archive");
    alice.start().await;
    let mut client = fake.link(&alice).await;
    wait::until("the archive to go", async || (!path.exists()).then_some(())).await;
    client.send(&sealed_for(&fake, &client, &first, "m4", "too late")).await;
    let own = client.hello["pubkey"].as_str().expect("pubkey").to_owned();
    client.send(&sealed_for(&fake, &client, &own, "m5", "for the key of now")).await;
    alice.received("for the key of now").await;
    assert!(alice.inbox("").await.iter().all(|row| row["body"] != "too late" && row["body"] != "reflected"));
    assert_eq!(metric(&alice, "cm_daemon_decrypt_stale_total").await, 1.0);
    assert!(alice.log().iter().any(|line| line.to_string().contains("sealed_for_erased_key")));
}

#[tokio::test]
async fn a_malformed_archive_is_set_aside_and_the_daemon_starts() {
    let (_fake, mut alice, client) = linked().await;
    drop(client);
    alice.stop().await;
    std::fs::write(alice.file("keypair-archive.json"), "{\"schema_version\": 1").expect("the archive");
    alice.start().await;
    let entries = std::fs::read_dir(alice.dir()).expect("the state directory");
    let names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into()).collect();
    assert!(names.iter().any(|name| name.starts_with("keypair-archive.json.malformed-")), "{names:?}");
    assert!(alice.log().iter().any(|line| line.to_string().contains("keypair_archive_malformed")));
}

#[tokio::test]
async fn without_the_bit_or_the_broker_nothing_is_changed() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    let old = alice.public();
    let refused = alice.cli(&["daemon", "rotate-keypair"]).await.exits(1);
    assert!(refused.stderr.contains("broker_unreachable"), "{}", refused.all());
    let mut client = fake.accept().await;
    client.welcome().await;
    client.negotiate(&["client_message_id_dedupe", "concurrent_connection_policy"]).await;
    client.roster().await;
    alice.connected().await;
    let refused = alice.http().post("/v1/keys/rotate-keypair", &json!({})).send().await.expect(501).json();
    assert_eq!(refused["code"], "feature_unavailable", "{refused}");
    assert_eq!(alice.public(), old);
    for file in ["keypair.next.json", "keypair-archive.json"] {
        assert!(!alice.file(file).exists(), "{file}");
    }
}

#[tokio::test]
async fn an_archive_that_cannot_be_written_stops_the_rotation() {
    let (_fake, mut alice, _client) = linked().await;
    let old = alice.public();
    // A directory in the place of the new file fails for every user, also root.
    let temporary = format!(".keypair-archive.json.{}.tmp", alice.process().pid());
    std::fs::create_dir(alice.file(&temporary)).expect("a directory");
    let refused = alice.cli(&["daemon", "rotate-keypair"]).await.exits(1);
    assert!(refused.stderr.contains("key_rotation_aborted_archive_write_failed"), "{}", refused.all());
    assert_eq!(json_file(&alice.file("keypair.json"))["ed25519_pubkey"], old.as_str());
    assert!(!alice.file("keypair.next.json").exists());
}

/// The answer is lost: the daemon finds out by itself which key holds.
#[tokio::test]
async fn a_lost_answer_is_made_up_for_at_the_next_link() {
    let (fake, alice, mut client) = linked().await;
    let old = client.hello["pubkey"].as_str().expect("pubkey").to_owned();
    let asked = alice.cli(&["daemon", "rotate-keypair"]);
    let lost = async {
        let request = client.expect("member_rotate").await;
        client.drop_link();
        request
    };
    let (answer, first) = tokio::join!(asked, lost);
    assert!(answer.exits(1).stderr.contains("broker_unreachable"));
    // The new key first; this broker did not store it.
    let mut client = fake.accept().await;
    assert_eq!(client.hello["pubkey"], first["statement"]["newPubkey"]);
    client.send(&json!({"type": "error", "code": "unauthorized", "message": "no such key"})).await;
    client.close(1008, "unauthorized").await;
    let mut client = fake.connect().await;
    assert_eq!(client.hello["pubkey"], old.as_str());
    let request = client.expect("member_rotate").await;
    assert_eq!(request["statement"], first["statement"], "the same statement again");
    let new = request["statement"]["newPubkey"].clone();
    let answer = json!({
        "type": "member_rotated", "memberId": "member-alice", "seq": 1, "pubkey": new, "_reqId": request["_reqId"],
    });
    client.send(&answer).await;
    let _client = fake.connect().await;
    assert_eq!(json!(alice.public()), new);
    assert!(!alice.file("keypair.next.json").exists());
}

/// The frames at the broker: what is refused, and what may be repeated.
#[tokio::test]
async fn the_broker_takes_one_successor_of_a_key_and_only_with_both_signatures() {
    let mesh = RawMesh::start(Backend::Sqlite).await;
    let (alice, mut raw) = mesh.connected("alice").await;
    let (bob, mut other) = mesh.connected("bob").await;
    let (second, third) = (Key::random(), Key::random());
    let statement = |member_id: &str, seq: u64, old: &Key, new: &Key| {
        let (ts, from, to) = (keys::now_ms(), old.public(), new.public());
        let signed = format!("claudemesh-key-rotation|v1|{}|{member_id}|{seq}|{from}|{to}|{ts}", alice.mesh_id);
        json!({
            "memberId": member_id, "seq": seq, "oldPubkey": from, "newPubkey": to, "ts": ts,
            "oldSignature": old.sign(&signed), "newSignature": new.sign(&signed),
        })
    };
    let rotate = |statement: &Value| json!({"type": "member_rotate", "statement": statement});
    let good = statement(&alice.member_id, 1, &alice.key, &second);
    let mut half = good.clone();
    half["newSignature"] = good["oldSignature"].clone();
    for bad in [
        half,
        statement(&alice.member_id, 2, &alice.key, &second),
        statement(&alice.member_id, 1, &second, &third),
        statement(&bob.member_id, 1, &bob.key, &second),
        statement(&alice.member_id, 1, &alice.key, &bob.key),
    ] {
        let (answer, _) = raw.request(rotate(&bad)).await;
        assert_eq!(answer["type"], "ack", "{answer}");
        assert!(answer["code"].is_string(), "{answer} to {bad}");
    }
    let (answer, _) = raw.request(rotate(&good)).await;
    assert_eq!((&answer["type"], &answer["pubkey"]), (&json!("member_rotated"), &json!(second.public())), "{answer}");
    let told = other.event("member_keypair_rotated").await;
    assert_eq!(told["eventData"], good, "peers get the statement itself");
    // Again: the same answer. Another successor of the same key: none.
    let (answer, _) = raw.request(rotate(&good)).await;
    assert_eq!((&answer["type"], &answer["seq"]), (&json!("member_rotated"), &json!(1)), "{answer}");
    let (answer, _) = raw.request(rotate(&statement(&alice.member_id, 1, &alice.key, &third))).await;
    assert_eq!((&answer["type"], &answer["code"]), (&json!("ack"), &json!("forbidden")), "{answer}");
    let (list, _) = other.request(json!({"type": "member_list"})).await;
    let row =
        list["members"].as_array().expect("members").iter().find(|row| row["memberId"] == alice.member_id.as_str());
    let row = row.expect("alice");
    assert_eq!((&row["pubkey"], &row["rotations"]), (&json!(second.public()), &json!([good])), "{row}");
}

/// Points at which a test kills the process are in no other build.
#[cfg(not(feature = "failpoints"))]
#[test]
fn a_shipped_build_has_no_failpoints() {
    let binary = std::fs::read(crate::support::process::binary()).expect("the binary");
    for name in ["CLAUDEMESH_FAILPOINT", "CLAUDEMESH_LIMIT_MS", "rotation_next_written"] {
        assert!(!binary.windows(name.len()).any(|window| window == name.as_bytes()), "{name} is in the binary");
    }
}
