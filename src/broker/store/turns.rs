//! Who writes next.
//!
//! SQLite's write lock goes to whoever asks for it in the right moment, and who
//! waits for it asks in growing pauses: beside a task that writes batch after
//! batch a hello or an invite waited for half a second. Here they take turns, in
//! the order in which they asked.

use std::ops::Deref;
use std::sync::Arc;

use sea_orm::prelude::async_trait::async_trait;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult, Statement,
};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::notices::Notice;
use crate::db::tx;

/// The order of those who write. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<Mutex<()>>);

/// Nobody else writes while it is held.
pub(super) type Turn = OwnedMutexGuard<()>;

/// A transaction that holds the write lock, and on SQLite the turn with it.
#[derive(Debug)]
pub struct Transaction {
    inner: DatabaseTransaction,
    _turn: Option<Turn>,
    /// The name of this broker, where there are others to be told.
    tells_as: Option<Arc<str>>,
}

// === impl Turns ===

impl Turns {
    /// Waits for those who asked before.
    pub(super) async fn take(&self) -> Turn {
        Arc::clone(&self.0).lock_owned().await
    }
}

// === impl Transaction ===

impl Transaction {
    pub(super) async fn begin(
        connection: &DatabaseConnection,
        turn: Option<Turn>,
        tells_as: Option<Arc<str>>,
    ) -> Result<Self, DbErr> {
        Ok(Self { inner: tx::begin(connection).await?, _turn: turn, tells_as })
    }

    /// Writes it; the turn is over. The other brokers look what has changed.
    pub async fn commit(self) -> Result<(), DbErr> {
        self.commit_telling(&Notice::changed()).await
    }

    /// Writes it; the turn is over. The other brokers are told this and nothing else.
    pub async fn commit_telling(self, notice: &Notice) -> Result<(), DbErr> {
        if let Some(node) = self.tells_as.as_deref().filter(|_| !notice.is_empty()) {
            notice.send(&self.inner, node).await?;
        }
        self.inner.commit().await
    }

    /// Takes it back; the turn is over.
    pub async fn rollback(self) -> Result<(), DbErr> {
        self.inner.rollback().await
    }
}

impl Deref for Transaction {
    type Target = DatabaseTransaction;

    fn deref(&self) -> &DatabaseTransaction {
        &self.inner
    }
}

#[async_trait]
impl ConnectionTrait for Transaction {
    fn get_database_backend(&self) -> DbBackend {
        self.inner.get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.inner.execute_raw(statement).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.inner.execute_unprepared(sql).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.inner.query_one_raw(statement).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.inner.query_all_raw(statement).await
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use futures_util::FutureExt as _;

    use crate::broker::store::Store;
    use crate::broker::store::sqlite_batch::Writes;
    use crate::config::broker::Database;
    use crate::runtime::clock::Clock;

    #[tokio::test]
    async fn they_write_in_the_order_in_which_they_asked() {
        let folder = tempfile::tempdir().expect("a folder");
        let database = Database::Sqlite(folder.path().join("broker.db"));
        let store = Store::open(&database, Clock::system()).await.expect("opens");
        let mut batches = store.batch_writer().expect("it is SQLite");
        let nobody = HashSet::new();
        batches.begin(&nobody, &[]).await.expect("begins");
        let mut other = Box::pin(store.begin());
        assert!(other.as_mut().now_or_never().is_none(), "a batch is being written");
        batches.finish(&Writes::default()).await.expect("commits");

        // The next batch is there at once.
        let mut next = Box::pin(batches.begin(&nobody, &[]));
        assert!(next.as_mut().now_or_never().is_none(), "the other asked before");
        let transaction = other.await.expect("begins");
        assert!(next.as_mut().now_or_never().is_none(), "the other writes");
        transaction.commit().await.expect("commits");
        next.await.expect("begins");

        let mut other = Box::pin(store.begin());
        assert!(other.as_mut().now_or_never().is_none());
        batches.roll_back().await;
        other.await.expect("begins").rollback().await.expect("takes it back");
    }
}
