//! Member certificates at the broker: what it keeps, what it shows, and what it
//! turns away.

use serde_json::{Value, json};

use crate::support::broker::Broker;
use crate::support::keys::Key;
use crate::support::mesh::{Mesh, RawMesh, certificate, post_join_with};
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::raw::{Member, Raw};
use crate::support::wait;

/// A member who joined with this field.
async fn joined(mesh: &RawMesh, key: Key, name: &str, certificate: &Value) -> Member {
    let invite = mesh.mesh.invite(&mesh.broker, 1).await;
    let more = json!({ "certificate": certificate });
    let answer = post_join_with(&mesh.broker, &invite, &key, name, &more).await.expect(200).json();
    let member_id = answer["memberId"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    Member { mesh_id: mesh.mesh.id.clone(), member_id, key, name: name.to_owned() }
}

/// The certificate that the broker shows of a member, both ways.
async fn shown(raw: &mut Raw, member: &Member) -> Value {
    let listed = listed(raw, member).await;
    let (found, _) = raw.request(json!({"type": "member_certificate_get", "memberId": member.member_id})).await;
    assert_eq!((&found["type"], &found["memberId"]), (&json!("member_certificate"), &json!(member.member_id)));
    assert_eq!(found.get("certificate").unwrap_or(&Value::Null), &listed, "{found}");
    listed
}

/// The certificate in the list of members alone.
async fn listed(raw: &mut Raw, member: &Member) -> Value {
    let (list, _) = raw.request(json!({"type": "member_list"})).await;
    let rows = list["members"].as_array().unwrap_or_else(|| panic!("{list}"));
    let row = rows.iter().find(|row| row["memberId"] == member.member_id.as_str()).expect("a row");
    row.get("certificate").cloned().unwrap_or(Value::Null)
}

async fn put(raw: &mut Raw, certificate: &Value) -> Value {
    let (ack, _) = raw.request(json!({"type": "member_certificate_put", "certificate": certificate})).await;
    assert_eq!((&ack["type"], &ack["queued"]), (&json!("ack"), &json!(false)), "{ack}");
    ack.get("code").cloned().unwrap_or(Value::Null)
}

/// Everything that somebody may try in place of a certificate.
fn forgeries(mesh: &Mesh, member: &str) -> Vec<Value> {
    let good = mesh.certificate(&mesh.owner, member, "member");
    let mut risen = good.clone();
    risen["role"] = json!("admin");
    let mut longer = good.clone();
    longer["expiresAt"] = json!(1_900_000_001);
    let mut renamed = mesh.certificate(&mesh.owner, &Key::random().public(), "member");
    renamed["memberPubkey"] = json!(member);
    let mut unsigned = good;
    unsigned["inviteSignature"] = unsigned["ownerSignature"].clone();
    vec![
        mesh.certificate(&Key::random(), member, "member"),
        certificate("another-mesh", &mesh.owner, member, "member"),
        mesh.certificate(&mesh.owner, &Key::random().public(), "member"),
        risen,
        longer,
        renamed,
        unsigned,
    ]
}

async fn a_certificate_comes_with_the_join_and_outlives_the_broker(backend: Backend) {
    let mut mesh = RawMesh::start(backend).await;
    let (key, owner) = (Key::random(), mesh.mesh.owner.clone());
    let good = mesh.mesh.certificate(&owner, &key.public(), "admin");
    let alice = joined(&mesh, key, "alice", &good).await;
    let (_, mut bob_raw) = mesh.connected("bob").await;
    assert_eq!(shown(&mut bob_raw, &alice).await, good);
    mesh.broker.crash().await;
    let mut raw = Raw::member(&mesh.url(), &alice).await;
    assert_eq!(shown(&mut raw, &alice).await, good);
    let answer = mesh.mesh.admin(&mesh.broker, &owner, json!({"type": "members_get"})).await.expect(200).json();
    assert_eq!(answer["members"][0]["certificate"], good, "{answer}");
}

async fn what_the_owner_did_not_sign_is_not_kept_and_hinders_nobody(backend: Backend) {
    let mesh = RawMesh::start(backend).await;
    let (_, mut raw) = mesh.connected("observer").await;
    let mut more = forgeries(&mesh.mesh, &Key::random().public());
    for number in 0..forgeries(&mesh.mesh, "").len() {
        let key = Key::random();
        let forged = forgeries(&mesh.mesh, &key.public()).swap_remove(number);
        let member = joined(&mesh, key, "joiner", &forged).await;
        assert_eq!(shown(&mut raw, &member).await, Value::Null, "{forged}");
        Raw::member(&mesh.url(), &member).await;
    }
    // Nor over the link.
    let (alice, mut alice_raw) = mesh.connected("alice").await;
    more.extend(forgeries(&mesh.mesh, &alice.public()));
    for forged in more {
        assert_eq!(put(&mut alice_raw, &forged).await, "forbidden", "{forged}");
    }
    let mut broken = mesh.mesh.certificate(&mesh.mesh.owner, &alice.public(), "member");
    broken["invitePubkey"] = json!("6e");
    assert_eq!(put(&mut alice_raw, &broken).await, "invalid");
    assert_eq!(shown(&mut raw, &alice).await, Value::Null);
}

async fn a_member_brings_its_own_and_only_its_own(backend: Backend) {
    let mut mesh = RawMesh::start(backend).await;
    let owner = mesh.mesh.owner.clone();
    let (alice, mut alice_raw) = mesh.connected("alice").await;
    let (bob, mut bob_raw) = mesh.connected("bob").await;
    let good = mesh.mesh.certificate(&owner, &alice.public(), "member");
    assert_eq!(put(&mut bob_raw, &good).await, "forbidden", "it is not bob's");
    // A session speaks for itself.
    let (mut session, _) = Raw::hello(&mesh.url(), &alice.session_hello(&Key::random())).await;
    assert_eq!(put(&mut session, &good).await, "forbidden");
    assert_eq!(shown(&mut bob_raw, &alice).await, Value::Null);
    for _ in 0..2 {
        assert_eq!(put(&mut alice_raw, &good).await, Value::Null);
    }
    let admin = mesh.mesh.certificate(&owner, &alice.public(), "admin");
    assert_eq!(put(&mut alice_raw, &admin).await, Value::Null);
    assert_eq!(shown(&mut bob_raw, &alice).await, admin);
    assert_eq!(shown(&mut bob_raw, &bob).await, Value::Null);
    mesh.broker.crash().await;
    let mut bob_raw = Raw::member(&mesh.url(), &bob).await;
    assert_eq!(shown(&mut bob_raw, &alice).await, admin);
}

#[tokio::test]
async fn another_broker_of_the_database_shows_it_within_a_scan() {
    if !Backend::Postgres.is_there() {
        return;
    }
    let scans = "[timers]\nscan_ms = 200\n";
    let broker = Broker::configured(Backend::Postgres, scans).await;
    let mesh = Mesh::create(&broker, "demo").await;
    let mesh = RawMesh { broker, mesh };
    let second = mesh.broker.second_node(scans).await;
    let (alice, mut alice_raw) = mesh.connected("alice").await;
    let bob = mesh.member("bob").await;
    // In the memory of both before it changes.
    let mut bob_raw = wait::until("bob at the second broker", async || {
        let mut raw = Raw::connect(&second.url()).await;
        raw.send(&bob.hello()).await;
        (raw.frame().await["type"] == "hello_ack").then_some(raw)
    })
    .await;
    assert_eq!(shown(&mut bob_raw, &alice).await, Value::Null);
    let good = mesh.mesh.certificate(&mesh.mesh.owner, &alice.public(), "member");
    assert_eq!(put(&mut alice_raw, &good).await, Value::Null);
    wait::until("the certificate at the second broker", async || {
        (listed(&mut bob_raw, &alice).await == good).then_some(())
    })
    .await;
}

on_both_databases! {
    a_certificate_comes_with_the_join_and_outlives_the_broker,
    what_the_owner_did_not_sign_is_not_kept_and_hinders_nobody,
    a_member_brings_its_own_and_only_its_own,
}
