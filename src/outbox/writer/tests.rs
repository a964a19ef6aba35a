//! The writer with a real database and nobody else: which rows it hands over.

use sea_orm::EntityTrait as _;
use tempfile::TempDir;

use super::*;
use crate::config::outbox::Outbox as OutboxConfig;
use crate::outbox::entity::Entity;
use crate::outbox::repo::{Depth, database, row};
use crate::outbox::{AcceptedState, Error};

struct Alone {
    writer: Writer,
    arriving: mpsc::Receiver<Model>,
    db: Sqlite,
    _folder: TempDir,
    _commands: mpsc::Sender<Command>,
}

impl Alone {
    async fn new() -> Self {
        let (folder, db, own) = database().await;
        let (shared, arriving) = Shared::new(&OutboxConfig::default(), Depth::default(), false);
        let (sender, commands) = mpsc::channel(1);
        let writer = Writer {
            wal: WalKeeper::new(db.clone()),
            own,
            db: db.clone(),
            clock: Clock::system(),
            commands,
            fsync_mode: FsyncMode::Strict,
            shared,
            step: MAX_BATCH,
            orphans: Vec::new(),
            unwritten: Vec::new(),
            failures: Repeated::default(),
            resumed: false,
            stop: CancellationToken::new(),
        };
        Self { writer, arriving, db, _folder: folder, _commands: sender }
    }

    /// The sender has nothing that waits and room for so many.
    fn offer(&self, room: u32) {
        self.writer.shared.handover.catch_up();
        self.writer.shared.handover.offer(room);
    }

    /// Accepts rows in one batch; the answers.
    async fn accept(&mut self, rows: Vec<Model>) -> Vec<Result<Accepted, Error>> {
        let (batch, answers): (Vec<_>, Vec<_>) = rows
            .into_iter()
            .map(|row| {
                let (reply, answer) = oneshot::channel();
                (Command::Accept { row: Box::new(row), reply }, answer)
            })
            .unzip();
        self.writer.write(batch).await;
        let mut all = Vec::new();
        for answer in answers {
            all.push(answer.await.expect("an answer"));
        }
        all
    }

    fn arrived(&mut self) -> Vec<String> {
        let mut ids = Vec::new();
        while let Ok(row) = self.arriving.try_recv() {
            ids.push(row.id);
            self.writer.shared.handover.arrived(1);
        }
        ids
    }

    async fn stored(&self) -> Vec<Model> {
        Entity::find().all(self.db.readers()).await.expect("reads")
    }

    /// Whether the sender was woken to claim.
    fn woken(&self) -> bool {
        use futures_util::FutureExt as _;
        self.writer.shared.wake.notified().now_or_never().is_some()
    }
}

/// As they come from a caller.
fn new(number: i32) -> Model {
    Model { attempts: 0, first_transmit_at: None, ..row(number) }
}

#[tokio::test]
async fn rows_leave_at_once_where_the_sender_has_room() {
    let mut alone = Alone::new().await;
    alone.offer(3);
    let answers = alone.accept(vec![new(1), new(2)]).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|one| one.state == AcceptedState::Queued)));
    assert_eq!(alone.arrived(), [new(1).id, new(2).id], "in the order of accept");
    let stored = alone.stored().await;
    assert!(stored.iter().all(|row| row.status == "inflight" && row.attempts == 1), "{stored:?}");
    assert!(!alone.woken(), "there is nothing to claim");
    assert!(alone.accept(vec![new(3), new(4)]).await.iter().all(Result::is_ok));
    assert!(alone.arrived().is_empty(), "one place was left");
    assert!(alone.woken());
    assert!(alone.stored().await[2..].iter().all(|row| row.status == "pending" && row.attempts == 0));
}

#[tokio::test]
async fn a_second_send_with_the_same_id_is_not_handed_over() {
    let mut alone = Alone::new().await;
    let first = new(1);
    alone.accept(vec![first.clone()]).await;
    // It waits for its next try; the sender has nothing else.
    alone.offer(8);
    let again = Model { id: "later".to_owned(), ..first.clone() };
    let answers = alone.accept(vec![again, new(2)]).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|one| one.state == AcceptedState::Queued)));
    assert_eq!(alone.arrived(), [new(2).id], "the first one is another row, and it waits");
    assert_eq!(alone.writer.shared.handover.under_way(), 0);
    assert_eq!(alone.stored().await.len(), 2);
}

#[tokio::test]
async fn what_goes_to_oneself_takes_no_place_of_the_others() {
    let mut alone = Alone::new().await;
    alone.offer(1);
    let own = Model { to_self: true, ..new(1) };
    assert!(alone.accept(vec![own, new(2)]).await.iter().all(Result::is_ok));
    assert_eq!(alone.arrived(), [new(2).id], "there was room for one");
    let stored = alone.stored().await;
    assert_eq!((stored[0].status.as_str(), stored[0].attempts), ("pending", 0), "it is claimed by its own task");
    assert!(!alone.woken(), "and is none of the sender's");
}

#[tokio::test]
async fn what_nobody_takes_waits_like_others() {
    let mut alone = Alone::new().await;
    alone.offer(8);
    alone.arriving.close();
    assert!(alone.accept(vec![new(1)]).await[0].is_ok(), "it is stored");
    assert_eq!(alone.writer.shared.handover.under_way(), 0);
    alone.accept(vec![new(2)]).await;
    let stored = alone.stored().await;
    let one = &stored[0];
    assert_eq!((one.status.as_str(), one.attempts, one.first_transmit_at), ("pending", 0, None));
    assert!(alone.woken());
}

#[tokio::test]
async fn what_was_not_stored_is_not_handed_over() {
    let mut alone = Alone::new().await;
    alone.offer(8);
    let wrong = Model { priority: "no such priority".to_owned(), ..new(1) };
    assert!(alone.accept(vec![wrong, new(2)]).await.iter().all(Result::is_err), "one commit for both");
    assert!(alone.arrived().is_empty());
    assert_eq!(alone.writer.shared.handover.under_way(), 0);
    assert!(alone.stored().await.is_empty());
    assert!(alone.accept(vec![new(2)]).await[0].is_ok(), "the next one is");
}

#[tokio::test]
async fn only_what_needs_room_ends_a_full_disk() {
    let mut alone = Alone::new().await;
    alone.writer.shared.disk_full.store(true, Ordering::Relaxed);
    let (reply, claimed) = oneshot::channel();
    let only = Only::Free { held: Vec::new(), after: String::new() };
    alone.writer.write(vec![Command::Claim { limit: 10, only, reply }]).await;
    assert!(claimed.await.expect("an answer").expect("it is read").rows.is_empty());
    assert!(alone.writer.shared.disk_full.load(Ordering::Relaxed), "nothing was written");
    alone.accept(vec![row(1)]).await;
    assert!(!alone.writer.shared.disk_full.load(Ordering::Relaxed));
}
