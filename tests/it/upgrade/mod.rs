//! Databases of earlier versions, opened by this one.
//!
//! `data/<version>/` holds both databases as that version wrote them, with rows
//! in every state. Whoever adds a migration keeps what is there, and adds the
//! databases of a version that was released.

mod killed;
mod snapshot;

use std::path::{Path, PathBuf};

use crate::support::daemon::Daemon;
use crate::support::fake_broker::FakeBroker;
use crate::support::sqlite::Db;

/// Settings under which nothing is old, however long ago the data was made.
const KEEP_ALL: &str = "[outbox]\nmax_age_hours = 87600\naccept_redelivery_risk = true\n\
                        done_retention_hours = 87600\n[inbox]\nretention_days = 3650\n";

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/upgrade/data")
}

/// The versions of which there are databases.
fn versions() -> Vec<String> {
    let mut versions: Vec<String> = std::fs::read_dir(data())
        .expect("tests/it/upgrade/data")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    versions.sort();
    assert!(!versions.is_empty());
    versions
}

/// A member with the databases of a version, not started.
async fn member(version: &str) -> Daemon {
    // Nobody listens any more when it starts.
    let alice = FakeBroker::start().await.member("alice");
    alice.configure(KEEP_ALL);
    for file in ["outbox.db", "inbox.db", "schema_version"] {
        std::fs::copy(data().join(version).join(file), alice.file(file)).expect("the stored database");
    }
    alice
}

/// The schema of both databases.
async fn schema(alice: &Daemon) -> String {
    let mut text = String::new();
    for (name, db) in [("outbox", alice.outbox_db().await), ("inbox", alice.inbox_db().await)] {
        text += &format!("-- {name}\n{}\n", schema_of(&db).await);
        db.close().await;
    }
    text
}

async fn schema_of(db: &Db) -> String {
    db.texts("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name").await.join(";\n")
}

/// Every row of both databases, without what depends on the moment of the run.
async fn rows(alice: &Daemon) -> String {
    let mut text = String::new();
    for (name, db) in [("outbox", alice.outbox_db().await), ("inbox", alice.inbox_db().await)] {
        text += &rows_of(name, &db).await;
        db.close().await;
    }
    text
}

async fn rows_of(name: &str, db: &Db) -> String {
    let mut text = String::new();
    for table in db.texts("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name").await {
        text += &format!("-- {name}.{table}\n");
        for row in table_rows(db, &table).await {
            text += &format!("{row}\n");
        }
    }
    text
}

async fn table_rows(db: &Db, table: &str) -> Vec<String> {
    let moment = ["applied_at", "next_attempt_at"];
    let columns = db.texts(&format!("SELECT name FROM pragma_table_info('{table}')")).await;
    let shown: Vec<String> = columns
        .iter()
        .filter(|column| !moment.contains(&column.as_str()))
        .map(|column| format!("'{column}=' || quote({column})"))
        .collect();
    let rest = if table == "meta" { "WHERE key NOT IN ('last_tick', 'last_vacuum')" } else { "" };
    db.texts(&format!("SELECT {} FROM {table} {rest} ORDER BY 1", shown.join(" || ' ' || "))).await
}
