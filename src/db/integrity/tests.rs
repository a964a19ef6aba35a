//! Opening, checking, quarantining and migrating real files.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use claudemesh_migrations::{BrokerMigrator, InboxMigrator, OutboxMigrator};
use sea_orm::{ConnectionTrait as _, DatabaseConnection, DbErr, Statement};
use sea_orm_migration::MigratorTrait;

use super::*;
use crate::db::migrate::migrate;
use crate::db::{CheckpointMode, Sqlite, tx};

async fn opened<M: MigratorTrait>(path: &Path) -> Sqlite {
    let db = Sqlite::open(path, 2).await.expect("opens");
    migrate::<M>(db.writer(), "test").await.expect("migrates");
    db
}

async fn text(connection: &DatabaseConnection, sql: &str) -> String {
    let row = connection.query_one_raw(Statement::from_string(connection.get_database_backend(), sql)).await;
    let row = row.expect("the query runs").expect("one row");
    row.try_get_by_index::<String>(0)
        .or_else(|_| row.try_get_by_index::<i64>(0).map(|number| number.to_string()))
        .expect("a text or a number")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("the file exists").permissions().mode() & 0o777
}

#[tokio::test]
async fn files_are_private_and_commits_are_durable() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("odd name?#.db");
    fs::write(&path, b"").expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("widened");
    let db = opened::<OutboxMigrator>(&path).await;
    db.writer().execute_unprepared("INSERT INTO meta VALUES ('a', 'b')").await.expect("inserts");

    for suffix in ["", "-wal", "-shm"] {
        assert_eq!(mode(&side_file(&path, suffix)), 0o600, "mode of the file with suffix {suffix:?}");
    }
    for (pragma, value) in [("journal_mode", "wal"), ("synchronous", "2"), ("foreign_keys", "1")] {
        assert_eq!(text(db.writer(), &format!("PRAGMA {pragma}")).await, value, "{pragma}");
    }
    assert_eq!(text(db.readers(), "SELECT value FROM meta").await, "b");
    assert!(db.readers().execute_unprepared("DELETE FROM meta").await.is_err(), "readers cannot write");

    assert!(db.wal_bytes() > 0);
    let done = db.checkpoint(CheckpointMode::Truncate).await.expect("checkpoints");
    assert!(!done.blocked);
    assert_eq!(db.wal_bytes(), 0);
    db.close().await.expect("closes");
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = opened::<InboxMigrator>(&dir.path().join("inbox.db")).await;
    migrate::<InboxMigrator>(db.writer(), "again").await.expect("a second run changes nothing");
    db.writer()
        .execute_unprepared("INSERT INTO seaql_migrations VALUES ('m29990101_000001_future', 1)")
        .await
        .expect("inserts");
    let error = migrate::<InboxMigrator>(db.writer(), "inbox.db").await.expect_err("refused");
    assert!(matches!(&error, Error::SchemaNewer { version, .. } if version == "m29990101_000001_future"), "{error}");
}

#[tokio::test]
async fn broker_tables_keep_one_row_per_client_id() {
    let dir = tempfile::tempdir().expect("a directory");
    let db = opened::<BrokerMigrator>(&dir.path().join("broker.db")).await;
    let insert = |id: &str, client: &str| {
        format!(
            "INSERT INTO message_queue (id, mesh_id, sender_member_id, sender_pubkey, sender_member_pubkey, \
             sender_name, target_spec, priority, nonce, ciphertext, created_at, client_message_id) \
             VALUES ('{id}', 'm', 's', 'k', 'k', 'n', 't', 'now', x'00', x'00', 1, {client})"
        )
    };
    for (id, client) in [("1", "NULL"), ("2", "NULL"), ("3", "'x'")] {
        db.writer().execute_unprepared(&insert(id, client)).await.expect("inserts");
    }
    let error = db.writer().execute_unprepared(&insert("4", "'x'")).await.expect_err("the id is taken");
    assert!(tx::is_unique_violation(&error), "{error}");
}

#[tokio::test]
async fn a_second_process_makes_the_writer_busy_and_the_retry_succeeds() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("outbox.db");
    let one = opened::<OutboxMigrator>(&path).await;
    let two = Sqlite::open(&path, 1).await.expect("opens");
    two.writer().execute_unprepared("PRAGMA busy_timeout = 1").await.expect("set");
    let held = tx::begin(one.writer()).await.expect("begins");
    let error = tx::begin(two.writer()).await.expect_err("the lock is taken");
    assert!(tx::is_retryable(&error), "{error}");

    let release = async {
        tokio::task::yield_now().await;
        held.rollback().await.expect("rolls back");
    };
    let write = tx::write::<_, DbErr, _>(two.writer(), |tx| {
        Box::pin(async move { tx.execute_unprepared("INSERT INTO meta VALUES ('k', 'v')").await })
    });
    let ((), written) = tokio::join!(release, write);
    assert_eq!(written.expect("the retry commits").rows_affected(), 1);
}

#[tokio::test]
async fn a_damaged_file_is_found_and_moved_with_its_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("inbox.db");
    assert_eq!(integrity_check(&path, Depth::Full).await.expect("checked"), Integrity::Missing);
    let db = opened::<InboxMigrator>(&path).await;
    db.close().await.expect("closes");
    assert_eq!(integrity_check(&path, Depth::Full).await.expect("checked"), Integrity::Sound);

    fs::write(&path, vec![7_u8; 8192]).expect("overwritten");
    fs::write(side_file(&path, "-wal"), b"log").expect("written");
    assert!(matches!(integrity_check(&path, Depth::Quick).await, Ok(Integrity::Damaged(_))));

    fs::write(side_file(&path, "-wal"), b"log").expect("written");
    let first = quarantine(&path, UnixMillis(5)).expect("moved");
    assert_eq!(first, dir.path().join("inbox.db.corrupt-5"));
    assert!(side_file(&first, "-wal").exists() && !path.exists() && !side_file(&path, "-wal").exists());
    fs::write(&path, b"x").expect("written");
    assert_ne!(quarantine(&path, UnixMillis(5)).expect("moved"), first, "an earlier quarantine is never overwritten");
}
