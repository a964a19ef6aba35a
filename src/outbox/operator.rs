//! What operators do with rows: look, queue again, retire, clear.
//!
//! A change goes through the writer like every other one, in one transaction;
//! what is allowed is the table in `domain::operator`.

use sea_orm::{DatabaseConnection, DbErr};
use tokio::sync::oneshot;

use super::entity::Model;
use super::repo::operator::{self as statements, Cleared, Entry};
use super::writer::Command;
use super::{Error, Handle, answer, prepare, repo};
use crate::db::tx;
use crate::domain::age_limit::DedupeWindow;
use crate::domain::fingerprint::{self, LocalFingerprint};
use crate::domain::ids::ClientMessageId;
use crate::domain::message::{MAX_BODY_BYTES, MessageError, Meta, Priority, SendRequest};
use crate::domain::operator::{Facts, Refused, requeue_same, retire};
use crate::domain::outbox::OutboxState;
use crate::domain::time::UnixMillis;

/// Rows that one commit of a clearing looks at.
pub(super) const STEP: u64 = 2000;
/// The same on a full disk, where the commit itself must find room.
pub(super) const SMALL_STEP: u64 = 64;
/// Entries that a page holds at most.
pub const MAX_PAGE: u32 = 1000;

/// How a row is queued again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requeue {
    /// A successor with this id.
    pub new_id: Option<ClientMessageId>,
    /// A successor with an id that is minted.
    pub mint_id: bool,
    /// The successor's text in place of the old one.
    pub patched: Option<String>,
}

/// A page of entries.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Where the next page begins; `None` at the end.
    pub next_page_token: Option<String>,
}

/// What the writer is asked to do for an operator, or for the keeper.
#[derive(Debug)]
pub(super) enum Task {
    /// Queue again under the own id.
    Same { id: String },
    /// Retire, and insert the successor that stands here.
    Successor { id: String, row: Box<Model> },
    /// Retire.
    Drop { id: String },
    /// Clear a step of rows.
    Clear { after: String, ended_before: UnixMillis, step: u64 },
    /// Forget cleared rows.
    Forget { ended_before: UnixMillis, id_bound: String },
    /// Set a value of the file as a whole.
    SetMeta { key: &'static str, value: String },
    /// Count the age of rows that were accepted in this span from now.
    Rebase { from: UnixMillis, to: UnixMillis },
    /// No row waits beyond this time.
    Clamp { to: UnixMillis },
    /// Give freed pages back to the disk.
    Vacuum,
    /// Look whether a log that was held can start over.
    LookAtLog,
    /// Make what room can be made on a full disk; also by a VACUUM, where a database of
    /// so many bytes fits beside the old one.
    MakeRoom { vacuumed: Option<u64> },
}

/// What a task came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Done {
    /// It is written.
    Written,
    /// So many rows.
    Rows(u64),
    /// A step of a clearing, and where the next one begins.
    Cleared(Cleared, Option<String>),
}

/// What the decision of a task needs beside the row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) now: UnixMillis,
    pub(super) window: DedupeWindow,
    pub(super) max_age: std::time::Duration,
}

// === impl Handle ===

impl Handle {
    /// A page of entries in the order in which they were queued.
    pub async fn entries(&self, states: &[OutboxState], token: &str, limit: u32) -> Result<Page, Error> {
        if !token.is_empty() && ulid::Ulid::from_string(token).is_err() {
            let reason = "it is not one that this daemon gave".to_owned();
            return Err(Error::Field { field: "page_token", reason });
        }
        let limit = limit.clamp(1, MAX_PAGE) as usize;
        let after = Some(token).filter(|token| !token.is_empty());
        // One more than asked tells whether there is a next page.
        let mut entries =
            statements::entries(self.db.readers(), states, after, limit as u64 + 1).await.map_err(unreadable)?;
        let more = entries.len() > limit;
        entries.truncate(limit);
        let next_page_token = entries.last().filter(|_| more).map(|entry| entry.id.clone());
        Ok(Page { entries, next_page_token })
    }

    /// One entry.
    pub async fn entry(&self, id: &str) -> Result<Entry, Error> {
        if id.is_empty() {
            return Err(Error::Field { field: "id", reason: "it is missing or empty".to_owned() });
        }
        let found = statements::entry(self.db.readers(), id).await.map_err(unreadable)?;
        found.ok_or_else(|| Error::NoEntry { id: id.chars().take(128).collect() })
    }

    /// The entry that a send was made under; `None` when none was.
    pub async fn sent(&self, id: &ClientMessageId) -> Result<Option<Entry>, Error> {
        statements::sent(self.db.readers(), id.as_str()).await.map_err(unreadable)
    }

    /// One entry with its text and its metadata as canonical JSON.
    pub async fn content(&self, id: &str) -> Result<(Entry, String, Option<String>), Error> {
        let entry = self.entry(id).await?;
        let row = statements::whole(self.db.readers(), &entry.id).await.map_err(unreadable)?;
        let row = row.ok_or(Error::NoEntry { id: entry.id.clone() })?;
        Ok((entry, String::from_utf8_lossy(&row.payload).into_owned(), row.meta))
    }

    /// Queues an entry again. Gives the entry that is queued now, and the one
    /// that it took the place of.
    pub async fn requeue(&self, id: &str, how: Requeue) -> Result<(Entry, Option<Entry>), Error> {
        let entry = self.entry(id).await?;
        if how == Requeue::default() {
            self.task(Task::Same { id: entry.id.clone() }).await?;
            self.queued_again();
            return Ok((self.entry(&entry.id).await?, None));
        }
        let row = statements::whole(self.db.readers(), &entry.id).await.map_err(unreadable)?;
        let row = row.ok_or(Error::NoEntry { id: entry.id.clone() })?;
        let successor = self.successor(row, how)?;
        self.check_room(&prepare::id_of(&successor)?)?;
        let new = successor.id.clone();
        self.task(Task::Successor { id: entry.id.clone(), row: Box::new(successor) }).await?;
        self.queued_again();
        Ok((self.entry(&new).await?, Some(self.entry(&entry.id).await?)))
    }

    /// Retires an entry and clears its text.
    pub async fn drop_entry(&self, id: &str) -> Result<Entry, Error> {
        let entry = self.entry(id).await?;
        self.task(Task::Drop { id: entry.id.clone() }).await?;
        self.shared.recount.notify_one();
        self.entry(&entry.id).await
    }

    /// Clears the text and metadata of entries that are done or aborted; without
    /// `confirm` only tells how much that would be.
    pub async fn prune(&self, confirm: bool) -> Result<Cleared, Error> {
        if !confirm {
            return statements::clearable(self.db.readers()).await.map_err(unreadable);
        }
        let cleared = self.clear_ended_before(UnixMillis(i64::MAX), STEP).await?;
        tracing::info!(entries = cleared.rows, bytes = cleared.bytes, "The outbox was pruned by an operator");
        self.shared.recount.notify_one();
        Ok(cleared)
    }

    /// Clears in steps, so that sends are written in between.
    pub(super) async fn clear_ended_before(&self, ended_before: UnixMillis, step: u64) -> Result<Cleared, Error> {
        let (mut all, mut after) = (Cleared::default(), String::new());
        loop {
            match self.task(Task::Clear { after: after.clone(), ended_before, step }).await? {
                Done::Cleared(step, next) => {
                    all.rows += step.rows;
                    all.bytes += step.bytes;
                    match next {
                        Some(next) => after = next,
                        None => return Ok(all),
                    }
                }
                Done::Written | Done::Rows(_) => return Ok(all),
            }
        }
    }

    /// Bytes of a long log of the database that cannot start over; zero if it can.
    pub fn held_log(&self) -> u64 {
        self.db.held_log()
    }

    /// About the size of the database after a VACUUM.
    pub(super) async fn vacuumed_bytes(&self) -> Result<u64, Error> {
        statements::vacuumed_bytes(self.db.readers()).await.map_err(unreadable)
    }

    /// Rows that are done, and rows that are retired.
    pub async fn ended(&self) -> Result<(u64, u64), Error> {
        statements::ended(self.db.readers()).await.map_err(unreadable)
    }

    /// The age limit in force and what would be safe, when it is longer.
    pub fn risky_age(&self) -> Option<(u32, u32)> {
        let terms = self.terms();
        let safe_hours = terms.window.safe_hours();
        let hours = u32::try_from(terms.max_age.as_secs() / 3600).unwrap_or(u32::MAX);
        (hours > safe_hours).then_some((hours, safe_hours))
    }

    /// Hands a task to the writer and waits for it.
    pub(super) async fn task(&self, task: Task) -> Result<Done, Error> {
        let (reply, answer) = oneshot::channel();
        let gone = || Error::NotWritten("the daemon is stopping".to_owned());
        let terms = self.terms();
        self.commands.send(Command::Task { task, terms, reply }).await.map_err(|_| gone())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// The row that takes the place of another one: everything that decides where
    /// it goes is copied.
    fn successor(&self, old: Model, how: Requeue) -> Result<Model, Error> {
        let minted = || ClientMessageId::parse(self.prepare.ids.ulid());
        let client_message_id = match how.new_id {
            Some(id) => id,
            None => minted().map_err(|error| Error::Read(error.to_string()))?,
        };
        let now = self.prepare.clock.now();
        let mut row = Model {
            id: self.prepare.ids.ulid(),
            client_message_id: client_message_id.as_str().to_owned(),
            enqueued_at: now.0,
            attempts: 0,
            next_attempt_at: now.0,
            status: OutboxState::Pending.name().to_owned(),
            last_error: None,
            first_transmit_at: None,
            requeued_at: None,
            dead_at: None,
            dead_reason: None,
            receiver_stored_at: None,
            rejected_at: None,
            reject_reason: None,
            expired_at: None,
            delivered_count: 0,
            ..old
        };
        if let Some(text) = how.patched {
            self.patch(&mut row, text)?;
        }
        let stored = row.request_fingerprint.as_slice().try_into().map(LocalFingerprint);
        let stored = stored.map_err(|_| Error::Read(format!("the row {} has a damaged fingerprint", row.id)))?;
        row.wire_fingerprint = self.prepare.identity.wire_fingerprint(&client_message_id, &stored);
        Ok(row)
    }

    /// Gives a row another text, by the rules of a send.
    fn patch(&self, row: &mut Model, text: String) -> Result<(), Error> {
        let meta = row.meta.as_deref().map(Meta::from_json).transpose()?.flatten();
        let mentions = row.mentions.as_deref().and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
        let request = SendRequest {
            client_message_id: None,
            to: row.destination_ref.clone(),
            body: text,
            priority: Priority::from_name(&row.priority).unwrap_or_default(),
            meta,
            answered: Vec::new(),
            reply_to_id: row.reply_to_id.clone(),
            mentions,
            allow_unencrypted: row.allow_unencrypted,
            auto_hops: u32::try_from(row.auto_hops).unwrap_or(0),
        };
        if request.body.len() > MAX_BODY_BYTES {
            return Err(MessageError::TooLarge { got: request.body.len(), max: MAX_BODY_BYTES }.into());
        }
        request.validate()?;
        self.prepare.check_size(&request)?;
        let fingerprint = LocalFingerprint::of(&row.mesh, &row.destination_kind, &request);
        row.request_fingerprint = fingerprint.0.to_vec();
        row.fingerprint_version = fingerprint::VERSION;
        row.payload = request.body.into_bytes();
        Ok(())
    }

    fn queued_again(&self) {
        self.row_added();
        self.shared.wake.notify_one();
        self.shared.wake_to_self.notify_one();
        self.shared.recount.notify_one();
    }
}

/// Does a task in one transaction.
pub(super) async fn run(db: &DatabaseConnection, task: Task, terms: Terms) -> Result<Done, Error> {
    match task {
        Task::Vacuum => {
            use sea_orm::ConnectionTrait as _;
            return db.execute_unprepared("VACUUM").await.map(|_| Done::Written).map_err(unwritten);
        }
        Task::Clear { after, ended_before, step } => {
            let transaction = tx::begin(db).await.map_err(unwritten)?;
            let (cleared, next) =
                statements::clear(&transaction, &after, ended_before, step).await.map_err(unwritten)?;
            transaction.commit().await.map_err(unwritten)?;
            return Ok(Done::Cleared(cleared, next));
        }
        Task::Forget { ended_before, id_bound } => {
            return statements::forget(db, ended_before, &id_bound, STEP).await.map(Done::Rows).map_err(unwritten);
        }
        Task::SetMeta { key, value } => {
            return statements::set_meta(db, key, &value).await.map(|()| Done::Written).map_err(unwritten);
        }
        Task::Rebase { from, to } => {
            return statements::rebase(db, from, to, terms.now).await.map(Done::Rows).map_err(unwritten);
        }
        Task::Clamp { to } => {
            return statements::clamp(db, to).await.map(Done::Rows).map_err(unwritten);
        }
        // The writer does it.
        Task::LookAtLog | Task::MakeRoom { .. } => return Ok(Done::Written),
        Task::Same { .. } | Task::Successor { .. } | Task::Drop { .. } => {}
    }
    let transaction = tx::begin(db).await.map_err(unwritten)?;
    match task {
        Task::Same { id } => {
            let facts = facts(&transaction, &id).await?;
            requeue_same(facts, terms.window, terms.now, terms.max_age)
                .map_err(|refused| refusal(&id, facts, refused, "only a dead entry can be queued again"))?;
            statements::requeue(&transaction, &id, terms.now).await.map_err(unwritten)?;
        }
        Task::Successor { id, row } => {
            let facts = facts(&transaction, &id).await?;
            retire(facts).map_err(|refused| {
                refusal(&id, facts, refused, "a successor is made of a dead or pending entry; wait for one in flight")
            })?;
            if !statements::insert(&transaction, &row).await.map_err(unwritten)? {
                return Err(taken(&transaction, &row).await);
            }
            statements::abort(&transaction, &id, terms.now, Some(&row.id)).await.map_err(unwritten)?;
        }
        Task::Drop { id } => {
            let facts = facts(&transaction, &id).await?;
            retire(facts).map_err(|refused| {
                refusal(&id, facts, refused, "only a dead or pending entry can be dropped; wait for one in flight")
            })?;
            statements::abort(&transaction, &id, terms.now, None).await.map_err(unwritten)?;
        }
        _ => {}
    }
    transaction.commit().await.map_err(unwritten)?;
    Ok(Done::Written)
}

async fn facts(db: &impl sea_orm::ConnectionTrait, id: &str) -> Result<Facts, Error> {
    let entry = statements::entry(db, id).await.map_err(unwritten)?;
    let entry = entry.ok_or_else(|| Error::NoEntry { id: id.to_owned() })?;
    let state = OutboxState::from_name(&entry.status)
        .ok_or_else(|| Error::Read(format!("the row {id} has a damaged state")))?;
    Ok(Facts { state, first_transmit_at: entry.first_transmit_at.map(UnixMillis) })
}

fn refusal(id: &str, facts: Facts, refused: Refused, rule: &'static str) -> Error {
    match refused {
        Refused::WrongState => Error::WrongState { id: id.to_owned(), state: facts.state.name(), rule },
        Refused::WindowPassed => Error::WindowPassed { id: id.to_owned() },
    }
}

/// The conflict of a new id that another row holds.
async fn taken(db: &impl sea_orm::ConnectionTrait, row: &Model) -> Error {
    match repo::find(db, &[row.client_message_id.as_str()]).await {
        Ok(found) => match found.first() {
            Some(existing) => answer::taken(existing),
            None => Error::NotWritten("the successor was not inserted".to_owned()),
        },
        Err(error) => unwritten(error),
    }
}

fn unreadable(error: DbErr) -> Error {
    Error::Read(error.to_string())
}

fn unwritten(error: DbErr) -> Error {
    if tx::is_full(&error) { Error::NoRoom(error.to_string()) } else { Error::NotWritten(error.to_string()) }
}
