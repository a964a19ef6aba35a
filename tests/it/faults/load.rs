//! Many sends by many callers, and the count of what came of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;
use tokio::task::JoinSet;

use crate::support::daemon::{Daemon, unique};
use crate::support::grpc;
use crate::support::sqlite::Db;
use crate::support::wait;

/// Callers at once.
pub(crate) const CALLERS: usize = 16;

/// A running load. Every caller sends its share one after the other and goes
/// on to the next only after an answer, as a program does that keeps its word.
pub(crate) struct Load {
    pub(crate) run: String,
    pub(crate) total: usize,
    answered: Arc<AtomicUsize>,
    callers: JoinSet<()>,
}

impl Load {
    /// Starts `total` sends of `daemon` to `to`.
    pub(crate) fn start(daemon: &Daemon, to: &str, total: usize) -> Self {
        let run = unique("load").replace(' ', "-");
        let answered = Arc::new(AtomicUsize::new(0));
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let share = total / CALLERS + usize::from(caller < total % CALLERS);
            callers.spawn(call(
                daemon.socket(),
                to.to_owned(),
                format!("{run}-{caller}"),
                share,
                Arc::clone(&answered),
            ));
        }
        Self { run, total, answered, callers }
    }

    /// Waits until so many sends were answered.
    pub(crate) async fn reaches(&self, count: usize) {
        let what = format!("{count} answered sends");
        wait::until_within(wait::DEADLINE * 20, &what, async || {
            (self.answered.load(Ordering::SeqCst) >= count).then_some(())
        })
        .await;
    }

    /// Waits until every send was answered.
    pub(crate) async fn finish(&mut self) {
        while let Some(ended) = self.callers.join_next().await {
            ended.expect("a caller got its answers");
        }
        assert_eq!(self.answered.load(Ordering::SeqCst), self.total);
    }

    /// The number of times that each body of this run is in the receiver's
    /// inbox, once all are there.
    pub(crate) async fn arrived(&self, receiver: &Daemon) -> BTreeMap<String, usize> {
        let db = receiver.inbox_db().await;
        let count = format!("SELECT count(*) FROM inbox WHERE body LIKE '{}-%'", self.run);
        let what = format!("{} messages in the inbox", self.total);
        wait::until_within(wait::DEADLINE * 20, &what, async || {
            (db.number(&count).await >= self.total as i64).then_some(())
        })
        .await;
        let mut counts = BTreeMap::new();
        for body in db.texts(&format!("SELECT body FROM inbox WHERE body LIKE '{}-%'", self.run)).await {
            *counts.entry(body).or_insert(0) += 1;
        }
        db.close().await;
        counts
    }

    /// Every send of this run is in the receiver's inbox, each once.
    pub(crate) async fn assert_all_arrived_once(&self, receiver: &Daemon) {
        let counts = self.arrived(receiver).await;
        let repeated: Vec<_> = counts.iter().filter(|(_, count)| **count != 1).collect();
        assert!(repeated.is_empty(), "more than once: {repeated:?}");
        assert_eq!(counts.len(), self.total, "every acknowledged send is there");
    }

    /// The broker stored each send of this run once.
    pub(crate) async fn assert_stored_once(&self, database: &Path) {
        let db = Db::open(database).await;
        let like = format!("client_message_id LIKE '{}-%'", self.run);
        let rows = db.number(&format!("SELECT count(*) FROM message_queue WHERE {like}")).await;
        let ids = db.number(&format!("SELECT count(DISTINCT client_message_id) FROM message_queue WHERE {like}")).await;
        assert_eq!((rows, ids), (self.total as i64, self.total as i64), "rows and ids at the broker");
        db.close().await;
    }

    /// Every row of the sender ends as `done`.
    pub(crate) async fn assert_all_done(&self, sender: &Daemon) {
        let db = sender.outbox_db().await;
        let like = format!("client_message_id LIKE '{}-%'", self.run);
        wait::until_within(wait::DEADLINE * 20, "every row to be done", async || {
            let open = db.number(&format!("SELECT count(*) FROM outbox WHERE {like} AND status <> 'done'")).await;
            (open == 0).then_some(())
        })
        .await;
        assert_eq!(db.number(&format!("SELECT count(*) FROM outbox WHERE {like}")).await, self.total as i64);
        db.close().await;
    }
}

async fn call(socket: PathBuf, to: String, name: String, share: usize, answered: Arc<AtomicUsize>) {
    let mut client = grpc::messaging(&socket).await;
    for number in 0..share {
        let id = format!("{name}-{number}");
        let request = grpc::send_request(&to, &id, &id);
        let answer = match client.send(request.clone()).await {
            Ok(answer) => answer.into_inner(),
            // The daemon died: the same id again, on a new connection.
            Err(_) => {
                let answer = grpc::send_until_answered(&socket, &request).await;
                client = grpc::messaging(&socket).await;
                answer
            }
        };
        assert_eq!(answer.client_message_id, id);
        answered.fetch_add(1, Ordering::SeqCst);
    }
}

/// Bodies of an inbox in the order in which they were stored.
pub(crate) fn bodies(rows: &[Value]) -> Vec<&str> {
    rows.iter().filter_map(|row| row["body"].as_str()).collect()
}
