//! A batch of the writer in two trips to SQLite's thread.
//!
//! The same rows as [`super::dedupe`], [`super::messages`] and
//! [`super::deliveries`] write, as scripts of [`crate::db::script`]. What varies
//! in number goes in as rows of a power of two or as one JSON value, so that the
//! texts are few and stay prepared.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use sea_orm::sqlx::sqlite::SqliteRow;
use sea_orm::sqlx::{Decode, Row as _, Sqlite, Type};
use sea_orm::{DbErr, RuntimeErr};
use serde_json::Value;

use super::deliveries::Ended;
use super::entity::{dedupe, delivery, history, message};
use super::turns::{Turn, Turns};
use crate::db::script::{BEGIN, COMMIT, Done, MAX_ROWS, Script};
use crate::db::wal::WalKeeper;
use crate::db::{self, OwnWriter};

/// Messages, and copies, that one batch may hold.
pub const MOST_ROWS: usize = MAX_ROWS;

const STANDING: &str = "SELECT id FROM member WHERE id IN (SELECT value FROM json_each(?)) AND revoked_at IS NULL";
const DEDUPE: &str = "client_message_dedupe (mesh_id, sender_member_id, client_message_id, broker_message_id, \
     history_id, request_fingerprint, destination_kind, destination_ref, first_seen_at, expires_at, \
     history_available)";
const DEDUPE_COLUMNS: usize = 11;
const TAKE: &str = "ON CONFLICT DO NOTHING RETURNING broker_message_id";
const MESSAGE: &str = "message_queue (id, mesh_id, sender_member_id, sender_pubkey, sender_member_pubkey, \
     sender_name, target_spec, priority, nonce, ciphertext, client_message_id, request_fingerprint, reply_to_id, \
     created_at)";
const MESSAGE_COLUMNS: usize = 14;
const HISTORY: &str = "message_history (id, mesh_id, sender_member_id, destination_kind, destination_ref, created_at)";
const HISTORY_COLUMNS: usize = 6;
const DELIVERY: &str = "delivery (id, broker_message_id, mesh_id, sender_member_id, recipient_member_id, \
     target_session_key, client_message_id, bytes, created_at, claimed_at, claim_id, claim_expires_at, delivered_at, \
     expired_at, expiry_told_at, waiting_at, reject_reason)";
const DELIVERY_COLUMNS: usize = 17;
const SETTLE: &str = "UPDATE delivery SET delivered_at = ?, waiting_at = COALESCE(waiting_at, expired_at), \
     expired_at = NULL, reject_reason = NULL WHERE id IN (SELECT value FROM json_each(?)) \
     AND delivered_at IS NULL AND (expired_at IS NULL OR reject_reason IS NOT NULL)";
const PARK: &str = "UPDATE delivery SET waiting_at = ? WHERE id IN (SELECT value FROM json_each(?)) \
     AND delivered_at IS NULL AND expired_at IS NULL AND waiting_at IS NULL";
const REJECT: &str = "UPDATE delivery SET expired_at = ?, reject_reason = ? \
     WHERE id IN (SELECT value FROM json_each(?)) AND delivered_at IS NULL AND expired_at IS NULL";
const RECEIPT: &str = " RETURNING id, mesh_id, sender_member_id, recipient_member_id, client_message_id, bytes, \
     waiting_at, delivered_at, reject_reason";
const TOLD: &str = "UPDATE delivery SET expiry_told_at = ? WHERE id IN (SELECT value FROM json_each(?))";
const CLAIM: &str = "UPDATE delivery SET claimed_at = ?, claim_id = v.value, claim_expires_at = ? \
     FROM json_each(?) AS v WHERE delivery.id = v.key \
     AND delivery.delivered_at IS NULL AND delivery.expired_at IS NULL AND delivery.waiting_at IS NULL";
const ROLLBACK: &str = "ROLLBACK";

/// The writer task's way to the tables.
#[derive(Debug)]
pub struct BatchWriter {
    own: OwnWriter,
    wal: WalKeeper,
    turns: Turns,
    /// Held within a transaction.
    turn: Option<Turn>,
}

/// What the first trip found.
#[derive(Debug, Default)]
pub struct Begun {
    /// The members asked for that are there and not revoked.
    pub standing: HashSet<String>,
    /// The broker message ids of the dedupe rows that were written.
    pub won: HashSet<String>,
}

/// What the second trip writes.
#[derive(Debug, Default)]
pub struct Writes<'a> {
    /// Messages, at most [`MOST_ROWS`].
    pub messages: Vec<&'a message::Model>,
    /// Their history rows.
    pub histories: Vec<history::Model>,
    /// Their copies, at most [`MOST_ROWS`].
    pub copies: Vec<&'a delivery::Model>,
    /// Copies that their receivers keep until a key comes.
    pub parked: BTreeSet<String>,
    /// Copies that were acknowledged as stored.
    pub settled: BTreeSet<String>,
    /// Copies that were set aside, by the reason.
    pub rejected: Vec<(&'static str, BTreeSet<String>)>,
    /// Copies of whose end the sender knows.
    pub told: Vec<&'a str>,
    /// Copies that were pushed, each with the connection.
    pub claims: BTreeMap<&'a str, &'a str>,
    /// The time of all of it.
    pub now: i64,
    /// Until when the pushes count.
    pub claimed_until: i64,
}

/// The copies that the acknowledgements of a batch have changed.
#[derive(Debug, Default)]
pub struct Receipts {
    /// Stored for the first time.
    pub ended: Vec<Ended>,
    /// Set aside.
    pub rejected: Vec<Ended>,
    /// Kept until a key comes.
    pub parked: Vec<Ended>,
}

// === impl BatchWriter ===

impl BatchWriter {
    pub(super) fn new(db: &db::Sqlite, turns: &Turns) -> Self {
        Self { own: db.own_writer(), wal: WalKeeper::new(db.clone()), turns: turns.clone(), turn: None }
    }

    /// Moves the log into the file now and then. To be called after each batch, once
    /// its answers are out, with the pages that it changed, roughly.
    pub async fn tidy(&mut self, pages: u64) {
        self.wal.wrote(pages, 0).await;
    }

    /// After an error no transaction is left.
    async fn run(&mut self, script: Script) -> Result<Vec<Done>, DbErr> {
        let done = self.own.run(script).await;
        if done.is_err() {
            self.turn = None;
        }
        done
    }

    /// Begins a transaction, reads which of these members stand, and takes the
    /// ids that are free. At most [`MOST_ROWS`] rows.
    pub async fn begin(&mut self, concerned: &HashSet<&str>, taken: &[dedupe::Model]) -> Result<Begun, DbErr> {
        let mut script = Script::default();
        script.add(BEGIN).add(STANDING).bind(concerned.iter().copied().collect::<Value>().to_string());
        if !taken.is_empty() {
            script.insert(DEDUPE, DEDUPE_COLUMNS, taken.len(), TAKE, |script| {
                taken.iter().for_each(|row| bind_dedupe(script, row));
            });
        }
        self.turn = Some(self.turns.take().await);
        let mut done = self.run(script).await?.into_iter().skip(1);
        let mut first_column = || -> Result<HashSet<String>, DbErr> {
            done.next().unwrap_or_default().rows.iter().map(|row| column(row, 0)).collect()
        };
        Ok(Begun { standing: first_column()?, won: first_column()? })
    }

    /// Writes the rest of the transaction, or all of one, and commits. Returns what
    /// became of copies that were acknowledged.
    pub async fn finish(&mut self, writes: &Writes<'_>) -> Result<Receipts, DbErr> {
        let mut script = Script::default();
        if self.turn.is_none() {
            script.add(BEGIN);
            self.turn = Some(self.turns.take().await);
        }
        writes.add_to(&mut script);
        script.add(COMMIT);
        let done = self.run(script).await?;
        self.turn = None;
        let mut receipts = Receipts::default();
        // Of these statements only those of receipts give rows, as they leave them.
        for row in done.iter().flat_map(|done| &done.rows) {
            let copy = ended(row)?;
            if column::<Option<i64>>(row, 7)?.is_some() {
                receipts.ended.push(copy);
            } else if copy.reject_reason.is_some() {
                receipts.rejected.push(copy);
            } else {
                receipts.parked.push(Ended { had_left: false, ..copy });
            }
        }
        Ok(receipts)
    }

    /// Takes back what [`Self::begin`] did.
    pub async fn roll_back(&mut self) {
        let mut script = Script::default();
        script.add(ROLLBACK);
        // An error has closed the connection, and the transaction with it.
        let _ = self.run(script).await;
        self.turn = None;
    }

    #[cfg(test)]
    pub(in crate::broker) fn is_open(&self) -> bool {
        self.own.is_open()
    }

    /// Closes the connection until the next batch.
    pub async fn close(&mut self) {
        self.own.close().await;
    }
}

// === impl Writes ===

impl Writes<'_> {
    fn add_to(&self, script: &mut Script) {
        if !self.messages.is_empty() {
            script.insert(MESSAGE, MESSAGE_COLUMNS, self.messages.len(), "", |script| {
                self.messages.iter().for_each(|row| bind_message(script, row));
            });
        }
        if !self.histories.is_empty() {
            script.insert(HISTORY, HISTORY_COLUMNS, self.histories.len(), "", |script| {
                self.histories.iter().for_each(|row| bind_history(script, row));
            });
        }
        if !self.copies.is_empty() {
            script.insert(DELIVERY, DELIVERY_COLUMNS, self.copies.len(), "", |script| {
                self.copies.iter().for_each(|row| bind_copy(script, row));
            });
        }
        for (sql, ids) in [(PARK, &self.parked), (SETTLE, &self.settled)] {
            if !ids.is_empty() {
                script.add(&format!("{sql}{RECEIPT}")).bind(self.now).bind(json(ids));
            }
        }
        for (reason, ids) in &self.rejected {
            script.add(&format!("{REJECT}{RECEIPT}")).bind(self.now).bind(*reason).bind(json(ids));
        }
        if !self.told.is_empty() {
            script.add(TOLD).bind(self.now).bind(json(&self.told));
        }
        if !self.claims.is_empty() {
            let by_id: Value = self.claims.iter().map(|(id, claim_id)| (*id, *claim_id)).collect();
            script.add(CLAIM).bind(self.now).bind(self.claimed_until).bind(by_id.to_string());
        }
    }
}

fn json<'i, I: AsRef<str> + 'i>(ids: impl IntoIterator<Item = &'i I>) -> String {
    ids.into_iter().map(|id| Value::from(id.as_ref())).collect::<Value>().to_string()
}

fn bind_dedupe(script: &mut Script, row: &dedupe::Model) {
    script
        .bind(&row.mesh_id)
        .bind(&row.sender_member_id)
        .bind(&row.client_message_id)
        .bind(&row.broker_message_id)
        .bind(&row.history_id)
        .bind(&row.request_fingerprint)
        .bind(&row.destination_kind)
        .bind(&row.destination_ref)
        .bind(row.first_seen_at)
        .bind(row.expires_at)
        .bind(row.history_available);
}

fn bind_message(script: &mut Script, row: &message::Model) {
    script
        .bind(&row.id)
        .bind(&row.mesh_id)
        .bind(&row.sender_member_id)
        .bind(&row.sender_pubkey)
        .bind(&row.sender_member_pubkey)
        .bind(&row.sender_name)
        .bind(&row.target_spec)
        .bind(&row.priority)
        .bind(&row.nonce)
        .bind(&row.ciphertext)
        .bind(&row.client_message_id)
        .bind(&row.request_fingerprint)
        .bind(&row.reply_to_id)
        .bind(row.created_at);
}

fn bind_history(script: &mut Script, row: &history::Model) {
    script
        .bind(&row.id)
        .bind(&row.mesh_id)
        .bind(&row.sender_member_id)
        .bind(&row.destination_kind)
        .bind(&row.destination_ref)
        .bind(row.created_at);
}

fn bind_copy(script: &mut Script, row: &delivery::Model) {
    script
        .bind(&row.id)
        .bind(&row.broker_message_id)
        .bind(&row.mesh_id)
        .bind(&row.sender_member_id)
        .bind(&row.recipient_member_id)
        .bind(&row.target_session_key)
        .bind(&row.client_message_id)
        .bind(row.bytes)
        .bind(row.created_at)
        .bind(row.claimed_at)
        .bind(&row.claim_id)
        .bind(row.claim_expires_at)
        .bind(row.delivered_at)
        .bind(row.expired_at)
        .bind(row.expiry_told_at)
        .bind(row.waiting_at)
        .bind(&row.reject_reason);
}

fn ended(row: &SqliteRow) -> Result<Ended, DbErr> {
    Ok(Ended {
        id: column(row, 0)?,
        mesh_id: column(row, 1)?,
        sender_member_id: column(row, 2)?,
        recipient_member_id: column(row, 3)?,
        client_message_id: column(row, 4)?,
        bytes: column(row, 5)?,
        had_left: column::<Option<i64>>(row, 6)?.is_some(),
        reject_reason: column(row, 8)?,
    })
}

fn column<'r, T: Decode<'r, Sqlite> + Type<Sqlite>>(row: &'r SqliteRow, index: usize) -> Result<T, DbErr> {
    row.try_get(index).map_err(|error| DbErr::Query(RuntimeErr::SqlxError(error.into())))
}

#[cfg(test)]
mod tests {
    use sea_orm::EntityTrait as _;

    use super::*;
    use crate::broker::store::Store;
    use crate::config::broker::Database;
    use crate::runtime::clock::Clock;

    fn text(value: &str) -> String {
        value.to_owned()
    }

    #[test]
    fn every_column_has_its_place() {
        for (into, width) in [
            (DEDUPE, DEDUPE_COLUMNS),
            (MESSAGE, MESSAGE_COLUMNS),
            (HISTORY, HISTORY_COLUMNS),
            (DELIVERY, DELIVERY_COLUMNS),
        ] {
            assert_eq!(into.split(", ").count(), width, "{into}");
        }
    }

    // No two columns of a row are alike, so that none can stand in another's place.
    #[tokio::test]
    async fn rows_are_read_back_as_they_were_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&Database::Sqlite(dir.path().join("b.db")), Clock::system()).await.expect("a store");
        let mut writer = store.batch_writer().expect("it is SQLite");
        let ids: Vec<dedupe::Model> = (1..=3)
            .map(|n| dedupe::Model {
                mesh_id: text("mesh"),
                sender_member_id: text("sender"),
                client_message_id: format!("client-{n}"),
                broker_message_id: format!("message-{n}"),
                history_id: format!("history-{n}"),
                request_fingerprint: text("fingerprint"),
                destination_kind: text("dm"),
                destination_ref: text("target"),
                first_seen_at: 10 + n,
                expires_at: (n > 1).then_some(20 + n),
                history_available: n != 2,
            })
            .collect();
        let begun = writer.begin(&HashSet::from(["nobody"]), &ids).await.expect("it begins");
        assert!(begun.standing.is_empty());
        assert_eq!(begun.won.len(), 3, "{begun:?}");
        let message = message::Model {
            id: text("message-1"),
            mesh_id: text("mesh"),
            sender_member_id: text("sender"),
            sender_pubkey: text("key"),
            sender_member_pubkey: text("member key"),
            sender_name: text("name"),
            target_spec: text("target"),
            priority: text("now"),
            nonce: vec![0, 1],
            ciphertext: vec![2, 0, 255],
            client_message_id: Some(text("client-1")),
            request_fingerprint: None,
            reply_to_id: Some(text("reply")),
            created_at: 30,
            key_epoch: None,
        };
        let history = history::Model {
            id: text("message-1"),
            mesh_id: text("mesh"),
            sender_member_id: text("sender"),
            destination_kind: text("dm"),
            destination_ref: text("target"),
            created_at: 31,
        };
        let copy = delivery::Model {
            id: text("copy-1"),
            broker_message_id: text("message-1"),
            mesh_id: text("mesh"),
            sender_member_id: text("sender"),
            recipient_member_id: text("receiver"),
            target_session_key: Some(text("session")),
            client_message_id: Some(text("client-1")),
            bytes: 32,
            created_at: 33,
            claimed_at: Some(34),
            claim_id: Some(text("claim")),
            claim_expires_at: Some(35),
            delivered_at: None,
            expired_at: None,
            expiry_told_at: Some(36),
            waiting_at: Some(38),
            reject_reason: Some(text("reason")),
        };
        let gone = delivery::Model { id: text("copy-2"), expired_at: Some(37), expiry_told_at: None, ..copy.clone() };
        let open = delivery::Model { id: text("copy-3"), waiting_at: None, ..copy.clone() };
        let writes = Writes {
            messages: vec![&message],
            histories: vec![history.clone()],
            copies: vec![&copy, &gone, &open],
            ..Writes::default()
        };
        assert!(writer.finish(&writes).await.expect("it commits").ended.is_empty());

        let claims = BTreeMap::from([("copy-1", "other"), ("copy-2", "other"), ("copy-3", "other")]);
        let claim = Writes { claims, now: 40, claimed_until: 41, ..Writes::default() };
        assert!(writer.finish(&claim).await.expect("it commits").ended.is_empty());
        writer.close().await;

        let db = store.readers();
        assert_eq!(dedupe::Entity::find().all(db).await.expect("it reads"), ids);
        assert_eq!(message::Entity::find().all(db).await.expect("it reads"), [message]);
        assert_eq!(history::Entity::find().all(db).await.expect("it reads"), [history]);
        let claimed =
            delivery::Model { claimed_at: Some(40), claim_id: Some(text("other")), claim_expires_at: Some(41), ..open };
        assert_eq!(delivery::Entity::find().all(db).await.expect("it reads"), [copy, gone, claimed]);
    }
}
