//! Signed requests about a mesh: policy, members, invites.

use serde_json::{Value, json};

use crate::support::keys::{Key, now_ms};
use crate::support::mesh::{RawMesh, post_join};
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::raw::{Raw, Seen, plain_send, send_with_id};

const FINGERPRINT: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
const HOST_A: &str = "01J0000000000000000000000A";
const HOST_B: &str = "01J0000000000000000000000B";
const BOOT: &str = "01J00000000000000000000001";

// Covers: R71
async fn the_owner_changes_the_policy_and_it_holds_at_once(backend: Backend) {
    let mut mesh = RawMesh::start(backend).await;
    let bob = mesh.member("bob").await;
    let get = || json!({"type": "mesh_policy_get"});
    let policy = mesh.mesh.admin(&mesh.broker, &bob.key, get()).await.expect(200).json();
    assert_eq!(policy["concurrencyPolicy"], "prefer_newest", "every member may ask: {policy}");

    let set = json!({"type": "mesh_policy_set", "concurrencyPolicy": "prefer_oldest"});
    let denied = mesh.mesh.admin(&mesh.broker, &bob.key, set.clone()).await.expect(403).json();
    assert_eq!(denied["code"], "forbidden", "{denied}");
    let now = mesh.mesh.admin(&mesh.broker, &mesh.mesh.owner, set).await.expect(200).json();
    assert_eq!((&now["concurrencyPolicy"], &now["dedupeMode"]), (&json!("prefer_oldest"), &json!("retention_scoped")));

    let (mut old, answer) = Raw::daemon(&mesh.url(), &bob, HOST_A, BOOT).await;
    assert_eq!(answer["params"]["concurrent_connection_policy"]["default_policy"], "prefer_oldest", "{answer}");
    let mut hello = bob.hello();
    hello["instanceId"] = json!(HOST_B);
    hello["bootId"] = json!("other");
    let mut new = Raw::connect(&mesh.url()).await;
    new.send(&hello).await;
    new.send(
        &json!({"type": "feature_negotiation_request", "require": ["concurrent_connection_policy"], "optional": []}),
    )
    .await;
    new.expect_close(4004, "member_already_connected").await;
    assert_eq!(old.peers().await.len(), 1);

    mesh.broker.stop().await;
    mesh.broker.restart().await;
    let kept = mesh.mesh.admin(&mesh.broker, &bob.key, get()).await.expect(200).json();
    assert_eq!(kept["concurrencyPolicy"], "prefer_oldest", "{kept}");
}

async fn what_is_not_signed_for_this_is_refused(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (alice, mut alice_raw) = mesh.connected("alice").await;
    let path = format!("/v1/meshes/{}/admin", mesh.mesh.id);
    let post = async |frame: &Value| mesh.broker.http().post(&path, frame).send().await;
    let frame = || json!({"type": "mesh_policy_set", "concurrencyPolicy": "allow_concurrent"});
    let owner = &mesh.mesh.owner;

    let stranger = mesh.mesh.signed(&Key::random(), frame());
    assert_eq!(post(&stranger).await.expect(403).json()["code"], "forbidden");
    let mut changed = mesh.mesh.signed(owner, frame());
    changed["concurrencyPolicy"] = json!("prefer_oldest");
    assert_eq!(post(&changed).await.expect(403).json()["code"], "forbidden");
    let old = mesh.mesh.signed_at(owner, frame(), now_ms() - 120_000);
    assert_eq!(post(&old).await.expect(403).json()["code"], "forbidden");
    let mut extra = mesh.mesh.signed(owner, frame());
    extra["more"] = json!(1);
    assert_eq!(post(&extra).await.expect(400).json()["code"], "invalid_argument");
    let good = mesh.mesh.signed(owner, frame());
    post(&good).await.expect(200);
    assert_eq!(post(&good).await.expect(403).json()["code"], "forbidden", "nobody can repeat what the owner once said");
    let send = mesh.mesh.signed(owner, plain_send(&alice.public()));
    assert_eq!(post(&send).await.status, 400);
    mesh.broker.http().post("/v1/meshes/nowhere/admin", &good).send().await.expect(400);

    // The same over the link: the socket gives no right that the signature lacks.
    let (answer, _) = alice_raw.request(mesh.mesh.signed(&alice.key, frame())).await;
    assert_eq!((&answer["type"], &answer["code"]), (&json!("ack"), &json!("forbidden")), "{answer}");
    let (answer, _) = alice_raw.request(mesh.mesh.signed(owner, frame())).await;
    assert_eq!((&answer["type"], &answer["concurrencyPolicy"]), (&json!("mesh_policy"), &json!("allow_concurrent")));
}

async fn a_revoked_member_is_out_and_what_waits_for_it_ends(backend: Backend) {
    let mut mesh = RawMesh::start(backend).await;
    let alice = mesh.member("alice").await;
    let (mut alice_raw, _) = Raw::daemon(&mesh.url(), &alice, HOST_A, BOOT).await;
    let bob = mesh.member("bob").await;
    let (waiting, _) = alice_raw.request(send_with_id(&bob.public(), "m1", FINGERPRINT)).await;
    assert_eq!(waiting["queued"], true, "{waiting}");
    let (mut bob_raw, _) = Raw::daemon(&mesh.url(), &bob, HOST_B, BOOT).await;
    assert_eq!(bob_raw.message().await["messageId"], waiting["messageId"]);
    let (from_bob, _) = bob_raw.request(send_with_id(&alice.public(), "b1", FINGERPRINT)).await;
    assert_eq!(from_bob["queued"], true, "{from_bob}");

    let revoke = || json!({"type": "member_revoke", "memberId": bob.member_id});
    let denied = mesh.mesh.admin(&mesh.broker, &alice.key, revoke()).await;
    assert_eq!(denied.expect(403).json()["code"], "forbidden", "members do not revoke each other");
    let admin = mesh.mesh.join_admin(&mesh.broker, "admin").await;
    mesh.mesh.admin(&mesh.broker, &admin.key, revoke()).await.expect(200);
    let frames = bob_raw.expect_close(4005, "member_revoked").await;
    assert!(frames.iter().any(|frame| frame["type"] == "close_reason" && frame["kind"] == "member_revoked"));

    // The others hear of it, and of the end of what waited.
    let mut told = (false, false, false);
    while told != (true, true, true) {
        let Seen::Frame(frame) = alice_raw.next().await else { panic!("alice stays") };
        told.0 |= frame["event"] == "member_revoked" && frame["eventData"]["memberId"] == bob.member_id.as_str();
        told.1 |= frame["type"] == "delivery_status" && frame["state"] == "expired";
        // What it sent before still arrives.
        told.2 |= frame["messageId"] == from_bob["messageId"];
    }
    let (refused, _) = alice_raw.request(send_with_id(&bob.public(), "m2", FINGERPRINT)).await;
    assert_eq!(refused["code"], "recipient_revoked", "{refused}");

    mesh.broker.crash().await;
    let (mut alice_raw, _) = Raw::daemon(&mesh.url(), &alice, HOST_A, BOOT).await;
    let (known, _) = alice_raw.request(send_with_id(&bob.public(), "m1", FINGERPRINT)).await;
    assert_eq!((&known["queued"], &known["duplicate"]), (&json!(true), &json!(true)), "{known}");
    assert_eq!(known["messageId"], waiting["messageId"]);
    let mut legacy = Raw::connect(&mesh.url()).await;
    legacy.send(&bob.hello()).await;
    assert_eq!(legacy.expect("error").await["code"], "revoked");
    let members = mesh.mesh.admin(&mesh.broker, &alice.key, json!({"type": "members_get"})).await.expect(200).json();
    let row = members["members"].as_array().expect("rows").iter().find(|row| row["memberId"] == bob.member_id.as_str());
    assert!(row.is_some_and(|row| row["revokedAt"].is_i64()), "{members}");
    let gone = mesh.mesh.admin(&mesh.broker, &bob.key, json!({"type": "members_get"})).await;
    assert_eq!(gone.status, 403, "{}", gone.text());
    let db = mesh.broker.tables().await;
    assert_eq!(db.number("SELECT count(*) FROM audit WHERE event = 'member_revoked'").await, 1);
    db.close().await;
}

async fn a_member_leaves_by_frame_or_by_a_signed_request(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let alice = mesh.member("alice").await;
    let (mut alice_raw, _) = Raw::daemon(&mesh.url(), &alice, HOST_A, BOOT).await;
    let (bob, mut bob_raw) = mesh.connected("bob").await;
    alice_raw.send(&json!({"type": "member_leave", "_reqId": "bye"})).await;
    let frames = alice_raw.expect_close(4005, "member_revoked").await;
    assert!(frames.iter().all(|frame| frame["error"].is_null()), "{frames:?}");
    let mut again = Raw::connect(&mesh.url()).await;
    again.send(&alice.hello()).await;
    assert_eq!(again.expect("error").await["code"], "revoked");

    let hello = bob.hello();
    let body = json!({
        "meshId": bob.mesh_id, "memberId": bob.member_id,
        "timestamp": hello["timestamp"], "signature": hello["signature"],
    });
    let path = |key: &str| format!("/v1/me/members/{key}/leave");
    let http = mesh.broker.http();
    let foreign = http.post(&path(&alice.public()), &body).send().await;
    assert_eq!(foreign.status, 403, "another's signature: {}", foreign.text());
    let mut old = body.clone();
    let before = bob.hello_at(now_ms() - 120_000);
    (old["timestamp"], old["signature"]) = (before["timestamp"].clone(), before["signature"].clone());
    assert_eq!(http.post(&path(&bob.public()), &old).send().await.status, 403);
    http.post(&path(&bob.public()), &body).send().await.expect(200);
    bob_raw.expect_close(4002, "banned").await;
    http.post(&path(&bob.public()), &body).send().await.expect(200);
    let mut again = Raw::connect(&mesh.url()).await;
    again.send(&bob.hello()).await;
    assert_eq!(again.expect("error").await["code"], "revoked");
}

async fn invites_are_listed_and_taken_back(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (owner, bob) = (&mesh.mesh.owner, mesh.member("bob").await);
    let payload = mesh.mesh.payload(owner, now_ms() / 1000 + 50_000, "member");
    let token = crate::support::keys::base64url(payload.to_string().as_bytes());
    let create = json!({"type": "invite_create", "token": token, "maxUses": 5});
    assert_eq!(mesh.mesh.admin(&mesh.broker, &bob.key, create.clone()).await.status, 403);
    let made = mesh.mesh.admin(&mesh.broker, owner, create).await.expect(200).json();
    let id = made["invites"][0]["inviteId"].as_str().expect("an id").to_owned();
    let invite = crate::support::mesh::Invite { token, payload };
    post_join(&mesh.broker, &invite, &Key::random(), "carol").await.expect(200);

    let list = mesh.mesh.admin(&mesh.broker, owner, json!({"type": "invite_list"})).await.expect(200).json();
    let row = list["invites"].as_array().expect("rows").iter().find(|row| row["inviteId"] == id.as_str());
    let row = row.unwrap_or_else(|| panic!("{list}"));
    assert_eq!((&row["usedCount"], &row["maxUses"]), (&json!(1), &json!(5)), "{row}");
    assert!(!list.to_string().contains(&invite.token), "the links stay with their owner");
    assert_eq!(mesh.mesh.admin(&mesh.broker, &bob.key, json!({"type": "invite_list"})).await.status, 403);

    let revoke = json!({"type": "invite_revoke", "inviteId": id});
    mesh.mesh.admin(&mesh.broker, owner, revoke).await.expect(200);
    let late = post_join(&mesh.broker, &invite, &Key::random(), "dave").await.expect(400).json();
    assert_eq!(late["error"], "invite_revoked", "{late}");
    let unknown = json!({"type": "invite_revoke", "inviteId": "nowhere"});
    assert_eq!(mesh.mesh.admin(&mesh.broker, owner, unknown).await.status, 404);
}

async fn an_admin_hears_of_a_second_connection(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (admin, bob) = (mesh.mesh.join_admin(&mesh.broker, "admin").await, mesh.member("bob").await);
    let (mut admin_raw, _) = Raw::daemon(&mesh.url(), &admin, HOST_A, BOOT).await;
    let (_old, _) = Raw::daemon(&mesh.url(), &bob, HOST_A, "boot-1").await;
    let (_new, _) = Raw::daemon(&mesh.url(), &bob, HOST_B, "boot-2").await;
    let event = admin_raw.event("member_concurrent_connection").await;
    assert_eq!(event["eventData"]["memberId"], bob.member_id.as_str(), "{event}");
    assert_eq!(event["eventData"]["policy"], "prefer_newest", "{event}");
}

on_both_databases! {
    the_owner_changes_the_policy_and_it_holds_at_once,
    what_is_not_signed_for_this_is_refused,
    a_revoked_member_is_out_and_what_waits_for_it_ends,
    a_member_leaves_by_frame_or_by_a_signed_request,
    invites_are_listed_and_taken_back,
    an_admin_hears_of_a_second_connection,
}
