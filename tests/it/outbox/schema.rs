//! The tables of a daemon's two databases, as a reader of the files finds them.

use serde_json::{Value, json};

use crate::support::fake_broker::FakeBroker;
use crate::support::sqlite::Db;

/// Name, type, NOT NULL and place in the primary key of each column.
async fn columns(db: &Db, table: &str) -> Vec<(String, String, bool, bool)> {
    let rest = format!("FROM pragma_table_info('{table}')");
    let rows = db.objects("name, type, \"notnull\", pk", &rest).await;
    let flag = |row: &Value, name: &str| row[name].as_i64().unwrap_or_default() != 0;
    rows.iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
            (text("name"), text("type"), flag(row, "\"notnull\""), flag(row, "pk"))
        })
        .collect()
}

#[track_caller]
fn assert_columns(found: &[(String, String, bool, bool)], expected: &[(&str, &str, bool)]) {
    for (name, kind, not_null) in expected {
        let column =
            found.iter().find(|(own, ..)| own == name).unwrap_or_else(|| panic!("no column {name}: {found:?}"));
        assert_eq!((column.1.as_str(), column.2), (*kind, *not_null), "{name}");
    }
}

async fn indexed(db: &Db, index: &str) -> Vec<String> {
    db.texts(&format!("SELECT name FROM pragma_index_info('{index}') ORDER BY seqno")).await
}

/// Whether the columns, in this order, have a unique index.
async fn unique(db: &Db, table: &str, expected: &[&str]) -> bool {
    let indexes = db.texts(&format!("SELECT name FROM pragma_index_list('{table}') WHERE \"unique\" = 1")).await;
    for index in indexes {
        if indexed(db, &index).await == expected {
            return true;
        }
    }
    false
}

// Covers: R158, R159
#[tokio::test]
async fn the_outbox_table() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    alice.stop().await;
    let db = alice.outbox_db().await;
    let found = columns(&db, "outbox").await;
    assert_columns(
        &found,
        &[
            ("id", "TEXT", true),
            ("client_message_id", "TEXT", true),
            ("payload", "BLOB", true),
            ("enqueued_at", "INTEGER", true),
            ("next_attempt_at", "INTEGER", true),
            ("status", "TEXT", true),
            ("last_error", "TEXT", false),
            ("delivered_at", "INTEGER", false),
            ("broker_message_id", "TEXT", false),
        ],
    );
    assert!(found.iter().any(|(name, _, _, key)| name == "id" && *key), "{found:?}");
    assert!(unique(&db, "outbox", &["client_message_id"]).await);
    assert_eq!(indexed(&db, "outbox_pending").await, ["status", "next_attempt_at"]);

    // A row with every column that has no default, copied with other values.
    let insert = |id: &str, client_id: &str, status: &str| {
        format!(
            "INSERT INTO outbox (id, client_message_id, payload, request_fingerprint, fingerprint_version, \
             wire_fingerprint, mesh, sender_key, destination_kind, destination_ref, target_id, priority, \
             enqueued_at, next_attempt_at, status) VALUES ('{id}', {client_id}, x'00', x'00', 1, 'f', 'demo', 'k', \
             'dm', 'bob', 'm', 'next', 1, 1, {status})"
        )
    };
    db.run(&insert("1", "'a'", "'pending'")).await;
    let attempts = db.objects("attempts", "FROM outbox").await;
    assert_eq!(attempts, [json!({"attempts": 0})], "attempts start at 0");
    for (number, status) in ["'inflight'", "'done'", "'dead'"].into_iter().enumerate() {
        db.run(&insert(&format!("s{number}"), &format!("'s{number}'"), status)).await;
    }
    for bad in ["'sent'", "''", "NULL", "'PENDING'"] {
        assert!(db.refuses(&insert("2", "'b'", bad)).await, "status {bad}");
    }
    assert!(db.refuses(&insert("3", "'a'", "'pending'")).await, "a second row with the same client_message_id");
    assert!(db.refuses(&insert("4", "NULL", "'pending'")).await, "a row without client_message_id");
    assert!(db.refuses(&insert("1", "'c'", "'pending'")).await, "a second row with the same id");
    db.close().await;
}

// Covers: R172-R174
#[tokio::test]
async fn the_inbox_table() {
    let fake = FakeBroker::start().await;
    let mut alice = fake.member("alice");
    alice.start().await;
    alice.stop().await;
    let db = alice.inbox_db().await;
    let found = columns(&db, "inbox").await;
    assert_columns(
        &found,
        &[
            ("id", "TEXT", true),
            ("client_message_id", "TEXT", true),
            ("broker_message_id", "TEXT", false),
            ("mesh", "TEXT", true),
            ("topic", "TEXT", false),
            ("sender_pubkey", "TEXT", true),
            ("sender_name", "TEXT", true),
            ("body", "TEXT", false),
            ("meta", "TEXT", false),
            ("received_at", "INTEGER", true),
            ("reply_to_id", "TEXT", false),
        ],
    );
    assert!(unique(&db, "inbox", &["mesh", "sender_member_id", "client_message_id"]).await);
    assert_eq!(indexed(&db, "inbox_received_at").await, ["received_at"]);
    assert_eq!(indexed(&db, "inbox_topic").await, ["topic"]);
    assert_eq!(indexed(&db, "inbox_sender").await, ["sender_pubkey"]);
    let rest = "WHERE type = 'trigger' OR sql LIKE '%fts%' OR sql LIKE '%VIRTUAL%'";
    assert_eq!(db.number(&format!("SELECT count(*) FROM sqlite_master {rest}")).await, 0, "no search table or trigger");
    db.close().await;
}
