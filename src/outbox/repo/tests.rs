//! The order in which rows are taken, on a real database.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

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
    let claimed = claim_due(db.writer(), NOW, limit, only).await.expect("claims");
    claimed.rows.into_iter().map(|row| row.id).collect()
}

fn in_turn(held: &[&str], after: &str) -> Only {
    Only::Free { held: held.iter().map(|&target| target.to_owned()).collect(), after: after.to_owned() }
}

/// All but those who are held, from the first on.
fn without(held: &[&str]) -> Only {
    in_turn(held, "")
}

#[tokio::test]
async fn what_waits_is_taken_in_the_order_of_accept_once_it_is_due() {
    let (_folder, db) = waiting(8).await;
    // A retry of each has become due, the later one's before the earlier one's.
    change(&db, "UPDATE outbox SET next_attempt_at = 9000 WHERE id = 'id 000'").await;
    change(&db, "UPDATE outbox SET next_attempt_at = 8000 WHERE id = 'id 001'").await;
    change(&db, "UPDATE outbox SET next_attempt_at = 10001 WHERE id = 'id 002'").await;
    assert_eq!(claimed(&db, 3, &without(&[])).await, ["id 000", "id 001", "id 003"]);
    assert_eq!(claimed(&db, 2, &without(&["target_id 005"])).await, ["id 004", "id 006"]);
    assert_eq!(claimed(&db, 9, &Only::Target("target_id 002".to_owned())).await, Vec::<String>::new(), "not yet due");
    assert_eq!(claimed(&db, 9, &Only::Target("target_id 005".to_owned())).await, ["id 005"]);
}

/// What this member sends to itself and what goes to the broker do not see each other.
#[tokio::test]
async fn sends_to_oneself_are_taken_apart_from_the_others() {
    let (_folder, db) = waiting(5).await;
    change(&db, "UPDATE outbox SET to_self = 1 WHERE id IN ('id 000', 'id 002', 'id 003')").await;
    change(&db, "UPDATE outbox SET next_attempt_at = 20000 WHERE id = 'id 002'").await;
    let due = next_due(db.readers(), UnixMillis(0)).await.expect("reads");
    assert_eq!(due, Some(UnixMillis(1001)), "of the others");
    assert_eq!(next_due_to_self(db.readers()).await.expect("reads"), Some(UnixMillis(1000)));
    assert_eq!(claimed(&db, 9, &Only::OwnMember).await, ["id 000", "id 003"]);
    assert_eq!(next_due_to_self(db.readers()).await.expect("reads"), Some(UnixMillis(20_000)));
    assert_eq!(claimed(&db, 9, &Only::Target("target_id 002".to_owned())).await, Vec::<String>::new());
    assert_eq!(claimed(&db, 9, &without(&[])).await, ["id 001", "id 004"]);
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

#[tokio::test]
async fn of_rows_that_are_not_yet_due_the_next_one_is_told() {
    let (_folder, db) = waiting(4).await;
    change(&db, "UPDATE outbox SET next_attempt_at = 10009 WHERE id = 'id 001'").await;
    change(&db, "UPDATE outbox SET next_attempt_at = 10005 WHERE id = 'id 002'").await;
    assert_eq!(next_due(db.readers(), NOW).await.expect("reads"), Some(UnixMillis(10_005)));
    change(&db, "UPDATE outbox SET status = 'inflight' WHERE next_attempt_at > 10000").await;
    assert_eq!(next_due(db.readers(), NOW).await.expect("reads"), None, "what is due waits for something else");
}

/// Rows of `a` to `d`: three of the first, two of each of the others.
#[tokio::test]
async fn receivers_have_equal_shares_and_turns() {
    let (_folder, db) = waiting(9).await;
    change(&db, "UPDATE outbox SET target_id = substr('aaabbccdd', enqueued_at - 999, 1)").await;
    let ids = |numbers: &[i32]| -> Vec<String> { numbers.iter().map(|number| format!("id {number:03}")).collect() };
    let take = async |limit, held: &[&str], after: &str| {
        let claimed = claim_due(db.writer(), NOW, limit, &in_turn(held, after)).await.expect("claims");
        (claimed.rows.into_iter().map(|row| row.id).collect::<Vec<_>>(), claimed.more)
    };
    assert_eq!(take(2, &[], "b").await, (ids(&[5, 7]), true), "the next two");
    assert_eq!(take(3, &[], "d").await, (ids(&[0, 3, 6]), true), "on from the first");
    assert_eq!(take(2, &["d"], "c").await, (ids(&[1, 4]), true), "who is held is passed over");
    assert_eq!(take(9, &["a", "e"], "").await, (ids(&[8]), false), "all that there is");
    assert_eq!(take(1, &[], "a").await, (ids(&[2]), true), "who had the last turn is the last in line");
    assert_eq!(take(1, &[], "a").await, (ids(&[]), false));
}

/// A claim costs the same however much waits for those who are held.
#[tokio::test]
async fn rows_of_those_who_are_held_are_not_walked_through() {
    let mut steps = Vec::new();
    for backlog in [100, 10_000] {
        let (_folder, db) = waiting(60).await;
        // Between the rows of the others, and before all of them.
        change(&db, "UPDATE outbox SET target_id = substr('abc', 1 + enqueued_at % 3, 1)").await;
        let more = format!(
            "INSERT INTO outbox (id, client_message_id, payload, request_fingerprint, fingerprint_version, \
             wire_fingerprint, mesh, sender_key, destination_kind, destination_ref, target_id, priority, enqueued_at, \
             next_attempt_at, status) WITH RECURSIVE number(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM number \
             WHERE n < {backlog}) SELECT 'more ' || n, 'more ' || n, x'00', x'00', 1, 'f', 'demo', 'k', 'dm', 'bob', \
             substr('ac', 1 + n % 2, 1), 'low', 900 + n / 100, 900 + n / 100, 'pending' FROM number"
        );
        change(&db, &more).await;
        let counted = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&counted);
        let mut connection = db.writer().get_sqlite_connection_pool().acquire().await.expect("the connection");
        connection.lock_handle().await.expect("the engine").set_progress_handler(1, move || {
            counter.fetch_add(1, Ordering::Relaxed);
            true
        });
        drop(connection);
        let first = claimed(&db, 5, &without(&["a", "c"])).await;
        assert_eq!(first, ["id 000", "id 003", "id 006", "id 009", "id 012"]);
        assert_eq!(next_due(db.writer(), NOW).await.expect("reads"), None);
        steps.push(counted.load(Ordering::Relaxed));
    }
    assert!(steps[0] > 100 && steps[1] < steps[0] + 50, "{steps:?}");
}

/// A sort of a long backlog would stall every claim.
#[tokio::test]
async fn each_index_gives_the_order() {
    let (_folder, db) = waiting(1).await;
    for (sql, index) in [
        (claim_sql(ONE), "INDEX outbox_target (target_id=?)"),
        (claim_sql(IN_TURN), "INDEX outbox_target (target_id=?)"),
        (OLDEST_PENDING.to_owned(), "INDEX outbox_moved"),
    ] {
        let plan = Statement::from_string(DbBackend::Sqlite, format!("EXPLAIN QUERY PLAN {sql}"));
        let steps = db.readers().query_all_raw(plan).await.expect("plans");
        let steps: Vec<String> = steps.iter().map(|step| step.try_get_by_index(3).expect("a text")).collect();
        let has = |part: &str| steps.iter().any(|step| step.contains(part));
        assert!(has(index) && !has("B-TREE FOR ORDER") && !has("SCAN outbox USING INDEX outbox_p"), "{steps:#?}");
    }
}
