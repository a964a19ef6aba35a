//! Batches on a real database.

use claudemesh_migrations::OutboxMigrator;
use sea_orm::{ConnectionTrait as _, DbBackend, EntityTrait as _, Statement};
use tempfile::TempDir;

use super::*;
use crate::db::connect::Sqlite;
use crate::db::migrate::migrate;
use crate::domain::outbox::{OutboxEvent, OutboxState, next};
use crate::outbox::entity::Entity;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

pub(in crate::outbox) async fn database() -> (TempDir, Sqlite, OwnWriter) {
    let folder = TempDir::new().expect("a folder");
    let db = Sqlite::open(&folder.path().join("outbox.db"), 1).await.expect("opens");
    migrate::<OutboxMigrator>(db.writer(), "test").await.expect("migrates");
    let writer = db.own_writer();
    (folder, db, writer)
}

/// Each column of a new row with a value of its own; every other one empty.
pub(in crate::outbox) fn row(number: i32) -> Model {
    let text = |column: &str| format!("{column} {number:03}");
    Model {
        id: text("id"),
        client_message_id: text("client_message_id"),
        payload: text("payload").into_bytes(),
        enqueued_at: 1000 + i64::from(number),
        attempts: 2000 + number,
        next_attempt_at: 3000 + i64::from(number),
        status: OutboxState::Pending.name().to_owned(),
        last_error: None,
        delivered_at: None,
        broker_message_id: None,
        request_fingerprint: vec![u8::try_from(number).expect("a small number"); 32],
        fingerprint_version: 4000 + number,
        wire_fingerprint: text("wire_fingerprint"),
        mesh: text("mesh"),
        sender_key: text("sender_key"),
        destination_kind: "dm".to_owned(),
        destination_ref: text("destination_ref"),
        target_id: text("target_id"),
        target_key: Some(text("target_key")),
        target_name: Some(text("target_name")),
        reply_to_id: Some(text("reply_to_id")),
        priority: "low".to_owned(),
        mentions: Some(text("mentions")),
        meta: Some(text("meta")),
        auto_hops: 5000 + number,
        allow_unencrypted: number % 2 == 1,
        history_id: None,
        degraded: Some(text("degraded")),
        first_transmit_at: Some(6000 + i64::from(number)),
        accepted_at: None,
        receiver_stored_at: None,
        requeued_at: None,
        dead_at: None,
        dead_reason: None,
        aborted_at: None,
        aborted_by: None,
        superseded_by: None,
        rejected_at: None,
        reject_reason: None,
        expired_at: None,
        delivered_count: 0,
        to_self: false,
    }
}

const NOTHING: Batch<'_> = Batch { rows: &[], outcomes: &[], reported: &[] };

#[tokio::test]
async fn rows_are_read_back_as_they_were_written() {
    let (_folder, db, mut writer) = database().await;
    let rows: Vec<Model> = (0..5).map(|number| Model { to_self: number % 2 == 0, ..row(number) }).collect();
    let new = write(&mut writer, Batch { rows: &rows, ..NOTHING }, NOW).await.expect("writes");
    assert_eq!(new, 5);
    assert_eq!(Entity::find().all(db.readers()).await.expect("reads"), rows);
    let again = [row(3), row(7)];
    let new = write(&mut writer, Batch { rows: &again, ..NOTHING }, NOW).await.expect("writes");
    assert_eq!(new, 1, "an id that is taken is left out");
}

#[tokio::test]
async fn outcomes_leave_the_states_that_they_may_leave() {
    let (_folder, db, mut writer) = database().await;
    let (at, error) = (UnixMillis(7), "why".to_owned());
    let accepted =
        Outcome::Accepted { broker_message_id: "b".to_owned(), history_id: Some("h".to_owned()), degraded: None };
    let outcomes = [
        (accepted, OutboxEvent::Accepted),
        (Outcome::Kept, OutboxEvent::Accepted),
        (Outcome::Retry { at, error: error.clone() }, OutboxEvent::RefusedForNow),
        (Outcome::Deferred { at, error: error.clone() }, OutboxEvent::RefusedForNow),
        (Outcome::Dead { error }, OutboxEvent::RefusedForGood),
    ];
    let mut rows = Vec::new();
    let mut reports = Vec::new();
    let mut expected = Vec::new();
    for (outcome, event) in &outcomes {
        for state in OutboxState::ALL {
            let row = Model { status: state.name().to_owned(), ..row(i32::try_from(rows.len()).expect("few")) };
            reports.push((row.id.clone(), outcome.clone()));
            expected.push(next(state, *event).unwrap_or(state).name().to_owned());
            rows.push(row);
        }
    }
    let of = |index: usize, at: i64, outcome: AtReceiver| Reported {
        client_message_id: rows[index].client_message_id.clone(),
        at: UnixMillis(at),
        outcome,
    };
    let rejected = AtReceiver::Rejected("invalid");
    let reported = [
        of(0, 11, AtReceiver::Stored),
        of(0, 9, AtReceiver::Stored),
        of(0, 12, rejected),
        of(1, 13, rejected),
        of(1, 14, AtReceiver::Rejected("unreadable")),
        of(2, 15, AtReceiver::Expired),
    ];
    write(&mut writer, Batch { rows: &rows, outcomes: &reports, reported: &reported }, NOW).await.expect("writes");
    let found = Entity::find().all(db.readers()).await.expect("reads");
    let states: Vec<String> = found.iter().map(|row| row.status.clone()).collect();
    assert_eq!(states, expected);
    let done = &found[1];
    assert_eq!((done.broker_message_id.as_deref(), done.history_id.as_deref()), (Some("b"), Some("h")));
    assert_eq!((done.degraded.as_deref(), done.accepted_at), (None, Some(NOW.0)));
    assert_eq!((found[0].receiver_stored_at, found[0].delivered_count), (Some(9), 2), "each frame is a receiver");
    assert_eq!(found[0].rejected_at, None, "what was stored stays so");
    assert_eq!((found[1].rejected_at, found[1].reject_reason.as_deref()), (Some(13), Some("invalid")));
    assert_eq!((found[2].expired_at, found[2].delivered_count), (Some(15), 0));
    let kept = &found[6];
    assert_eq!((kept.broker_message_id.as_deref(), kept.accepted_at), (None, Some(NOW.0)));
    assert_eq!(kept.receiver_stored_at, Some(NOW.0));
    let (retried, deferred) = (&found[11], &found[16]);
    assert_eq!((retried.next_attempt_at, retried.attempts), (7, 2011));
    assert_eq!((deferred.next_attempt_at, deferred.attempts), (7, 2015), "it does not count as an attempt");
    let dead = &found[21];
    assert_eq!((dead.dead_at, dead.dead_reason.as_deref()), (Some(NOW.0), Some("why")));
}

#[tokio::test]
async fn an_outcome_finds_its_row_by_its_id() {
    let (_folder, db, _) = database().await;
    for sql in [ACCEPTED, KEPT, RETRIED, DEFERRED, DEAD, STORED, REJECTED, EXPIRED] {
        let plan = Statement::from_string(DbBackend::Sqlite, format!("EXPLAIN QUERY PLAN {sql}"));
        let steps = db.readers().query_all_raw(plan).await.expect("plans");
        let steps: Vec<String> = steps.iter().map(|step| step.try_get_by_index(3).expect("a text")).collect();
        assert!(steps.iter().any(|step| step.starts_with("SEARCH outbox USING INDEX sqlite_autoindex")), "{steps:?}");
    }
}
