//! One stream of events: what is stored after a place, then what happens.
//!
//! The stream follows the hub before it reads the database, so nothing falls
//! between the two; it knows the last place that it gave, so nothing comes
//! twice. Where the two meet the reader is told, once. A reader that falls behind
//! the live buffer reads on from the database.

use std::collections::VecDeque;

use super::{Error, Handle, repo, row};
use crate::domain::event::MeshEvent;
use crate::domain::ids::EventId;
use crate::domain::time::UnixMillis;
use crate::events::{Next, Subscription, Timed};

/// Rows that are read from the database at once.
const PAGE: u64 = 200;

/// Where a stream begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the next thing that happens.
    Live,
    /// After a place that was given before.
    After(EventId),
    /// With the oldest stored message.
    Oldest,
}

/// Why events are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// The place is not one of this inbox.
    UnknownPosition,
    /// Messages after the place were removed for age.
    Pruned,
    /// Events without a place were dropped for this slow reader.
    LiveEventsDropped,
}

/// What a stream gives.
#[derive(Clone, Debug)]
pub enum Item {
    /// An event.
    Event(Timed),
    /// Some events cannot be given.
    Gap {
        /// Why.
        reason: GapReason,
        /// Events that were dropped, when the number is known.
        dropped: u64,
    },
    /// All that was stored when the stream began has been given; the place up to
    /// which that is, whatever a filter lets through.
    CaughtUp(EventId),
}

/// A stream of events.
#[derive(Debug)]
pub struct EventStream {
    inbox: Handle,
    live: Subscription,
    /// The last place that was given.
    seq: u64,
    /// The database may hold more after `seq`.
    behind: bool,
    /// The newest place when the stream began, until the reader is told that it has
    /// been reached.
    goal: Option<u64>,
    ready: VecDeque<Item>,
}

// === impl EventStream ===

impl EventStream {
    pub(super) fn new(inbox: Handle, start: Start) -> Self {
        let now = inbox.seq();
        let live = inbox.hub.subscribe();
        let pruned_to = inbox.shared.pruned_to.load(std::sync::atomic::Ordering::Acquire);
        let mut ready = VecDeque::new();
        let mut gap = |reason| ready.push_back(Item::Gap { reason, dropped: 0 });
        let (seq, behind) = match start {
            Start::Live => (now, false),
            Start::Oldest => (0, true),
            Start::After(id) if id.generation != inbox.shared.generation || id.seq > now => {
                gap(GapReason::UnknownPosition);
                (0, true)
            }
            Start::After(id) => {
                if id.seq < pruned_to {
                    gap(GapReason::Pruned);
                }
                (id.seq, true)
            }
        };
        Self { inbox, live, seq, behind, goal: Some(now), ready }
    }

    /// Waits for the next item; `None` when the daemon stops.
    pub async fn next(&mut self) -> Option<Result<Item, Error>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Some(Ok(item));
            }
            if self.behind {
                if let Err(error) = self.read_page().await {
                    return Some(Err(error));
                }
                continue;
            }
            if let Some(goal) = self.goal.take() {
                // Greater when the newest messages are pruned or came while it read.
                self.seq = self.seq.max(goal);
                let generation = self.inbox.shared.generation.clone();
                return Some(Ok(Item::CaughtUp(EventId { generation, seq: self.seq })));
            }
            match self.live.next().await {
                Next::Closed => return None,
                Next::Lagged(dropped) => {
                    self.behind = true;
                    return Some(Ok(Item::Gap { reason: GapReason::LiveEventsDropped, dropped }));
                }
                Next::Event(timed) => match timed.event.id() {
                    Some(id) if id.seq <= self.seq => {}
                    Some(id) => {
                        self.seq = id.seq;
                        return Some(Ok(Item::Event(timed)));
                    }
                    None => return Some(Ok(Item::Event(timed))),
                },
            }
        }
    }

    async fn read_page(&mut self) -> Result<(), Error> {
        let filter = repo::Filter { after_seq: Some(self.seq), limit: PAGE, ..repo::Filter::default() };
        let rows = repo::page(self.inbox.db.readers(), &filter).await?;
        self.behind = rows.len() as u64 == PAGE;
        for row in rows {
            let message = row::stored(row, &self.inbox.shared.generation);
            self.seq = message.event_id.seq;
            let at = UnixMillis(message.received_at.0);
            let event = MeshEvent::Message(std::sync::Arc::new(message));
            self.ready.push_back(Item::Event(Timed { at, event: std::sync::Arc::new(event) }));
        }
        Ok(())
    }
}
