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
    write(&mut writer, Batch { rows: &rows, outcomes: &[], reported: &[] }, NOW).await.expect("writes");
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
async fn what_waits_is_taken_in_the_order_of_accept_once_it_is_due() {
    let (_folder, db) = waiting(8).await;
    // A retry of each has become due, the later one's before the earlier one's.
    change(&db, "UPDATE outbox SET next_attempt_at = 9000 WHERE id = 'id 000'").await;
    change(&db, "UPDATE outbox SET next_attempt_at = 8000 WHERE id = 'id 001'").await;
    change(&db, "UPDATE outbox SET next_attempt_at = 10001 WHERE id = 'id 002'").await;
    assert_eq!(claimed(&db, 3, &Only::All).await, ["id 000", "id 001", "id 003"]);
    let without = Only::Without(vec!["target_id 005".to_owned()]);
    assert_eq!(claimed(&db, 2, &without).await, ["id 004", "id 006"]);
    assert_eq!(claimed(&db, 9, &Only::Target("target_id 002".to_owned())).await, Vec::<String>::new(), "not yet due");
    assert_eq!(claimed(&db, 9, &Only::Target("target_id 005".to_owned())).await, ["id 005"]);
}

/// What this member sends to itself and what goes to the broker do not see each other.
#[tokio::test]
async fn sends_to_oneself_are_taken_apart_from_the_others() {
    let (_folder, db) = waiting(5).await;
    change(&db, "UPDATE outbox SET to_self = 1 WHERE id IN ('id 000', 'id 002', 'id 003')").await;
    change(&db, "UPDATE outbox SET next_attempt_at = 20000 WHERE id = 'id 002'").await;
    let due = next_due(db.readers(), &BTreeMap::new()).await.expect("reads");
    assert_eq!(due, Some(UnixMillis(1001)), "of the others");
    assert_eq!(next_due_to_self(db.readers()).await.expect("reads"), Some(UnixMillis(1000)));
    assert_eq!(claimed(&db, 9, &Only::OwnMember).await, ["id 000", "id 003"]);
    assert_eq!(next_due_to_self(db.readers()).await.expect("reads"), Some(UnixMillis(20_000)));
    assert_eq!(claimed(&db, 9, &Only::Target("target_id 002".to_owned())).await, Vec::<String>::new());
    assert_eq!(claimed(&db, 9, &Only::All).await, ["id 001", "id 004"]);
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

/// A sort of a long backlog would stall every claim.
#[tokio::test]
async fn each_index_gives_the_order() {
    let (_folder, db) = waiting(1).await;
    for (sql, sorts) in [
        // Of what was found, which is no more than the limit of each.
        (claim_sql(""), 1),
        (claim_sql("AND target_id = ?3 "), 1),
        (claim_sql("AND target_id NOT IN (?3, ?4) "), 1),
        (OLDEST_PENDING.to_owned(), 0),
    ] {
        let plan = Statement::from_string(DbBackend::Sqlite, format!("EXPLAIN QUERY PLAN {sql}"));
        let steps = db.readers().query_all_raw(plan).await.expect("plans");
        let steps: Vec<String> = steps.iter().map(|step| step.try_get_by_index(3).expect("a text")).collect();
        let count = |part: &str| steps.iter().filter(|step| step.contains(part)).count();
        assert_eq!(count("B-TREE FOR ORDER"), sorts, "{steps:#?}");
        assert_eq!((count("INDEX outbox_moved"), count("INDEX outbox_pending")), (1, 1), "{steps:#?}");
    }
}
