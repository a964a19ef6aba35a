//! The usual batch, of which everything is new: the memory of what was seen, the
//! messages and their transaction in one trip to the engine.
//!
//! Written for the engine's own interface. Nothing is looked up before, and no
//! conflict is let pass: the keys of the tables refuse the whole batch.

use sea_orm::DbErr;

use super::SeenHash;
use crate::db::OwnWriter;
use crate::db::script::{BEGIN, COMMIT, Script};
use crate::domain::time::UnixMillis;
use crate::inbox::entity::Model;

/// All columns of a message.
const COLUMNS: &str = "id, seq, client_message_id, broker_message_id, mesh, kind, topic, topic_id, sender_member_id, \
     sender_pubkey, sender_name, body, meta, priority, mentions, received_at, sent_at, reply_to_id, history_id, \
     auto_hops, unencrypted, stale, before_recovery, clock_back";
const COLUMN_COUNT: usize = 24;

/// Notes hashes as seen and inserts messages, at most `script::MAX_ROWS` of each,
/// and commits. A hash or a message that is there already is a unique violation,
/// after which nothing is stored.
pub(in crate::inbox) async fn insert_all_new(
    writer: &mut OwnWriter,
    hashes: &[SeenHash],
    rows: &[Model],
    now: UnixMillis,
) -> Result<(), DbErr> {
    let mut script = Script::default();
    script.add(BEGIN);
    script.insert("inbox_seen (hash, seen_at)", 2, hashes.len(), "", |script| {
        for hash in hashes {
            script.bind(hash.as_slice()).bind(now.0);
        }
    });
    script.insert(&format!("inbox ({COLUMNS})"), COLUMN_COUNT, rows.len(), "", |script| {
        for row in rows {
            bind(script, row);
        }
    });
    script.add(COMMIT);
    writer.run(script).await.map(drop)
}

/// In the order of [`COLUMNS`].
fn bind(script: &mut Script, row: &Model) {
    script
        .bind(&row.id)
        .bind(row.seq)
        .bind(&row.client_message_id)
        .bind(&row.broker_message_id)
        .bind(&row.mesh)
        .bind(&row.kind)
        .bind(&row.topic)
        .bind(&row.topic_id)
        .bind(&row.sender_member_id)
        .bind(&row.sender_pubkey)
        .bind(&row.sender_name)
        .bind(&row.body)
        .bind(&row.meta)
        .bind(&row.priority)
        .bind(&row.mentions)
        .bind(row.received_at)
        .bind(row.sent_at)
        .bind(&row.reply_to_id)
        .bind(&row.history_id)
        .bind(row.auto_hops)
        .bind(row.unencrypted)
        .bind(row.stale)
        .bind(row.before_recovery)
        .bind(row.clock_back);
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashSet;
    use std::path::Path;

    use claudemesh_migrations::InboxMigrator;

    use super::*;
    use crate::db::connect::Sqlite;
    use crate::db::migrate::migrate;
    use crate::db::tx;
    use crate::inbox::repo::{self, Filter};

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    pub(in crate::inbox::repo) async fn database(folder: &Path) -> Sqlite {
        let db = Sqlite::open(&folder.join("inbox.db"), 1).await.expect("opens");
        migrate::<InboxMigrator>(db.writer(), "test").await.expect("migrates");
        db
    }

    async fn stored(db: &Sqlite) -> Vec<Model> {
        repo::page(db.readers(), &Filter { limit: 100, ..Filter::default() }).await.expect("reads")
    }

    /// Each column with a value of its own.
    pub(in crate::inbox::repo) fn message(number: u8) -> Model {
        let text = |column: &str| format!("{column} {number}");
        Model {
            id: text("id"),
            seq: i64::from(number),
            client_message_id: text("client_message_id"),
            broker_message_id: Some(text("broker_message_id")),
            mesh: text("mesh"),
            kind: "topic".to_owned(),
            topic: Some(text("topic")),
            topic_id: Some(text("topic_id")),
            sender_member_id: text("sender_member_id"),
            sender_pubkey: text("sender_pubkey"),
            sender_name: text("sender_name"),
            body: Some(text("body")),
            meta: Some(text("meta")),
            priority: text("priority"),
            mentions: Some(text("mentions")),
            received_at: 1000 + i64::from(number),
            sent_at: Some(2000 + i64::from(number)),
            reply_to_id: Some(text("reply_to_id")),
            history_id: Some(text("history_id")),
            auto_hops: Some(3000 + i32::from(number)),
            unencrypted: number == 1,
            stale: number == 2,
            before_recovery: number == 3,
            clock_back: number == 4,
        }
    }

    fn hash(number: u8) -> SeenHash {
        [number; 16]
    }

    #[test]
    fn every_column_has_its_place() {
        assert_eq!(COLUMNS.split(", ").count(), COLUMN_COUNT);
    }

    #[tokio::test]
    async fn what_was_written_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let db = database(folder.path()).await;
        let mut writer = db.own_writer();
        let empty = Model {
            broker_message_id: None,
            topic: None,
            topic_id: None,
            body: None,
            meta: None,
            mentions: None,
            sent_at: None,
            reply_to_id: None,
            history_id: None,
            auto_hops: None,
            ..message(4)
        };
        let rows = [message(1), message(2), message(3), empty, message(5)];
        let hashes: Vec<SeenHash> = (1..=5).map(hash).collect();
        insert_all_new(&mut writer, &hashes, &rows, NOW).await.expect("all are new");
        assert_eq!(stored(&db).await, rows);
        let unseen = repo::note_seen(db.writer(), &hashes, NOW).await.expect("notes");
        assert!(unseen.is_empty(), "{unseen:?}");
    }

    #[tokio::test]
    async fn a_redelivered_message_among_new_ones_is_stored_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let db = database(folder.path()).await;
        let mut writer = db.own_writer();
        insert_all_new(&mut writer, &[hash(1)], &[message(1)], NOW).await.expect("it is new");

        let again = Model { id: "another".to_owned(), seq: 3, ..message(1) };
        let rows = [message(2), again, message(4)];
        let hashes = [hash(2), hash(1), hash(4)];
        let error = insert_all_new(&mut writer, &hashes, &rows, NOW).await.expect_err("one of them is known");
        assert!(tx::is_unique_violation(&error), "{error}");
        assert_eq!(stored(&db).await, [message(1)], "nothing of the batch is there");

        // The lock is free, and the long way tells them apart.
        let transaction = tx::begin(db.writer()).await.expect("begins");
        let unseen = repo::note_seen(&transaction, &hashes, NOW).await.expect("notes");
        assert_eq!(unseen, HashSet::from([hash(2), hash(4)]));
        let new = repo::insert(&transaction, rows.to_vec()).await.expect("inserts");
        assert_eq!(new, HashSet::from([message(2).id, message(4).id]));
        transaction.commit().await.expect("commits");
        assert_eq!(stored(&db).await, [message(1), message(2), message(4)]);
    }

    /// Its row was removed for its age; the memory of it is longer.
    #[tokio::test]
    async fn a_message_without_its_row_is_refused_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let db = database(folder.path()).await;
        let mut writer = db.own_writer();
        insert_all_new(&mut writer, &[hash(1)], &[message(1)], NOW).await.expect("it is new");
        repo::prune(db.writer(), NOW, 10).await.expect("removes");
        assert!(stored(&db).await.is_empty());
        let again = Model { id: "another".to_owned(), seq: 2, ..message(1) };
        let error = insert_all_new(&mut writer, &[hash(1)], &[again], NOW).await.expect_err("it was seen");
        assert!(tx::is_unique_violation(&error), "{error}");
    }

    /// Its hash was forgotten, or never noted.
    #[tokio::test]
    async fn a_message_without_its_hash_is_refused_too() {
        let folder = tempfile::tempdir().expect("a folder");
        let db = database(folder.path()).await;
        let mut writer = db.own_writer();
        insert_all_new(&mut writer, &[hash(1)], &[message(1)], NOW).await.expect("it is new");
        let again = Model { id: "another".to_owned(), seq: 2, ..message(1) };
        let error = insert_all_new(&mut writer, &[hash(2)], &[again], NOW).await.expect_err("it is known");
        assert!(tx::is_unique_violation(&error), "{error}");
    }
}
