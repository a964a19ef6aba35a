//! `POST /join`, meshes and invites: every way to become a member, and every
//! way not to.

use serde_json::{Value, json};

use crate::support::broker::Broker;
use crate::support::http::Response;
use crate::support::keys::{self, Key, now_ms};
use crate::support::mesh::{Invite, Mesh, RawMesh, post_join};
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::raw::{Member, Raw};

#[track_caller]
fn assert_refused(answer: Response, error: &str) {
    let answer = answer.expect(400).json();
    assert_eq!(answer, json!({"ok": false, "error": error}));
}

fn invite_of(payload: Value) -> Invite {
    Invite { token: keys::base64url(payload.to_string().as_bytes()), payload }
}

async fn an_invite_makes_a_member_who_can_connect(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let invite = mesh.mesh.invite(&mesh.broker, 1).await;
    let key = Key::random();
    let answer = post_join(&mesh.broker, &invite, &key, "alice").await.expect(200).json();
    assert_eq!(answer["ok"], true, "{answer}");
    assert!(answer.get("alreadyMember").is_none_or(|value| value == false), "{answer}");
    let member_id = answer["memberId"].as_str().expect("memberId").to_owned();
    let member = Member { mesh_id: mesh.mesh.id.clone(), member_id: member_id.clone(), key, name: "alice".into() };
    let (_, ack) = Raw::hello(&mesh.url(), &member.hello()).await;
    assert_eq!(ack["memberDisplayName"], "alice");

    // Joining again with the same key costs no use and changes nothing.
    let again = post_join(&mesh.broker, &invite, &member.key, "alice").await.expect(200).json();
    assert_eq!(again, json!({"ok": true, "memberId": member_id, "alreadyMember": true}));
}

async fn each_fault_of_a_join_has_its_name(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (broker, own) = (&mesh.broker, &mesh.mesh);
    let key = Key::random();
    let later = now_ms() / 1000 + 3600;

    // Signed by the owner, but never registered.
    let unregistered = invite_of(own.payload(&own.owner, later, "member"));
    assert_refused(post_join(broker, &unregistered, &key, "x").await, "invite_not_found");

    let good = own.invite(broker, 1).await;
    let mut tampered = good.clone();
    tampered.payload["role"] = json!("admin");
    assert_refused(post_join(broker, &tampered, &key, "x").await, "invite_bad_signature");
    let forged = invite_of(own.payload(&Key::random(), later, "member"));
    assert_refused(post_join(broker, &forged, &key, "x").await, "invite_bad_signature");

    // Another owner signs for this mesh with a key of his own.
    let thief = Mesh { owner: Key::random(), ..own.clone() };
    let stolen = invite_of(thief.payload(&thief.owner, later, "member"));
    assert_refused(post_join(broker, &stolen, &key, "x").await, "invite_owner_mismatch");

    let nowhere = Mesh { id: "0123456789abcdefghijABCDEFGHIJ01".into(), ..own.clone() };
    let nowhere = invite_of(nowhere.payload(&nowhere.owner, later, "member"));
    assert_refused(post_join(broker, &nowhere, &key, "x").await, "mesh_not_found");

    let ends = now_ms() / 1000 + 2;
    let short = own.invite_until(broker, 1, ends).await;
    crate::support::wait::until("the invite to end", async || (now_ms() > (ends + 1) * 1000).then_some(())).await;
    assert_refused(post_join(broker, &short, &key, "x").await, "invite_expired");

    post_join(broker, &good, &Key::random(), "first").await.expect(200);
    assert_refused(post_join(broker, &good, &Key::random(), "second").await, "invite_exhausted");

    // The token of one mesh with the payload of another.
    let other = Mesh::create(broker, "other").await;
    let of_other = other.invite(broker, 1).await;
    let mixed = Invite { token: of_other.token, payload: own.invite(broker, 1).await.payload };
    assert_refused(post_join(broker, &mixed, &key, "x").await, "invite_mesh_mismatch");

    let withdrawn = own.invite(broker, 1).await;
    let db = broker.tables().await;
    db.run(&format!("UPDATE invite SET revoked_at = {} WHERE token = '{}'", now_ms(), withdrawn.token)).await;
    db.close().await;
    assert_refused(post_join(broker, &withdrawn, &key, "x").await, "invite_revoked");
}

async fn the_last_use_goes_to_one_of_many(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let invite = mesh.mesh.invite(&mesh.broker, 3).await;
    let keys: Vec<Key> = (0..8).map(|_| Key::random()).collect();
    let joins = keys.iter().map(|key| post_join(&mesh.broker, &invite, key, "racer"));
    let answers = futures_util::future::join_all(joins).await;
    let joined = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(joined, 3, "{answers:?}");
    for answer in answers.into_iter().filter(|answer| answer.status != 200) {
        assert_refused(answer, "invite_exhausted");
    }
}

async fn a_join_that_makes_no_sense_is_refused_in_words(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let http = mesh.broker.http();
    let invite = mesh.mesh.invite(&mesh.broker, 1).await;
    let good = json!({
        "invite_token": invite.token,
        "invite_payload": invite.payload,
        "peer_pubkey": Key::random().public(),
        "display_name": "x",
    });
    for field in ["invite_token", "invite_payload", "peer_pubkey"] {
        let mut body = good.clone();
        body.as_object_mut().expect("an object").remove(field);
        let answer = http.post("/join", &body).send().await.expect(400).json();
        assert_eq!(answer["ok"], false, "{field}: {answer}");
        assert!(answer["error"].as_str().is_some_and(|text| !text.is_empty()), "{field}: {answer}");
    }
    // The last two are no points, or of low order.
    let weak = format!("01{}", "0".repeat(62));
    for key in ["", "abc", &"Z".repeat(64), &"f".repeat(64), &weak] {
        let mut body = good.clone();
        body["peer_pubkey"] = json!(key);
        assert_eq!(http.post("/join", &body).send().await.expect(400).json()["ok"], false, "{key}");
    }
    let broken = http.request("POST", "/join").header("Content-Type", "application/json").body("{not json");
    assert_eq!(broken.send().await.status, 400);
    let huge = http.request("POST", "/join").header("Content-Type", "application/json").body(vec![b' '; 4 << 20]);
    assert_eq!(huge.send().await.status, 413);
    // The good one still works.
    http.post("/join", &good).send().await.expect(200);
}

async fn only_the_admin_token_creates_meshes(backend: Backend) {
    let broker = Broker::on(backend).await;
    let http = broker.http();
    let body = json!({"slug": "demo", "owner_pubkey": Key::random().public()});
    assert_eq!(http.post("/v1/meshes", &body).send().await.status, 401);
    assert_eq!(http.post("/v1/meshes", &body).bearer("wrong").send().await.status, 401);
    assert_eq!(http.post("/v1/meshes", &body).bearer("").send().await.status, 401);
    http.post("/v1/meshes", &body).bearer(&broker.admin_token()).send().await.expect(201);
    for slug in ["", "UPPER", "has space", "a/b", "..", &"x".repeat(80)] {
        let body = json!({"slug": slug, "owner_pubkey": Key::random().public()});
        let answer = http.post("/v1/meshes", &body).bearer(&broker.admin_token()).send().await;
        assert_eq!(answer.status, 400, "{slug:?}: {}", answer.text());
    }
}

async fn only_the_owner_registers_invites(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let later = now_ms() / 1000 + 3600;
    let invite = invite_of(mesh.mesh.payload(&mesh.mesh.owner, later, "member"));
    let stranger = mesh.mesh.register(&mesh.broker, &invite, 1, &Key::random()).await;
    assert!([401, 403].contains(&stranger.status), "{}: {}", stranger.status, stranger.text());
    let forged = invite_of(mesh.mesh.payload(&Key::random(), later, "member"));
    let answer = mesh.mesh.register(&mesh.broker, &forged, 1, &mesh.mesh.owner).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    let first = mesh.mesh.register(&mesh.broker, &invite, 1, &mesh.mesh.owner).await.expect(201).json();
    let again = mesh.mesh.register(&mesh.broker, &invite, 1, &mesh.mesh.owner).await.json();
    assert_eq!(first["invite_id"], again["invite_id"], "repeating it gives the same answer");
}

on_both_databases! {
    an_invite_makes_a_member_who_can_connect,
    each_fault_of_a_join_has_its_name,
    the_last_use_goes_to_one_of_many,
    a_join_that_makes_no_sense_is_refused_in_words,
    only_the_admin_token_creates_meshes,
    only_the_owner_registers_invites,
}
