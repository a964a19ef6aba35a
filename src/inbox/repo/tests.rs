//! Pages of the inbox.

use claudemesh_migrations::InboxMigrator;
use sea_orm::QueryTrait as _;
use sea_orm_migration::MigratorTrait as _;

use super::all_new::tests::{database, message};
use super::*;
use crate::db::connect::Sqlite;

/// Times of messages in their order; the clock is set back twice.
const TIMES: [i64; 12] = [10, 20, 30, 30, 15, 16, 30, 31, 40, 5, 41, 41];

/// One message for each of these times, marked as the pipeline marks them.
fn messages() -> Vec<Model> {
    let latest = |index: usize| TIMES[..index].iter().max().copied().unwrap_or(0);
    (0..TIMES.len())
        .map(|index| Model {
            received_at: TIMES[index],
            clock_back: TIMES[index] < latest(index),
            sender_member_id: format!("member {}", index % 3),
            ..message(u8::try_from(index).expect("a few"))
        })
        .collect()
}

async fn places(db: &Sqlite, filter: Filter) -> Vec<i64> {
    page(db.readers(), &filter).await.expect("reads").iter().map(|row| row.seq).collect()
}

/// What the filter says, row by row.
fn expected(filter: &Filter) -> Vec<i64> {
    let mut rows: Vec<Model> = messages();
    if filter.newest_first {
        rows.reverse();
    }
    rows.retain(|row| {
        filter.since.is_none_or(|since| row.received_at >= since.0)
            && filter.from.as_ref().is_none_or(|from| row.sender_member_id == *from)
            && filter.after_seq.is_none_or(|seq| row.seq > signed(seq))
            && filter.before_seq.is_none_or(|seq| row.seq < signed(seq))
    });
    rows.truncate(usize::try_from(filter.limit).expect("a few"));
    rows.iter().map(|row| row.seq).collect()
}

// Covers: R181
#[tokio::test]
async fn a_page_has_what_its_filter_says_also_when_the_clock_was_set_back() {
    let folder = tempfile::tempdir().expect("a folder");
    let db = database(folder.path()).await;
    insert(db.writer(), messages()).await.expect("inserts");
    for since in [None, Some(0), Some(5), Some(10), Some(15), Some(17), Some(30), Some(31), Some(41), Some(42)] {
        for from in [None, Some("member 0"), Some("member 2"), Some("nobody")] {
            for newest_first in [false, true] {
                for (after_seq, before_seq, limit) in [(None, None, 100), (None, None, 2), (Some(3), Some(9), 100)] {
                    let filter = Filter {
                        after_seq,
                        before_seq,
                        since: since.map(UnixMillis),
                        topic: None,
                        from: from.map(str::to_owned),
                        newest_first,
                        limit,
                    };
                    assert_eq!(places(&db, filter.clone()).await, expected(&filter), "{filter:?}");
                }
            }
        }
    }
}

/// A page of a million messages must not read them all.
#[tokio::test]
async fn no_page_is_sorted_or_read_from_end_to_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let db = database(folder.path()).await;
    let since = Some(UnixMillis(1));
    let from = Some("member".to_owned());
    let all = Filter { limit: 10, ..Filter::default() };
    let filters = [
        all.clone(),
        Filter { newest_first: true, ..all.clone() },
        Filter { since, ..all.clone() },
        Filter { since, newest_first: true, ..all.clone() },
        Filter { from: from.clone(), ..all.clone() },
        Filter { from, since, newest_first: true, ..all },
    ];
    for filter in filters {
        let query = select(&filter, filter.since.map(|_| 1)).build(DbBackend::Sqlite);
        let plan = format!("EXPLAIN QUERY PLAN {}", query.sql);
        let plan = Statement { sql: plan, ..query };
        let rows = db.readers().query_all_raw(plan).await.expect("a plan");
        let lines: Vec<String> = rows.iter().map(|row| row.try_get("", "detail").expect("a line")).collect();
        let wanted = if filter.from.is_some() { "inbox_member" } else { "sqlite_autoindex_inbox_2" };
        assert!(lines.len() == 1 && lines[0].contains(wanted), "{filter:?}: {lines:?}");
    }
}

#[tokio::test]
async fn the_migration_marks_what_is_there() {
    let folder = tempfile::tempdir().expect("a folder");
    let db = Sqlite::open(&folder.path().join("inbox.db"), 1).await.expect("opens");
    InboxMigrator::up(db.writer(), Some(2)).await.expect("the schema before");
    for row in messages() {
        let sql = "INSERT INTO inbox (id, seq, client_message_id, mesh, kind, sender_member_id, sender_pubkey, \
                   sender_name, priority, received_at) VALUES (?, ?, ?, 'm', 'direct', 'm', 'k', 'n', 'next', ?)";
        let values = [row.id.into(), row.seq.into(), row.client_message_id.into(), row.received_at.into()];
        db.writer().execute_raw(Statement::from_sql_and_values(DbBackend::Sqlite, sql, values)).await.expect("inserts");
    }
    InboxMigrator::up(db.writer(), None).await.expect("migrates");
    let rows = page(db.readers(), &Filter { limit: 100, ..Filter::default() }).await.expect("reads");
    let marked: Vec<bool> = rows.iter().map(|row| row.clock_back).collect();
    assert_eq!(marked, messages().iter().map(|row| row.clock_back).collect::<Vec<_>>());
}
