//! The verbs that ask a mesh's broker with a signature alone.

use serde_json::json;

use crate::support::broker::Broker;
use crate::support::cli;
use crate::support::keys::Key;
use crate::support::postgres::{Backend, on_both_databases};
use crate::support::process;
use crate::support::raw::{Member, Raw, plain_send};

/// A mesh that a user of this directory owns, made by the command line.
async fn owned(broker: &Broker) -> tempfile::TempDir {
    let home = process::directory();
    let token = broker.admin_token_file();
    let token = token.to_str().expect("UTF-8");
    let url = broker.url();
    let create = ["mesh", "create", "demo", "--broker", &url, "--admin-token-file", token, "--display-name", "owner"];
    cli::run(home.path(), &create).await.ok();
    home
}

/// Another user, who has joined it.
async fn guest(home: &std::path::Path, name: &str) -> (tempfile::TempDir, Member) {
    let link = cli::run(home, &["mesh", "invite", "demo"]).await.ok().stdout.trim().to_owned();
    let guest = process::directory();
    cli::run(guest.path(), &["join", &link, "--display-name", name]).await.ok();
    let config = std::fs::read_to_string(guest.path().join("config.json")).expect("config.json");
    let config: serde_json::Value = serde_json::from_str(&config).expect("JSON");
    let entry = &config["meshes"][0];
    let text = |field: &str| entry[field].as_str().expect("a text").to_owned();
    let secret = hex::decode(text("secretKey")).expect("hex");
    let seed: [u8; 32] = secret[..32].try_into().expect("a seed");
    let member = Member {
        mesh_id: text("meshId"),
        member_id: text("memberId"),
        key: Key::from_seed(seed),
        name: name.to_owned(),
    };
    (guest, member)
}

// Covers: R71, R387
async fn an_owner_sets_the_policy_and_revokes_members(backend: Backend) {
    let broker = Broker::on(backend).await;
    let home = owned(&broker).await;
    let (guest_home, bob) = guest(home.path(), "bob").await;
    let shown = cli::run(guest_home.path(), &["mesh", "policy", "demo"]).await.ok();
    assert!(shown.stdout.contains("prefer-newest"), "{}", shown.stdout);
    let refused = cli::run(guest_home.path(), &["mesh", "policy", "demo", "--set", "prefer-oldest"]).await.exits(1);
    assert!(refused.stderr.contains("owner") && refused.stderr.contains("request_refused"), "{}", refused.stderr);
    let set = cli::run(home.path(), &["mesh", "policy", "demo", "--set", "prefer-oldest", "--json"]).await.ok().json();
    assert_eq!(set["concurrencyPolicy"], "prefer_oldest", "{set}");

    let mut bob_raw = Raw::member(&broker.url(), &bob).await;
    let list = cli::run(home.path(), &["member", "list", "demo"]).await.ok();
    assert!(list.stdout.contains("bob") && list.stdout.contains(&bob.public()[..16]), "{}", list.stdout);
    cli::run(home.path(), &["member", "revoke", "demo", "feedfeedfeedfeed"]).await.exits(1);
    cli::run(guest_home.path(), &["member", "revoke", "demo", &bob.public()]).await.exits(1);
    cli::run(home.path(), &["member", "revoke", "demo", &bob.public()[..16]]).await.ok();
    bob_raw.expect_close(4002, "banned").await;
    let mut again = Raw::connect(&broker.url()).await;
    again.send(&bob.hello()).await;
    assert_eq!(again.expect("error").await["code"], "revoked");
    let list = cli::run(home.path(), &["member", "list", "demo", "--json"]).await.ok().json();
    let row = list["members"].as_array().expect("rows").iter().find(|row| row["displayName"] == "bob");
    assert!(row.is_some_and(|row| row["revokedAt"].is_i64()), "{list}");
}

async fn a_key_is_made_used_and_ended(backend: Backend) {
    let broker = Broker::on(backend).await;
    let home = owned(&broker).await;
    let (_guest_home, bob) = guest(home.path(), "bob").await;
    let key = cli::run(home.path(), &["mesh", "key", "create", "demo", "ci"]).await.ok().stdout.trim().to_owned();
    let mut body = plain_send(&bob.public());
    body.as_object_mut().expect("an object").remove("type");
    let post = broker.http().post("/v1/messages", &body).bearer(&key);
    post.send().await.expect(201);
    let list = cli::run(home.path(), &["mesh", "key", "list", "demo"]).await.ok();
    assert!(list.stdout.contains("ci") && !list.stdout.contains(&key), "{}", list.stdout);
    let id = key.split('_').nth(1).expect("an id");
    cli::run(home.path(), &["mesh", "key", "revoke", "demo", id]).await.ok();
    post.send().await.expect(401);
}

async fn who_leaves_is_out_and_the_entry_is_gone(backend: Backend) {
    let broker = Broker::on(backend).await;
    let home = owned(&broker).await;
    let (guest_home, bob) = guest(home.path(), "bob").await;
    cli::run(guest_home.path(), &["mesh", "leave", "demo"]).await.ok();
    let mut raw = Raw::connect(&broker.url()).await;
    raw.send(&bob.hello()).await;
    assert_eq!(raw.expect("error").await["code"], "revoked");
    let meshes = cli::run(guest_home.path(), &["mesh", "list", "--json"]).await.ok().json();
    assert_eq!(meshes["meshes"], json!([]), "{meshes}");
    let again = cli::run(guest_home.path(), &["mesh", "leave", "demo"]).await;
    assert!(again.code != 0 && again.stderr.contains("mesh_not_joined"), "{}", again.stderr);
}

/// Nobody is left who could change the mesh: that has to be meant.
async fn the_owner_and_the_last_admin_leave_by_force_alone(backend: Backend) {
    let broker = Broker::on(backend).await;
    let home = owned(&broker).await;
    let invite = cli::run(home.path(), &["mesh", "invite", "demo", "--role", "admin"]).await.ok();
    let admin = process::directory();
    cli::run(admin.path(), &["join", invite.stdout.trim(), "--display-name", "admin"]).await.ok();
    let owner = cli::run(home.path(), &["mesh", "leave", "demo", "--yes"]).await.exits(5);
    assert!(owner.stderr.contains("you own mesh") && owner.stderr.contains("--force"), "{}", owner.stderr);
    cli::run(home.path(), &["mesh", "leave", "demo", "--yes", "--force"]).await.ok();
    let last = cli::run(admin.path(), &["mesh", "leave", "demo", "--yes"]).await.exits(5);
    assert!(last.stderr.contains("last admin") && last.stderr.contains("--force"), "{}", last.stderr);
    cli::run(admin.path(), &["mesh", "leave", "demo", "--yes", "--force"]).await.ok();
}

/// Invites of one second differ in nothing that is signed.
async fn two_invites_made_at_once_are_two(backend: Backend) {
    let broker = Broker::on(backend).await;
    let home = owned(&broker).await;
    let invite = ["mesh", "invite", "demo", "--uses", "1"];
    let (one, other) = tokio::join!(cli::run(home.path(), &invite), cli::run(home.path(), &invite));
    for (name, made) in [("bob", one), ("carol", other)] {
        let link = made.ok().stdout.trim().to_owned();
        let guest = process::directory();
        cli::run(guest.path(), &["join", &link, "--display-name", name]).await.ok();
    }
}

on_both_databases! {
    two_invites_made_at_once_are_two,
    an_owner_sets_the_policy_and_revokes_members,
    a_key_is_made_used_and_ended,
    who_leaves_is_out_and_the_entry_is_gone,
    the_owner_and_the_last_admin_leave_by_force_alone,
}

/// At once, with its reason, and whatever else the environment says.
#[tokio::test]
async fn a_database_that_refuses_is_told_at_once() {
    let home = process::directory();
    let url = ("CLAUDEMESH_BROKER_DATABASE_URL", "postgres://u:secret@127.0.0.1:1/db");
    let serve = ["broker", "serve", "--listen", "127.0.0.1:0"];
    let refused = cli::run_with(home.path(), &serve, &[url, ("TOKIO_WORKER_THREADS", "many")]).await;
    assert!(refused.stderr.contains("Connection refused"), "{}", refused.stderr);
    assert!(refused.code != 0 && !refused.all().contains("secret"), "{}", refused.all());
    let wrong = cli::run_with(home.path(), &serve, &[url, ("PGSSLMODE", "requirre")]).await;
    assert!(wrong.stderr.contains("PGSSLMODE=requirre"), "{}", wrong.stderr);
}
