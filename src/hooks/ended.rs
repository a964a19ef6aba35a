//! How the dispatcher learns that a run of a message is over, whatever became of it.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit};

use super::dispatcher::Dispatcher;
use super::{Error, repo};
use crate::domain::event::HookRun;

/// What became of a run.
#[derive(Debug)]
pub(super) enum End {
    /// It is in the database.
    Written,
    /// It could not be written.
    Unwritten(Box<HookRun>),
    /// The daemon stops: it is run again.
    CutOff,
}

/// Runs that are over and not yet noted: not more than were started.
#[derive(Debug, Default)]
pub(super) struct EndedRuns {
    list: Mutex<Vec<(String, End)>>,
    any: Notify,
}

/// Tells the end of a run when dropped, so that one that panics is told of as well,
/// and gives its place back before.
#[derive(Debug)]
pub(super) struct Teller {
    ended: Arc<EndedRuns>,
    place: Option<OwnedSemaphorePermit>,
    /// The row that waited; `None` when nobody waits for it.
    id: Option<String>,
    end: Option<End>,
}

// === impl EndedRuns ===

impl EndedRuns {
    /// Waits for one.
    pub(super) async fn any(&self) {
        self.any.notified().await;
    }

    fn take(&self) -> Vec<(String, End)> {
        std::mem::take(&mut *self.list.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

// === impl Teller ===

impl Teller {
    /// `lost` is written when nothing else is told.
    pub(super) fn new(
        ended: Arc<EndedRuns>,
        place: OwnedSemaphorePermit,
        id: Option<String>,
        lost: Box<HookRun>,
    ) -> Self {
        Self { ended, place: Some(place), id, end: Some(End::Unwritten(lost)) }
    }

    /// Tells how it ended.
    pub(super) fn tell(mut self, end: End) {
        self.end = Some(end);
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        drop(self.place.take());
        if let (Some(id), Some(end)) = (self.id.take(), self.end.take()) {
            self.ended.list.lock().unwrap_or_else(PoisonError::into_inner).push((id, end));
            self.ended.any.notify_one();
        }
    }
}

// === impl Dispatcher ===

impl Dispatcher {
    /// Notes which runs are over.
    pub(super) fn note_ended(&mut self) {
        for (id, end) in self.ended.take() {
            match end {
                End::Written => self.over(&id),
                End::Unwritten(run) => self.unwritten.push((id, run)),
                End::CutOff => {}
            }
        }
    }

    /// Writes the ends that could not be written before. While that fails nothing new
    /// is started: what is not written would run again after a crash.
    pub(super) async fn write_ends(&mut self) -> Result<(), Error> {
        while let Some((id, run)) = self.unwritten.last() {
            repo::end(self.inner.deps.db.writer(), id, run).await?;
            if let Some((id, _)) = self.unwritten.pop() {
                self.over(&id);
            }
        }
        Ok(())
    }
}
