//! What becomes of each stored version.

use std::collections::BTreeSet;

use claudemesh_migrations::{InboxMigrator, OutboxMigrator};
use sea_orm_migration::MigratorTrait;

use super::{member, rows, schema, versions};
use crate::support::broker::read_trimmed;
use crate::support::fake_broker::FakeBroker;
use crate::support::sqlite::Db;

/// Nothing is lost and nothing is made up: the rows before and after are in the
/// snapshot, beside the schema.
// Covers: R190, R193
#[tokio::test]
async fn each_stored_version_is_brought_to_this_one() {
    for version in versions() {
        let mut alice = member(&version).await;
        alice.start().await;
        alice.stop().await;
        let known: usize = OutboxMigrator::migrations().len() + InboxMigrator::migrations().len();
        let now: usize = read_trimmed(&alice.file("schema_version")).parse().expect("a number");
        assert_eq!(now, known - 1, "the new version is written");
        insta::assert_snapshot!(format!("from_{version}"), format!("{}\n{}", schema(&alice).await, rows(&alice).await));
    }
}

// Covers: R189
#[tokio::test]
async fn a_migrated_schema_is_the_fresh_one_and_the_next_start_leaves_it() {
    let mut fresh = FakeBroker::start().await.member("fresh");
    fresh.start().await;
    fresh.stop().await;
    let expected = schema(&fresh).await;
    for version in versions() {
        let mut alice = member(&version).await;
        alice.start().await;
        alice.stop().await;
        assert_eq!(schema(&alice).await, expected, "from version {version}");
        let before = rows(&alice).await;
        alice.start().await;
        alice.stop().await;
        assert_eq!(schema(&alice).await, expected);
        assert_eq!(rows(&alice).await, before, "equal versions: nothing changes");
    }
}

/// No migration without a database from before it.
// Covers: R193
#[tokio::test]
async fn every_migration_has_a_stored_database_from_before_it() {
    let names = |migrations: Vec<Box<dyn sea_orm_migration::MigrationTrait>>| -> BTreeSet<String> {
        // The first one makes the tables; there is nothing before it.
        migrations.iter().skip(1).map(|migration| migration.name().to_owned()).collect()
    };
    let all = [("outbox", names(OutboxMigrator::migrations())), ("inbox", names(InboxMigrator::migrations()))];
    for (database, mut missing) in all {
        for version in versions() {
            // A copy: opening a database may write to it.
            let directory = crate::support::process::directory();
            let path = directory.path().join("copy.db");
            std::fs::copy(super::data().join(&version).join(format!("{database}.db")), &path).expect("a copy");
            let db = Db::open(&path).await;
            let applied: BTreeSet<String> =
                db.texts("SELECT version FROM seaql_migrations").await.into_iter().collect();
            db.close().await;
            missing.retain(|name| applied.contains(name));
        }
        assert!(missing.is_empty(), "{database}: no stored database is from before {missing:?}");
    }
}

/// What a version 1 left in flight or waiting goes out after the upgrade.
#[tokio::test]
async fn what_waited_goes_out_after_the_upgrade() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.configure(super::KEEP_ALL);
    for file in ["outbox.db", "inbox.db", "schema_version"] {
        std::fs::copy(super::data().join("1").join(file), alice.file(file)).expect("the stored database");
    }
    alice.start().await;
    let db = alice.outbox_db().await;
    let waiting = "SELECT client_message_id FROM outbox WHERE status = 'pending' ORDER BY 1";
    assert_eq!(db.texts(waiting).await, ["v1-inflight", "v1-waiting"]);
    db.close().await;
    assert_eq!(alice.inbox("").await.len(), 2);
    let listed = alice.cli(&["outbox", "--failed", "--json"]).await.ok().json();
    assert_eq!(listed["entries"][0]["client_message_id"], "v1-dead", "{listed}");
    let same = serde_json::json!({"to": "bob", "message": "stored by version 1", "meta": {"ticket": 7}, "client_message_id": "v1-done"});
    assert_eq!(alice.post_send(&same).await.expect(200).json()["duplicate"], true);
}

/// A run of a hook that version 6 wrote is found by its message.
#[tokio::test]
async fn hook_runs_are_found_after_the_upgrade() {
    let mut alice = member("6").await;
    alice.start().await;
    let path = "/v1/hooks/runs?message_id=01M89TKC00000000000000MSG1";
    let found = alice.http().get(path).send().await.expect(200).json();
    let runs = found["runs"].as_array().expect("runs");
    assert_eq!(runs.len(), 1, "{found}");
    assert_eq!((&runs[0]["hook"], &runs[0]["stdout_bytes"]), (&"on-message".into(), &3.into()), "{found}");
}
