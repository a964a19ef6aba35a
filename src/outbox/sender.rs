//! Takes due rows and transmits them.
//!
//! What it is for: what waits goes out over the one link, for each receiver in the
//! order of accept and for all in turns, with a bounded number of answers awaited.
//! What runs here: one task.
//! What it guarantees: nothing is claimed, and room for new rows is offered to the
//! writer (`handover.rs`), only while there is a link: a row is `inflight` only
//! when it was really handed to a connection, but for one that is lost in that
//! moment. A row has at most one transmit in flight (R140); each outcome is
//! written before its place in the window is free again. No more leaves than the
//! broker's advertised rate; a receiver without room holds up nobody else.
//! What it must not do: decide from the text of an error.

use std::pin::Pin;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::entity::Model;
use super::flow::Flow;
use super::repo::{Claimed, Only};
use super::reporter::{Reporter, place_of};
use super::seal::{SealError, seal};
use super::seal_topic;
use super::to_self::{Keep, ToSelf};
use super::verdict::Verdict;
use super::{Handle, news, repo};
use crate::broker_client::{self, LinkState, Transmit};
use crate::domain::retry::Backoff;
use crate::domain::roster::PinnedMember;
use crate::domain::time::UnixMillis;
use crate::events::Hub;
use crate::identity::Identity;
use crate::peers;
use crate::runtime::clock::Clock;
use crate::runtime::ids::IdSource;
use crate::runtime::repeated::Repeated;
use crate::runtime::time_guard::Database;
use crate::telemetry::metrics::Metrics;
use crate::topics;
use crate::wire::delivery::DeliveryStatus as StatusFrame;

/// Rows that one claim takes at most.
const CLAIM: u32 = 128;
/// Delivery reports that are written together at most.
const STATUSES: usize = 256;
/// How often due rows are looked for without a wake-up.
const IDLE: Duration = Duration::from_secs(30);
/// How often rows are looked for while some receiver is held.
const HELD: Duration = Duration::from_millis(250);
/// Pause after a read that failed.
const READ_PAUSE: Duration = Duration::from_secs(1);
/// How long a stop waits for answers that are on their way.
const DRAIN: Duration = Duration::from_secs(5);

/// What the sender works with.
#[derive(Debug)]
pub struct SenderDeps {
    /// The link.
    pub link: broker_client::Handle,
    /// Reports of what became of own sends at their receivers.
    pub statuses: mpsc::Receiver<StatusFrame>,
    /// For whom the broker has room again.
    pub ready: mpsc::Receiver<String>,
    /// Who may be sent to.
    pub peers: peers::Handle,
    /// With which keys posts are sealed.
    pub topics: topics::Handle,
    /// Whose keys seal.
    pub identity: Identity,
    /// Nonces and jitter.
    pub ids: IdSource,
    /// Where outcomes are told.
    pub hub: Hub,
    /// What is counted.
    pub metrics: Metrics,
    /// `[reconnect]`, used for rows as well.
    pub backoff: Backoff,
    /// Stores what this member sends to itself.
    pub keep: Keep,
}

/// The task's belongings.
#[derive(Debug)]
pub(super) struct Sender {
    pub(super) handle: Handle,
    pub(super) deps: SenderDeps,
    /// New rows that leave without being claimed.
    pub(super) arriving: mpsc::Receiver<Model>,
    pub(super) reporter: Reporter,
    pub(super) to_self: ToSelf,
    pub(super) clock: Clock,
    pub(super) window: u32,
    pub(super) flow: Flow,
    /// When the next row that waits is due, as far as it is known.
    pub(super) due: Option<UnixMillis>,
    /// Times that the table could not be read.
    pub(super) unread: Repeated,
    pub(super) stop: CancellationToken,
}

/// A transmit that ended: its row, what the receiver could not be told, and the
/// broker's answer.
type Ended = (Model, Option<String>, Transmit);

/// What is awaited.
#[derive(Default)]
pub(super) struct Awaited {
    /// The broker's answers.
    answers: FuturesUnordered<Pin<Box<dyn Future<Output = Ended> + Send>>>,
    /// Outcomes that are being written; each gives when its row is due again.
    pub(super) reports: FuturesUnordered<Pin<Box<dyn Future<Output = Option<UnixMillis>> + Send>>>,
    /// What receivers have stored, being written; one at a time.
    news: FuturesUnordered<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

// === impl Sender ===

impl Sender {
    pub(super) async fn run(mut self) {
        let mut link = self.deps.link.state();
        let mut topics = self.deps.topics.changes();
        let mut awaited = Awaited::default();
        let mut statuses = Vec::new();
        let mut arrived = Vec::new();
        let mut look = true;
        loop {
            let up = self.note_link(&link.borrow_and_update());
            if up && look && self.has_room(&awaited) {
                look = self.claim_and_transmit(&mut awaited).await;
                if look {
                    tokio::task::yield_now().await;
                }
            }
            let more = up && look && self.has_room(&awaited);
            self.offer(up && !look, &awaited);
            let pause = if up && !look { self.pause() } else { IDLE };
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = self.handle.shared.wake.notified() => look = true,
                changed = link.changed() => {
                    if changed.is_err() { break }
                    // Another connection, perhaps another broker: what was refused is
                    // tried at once.
                    self.flow.holds.try_all(self.clock.monotonic());
                    look = true;
                }
                Ok(()) = topics.changed() => look |= self.release_topics(),
                Some(target) = self.deps.ready.recv() => {
                    self.flow.holds.release(&target);
                    look = true;
                }
                1.. = self.arriving.recv_many(&mut arrived, CLAIM as usize) => {
                    self.transmit_arrived(&mut arrived, &mut awaited).await;
                }
                Some(first) = awaited.answers.next(), if !awaited.answers.is_empty() => {
                    // Rows of a receiver who is held no more may wait, or of one to whom
                    // much is under way.
                    look |= !self.flow.holds.is_empty() || self.flow.is_heavy();
                    self.finish_all(first, &mut awaited);
                }
                Some(due) = awaited.reports.next(), if !awaited.reports.is_empty() => {
                    self.note_due(due);
                    // A topic whose key came meanwhile waits for this.
                    look |= self.release_topics();
                }
                // Whether or not there is room for more sends: the link waits until
                // these are taken, and brings no answers meanwhile.
                1.. = self.deps.statuses.recv_many(&mut statuses, STATUSES), if awaited.news.is_empty() => {
                    let news = self.reporter.clone().statuses(std::mem::take(&mut statuses));
                    awaited.news.push(Box::pin(news));
                }
                Some(()) = awaited.news.next(), if !awaited.news.is_empty() => {}
                () = tokio::time::sleep(pause), if !more => look = true,
                () = std::future::ready(()), if more => {}
            }
        }
        self.handle.shared.handover.offer(0);
        // What is on its way may still be answered; the rest is found at the
        // next start.
        let drain = async {
            while let Some(first) = awaited.answers.next().await {
                self.finish_all(first, &mut awaited);
            }
            while awaited.reports.next().await.is_some() {}
            while awaited.news.next().await.is_some() {}
        };
        if tokio::time::timeout(DRAIN, drain).await.is_err() {
            tracing::info!("Some sends were still unanswered at the stop; the next start sends them again");
        }
    }

    /// Whether there is a link, and what it allows.
    fn note_link(&mut self, state: &LinkState) -> bool {
        let LinkState::Ready(session) = state else { return false };
        self.flow.pace.set_limit(session.negotiated.rate_limit, self.clock.monotonic());
        true
    }

    /// Places of the window that neither an answer nor its report holds.
    fn places(&mut self, awaited: &Awaited) -> u32 {
        let window = self.flow.window(self.window, self.clock.monotonic());
        let used = u32::try_from(awaited.answers.len() + awaited.reports.len()).unwrap_or(u32::MAX);
        window.saturating_sub(used)
    }

    /// Places for rows that wait.
    fn free(&mut self, awaited: &Awaited) -> u32 {
        self.places(awaited).saturating_sub(self.handle.shared.handover.under_way())
    }

    /// Whether a claim is worth its commit: each answer frees one place, and rows that
    /// are claimed one by one cost a sync of the disk each.
    fn has_room(&mut self, awaited: &Awaited) -> bool {
        let enough = (self.flow.window(self.window, self.clock.monotonic()) / 4).clamp(1, CLAIM);
        let is_idle = awaited.answers.is_empty() && awaited.reports.is_empty();
        let free = self.free(awaited);
        free >= enough || (free > 0 && is_idle)
    }

    /// Says for how many new rows there is room, if nothing else is to leave first.
    fn offer(&mut self, caught_up: bool, awaited: &Awaited) {
        let room = if caught_up && self.flow.is_free() && self.handle.guard.wrong_times(Database::Outbox).is_none() {
            self.places(awaited).min(self.flow.pace.available(self.clock.monotonic()))
        } else {
            0
        };
        self.handle.shared.handover.offer(room);
    }

    fn note_due(&mut self, due: Option<UnixMillis>) {
        self.due = match (self.due, due) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
    }

    /// Claims due rows and hands them to the link. True when there may be more.
    async fn claim_and_transmit(&mut self, awaited: &mut Awaited) -> bool {
        if self.handle.guard.wrong_times(Database::Outbox).is_some() {
            // The keeper corrects what a wrong clock has dated, and wakes this task:
            // until then nobody knows what is too old.
            self.handle.shared.recount.notify_one();
            return false;
        }
        let (now, looked_at) = (self.clock.monotonic(), self.clock.now());
        let limit = self.free(awaited).min(CLAIM).min(self.flow.pace.available(now));
        if limit == 0 {
            // Looked for again when the broker's rate allows it.
            self.due = Some(self.clock.now());
            return false;
        }
        self.handle.shared.handover.catch_up();
        // They were accepted before what is claimed now.
        let mut arrived = Vec::new();
        while let Ok(row) = self.arriving.try_recv() {
            arrived.push(row);
        }
        self.transmit_arrived(&mut arrived, awaited).await;
        let (mut rows, mut failed) = (Vec::new(), false);
        for target in self.flow.holds.due(now).into_iter().take(limit as usize) {
            let Some(Claimed { rows: probe, .. }) = self.claim(1, Only::Target(target.clone())).await else {
                failed = true;
                break;
            };
            if probe.is_empty() {
                self.flow.holds.release(&target);
            } else {
                self.flow.holds.probe(&target);
            }
            rows.extend(probe);
        }
        let left = limit - u32::try_from(rows.len()).unwrap_or(limit);
        let mut more = true;
        if left > 0 && !failed {
            let only = Only::Free { held: self.flow.held(), after: self.flow.turn.clone() };
            match self.claim(left, only).await {
                Some(others) => {
                    more = others.more;
                    self.flow.took_turns(&others.rows);
                    rows.extend(others.rows);
                }
                None => failed = true,
            }
        }
        self.flow.pace.spend(u32::try_from(rows.len()).unwrap_or(u32::MAX));
        let members = self.deps.peers.members();
        for row in rows {
            self.transmit(row, &members, awaited).await;
        }
        if failed {
            // What was claimed before has left; `claim` says when to look again.
            return false;
        }
        if !more {
            self.due = self.next_due(looked_at).await;
        }
        more
    }

    async fn claim(&mut self, limit: u32, only: Only) -> Option<Claimed> {
        match self.handle.claim(limit, only).await? {
            Ok(claimed) => {
                if !claimed.rows.is_empty() {
                    self.handle.shared.note_activity(self.clock.monotonic());
                }
                Some(claimed)
            }
            Err(error) => {
                if let Some(times) = self.unread.tell() {
                    tracing::error!(times, error = %error, "Due sends could not be read: {error}");
                }
                self.due = Some(self.clock.now().plus(READ_PAUSE));
                None
            }
        }
    }

    /// Transmits new rows that the writer has handed over.
    async fn transmit_arrived(&mut self, rows: &mut Vec<Model>, awaited: &mut Awaited) {
        let count = rows.len();
        if count == 0 {
            return;
        }
        self.flow.pace.spend(u32::try_from(count).unwrap_or(u32::MAX));
        let members = self.deps.peers.members();
        let up = self.deps.link.session().is_some();
        for row in rows.drain(..) {
            if up {
                self.transmit(row, &members, awaited).await;
            } else {
                let reporter = self.reporter.clone();
                let why = "the link was lost before it left".to_owned();
                awaited.reports.push(Box::pin(async move { reporter.deferred(&row, place_of(&row), why).await }));
            }
        }
        self.handle.shared.handover.arrived(count);
    }

    async fn transmit(&mut self, row: Model, members: &[PinnedMember], awaited: &mut Awaited) {
        if self.to_self.is_own(&row) {
            // Queued by a version that sent it to the broker.
            self.flow.holds.probe_again(&row.target_id, self.clock.monotonic());
            awaited.reports.push(Box::pin(self.to_self.clone().bring_one(row)));
            return;
        }
        if self.is_too_old(&row) {
            // The keeper gives up what waits; this one has waited for a link.
            self.flow.holds.probe_again(&row.target_id, self.clock.monotonic());
            self.give_up(row, news::MAX_AGE.to_owned(), awaited);
            return;
        }
        let nonce = match self.deps.ids.random() {
            Ok(random) => self.deps.identity.own_nonce(random),
            Err(error) => {
                self.again(row, error.to_string(), awaited);
                return;
            }
        };
        let sealed = if row.destination_kind == "topic" {
            seal_topic::seal(&row, &self.deps.topics, &self.flow.keyless, &self.deps.identity, nonce)
        } else {
            seal(&row, members, &self.deps.identity, nonce)
        };
        match sealed {
            Ok(sealed) => {
                self.flow.begins(&row);
                let answer = self.deps.link.transmit(sealed.frame).await;
                awaited.answers.push(Box::pin(async move {
                    (row, sealed.degraded, answer.await.unwrap_or(Transmit::LinkLost { too_large: false }))
                }));
            }
            Err(SealError::NoKey(why)) => self.wait_for_key(row, why, awaited),
            Err(SealError::ForNow(why)) => {
                self.flow.holds.probe_again(&row.target_id, self.clock.monotonic());
                self.again(row, why, awaited);
            }
            Err(SealError::ForGood(why)) => {
                self.flow.holds.probe_again(&row.target_id, self.clock.monotonic());
                self.give_up(row, why, awaited);
            }
        }
    }

    /// Begins to write the outcomes of everything that has been answered by now,
    /// so that they share a commit.
    fn finish_all(&mut self, first: Ended, awaited: &mut Awaited) {
        let mut ended = vec![first];
        while let Some(Some(next)) = awaited.answers.next().now_or_never() {
            ended.push(next);
        }
        let alone = ended.len() == 1 && awaited.answers.is_empty();
        for (row, degraded, answer) in ended {
            self.flow.ends(&row);
            let verdict = self.learn(&row, Verdict::of(answer), alone);
            awaited.reports.push(Box::pin(self.reporter.clone().finish(row, degraded, verdict)));
        }
    }

    /// The pause until something may leave.
    fn pause(&self) -> Duration {
        let now = self.clock.monotonic();
        let paced = self.flow.pace.wait(now);
        if paced > Duration::ZERO {
            return paced.clamp(Duration::from_millis(5), IDLE);
        }
        let due = self.due.map_or(IDLE, |at| at.since(self.clock.now()).clamp(Duration::from_millis(5), IDLE));
        match self.flow.holds.wait(now) {
            None if self.flow.holds.is_empty() && !self.flow.is_heavy() => due,
            // Rows of those who are held, or have much under way, are due all the time.
            hold => due.max(HELD).min(hold.unwrap_or(IDLE).max(Duration::from_millis(5))),
        }
    }

    /// When a row becomes due that was not when the others were taken.
    async fn next_due(&self, looked_at: UnixMillis) -> Option<UnixMillis> {
        match repo::next_due(self.handle.db.readers(), looked_at).await {
            Ok(due) => due,
            Err(_) => Some(self.clock.now().plus(READ_PAUSE)),
        }
    }
}
