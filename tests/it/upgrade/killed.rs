//! A process that is killed while it migrates: each migration is done or not
//! begun, and no row is lost.

use std::collections::BTreeSet;
use std::path::Path;

use claudemesh_migrations::{InboxMigrator, OutboxMigrator};
use sea_orm_migration::MigratorTrait;
use sea_orm_migration::sea_orm::Database;

use super::{data, member, rows, rows_of, schema, schema_of};
use crate::support::daemon::Daemon;
use crate::support::process::{self, binary};
use crate::support::sqlite::Db;
use crate::support::{tools, wait};

/// A database after some of its migrations.
#[derive(PartialEq)]
struct Stage {
    applied: Vec<String>,
    schema: String,
    rows: String,
}

/// What the stored version 1 of a database becomes, migration by migration.
struct Stages {
    name: &'static str,
    stages: Vec<Stage>,
}

impl Stages {
    async fn of<M: MigratorTrait>(name: &'static str) -> Self {
        let directory = process::directory();
        let path = directory.path().join("copy.db");
        std::fs::copy(data().join("1").join(format!("{name}.db")), &path).expect("a copy");
        let mut stages = vec![read(name, &path).await];
        while stages[stages.len() - 1].applied.len() < M::migrations().len() {
            let url = format!("sqlite://{}?mode=rw", path.display());
            let connection = Database::connect(url).await.expect("the copy opens");
            M::up(&connection, Some(1)).await.expect("one migration");
            connection.close().await.expect("the copy closes");
            stages.push(read(name, &path).await);
        }
        Self { name, stages }
    }

    fn last(&self) -> usize {
        self.stages.len() - 1
    }

    /// The stage that the daemon's own database is in, which must be one of them
    /// and nothing between two.
    async fn found(&self, alice: &Daemon, when: &str) -> usize {
        let found = read(self.name, &alice.file(&format!("{}.db", self.name))).await;
        let number = self.stages.iter().position(|stage| stage.applied == found.applied);
        let number = number.unwrap_or_else(|| panic!("{when}: {} holds {:?}", self.name, found.applied));
        let stage = &self.stages[number];
        assert_eq!(found.schema, stage.schema, "{when}: half a migration of {} after {:?}", self.name, found.applied);
        // With the last one the daemon's own work begins.
        if number < self.last() {
            assert_eq!(found.rows, stage.rows, "{when}: {} after {:?}", self.name, found.applied);
        }
        number
    }
}

async fn read(name: &str, path: &Path) -> Stage {
    let db = Db::open(path).await;
    assert_eq!(db.texts("PRAGMA integrity_check").await, ["ok"]);
    let applied = db.texts("SELECT version FROM seaql_migrations ORDER BY version").await;
    let stage = Stage { applied, schema: schema_of(&db).await, rows: rows_of(name, &db).await };
    db.close().await;
    stage
}

/// Starts it so that the system kills it at its n-th write to that database.
/// True when it was killed, false when it wrote less and is up.
async fn killed_at(alice: &mut Daemon, strace: &Path, database: &str, n: u32) -> bool {
    let mut command = process::with_program(strace, alice.home());
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64", "-e"]);
    command.arg(format!("inject=pwrite64:signal=SIGKILL:when={n}"));
    for file in [format!("{database}.db"), format!("{database}.db-wal")] {
        command.arg("-P").arg(alice.file(&file));
    }
    command.arg(binary()).args(["daemon", "up", "--foreground", "--mesh", "demo"]);
    alice.spawn(command);
    let health = alice.http().get("/v1/health");
    let killed = wait::until("the daemon to be killed or up", async || {
        if alice.process().status().is_some() {
            return Some(true);
        }
        health.try_send().await.ok().filter(|response| response.status == 200).map(|_| false)
    })
    .await;
    if !killed {
        // It may still be killed by a later write; it ends either way.
        let _ = alice.cli(&["daemon", "down", "--mesh", "demo"]).await;
    }
    alice.ended().await;
    killed
}

/// Kills it at every write to one of its databases that it makes before it is up.
async fn killed_at_each_write_to(database: &str) {
    let Some(strace) = tools::system("strace") else { return };
    let stages = [Stages::of::<OutboxMigrator>("outbox").await, Stages::of::<InboxMigrator>("inbox").await];
    let mut whole = member("1").await;
    whole.start().await;
    whole.stop().await;
    let (expected_schema, expected_rows) = (schema(&whole).await, rows(&whole).await);
    let mut seen = BTreeSet::new();
    for n in 1..100 {
        let when = format!("killed at write {n} to {database}");
        let mut alice = member("1").await;
        let killed = killed_at(&mut alice, &strace, database, n).await;
        for stages in &stages {
            let found = stages.found(&alice, &when).await;
            if stages.name == database {
                seen.insert(found);
            }
        }
        // The next start finishes what was begun.
        alice.start().await;
        alice.stop().await;
        assert_eq!(schema(&alice).await, expected_schema, "{when}");
        assert_eq!(rows(&alice).await, expected_rows, "{when}");
        if !killed {
            break;
        }
    }
    let stages = stages.iter().find(|stages| stages.name == database).expect("a known database");
    assert_eq!(seen, (0..=stages.last()).collect(), "a start of {database} was cut short between any two migrations");
}

// Covers: R192
#[tokio::test]
async fn a_kill_at_any_write_to_the_inbox_leaves_whole_migrations() {
    killed_at_each_write_to("inbox").await;
}

// Covers: R192
#[tokio::test]
async fn a_kill_at_any_write_to_the_outbox_leaves_whole_migrations() {
    killed_at_each_write_to("outbox").await;
}
