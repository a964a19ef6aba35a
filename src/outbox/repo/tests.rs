//! The order in which rows are taken, on a real database.

use sea_orm::{ConnectionTrait as _, DbBackend, Statement};

use super::batch::tests::{database, row};
use super::*;
use crate::db::connect::Sqlite;

const NOW: UnixMillis = UnixMillis(10_000);

/// Rows that were never tried, accepted at 1000, 1001 and so on.
async fn waiting(count: i32) -> (tempfile::TempDir, Sqlite) {
    let (folder, db, mut writer) = database().await;
    let rows: Vec<Model> = (0..count)
        .map(|number| {
            let row = row(number);
            Model { attempts: 0, next_attempt_at: row.enqueued_at, ..row }
        })
        .collect();
    write(&mut writer, Batch { rows: &rows, outcomes: &[], stored: &[] }, NOW).await.expect("writes");
    (folder, db)
}

async fn change(db: &Sqlite, sql: &str) {
    db.writer().execute_unprepared(sql).await.expect(sql);
}

async fn claimed(db: &Sqlite, limit: u32, only: &Only) -> Vec<String> {
    let rows = claim_due(db.writer(), NOW, limit, only).await.expect("claims");
    rows.into_iter().map(|row| row.id).collect()
}

#[tokio::test]
async fn what_waits_is_taken_in_the_order_of_accept_and_a_retry_when_it_is_due() {
    let (_folder, db) = waiting(6).await;
    change(&db, "UPDATE outbox SET next_attempt_at = 1004 WHERE id = 'id 000'").await;
    change(&db, "UPDATE outbox SET next_attempt_at = 10001 WHERE id = 'id 002'").await;
    assert_eq!(claimed(&db, 2, &Only::All).await, ["id 001", "id 003"]);
    let without = Only::Without(vec!["target_id 005".to_owned()]);
    assert_eq!(claimed(&db, 9, &without).await, ["id 000", "id 004"]);
    assert_eq!(claimed(&db, 9, &Only::Target("target_id 002".to_owned())).await, Vec::<String>::new(), "not yet due");
    assert_eq!(claimed(&db, 9, &Only::Target("target_id 005".to_owned())).await, ["id 005"]);
}

#[tokio::test]
async fn the_oldest_row_is_found_wherever_its_due_time_has_gone() {
    let (_folder, db) = waiting(4).await;
    let oldest = async || depth(db.readers()).await.expect("reads").oldest_pending.map(|at| at.0);
    assert_eq!(oldest().await, Some(1000));
    change(&db, "UPDATE outbox SET next_attempt_at = 50000 WHERE id = 'id 000'").await;
    assert_eq!(oldest().await, Some(1000), "it waits for its next attempt");
    change(&db, "UPDATE outbox SET status = 'done' WHERE id = 'id 000'").await;
    assert_eq!(oldest().await, Some(1001));
    change(&db, "UPDATE outbox SET status = 'inflight'").await;
    assert_eq!(oldest().await, None);
}

/// With a long backlog a sort, or a walk through it, would stall every claim.
#[tokio::test]
async fn neither_is_sorted_nor_walked_through() {
    let (_folder, db) = waiting(1).await;
    for (sql, searches) in [
        (claim_sql(""), 2),
        (claim_sql("AND target_id = ?3 "), 2),
        (claim_sql("AND target_id NOT IN (?3, ?4) "), 2),
        (OLDEST_PENDING.to_owned(), 2),
    ] {
        let plan = Statement::from_string(DbBackend::Sqlite, format!("EXPLAIN QUERY PLAN {sql}"));
        let steps = db.readers().query_all_raw(plan).await.expect("plans");
        let steps: Vec<String> = steps.iter().map(|step| step.try_get_by_index(3).expect("a text")).collect();
        assert!(!steps.iter().any(|step| step.contains("B-TREE FOR ORDER")), "{steps:?}");
        let found = steps.iter().filter(|step| step.starts_with("SEARCH outbox USING")).count();
        assert_eq!(found, searches, "{steps:?}");
    }
}
