//! The short way of the usual batch: everything in it was opened, and all of it
//! is new.
//!
//! One trip to the engine's thread instead of one for each statement, on a
//! connection of the pipeline's own. Nothing is looked up before: a message that
//! is there already fails the whole batch, which then goes the long way.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use super::Error;
use super::entity::Model;
use super::pipeline::{Origin, Pipeline, Stored, Work, hash, pages_of_commit};
use super::repo::{self, SeenHash};
use crate::db::script::MAX_ROWS;
use crate::db::tx;
use crate::domain::time::UnixMillis;

// === impl Pipeline ===

impl Pipeline {
    /// Stores a batch of which all is new. `None` when it is not of this kind;
    /// then nothing of it is stored, and nobody holds the write lock.
    pub(super) async fn store_all_new(&self, work: &[Work], now: UnixMillis) -> Result<Option<Stored>, Error> {
        let Some(hashes) = all_opened(work) else { return Ok(None) };
        let before = self.shared.last_seq.load(Ordering::Acquire);
        let opened = work.iter().filter_map(|one| Some((&one.push, one.result.as_ref().ok()?)));
        let rows: Vec<Model> =
            opened.zip(before + 1..).map(|((push, opened), seq)| self.row(push, opened, seq, now)).collect();

        match repo::insert_all_new(&mut *self.own.lock().await, &hashes, &rows, now).await {
            Ok(()) => Ok(Some(Stored { last_seq: before + rows.len() as u64, pages: pages_of_commit(&rows), rows })),
            // Which of them are new is found out on the long way.
            Err(error) if tx::is_unique_violation(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// What stands for each message of a batch. `None` when one could not be opened,
/// waited for a key, or is there twice, and when they are too many for one
/// statement.
fn all_opened(work: &[Work]) -> Option<Vec<SeenHash>> {
    if work.is_empty() || work.len() > MAX_ROWS {
        return None;
    }
    let mut once = HashSet::with_capacity(work.len());
    let mut hashes = Vec::with_capacity(work.len());
    for one in work {
        let Ok(opened) = &one.result else { return None };
        if matches!(one.origin, Origin::Waited(_)) {
            return None;
        }
        let short = hash(&opened.unique);
        if !once.insert(short) {
            return None;
        }
        hashes.push(short);
    }
    Some(hashes)
}
