//! A process that is killed while it migrates: the old schema or the new one,
//! and every row.

use super::{member, rows, schema};
use crate::support::daemon::Daemon;
use crate::support::process::{self, binary};
use crate::support::sqlite::Db;
use crate::support::{tools, wait};

/// Starts it so that the system kills it at its n-th write to the inbox. True
/// when it was killed, false when it wrote less and is up.
async fn killed_at(alice: &mut Daemon, strace: &std::path::Path, n: u32) -> bool {
    let mut command = process::with_program(strace, alice.home());
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64", "-e"]);
    command.arg(format!("inject=pwrite64:signal=SIGKILL:when={n}"));
    for file in ["inbox.db", "inbox.db-wal"] {
        command.arg("-P").arg(alice.file(file));
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

async fn applied(path: &std::path::Path) -> usize {
    let db = Db::open(path).await;
    assert_eq!(db.texts("PRAGMA integrity_check").await, ["ok"]);
    let count = db.texts("SELECT version FROM seaql_migrations").await.len();
    // The column is there when, and only when, the migration is noted.
    let column = "SELECT count(*) FROM pragma_table_info('inbox') WHERE name = 'before_recovery'";
    assert_eq!(db.number(column).await == 1, count >= 2, "half a migration");
    db.close().await;
    count
}

// Covers: R192
#[tokio::test]
async fn a_kill_at_any_write_leaves_the_old_schema_or_the_new_one() {
    let Some(strace) = tools::system("strace") else { return };
    let mut whole = member("1").await;
    whole.start().await;
    whole.stop().await;
    let (expected_schema, expected_rows) = (schema(&whole).await, rows(&whole).await);
    let mut seen = std::collections::BTreeSet::new();
    let mut kills = 0;
    for n in 1..60 {
        let mut alice = member("1").await;
        let killed = killed_at(&mut alice, &strace, n).await;
        seen.insert(applied(&alice.file("inbox.db")).await);
        // The next start finishes what was begun.
        alice.start().await;
        alice.stop().await;
        assert_eq!(schema(&alice).await, expected_schema, "killed at write {n}");
        assert_eq!(rows(&alice).await, expected_rows, "killed at write {n}");
        if !killed {
            break;
        }
        kills += 1;
    }
    assert!(kills >= 3, "only {kills} writes were interrupted");
    assert!(seen.contains(&1) && seen.iter().any(|count| *count > 1), "both schemas were seen: {seen:?}");
}
